"""Errors: each can be met, says what to do, and is one that a program may expect."""

from __future__ import annotations

import copy
import functools
import pickle
import socket
import subprocess
import sys
import threading
import types
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onetrip
from onetrip import (
    BadKeyError,
    Cache,
    Cached,
    CachedProperty,
    ConfigurationError,
    EntryTooLargeError,
    NotANumberError,
    OneTripError,
    Scope,
    SerializationError,
    Stats,
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
    Trip,
    UnsupportedError,
    Watch,
    _core,
    errors,
)
from onetrip._core import Coroutine
from tests.awaited import wait
from tests.servers import HOST, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

# What a program that makes a mistake may see; a panic is none of these, nor an `Exception`.
EXPECTED = (OneTripError, KeyError, TypeError, ValueError, OverflowError, AttributeError)


def refused() -> object:
    with RedisServer(password="s3cret") as server:
        return Cache(f"redis://{HOST}:{server.port}", on_error="raise").get("a")


def late() -> object:
    with socket.create_server((HOST, 0)) as silent:
        url = f"redis://{HOST}:{silent.getsockname()[1]}"
        return Cache(url, on_error="raise", connect_timeout=0.05, trip_timeout=0.05).get("a")


def not_a_number() -> object:
    cache = Cache()
    cache.set("a", "text")
    return cache.incr("a")


# How each is met, what of Python's own it is, and what its message advises.
REACHED: dict[type[OneTripError], tuple[Callable[[], object], type[Exception], str]] = {
    ConfigurationError: (lambda: Cache("http://x"), ValueError, "onetrip has memory://"),
    BadKeyError: (lambda: Cache()[5], TypeError, "convert it with str()"),  # type: ignore[index]
    SerializationError: (lambda: Cache().set("a", 1j), TypeError, "convert it to plain data"),
    NotANumberError: (not_a_number, ValueError, "set it to an integer"),
    EntryTooLargeError: (
        lambda: Cache("memory://?size=1kB", on_error="raise").set("a", "x" * 2000),
        ValueError,
        "larger",
    ),
    StoreRefusedError: (refused, StoreError, "NOAUTH"),
    StoreTimeoutError: (late, TimeoutError, "see connect_timeout and trip_timeout"),
    StoreUnavailableError: (
        lambda: Cache("redis://127.0.0.1:1", on_error="raise").get("a"),
        ConnectionError,
        "is the server running, and the URL right?",
    ),
}

# Those above the others, and one that waits for a store that lacks something.
NOT_RAISED = {OneTripError, StoreError, UnsupportedError}


class TestEveryErrorClass:
    def test_is_raised_or_listed_as_unreachable(self) -> None:
        classes = {
            value
            for value in vars(errors).values()
            if isinstance(value, type) and issubclass(value, Exception)
        }
        assert classes == set(REACHED) | NOT_RAISED
        for error in classes:
            assert getattr(onetrip, error.__name__) is error
            assert error.__name__ in onetrip.__all__
            assert issubclass(error, OneTripError)
            assert error.__doc__

    @pytest.mark.parametrize("error", REACHED, ids=lambda error: error.__name__)
    def test_message_says_what_to_do(self, error: type[OneTripError]) -> None:
        reach, own, said = REACHED[error]
        with pytest.raises(OneTripError) as caught:
            reach()
        assert type(caught.value) is error
        assert isinstance(caught.value, own)
        assert said in str(caught.value)
        assert issubclass(error, StoreError) is error.__name__.startswith(("Store", "Entry"))

    @pytest.mark.parametrize("error", REACHED, ids=lambda error: error.__name__)
    def test_can_be_pickled(self, error: type[OneTripError]) -> None:
        copied = pickle.loads(pickle.dumps(error("what to do")))
        assert (type(copied), str(copied)) == (error, "what to do")


class Odd(str):
    """A string, and not as others."""

    __slots__ = ()

    def __str__(self) -> str:
        return "odd"


def _itself() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


other = Cache()

# What a mistake may bring, as well as a few things that are right.
ODD: list[Any] = [
    *["a", "", "\ud800", "a\x00b", Odd("b"), "{x}", "{self}", "note", "x" * 5000],
    *[0, 1, -1, True, 2**31, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**400],
    *[0.0, -1.5, 1e308, float("inf"), float("-inf"), float("nan"), 1j, Decimal("NaN"), Decimal(5)],
    *[None, ..., NotImplemented, object(), object, int, print, len, lambda: 1, lambda x: x],
    *[b"", b"a", bytearray(b"a"), memoryview(b"a"), range(3)],
    *[[], ["a"], [["a"], "b"], [1], _itself(), (), ("a", 1), {"a"}, {"a": 1}, {1: 2}, [("a", 1)]],
    *[timedelta.max, timedelta.min, timedelta(0), timedelta(seconds=5), timezone.utc],
    *[
        datetime.max.replace(tzinfo=timezone.utc),
        types,
        ValueError("x"),
        functools.partial(print),
        functools.partial,
    ],
    *[staticmethod(len), classmethod(print), property(len), other, other.scope(), other.watch()],
    *[other.cached(len), functools.partial(other.cached(len), "a"), other.stats(), Cache, Scope],
]

odd = st.sampled_from(ODD)
METHODS = [name for name in dir(Cache) if not name.startswith("_")]
OPTIONS = "prefix timeout serializer secret compression compression_min on_error connect_timeout "
OPTIONS += "trip_timeout scope_max_age read_max_age debug pages page_keys page_bytes"
WORDS = ["key", "default", "value", "timeout", "delta", "keys", "mapping", "key_fn", "x"]

arguments = st.lists(odd, max_size=4)
keywords = st.dictionaries(st.sampled_from(WORDS), odd, max_size=2)


def use(made: Any, arguments: list[Any]) -> None:
    """Do with what a call gave what a program would do with it."""
    if isinstance(made, (Scope, Watch)):
        with made:
            repr(made)
    elif isinstance(made, (Cached, CachedProperty)):
        for name in ("key", "many", "refresh", "uncached", "bust", "__get__"):
            attempt(getattr(made, name), arguments, then=repr)
        attempt(made, arguments, then=repr)
    elif isinstance(made, Coroutine):
        wait(made)
    elif isinstance(made, types.BuiltinFunctionType):
        attempt(made, arguments, then=repr)
    repr(made)


def attempt(
    call: Any,
    arguments: list[Any],
    keywords: dict[str, Any] | None = None,
    then: Callable[[Any], object] | None = None,
) -> None:
    try:
        made = call(*arguments, **(keywords or {}))
        if then is not None:
            then(made)
        elif not isinstance(made, type):
            use(made, arguments)
    except EXPECTED as error:
        assert str(error) or isinstance(error, KeyError)  # noqa: PT017 - or it works


class TestMistakes:
    @given(name=st.sampled_from(METHODS), arguments=arguments, keywords=keywords, data=st.data())
    @settings(max_examples=250)
    def test_wrong_arguments_raise_expected_errors(
        self,
        cache: Cache,
        *,
        name: str,
        arguments: list[Any],
        keywords: dict[str, Any],
        data: st.DataObject,
    ) -> None:
        call = getattr(cache, name)
        if data.draw(st.booleans()):
            attempt(call, arguments, keywords)
        else:
            with cache.scope():
                attempt(call, arguments, keywords)
        assert cache.get("not there") is None

    @given(
        url=odd,
        options=st.dictionaries(
            st.sampled_from([*OPTIONS.split(), "x"]),
            odd.filter(lambda value: not isinstance(value, Cache)),
        ),
    )
    @settings(max_examples=150)
    def test_wrong_options_raise_configuration_errors(
        self, url: Any, options: dict[str, Any]
    ) -> None:
        for given_url in ("memory://", url):
            try:
                cache = Cache(given_url, **options)
            except ConfigurationError as error:
                assert str(error)  # noqa: PT017 - or it is one that works
            else:
                attempt(cache.set, ["a", "b"])
                attempt(cache.get, ["a"])
                cache.clear()

    @given(arguments=arguments, thing=st.integers(0, 1000), name=st.integers(0, 1000))
    @settings(max_examples=150)
    def test_wrong_use_of_other_objects_raises_expected_errors(
        self, arguments: list[Any], thing: int, name: int
    ) -> None:
        cache = Cache()
        cached = cache.cached(key="{x}")(lambda x: x)
        things: list[Any] = [
            *[cached, cache.scope(), cache.watch(), cache.stats(), cache, _core.Everything()],
            *[_core.digest, _core.stable, cache.cached(5), cache.cached_property(key="a")],
            *[Cached, CachedProperty, Scope, Stats, Trip, Watch],
        ]
        chosen = things[thing % len(things)]
        # Python itself adds names to a class as it is used, so they are counted anew each time.
        names = [each for each in dir(chosen) if each not in {"__class__", "mro", "__delitem__"}]
        attempt(getattr(chosen, names[name % len(names)]), arguments)
        attempt(chosen, arguments)

    def test_recursive_list_of_keys_raises(self) -> None:
        itself = _itself()
        mapping: dict[str, Any] = {}
        mapping["a"] = [mapping.values()]
        cache = Cache()
        for keys in (itself, [itself], ("a", [itself]), mapping["a"]):
            with pytest.raises(BadKeyError, match="or one contains itself"):
                cache.preload(keys)
        deep: Any = "a"
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(BadKeyError, match="nest deeper than 100 iterables"):
            cache.preload(deep)
        with pytest.raises(BadKeyError):
            cache.cached(key="{x}")(lambda x: x).key(itself)
        with pytest.raises(BadKeyError):
            cache.cached(key_fn=lambda args, _: args[0])(deepest).key(deep)
        with pytest.raises(BadKeyError):
            cache.cached(deepest).key(deep)
        # To free it one within the other would be too deep for Python itself.
        while isinstance(deep, list):
            deep = deep.pop()

    @pytest.mark.parametrize("made", [Cached, CachedProperty, Scope, Stats, Trip, Watch])
    def test_only_a_cache_can_be_constructed(self, made: Any) -> None:
        with pytest.raises(TypeError):
            made()

    def test_objects_cannot_be_pickled(self) -> None:
        cache = Cache()
        for thing in (cache, cache.scope(), cache.watch(), cache.stats(), cache.cached(deepest)):
            with pytest.raises(TypeError):
                pickle.dumps(thing)
            with pytest.raises(TypeError):
                copy.deepcopy(thing)

    def test_open_scope_at_exit_is_silent(self) -> None:
        program = """
import onetrip, threading
cache = onetrip.Cache()
scope = cache.preload("a")
scope.__enter__()
cache.set("a", 1)
watch = cache.watch()
watch.__enter__()
threading.Thread(target=lambda: cache.get("b"), daemon=True).start()
"""
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def deepest(x: object) -> object:
    return x


class TestInterruptions:
    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
    def test_interruption_of_a_callback_passes_through(
        self, cache: Cache, stop: type[BaseException]
    ) -> None:
        def fail(*_: object) -> Any:
            raise stop

        class Text:
            __str__ = fail
            __format__ = fail

        calls: list[Callable[[], object]] = [
            lambda: cache.get_or_set("a", fail),
            lambda: cache.get_many(map(fail, "a")),
            lambda: cache.set_many((key, fail()) for key in "a"),
            lambda: cache.preload(map(fail, "a")),
            cache.cached(key="a")(lambda: fail()),  # noqa: PLW0108 - `fail` takes arguments
            lambda: cache.cached(key_fn=fail)(deepest)(1),
            lambda: cache.cached(key="{x}")(deepest).key(Text()),
        ]
        for call in calls:
            with pytest.raises(stop):
                call()
        assert "a" not in cache

    def test_interrupted_computation_releases_its_key(self, cache: Cache) -> None:
        def fail() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), cache.scope():
            cache.get_or_set("a", fail)
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(cache.get_or_set("a", 5)))
        thread.start()
        thread.join()
        assert found == [5]
