"""Law 13: who may wait for what another computes, and what of it is stored."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from onetrip._core import set_transaction_probe
from tests.test_fetch import name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from onetrip import Cache
    from tests.conftest import OpenCache

__all__ = ["name"]


class Owner:
    """A thread that computes a key until it is let go."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache, self.name = cache, name
        self.began, self.go_on = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.done: Future[Any] | None = None

    def compute(self) -> str:
        self.began.set()
        self.go_on.wait(20)
        return "owner's"

    def begin(self, enter: Callable[[Cache], Any] = lambda _: nullcontext()) -> None:
        def work() -> Any:
            with enter(self.cache):
                return piece(self.cache, self.name, self.compute)

        self.done = self._pool.submit(work)
        assert self.began.wait(10)

    def end(self) -> Any:
        assert self.done is not None
        self.go_on.set()
        try:
            return self.done.result()
        finally:
            self._pool.shutdown()


def piece(cache: Cache, name: str, compute: Callable[[], Any]) -> Any:
    return cache.cached(key="{key}")(lambda key: compute() if key == name else None)(name)


def joins(owner: Owner) -> bool:
    """Whether a caller who misses the key here waits for its owner, who then ends."""
    computed: list[int] = []

    def compute() -> str:
        computed.append(1)
        return "own"

    timer = threading.Timer(0.2, owner.go_on.set)
    timer.start()
    found = piece(owner.cache, owner.name, compute)
    timer.join()
    owner.end()
    assert found == ("own" if computed else "owner's")
    return not computed


@pytest.fixture
def owner(cache: Cache, name: str) -> Iterator[Owner]:
    owner = Owner(cache, name)
    yield owner
    owner.go_on.set()


def request(safe: bool) -> Callable[[Cache], Any]:
    return lambda cache: cache._request_scope(safe)


class TestJoining:
    def test_caller_without_scope_joins(self, owner: Owner) -> None:
        owner.begin()
        assert joins(owner)

    @pytest.mark.parametrize(
        "enter",
        [lambda cache: cache.scope(), request(True), lambda cache: cache.page("page")],
        ids=["scope", "GET", "page"],
    )
    def test_scope_that_began_before_joins(
        self, owner: Owner, enter: Callable[[Cache], Any]
    ) -> None:
        with enter(owner.cache):
            owner.begin()
            assert joins(owner)

    @pytest.mark.parametrize(
        "enter", [lambda cache: cache.scope(), request(True)], ids=["scope", "GET"]
    )
    def test_scope_that_began_later_does_not_join(
        self, owner: Owner, enter: Callable[[Cache], Any]
    ) -> None:
        """What its page did before may be what the value is to show."""
        owner.begin()
        with enter(owner.cache):
            assert not joins(owner)

    def test_scope_that_wrote_does_not_join(self, owner: Owner) -> None:
        with owner.cache.scope():
            owner.cache.set("other", 1)
            owner.begin()
            assert not joins(owner)

    def test_unsafe_request_does_not_join(self, owner: Owner) -> None:
        with request(False)(owner.cache):
            owner.begin()
            assert not joins(owner)

    def test_others_join_an_unsafe_request(self, owner: Owner) -> None:
        owner.begin(request(False))
        assert joins(owner)

    @pytest.mark.parametrize(
        "news",
        [
            lambda cache, name: cache.delete(name),
            lambda cache, name: cache.delete_many([name, "other"]),
            lambda cache, name: cache.touch(name, 0),
        ],
        ids=["delete", "delete_many", "touch 0"],
    )
    def test_nobody_joins_after_a_delete(
        self, owner: Owner, news: Callable[[Cache, str], object]
    ) -> None:
        owner.begin()
        news(owner.cache, owner.name)
        assert not joins(owner)

    def test_nobody_joins_after_a_delete_by_another_cache(
        self, owner: Owner, open_cache: OpenCache
    ) -> None:
        owner.begin()
        open_cache().delete(owner.name)
        assert not joins(owner)


class TestStoring:
    @pytest.mark.parametrize("scoped", [False, True])
    def test_value_computed_before_a_delete_is_not_stored(self, owner: Owner, scoped: bool) -> None:
        owner.begin(lambda cache: cache.scope() if scoped else nullcontext())
        owner.cache.delete(owner.name)
        # Who asked for it gets it: that began before.
        assert owner.end() == "owner's"
        assert owner.name not in owner.cache

    def test_value_computed_before_a_write_is_not_stored(self, owner: Owner) -> None:
        owner.begin()
        owner.cache.set(owner.name, "news")
        owner.end()
        assert owner.cache[owner.name] == "news"

    def test_waiters_compute_anew_after_a_delete(self, owner: Owner) -> None:
        computed: list[int] = []

        def compute() -> str:
            computed.append(1)
            return "own"

        def waiter() -> Any:
            return piece(owner.cache, owner.name, compute)

        owner.begin()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(waiter)
            # It waits by now, or it comes later and must not join.
            threading.Event().wait(0.1)
            owner.cache.delete(owner.name)
            owner.end()
            assert waiting.result() == "own"
        assert owner.cache[owner.name] == "own"

    def test_timeout_of_zero_stores_nothing(self, cache: Cache, name: str) -> None:
        @cache.cached(0, key="{name}")
        def cached(name: str) -> int:
            return 1

        with cache.scope():
            assert cached(name) == 1
        assert name not in cache


class TestTransactions:
    """What is computed within a transaction of a database may rest on what nobody else sees."""

    @pytest.fixture
    def within(self) -> Iterator[Callable[[], Any]]:
        inside = threading.local()
        set_transaction_probe(lambda: getattr(inside, "inside", False))

        @contextmanager
        def transaction() -> Iterator[None]:
            inside.inside = True
            try:
                yield
            finally:
                inside.inside = False

        yield transaction
        set_transaction_probe(None)

    def test_caller_in_a_transaction_does_not_wait(
        self, owner: Owner, within: Callable[[], Any]
    ) -> None:
        owner.begin()
        with within():
            assert not joins(owner)

    def test_nobody_waits_for_a_transaction(self, owner: Owner, within: Callable[[], Any]) -> None:
        owner.begin(lambda _: within())
        assert not joins(owner)

    def test_transaction_of_another_thread_does_not_matter(
        self, owner: Owner, within: Callable[[], Any]
    ) -> None:
        with within():
            pass
        owner.begin()
        assert joins(owner)

    def test_probe_is_called_only_on_a_miss(self, cache: Cache, name: str) -> None:
        asked: list[int] = []

        def probe() -> bool:
            asked.append(1)
            return False

        set_transaction_probe(probe)
        try:
            with cache.scope():
                piece(cache, name, lambda: 1)
                asked.clear()
                piece(cache, name, lambda: 1)
                assert asked == []
        finally:
            set_transaction_probe(None)

    def test_error_of_the_probe_is_raised(self, cache: Cache, name: str) -> None:
        set_transaction_probe(lambda: 1 / 0 > 0)
        try:
            with pytest.raises(ZeroDivisionError):
                piece(cache, name, lambda: 1)
        finally:
            set_transaction_probe(None)
        assert piece(cache, name, lambda: 1) == 1
