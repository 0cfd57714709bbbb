"""`cached` and `cached_property` on `async def`."""

from __future__ import annotations

import asyncio
import functools
import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import BadKeyError, Cache, SerializationError

if TYPE_CHECKING:
    from tests.conftest import ExpectTrips, OpenCache


class Notes:
    """Functions of a cache, and the calls that they really got."""

    def __init__(self, cache: Cache) -> None:
        self.calls: list[Any] = []
        calls = self.calls

        @cache.cached(timeout=60, key="square:{number}")
        async def square(number: int) -> list[int]:
            """Take its time."""
            await asyncio.sleep(0)
            calls.append(number)
            if number < 0:
                raise ValueError(number)
            return [number * number]

        class Note:
            def __init__(self, number: int) -> None:
                self.id = number

            @cache.cached(key_fn=lambda args, _kwargs: args[0].id)
            async def markup(self, suffix: str = "") -> str:
                calls.append(self.id)
                return f"<{self.id}{suffix}>"

            @cache.cached_property(key="title:{self.id}")
            async def title(self) -> str:
                calls.append(self.id)
                return f"Note {self.id}"

        self.square = square
        self.note = Note


@pytest.fixture
def notes(cache: Cache) -> Notes:
    return Notes(cache)


class TestCalls:
    def test_computed_once(self, notes: Notes, cache: Cache) -> None:
        async def main() -> None:
            for _ in range(3):
                assert await notes.square(3) == [9]
                assert await notes.square(number=4) == [16]

        asyncio.run(main())
        assert notes.calls == [3, 4]
        assert cache["square:3"] == [9]

    def test_each_call_returns_its_own_object(self, notes: Notes) -> None:
        async def main() -> None:
            for _ in range(3):
                answer = await notes.square(3)
                assert answer == [9]
                answer.append(0)

        asyncio.run(main())

    def test_exceptions_are_not_cached(self, notes: Notes, cache: Cache) -> None:
        async def main() -> None:
            for _ in range(2):
                with pytest.raises(ValueError, match="-1"):
                    await notes.square(-1)

        asyncio.run(main())
        assert notes.calls == [-1, -1]
        assert "square:-1" not in cache

    def test_cancelled_call_stores_nothing(self, cache: Cache) -> None:
        async def main() -> None:
            started, ended = asyncio.Event(), asyncio.Event()

            @cache.cached(key="slow")
            async def slow() -> int:
                started.set()
                try:
                    await asyncio.sleep(60)
                finally:
                    ended.set()
                return 1

            task = asyncio.create_task(slow())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()
            assert await cache.aget("slow") is None

        asyncio.run(main())

    def test_none_is_cached(self, cache: Cache) -> None:
        calls = []

        @cache.cached
        async def nothing() -> int | None:
            calls.append(1)
            return None

        async def main() -> None:
            for _ in range(2):
                assert await nothing() is None

        asyncio.run(main())
        assert calls == [1]

    def test_cached_functions_call_each_other(self, cache: Cache) -> None:
        calls = []

        @cache.cached(key="fib:{n}")
        async def fib(n: int) -> int:
            calls.append(n)
            return n if n < 2 else await fib(n - 1) + await fib(n - 2)

        assert asyncio.run(fib(20)) == 6765
        assert sorted(calls) == list(range(21))

    def test_unencodable_result_raises(self, cache: Cache) -> None:
        @cache.cached(key="bad")
        async def bad() -> object:
            return object()

        with pytest.raises(SerializationError, match="object cannot be cached"):
            asyncio.run(bad())

    def test_bad_key_raises(self, cache: Cache) -> None:
        @cache.cached
        async def f(argument: object) -> object:
            return argument

        with pytest.raises(BadKeyError):
            asyncio.run(f(object()))

    def test_hit_in_a_scope_makes_no_trip(
        self, notes: Notes, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        async def main() -> None:
            await notes.square(1)
            await notes.square(2)
            with expect_trips(1):
                async with cache.preload("square:1", "square:2"):
                    for _ in range(3):
                        assert await notes.square(1) == [1]
                        assert await notes.square(2) == [4]

        asyncio.run(main())
        assert notes.calls == [1, 2]


class TestMethods:
    def test_methods_bind_their_instance(self, notes: Notes, cache: Cache) -> None:
        note = notes.note(5)

        async def main() -> None:
            for _ in range(2):
                assert await note.markup() == "<5>"
                assert await notes.note.markup(note) == "<5>"

        asyncio.run(main())
        assert notes.calls == [5]
        assert cache["markup:5"] == "<5>"

    def test_properties_return_awaitables(self, notes: Notes, cache: Cache) -> None:
        note = notes.note(5)

        async def main() -> None:
            for _ in range(2):
                assert await note.title == "Note 5"

        asyncio.run(main())
        assert notes.calls == [5]
        assert cache["title:5"] == "Note 5"

    def test_methods_can_be_preloaded(
        self, notes: Notes, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        note = notes.note(5)

        async def main() -> None:
            await note.markup()
            await notes.square(2)
            with expect_trips(1):
                async with cache.preload(note.markup, functools.partial(notes.square, 2)):
                    assert await note.markup() == "<5>"
                    assert await notes.square(2) == [4]

        asyncio.run(main())


class TestCoroutineMethods:
    def test_bust_refresh_and_uncached(
        self, notes: Notes, cache: Cache, open_cache: OpenCache
    ) -> None:
        async def main() -> None:
            assert await notes.square.bust(3) is False
            assert await notes.square.uncached(3) == [9]
            assert "square:3" not in cache
            assert await notes.square.refresh(3) == [9]
            assert await notes.square(3) == [9]
            assert await notes.square.bust(3) is True
            assert await notes.square.bust(3) is False

        asyncio.run(main())
        assert notes.calls == [3, 3]
        assert open_cache().get("square:3") is None

    def test_many_is_one_trip_to_read_and_one_to_store(
        self, notes: Notes, expect_trips: ExpectTrips
    ) -> None:
        async def main() -> None:
            assert await notes.square.many([]) == []
            await notes.square(1)
            with expect_trips(2):
                found = await notes.square.many([1, 2, 3, 2])
            assert found == [[1], [4], [9], [4]]
            found[1].append(0)
            assert found[3] == [4]
            with expect_trips(1):
                assert await notes.square.many([3, 2, 1]) == [[9], [4], [1]]

        asyncio.run(main())
        assert sorted(notes.calls) == [1, 2, 3]

    def test_many_are_computed_side_by_side(self, cache: Cache) -> None:
        async def main() -> None:
            all_began, began = asyncio.Event(), []

            @cache.cached(key="{n}")
            async def f(n: int) -> int:
                began.append(n)
                if len(began) == 10:
                    all_began.set()
                await all_began.wait()
                return n

            assert await f.many(range(10)) == list(range(10))

        asyncio.run(main())

    def test_many_stores_results_beside_a_failure(self, notes: Notes, cache: Cache) -> None:
        async def main() -> None:
            with pytest.raises(ValueError, match="-1"):
                await notes.square.many([1, -1, 2])

        asyncio.run(main())
        assert cache.get_many(["square:1", "square:2", "square:-1"]) == {
            "square:1": [1],
            "square:2": [4],
        }

    def test_is_recognized_as_a_coroutine_function(self, notes: Notes) -> None:
        note = notes.note(5)
        for decorated in (notes.square, note.markup, notes.note.markup):
            assert asyncio.iscoroutinefunction(decorated)
        assert notes.square.__doc__ == "Take its time."
        assert notes.square.__name__ == "square"
        assert list(inspect.signature(notes.square).parameters) == ["number"]
        assert inspect.iscoroutinefunction(notes.square.__wrapped__)

    def test_blocking_function_is_not_a_coroutine_function(self, cache: Cache) -> None:
        @cache.cached
        def blocking() -> int:
            return 1

        assert not asyncio.iscoroutinefunction(blocking)
        assert not hasattr(SimpleNamespace(f=blocking).f, "_is_coroutine")
