"""Transactions and row locks are news: what was read before them does not hold after them."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import RequestFactory

from onetrip.django import PageMiddleware, cache_of, transactions
from tests.django.conftest import configured, on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onetrip


@pytest.fixture
def site(location: str) -> Iterator[onetrip.Cache]:
    """The default cache, and Django noticed by it."""
    with configured(default=on(location)):
        transactions.observe()
        yield cache_of("default")


@pytest.fixture
def reads(site: onetrip.Cache) -> Iterator[Callable[[], int]]:
    """The trips of a plain read, in a scope that holds plain answers for long."""
    with site.scope(max_age=60):

        def reads() -> int:
            with site.watch() as seen:
                caches["default"].get("paid")
            return seen.trips

        assert [reads(), reads()] == [1, 0]
        yield reads
    connection.close()


class TestFreshness:
    def test_begin_and_end_of_a_transaction_drop_plain_answers(
        self, reads: Callable[[], int]
    ) -> None:
        with transaction.atomic():
            assert [reads(), reads()] == [1, 0]
            with transaction.atomic():
                assert [reads(), reads()] == [1, 0]
            assert [reads(), reads()] == [1, 0]
        assert [reads(), reads()] == [1, 0]

    def test_failed_transaction_drops_plain_answers(self, reads: Callable[[], int]) -> None:
        def fail() -> None:
            with transaction.atomic():
                reads()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert [reads(), reads()] == [1, 0]

    @pytest.mark.parametrize("lock", ["FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE"])
    def test_row_lock_drops_plain_answers(self, reads: Callable[[], int], lock: str) -> None:
        with connection.cursor() as cursor:
            # SQLite has none, and takes the words as a comment.
            cursor.execute(f"SELECT 1 /* {lock} */")
        assert [reads(), reads()] == [1, 0]

    def test_other_query_keeps_plain_answers(self, reads: Callable[[], int]) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert reads() == 0

    def test_pieces_are_kept(self, site: onetrip.Cache) -> None:
        cached = site.cached(key="{name}")(lambda name: name)
        with site.scope():
            cached("a")
            with site.watch() as seen, transaction.atomic():
                cached("a")
            assert seen.trips == 0
        connection.close()

    @pytest.mark.usefixtures("site")
    def test_observe_twice_wraps_once(self) -> None:
        entered = transaction.Atomic.__enter__
        transactions.observe()
        assert transaction.Atomic.__enter__ is entered


class Owner:
    """A thread that computes a fragment, within what is given, until it is let go."""

    def __init__(self, site: onetrip.Cache, within: Callable[[Callable[[], Any]], Any]) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._work, site, within)
        assert self.began.wait(10)

    def _work(self, site: onetrip.Cache, within: Callable[[Callable[[], Any]], Any]) -> Any:
        try:
            return within(lambda: site.get_or_set("shared", self._compute))
        finally:
            connection.close()

    def _compute(self) -> str:
        self.began.set()
        self.go_on.wait(20)
        return "owner's"

    def end(self) -> None:
        self.go_on.set()
        self._done.result()
        self._pool.shutdown()


def joins(site: onetrip.Cache, owner: Owner) -> bool:
    computed: list[int] = []

    def compute() -> str:
        computed.append(1)
        return "own"

    timer = threading.Timer(0.2, owner.go_on.set)
    timer.start()
    site.get_or_set("shared", compute)
    timer.join()
    owner.end()
    return not computed


def in_transaction(work: Callable[[], Any]) -> Any:
    with transaction.atomic():
        return work()


def in_request(method: str, *, atomic: bool) -> Callable[[Callable[[], Any]], Any]:
    """Work of a view, within what ATOMIC_REQUESTS opens around it."""

    def serve(work: Callable[[], Any]) -> Any:
        def view(_request: object) -> HttpResponse:
            answer = in_transaction(work) if atomic else work()
            return HttpResponse(str(answer))

        connection.settings_dict["ATOMIC_REQUESTS"] = atomic
        try:
            return PageMiddleware(view)(getattr(RequestFactory(), method)("/"))
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False

    return serve


class TestSharing:
    def test_computation_outside_transactions_is_shared(self, site: onetrip.Cache) -> None:
        assert joins(site, Owner(site, lambda work: work()))

    def test_computation_within_a_transaction_is_not_shared(self, site: onetrip.Cache) -> None:
        assert not joins(site, Owner(site, in_transaction))

    def test_caller_within_a_transaction_does_not_join(self, site: onetrip.Cache) -> None:
        owner = Owner(site, lambda work: work())
        with transaction.atomic():
            assert not joins(site, owner)
        connection.close()

    def test_get_under_atomic_requests_is_shared(self, site: onetrip.Cache) -> None:
        assert joins(site, Owner(site, in_request("get", atomic=True)))

    def test_post_under_atomic_requests_is_not_shared(self, site: onetrip.Cache) -> None:
        assert not joins(site, Owner(site, in_request("post", atomic=True)))

    def test_nested_transaction_under_atomic_requests_is_not_shared(
        self, site: onetrip.Cache
    ) -> None:
        serve = in_request("get", atomic=True)
        assert not joins(site, Owner(site, lambda work: serve(lambda: in_transaction(work))))


def test_other_wrappers_of_atomic_can_be_removed() -> None:
    def original() -> str:
        return "django"

    @functools.wraps(original)
    def theirs() -> str:
        return "theirs"

    ours: Any = transactions._noticing(theirs)
    assert ours() == "theirs"
    assert ours.__wrapped__() == "django"
    alone: Any = transactions._noticing(original)
    assert alone.__wrapped__() == "django"
