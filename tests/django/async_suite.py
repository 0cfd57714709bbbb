"""What the asynchronous methods of any cache backend of Django have to do.

Django tests the synchronous ones alone. Each check here is one coroutine function over a `Bed`,
which opens backends on one empty store; `CHECKS` has them by name. To test a backend of yours:

    @pytest.mark.parametrize("name", CHECKS)
    def test_my_backend(name):
        asyncio.run(CHECKS[name](Bed(open_backend)))
"""

from __future__ import annotations

import asyncio
import pickle
import random
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import CacheKeyWarning, InvalidCacheKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from django.core.cache import BaseCache

    Check: TypeAlias = Callable[["Bed"], Coroutine[Any, Any, None]]

CHECKS: dict[str, Check] = {}


class Bed:
    """One store, and how backends are opened on it.

    `refuses_keys` says that keys which Memcached cannot have are errors and not warnings, and
    `patience` how many seconds to wait for an entry to expire that lives for two.
    """

    def __init__(
        self,
        open_backend: Callable[..., BaseCache],
        *,
        refuses_keys: bool = False,
        patience: float = 60,
    ) -> None:
        self.open = open_backend
        self.cache = open_backend()
        self.refuses_keys = refuses_keys
        self.patience = patience

    async def gone(self, key: str, cache: BaseCache | None = None) -> None:
        """Wait until an entry has expired."""
        cache = cache or self.cache

        async def wait() -> None:
            while await cache.ahas_key(key):  # noqa: ASYNC110 - a store tells of nothing by itself
                await asyncio.sleep(0.02)

        await asyncio.wait_for(wait(), self.patience)


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


@dataclass
class Point:
    x: int


def function() -> str:
    return "called"


class Unpicklable:
    def __getstate__(self) -> object:
        raise pickle.PickleError


MISSING = object()

# Seconds, of which a store that counts those of its own clock gives at least one.
SHORT = 2


@check
async def what_is_set_is_got(bed: Bed) -> None:
    cache = bed.cache
    assert await cache.aset("key", "value") is None  # type: ignore[func-returns-value] # it is what is tested
    assert await cache.aget("key") == "value"
    await cache.aset("key", "other")
    assert await cache.aget("key") == "other"


@check
async def what_is_not_there_is_the_default(bed: Bed) -> None:
    cache = bed.cache
    assert await cache.aget("nothing") is None
    assert await cache.aget("nothing", "bang!") == "bang!"
    assert await cache.aget("nothing", default=MISSING) is MISSING


@check
async def none_is_a_value(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("none", None)
    assert await cache.aget("none", MISSING) is None
    assert await cache.ahas_key("none") is True
    assert await cache.aget_many(["none", "nothing"]) == {"none": None}
    assert await cache.aget_or_set("none", lambda: pytest.fail("called")) is None
    assert await cache.aadd("none", 1) is False
    assert await cache.aincr_version("none") == 2
    assert await cache.aget("none", MISSING, version=2) is None


@check
async def add_writes_where_nothing_is(bed: Bed) -> None:
    cache = bed.cache
    assert await cache.aadd("key", "value") is True
    assert await cache.aadd("key", "other") is False
    assert await cache.aget("key") == "value"
    assert await cache.aadd("over", 1, timeout=0) is True
    assert await cache.aget("over") is None


@check
async def has_key_tells(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("key", 0)
    assert await cache.ahas_key("key") is True
    assert await cache.ahas_key("nothing") is False
    await cache.aset("for-ever", 1, timeout=None)
    assert await cache.ahas_key("for-ever") is True


@check
async def many_are_got_at_once(bed: Bed) -> None:
    cache = bed.cache
    for key in "abcd":
        await cache.aset(key, key.upper())
    assert await cache.aget_many(["a", "c", "d"]) == {"a": "A", "c": "C", "d": "D"}
    assert await cache.aget_many(["a", "b", "e"]) == {"a": "A", "b": "B"}
    assert await cache.aget_many(iter(["a", "b", "e"])) == {"a": "A", "b": "B"}
    assert await cache.aget_many([]) == {}
    assert await cache.aget_many(["a", "a"]) == {"a": "A"}


@check
async def many_are_set_at_once(bed: Bed) -> None:
    cache = bed.cache
    assert await cache.aset_many({"a": 1, "b": None}) == []
    assert await cache.aget_many(["a", "b"]) == {"a": 1, "b": None}
    assert await cache.aset_many({}) == []
    assert await cache.aset_many({"c": 1}, timeout=0) == []
    assert await cache.aget("c") is None
    assert await cache.aset_many({"d": 1}, version=2) == []
    assert await cache.aget("d") is None
    assert await cache.aget("d", version=2) == 1


@check
async def delete_tells_whether_there_was_one(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset_many({"a": "spam", "b": "eggs"})
    assert await cache.adelete("a") is True
    assert await cache.adelete("a") is False
    assert await cache.aget("a") is None
    assert await cache.aget("b") == "eggs"
    assert await cache.adelete("b", version=2) is False
    assert await cache.aget("b") == "eggs"


@check
async def many_are_deleted_at_once(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset_many({"a": 1, "b": 2, "c": 3})
    assert await cache.adelete_many(["a", "nothing", "b"]) is None  # type: ignore[func-returns-value] # it is what is tested
    assert await cache.aget_many(["a", "b", "c"]) == {"c": 3}
    assert await cache.adelete_many([]) is None  # type: ignore[func-returns-value] # it is what is tested
    await cache.adelete_many(iter(["c"]))
    assert await cache.aget("c") is None


@check
async def get_or_set_sets_on_a_miss(bed: Bed) -> None:
    cache = bed.cache
    assert await cache.aget_or_set("a", "value") == "value"
    assert await cache.aget_or_set("a", "other") == "value"
    assert await cache.aget_or_set("b", lambda: "called") == "called"
    assert await cache.aget_or_set("b", lambda: pytest.fail("called")) == "called"
    assert await cache.aget_or_set("c", None) is None
    assert await cache.aget("c", MISSING) is None
    assert await cache.aget_or_set("d", 1, version=2) == 1
    assert await cache.aget("d") is None
    assert await cache.aget_or_set("e", 1, timeout=0) == 1
    assert await cache.aget("e") is None


@check
async def an_error_of_a_default_is_the_callers(bed: Bed) -> None:
    def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await bed.cache.aget_or_set("key", fails)
    assert await bed.cache.ahas_key("key") is False


@check
async def numbers_are_added_to(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("n", 41)
    assert await cache.aincr("n") == 42
    assert await cache.aget("n") == 42
    assert await cache.aincr("n", 10) == 52
    assert await cache.aincr("n", -10) == 42
    assert await cache.adecr("n") == 41
    assert await cache.adecr("n", 42) == -1
    assert await cache.adecr("n", -10) == 9
    await cache.aset("n", 1, version=2)
    assert await cache.aincr("n", version=2) == 2
    assert await cache.aget("n") == 9


@check
async def nothing_cannot_be_added_to(bed: Bed) -> None:
    for add in (bed.cache.aincr, bed.cache.adecr):
        for delta in (1, -1):
            with pytest.raises(ValueError, match="not found"):
                await add("nothing", delta)
    assert await bed.cache.ahas_key("nothing") is False


@check
async def text_cannot_be_added_to(bed: Bed) -> None:
    await bed.cache.aset("text", "a")
    for add in (bed.cache.aincr, bed.cache.adecr):
        with pytest.raises(TypeError):
            await add("text")
    assert await bed.cache.aget("text") == "a"


@check
async def adding_keeps_the_timeout(bed: Bed) -> None:
    await bed.cache.aset("n", 1, timeout=SHORT)
    await bed.cache.aincr("n")
    await bed.gone("n")


@check
async def versions_are_moved(bed: Bed) -> None:
    cache, second = bed.cache, bed.open(VERSION=2)
    await cache.aset("a", 1)
    assert await cache.aincr_version("a") == 2
    assert await cache.aget("a") is None
    assert await second.aget("a") == 1
    assert await second.aincr_version("a", 3) == 5
    assert await cache.adecr_version("a", version=5) == 4
    assert await cache.aget("a", version=4) == 1
    with pytest.raises(ValueError, match="not found"):
        await cache.aincr_version("nothing")
    with pytest.raises(ValueError, match="not found"):
        await cache.adecr_version("nothing")


@check
async def versions_are_apart(bed: Bed) -> None:
    cache, second = bed.cache, bed.open(VERSION=2)
    await cache.aset("a", 1)
    await second.aset("a", 2)
    assert await cache.aget("a") == 1
    assert await cache.aget("a", version=2) == 2
    assert await second.aget("a") == 2
    assert await second.adelete("a", version=1) is True
    assert await cache.aget_many(["a"]) == {}
    assert await cache.aget_many(["a"], version=2) == {"a": 2}
    await cache.adelete_many(["a"], version=2)
    assert await second.ahas_key("a") is False
    assert await cache.aadd("a", 3, version=2) is True
    assert await cache.ahas_key("a") is False
    assert await cache.ahas_key("a", version=2) is True
    assert await cache.atouch("a") is False
    assert await cache.atouch("a", version=2) is True


@check
async def prefixes_are_apart(bed: Bed) -> None:
    cache, prefixed = bed.cache, bed.open(KEY_PREFIX="prefix")
    await cache.aset("a", 1)
    assert await prefixed.ahas_key("a") is False
    await prefixed.aset("a", 2)
    assert await cache.aget("a") == 1


@check
async def keys_are_made_as_the_settings_say(bed: Bed) -> None:
    def reversed_key(key: str, prefix: str, version: int) -> str:
        return f"{version}-{prefix}-{key[::-1]}"

    custom = bed.open(KEY_FUNCTION=reversed_key)
    await custom.aset("ab", 1)
    assert await bed.open(KEY_FUNCTION=reversed_key).aget("ab") == 1
    assert await custom.aget_many(["ab", "ba"]) == {"ab": 1}
    assert await bed.cache.aget("ab") is None


@check
async def touch_tells_whether_there_was_one(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("key", 1)
    assert await cache.atouch("key") is True
    assert await cache.atouch("key", timeout=None) is True
    assert await cache.atouch("nothing") is False
    assert await cache.atouch("key", timeout=0) is True
    assert await cache.aget("key") is None


@check
async def touch_gives_a_new_timeout(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("short", 1, timeout=SHORT)
    await cache.aset("long", 1, timeout=SHORT)
    assert await cache.atouch("long", timeout=3600) is True
    await bed.gone("short")
    assert await cache.aget("long") == 1
    assert await cache.atouch("long", timeout=SHORT) is True
    await bed.gone("long")


@check
async def entries_expire(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("a", 1, timeout=1)
    await cache.aset_many({"b": 1, "c": 1}, timeout=1)
    assert await cache.aadd("d", 1, timeout=1) is True
    await cache.aget_or_set("e", 1, timeout=1)
    for key in "abcde":
        await bed.gone(key)
    assert await cache.aadd("a", 2) is True
    assert await cache.aget("a") == 2


@check
async def the_default_timeout_is_that_of_the_settings(bed: Bed) -> None:
    cache = bed.open(TIMEOUT=1)
    await cache.aset("a", 1)
    await cache.aset("b", 1, timeout=None)
    await bed.gone("a", cache)
    assert await cache.aget("b") == 1


@check
async def nothing_lives_for_no_time(bed: Bed) -> None:
    cache = bed.cache
    for timeout in (0, -1, -100):
        await cache.aset("key", "old")
        await cache.aset("key", "new", timeout=timeout)
        assert await cache.aget("key") is None


@check
async def a_long_time_is_long(bed: Bed) -> None:
    cache = bed.cache
    for timeout in (60 * 60 * 24 * 30 + 1, 60 * 60 * 24 * 365, 100.2, None):
        await cache.aset("key", "eggs", timeout)
        assert await cache.aget("key") == "eggs"
        assert await cache.aadd("key", "ham", timeout) is False
        await cache.aset_many({"many": 1}, timeout)
        assert await cache.aget("many") == 1


@check
async def a_part_of_a_second_is_some_time(bed: Bed) -> None:
    async def is_kept() -> bool:
        await bed.cache.aset("key", 1, timeout=0.9)
        return bool(await bed.cache.aget("key") == 1)

    # Of a store that counts the seconds of a clock, that second may have ended just then.
    assert any([await is_kept() for _ in range(5)])


@check
async def every_kind_of_value_comes_back(bed: Bed) -> None:
    values = {
        "string": "this is a string",
        "unicode": "Iñtërnâtiônàlizætiøn",
        "empty": "",
        "int": 42,
        "large": 2**80,
        "bool": True,
        "float": 0.1,
        "list": [1, [2]],
        "tuple": (1, 2),
        "set": {1, 2},
        "dict": {"A": 1, 2: "B"},
        "bytes": b"\x00\xff",
        "compressed": zlib.compress(b"value" * 100),
        "function": function,
        "class": Point,
        "object": [Point(5)],
    }
    await bed.cache.aset("all", values)
    assert await bed.cache.aget("all") == values
    await bed.cache.aset_many(values)
    got = await bed.cache.aget_many(values)
    assert got == values
    assert [type(got[key]) for key in values] == [type(value) for value in values.values()]


@check
async def what_comes_back_is_the_callers(bed: Bed) -> None:
    mine = [1]
    await bed.cache.aset("list", mine)
    mine.append(2)
    (await bed.cache.aget("list")).append(3)
    (await bed.cache.aget_many(["list"]))["list"].append(4)
    assert await bed.cache.aget("list") == [1]


@check
async def what_cannot_be_pickled_is_refused(bed: Bed) -> None:
    cache, value = bed.cache, Unpicklable()
    with pytest.raises(pickle.PickleError):
        await cache.aset("key", value)
    with pytest.raises(pickle.PickleError):
        await cache.aadd("key", value)
    with pytest.raises(pickle.PickleError):
        await cache.aset_many({"key": value})
    with pytest.raises(pickle.PickleError):
        await cache.aget_or_set("key", lambda: value)
    assert await cache.ahas_key("key") is False


def calls(cache: BaseCache, key: str) -> Iterator[Callable[[], Awaitable[object]]]:
    yield lambda: cache.aget(key)
    yield lambda: cache.aset(key, 1)
    yield lambda: cache.aadd(key, 1)
    yield lambda: cache.aget_many([key, "b"])
    yield lambda: cache.aset_many({key: 1, "b": 2})
    yield lambda: cache.ahas_key(key)
    yield lambda: cache.aincr(key)
    yield lambda: cache.adecr(key)
    yield lambda: cache.atouch(key)
    yield lambda: cache.aget_or_set(key, 1)
    yield lambda: cache.aincr_version(key)
    yield lambda: cache.adelete(key)
    yield lambda: cache.adelete_many([key, "b"])


@check
async def bad_keys_are_told_of(bed: Bed) -> None:
    for key in ("k" * 251, "with space", "with\x00zero", "with\nline", "with\x7fdel"):
        for call in calls(bed.cache, key):
            if bed.refuses_keys:
                with pytest.raises(InvalidCacheKey, match="will cause errors if used with memcac"):
                    await call()
                continue
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                await call()
            assert CacheKeyWarning in [warning.category for warning in told]


@check
async def clear_empties(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset_many({"a": 1, "b": 2})
    await cache.aclear()
    assert await cache.aget_many(["a", "b"]) == {}
    await cache.aset("a", 3)
    assert await cache.aget("a") == 3


@check
async def a_closed_cache_opens_again(bed: Bed) -> None:
    await bed.cache.aset("key", 1)
    assert await bed.cache.aclose() is None  # type: ignore[func-returns-value] # it is what is tested
    assert await bed.cache.aget("key") == 1


@check
async def both_faces_see_the_same(bed: Bed) -> None:
    cache = bed.cache
    await cache.aset("a", [1])
    assert await sync_to_async(cache.get)("a") == [1]
    await sync_to_async(cache.set)("b", [2])
    assert await cache.aget("b") == [2]
    await sync_to_async(cache.incr_version)("b")
    assert await cache.aget("b", version=2) == [2]


@check
async def each_of_many_tasks_gets_its_own(bed: Bed) -> None:
    cache = bed.cache

    async def task(number: int) -> None:
        key = f"key-{number}"
        await cache.aset(key, [number])
        assert await cache.aget(key) == [number]
        assert await cache.aget_many([key, f"none-{number}"]) == {key: [number]}
        assert await cache.adelete(key) is True
        assert await cache.aget(key, number) == number

    await asyncio.gather(*(task(number) for number in range(100)))


@check
async def each_of_many_increments_counts(bed: Bed) -> None:
    await bed.cache.aset("n", 0)
    numbers = await asyncio.gather(*(bed.cache.aincr("n") for _ in range(50)))
    assert sorted(numbers) == list(range(1, 51))
    assert await bed.cache.aget("n") == 50


@check
async def one_of_many_adds_wins(bed: Bed) -> None:
    added = await asyncio.gather(*(bed.cache.aadd("key", number) for number in range(30)))
    assert sorted(added) == [False] * 29 + [True]
    assert await bed.cache.aget("key") == added.index(True)


@check
async def a_cancelled_read_gives_nobody_its_answer(bed: Bed) -> None:
    cache, choose = bed.cache, random.Random(5)
    keys = [f"key-{number}" for number in range(40)]
    await cache.aset_many({key: key for key in keys})

    async def read(key: str) -> None:
        assert await cache.aget(key) == key

    for _ in range(25):
        tasks = [asyncio.create_task(read(key)) for key in choose.sample(keys, 20)]
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(0)
        cancelled = choose.sample(tasks, 10)
        for task in cancelled:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for task, end in zip(tasks, ends, strict=True):
            assert end is None or (task in cancelled and isinstance(end, asyncio.CancelledError))
    assert await cache.aget_many(keys) == {key: key for key in keys}


@check
async def a_cancelled_write_is_made_or_not(bed: Bed) -> None:
    cache, choose = bed.cache, random.Random(7)
    for number in range(40):
        await cache.aset("key", "old")
        task = asyncio.create_task(cache.aset_many({"key": "new", f"other-{number}": 1}))
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await cache.aget("key") in ("old", "new")
        assert await cache.aget("nothing") is None


@check
async def another_loop_works_at_the_same_time(bed: Bed) -> None:
    def elsewhere(number: int) -> list[int]:
        async def task() -> list[int]:
            cache = bed.open()
            await cache.aset(f"loop-{number}", number)
            return [await cache.aget(f"loop-{number}") for _ in range(20)]

        return asyncio.run(task())

    threads = [asyncio.to_thread(elsewhere, number) for number in range(4)]
    told = await asyncio.gather(*threads, *(bed.cache.aget("here", 5) for _ in range(20)))
    assert told == [*([number] * 20 for number in range(4)), *[5] * 20]
