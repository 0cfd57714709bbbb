"""The asynchronous face: what differs from the blocking one, since loops and tasks are there.

That its calls mean the same is tested with the blocking ones, by way of `tests.awaited`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import random
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from onetrip import (
    Cache,
    ConfigurationError,
    NotANumberError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from tests.test_threads import in_a_child, own_server, succeed, together

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import TypeAlias

    from tests.servers import RedisServer

    NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
    Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]

__all__ = ["own_server"]

LOOPS: dict[str, NewLoop] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run_on(
    new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, Any]
) -> Any:
    """Run `main` on a loop of its own, and close that."""
    loop = new_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a loop of each kind."""
    return lambda main: run_on(LOOPS[request.param], main)


@pytest.fixture
def remote(redis_url: str) -> Cache:
    """A cache on a server: what a store in this process is asked is answered at once."""
    return Cache(redis_url, prefix="aio", on_error="raise")


@pytest.fixture
def counted(own_server: RedisServer) -> Cache:
    """One whose server has no other clients: it counts their leaving as reads, too."""
    return Cache(own_server.url, prefix="aio", on_error="raise")


async def warmed(cache: Cache) -> Cache:
    """Open the connection, whose handshake is no trip."""
    assert await cache.aget("no such key") is None
    return cache


def reads(server: RedisServer, cache: Cache, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Count how often `server` reads from its sockets while `work` is done."""

    async def main() -> tuple[int, Any]:
        await warmed(cache)
        server.reset_stats()
        with cache.watch() as seen:
            answer = await work()
        assert seen.trips == server.reads()
        return seen.trips, answer

    return main()


class TestTurnOfTheLoop:
    def test_reads_share_one_trip(self, counted: Cache, run: Run, own_server: RedisServer) -> None:
        counted.set_many({str(number): number for number in range(100)})

        async def work() -> Any:
            return await asyncio.gather(*(counted.aget(str(number)) for number in range(100)))

        assert run(reads(own_server, counted, work)) == (1, list(range(100)))

    def test_reads_and_writes_share_one_trip(
        self, counted: Cache, run: Run, own_server: RedisServer
    ) -> None:
        async def work() -> Any:
            return await asyncio.gather(
                counted.aset("a", 1),
                counted.aset_many({"b": 2, "c": 3}),
                counted.aget_many(["a", "x"]),
                counted.adelete("b"),
                counted.atouch("c", 60),
            )

        assert run(reads(own_server, counted, work)) == (1, [None, None, {"a": 1}, True, True])

    def test_add_and_incr_travel_alone(self, remote: Cache, run: Run) -> None:
        remote.set("n", 1)

        async def work() -> list[int]:
            with remote.watch() as seen:
                await asyncio.gather(
                    remote.aget("a"), remote.aincr("n"), remote.aadd("b", 1), remote.aget("c")
                )
            return sorted(len(trip) for trip in seen.records)

        assert run(work()) == [1, 1, 2]

    def test_each_cache_makes_its_own_trip(self, remote: Cache, redis_url: str, run: Run) -> None:
        other = Cache(redis_url, prefix="other")
        other.set("a", "other")
        remote.set("a", "remote")

        async def work() -> list[Any]:
            with remote.watch() as seen, other.watch() as seen_too:
                answers = await asyncio.gather(
                    *(cache.aget("a") for cache in (remote, other, remote, other))
                )
            assert (seen.trips, seen_too.trips) == (1, 1)
            return answers

        assert run(work()) == ["remote", "other"] * 2

    def test_every_watch_sees_the_shared_trip(self, remote: Cache, run: Run) -> None:
        async def watched(key: str) -> list[list[tuple[str, str]]]:
            with remote.watch() as seen:
                await remote.aget(key)
            return [trip.ops for trip in seen.records]

        async def watched_by_two() -> Any:
            return await asyncio.gather(watched("a"), watched("b"))

        async def work() -> None:
            both = [("get", "aio:a"), ("get", "aio:b")]
            assert await watched_by_two() == [[both], [both]]

        run(work())

    def test_each_caller_gets_its_own_error(self, remote: Cache, run: Run) -> None:
        remote.set_many({"text": "x", "n": 1})

        async def work() -> None:
            number, wrong, missing = await asyncio.gather(
                remote.aincr("n"), remote.aincr("text"), remote.aincr("x"), return_exceptions=True
            )
            assert number == 2
            assert isinstance(wrong, NotANumberError)
            assert isinstance(missing, KeyError)

        run(work())

    def test_unreachable_store_raises_for_each_caller(
        self, own_server: RedisServer, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        raising = Cache(own_server.url, on_error="raise")
        missing = Cache(own_server.url)
        own_server.stop()

        async def work() -> None:
            answers = await asyncio.gather(
                *(raising.aget(str(number)) for number in range(5)), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [StoreUnavailableError] * 5
            caplog.clear()
            assert await asyncio.gather(*map(missing.aget, "abcde")) == [None] * 5
            await missing.aset("a", 1)

        run(work())
        assert "5 of 5 operations failed" in caplog.text
        assert missing.stats().errors >= 6


def tagged(key: str) -> list[str]:
    return [key] * 50


class TestCancellation:
    """Law 4: a task that is cancelled cancels nothing for others, nor do they get its answer."""

    def test_random_cancellations_mix_up_no_answers(
        self, own_server: RedisServer, run: Run
    ) -> None:
        cache = Cache(own_server.url, on_error="raise", trip_timeout=60)
        keys = [str(number) for number in range(50)]
        cache.set_many({key: tagged(key) for key in keys})
        cache.close()
        before = own_server.admin.info("stats")["total_connections_received"]

        async def reader(seed: int) -> int:
            chance = random.Random(seed)
            hits = 0
            for _ in range(100):
                key = chance.choice(keys)
                task = asyncio.ensure_future(cache.aget(key))
                for _ in range(chance.choice([0, 1, 2, 3, 1000])):
                    if task.done():
                        break
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert await task == tagged(key)
                    hits += 1
            return hits

        async def work() -> None:
            hits = await asyncio.gather(*map(reader, range(20)))
            assert sum(hits) > 200

        run(work())
        assert cache.stats().errors == 0
        # All went over one connection, which nobody had to give up.
        after = own_server.admin.info("stats")["total_connections_received"]
        assert after - before == 1

    def test_cancelled_write_is_still_sent(self, remote: Cache, run: Run) -> None:
        async def work() -> None:
            task = asyncio.ensure_future(remote.aset("a", 1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # It left before this, over the same connection.
            assert await remote.aget("a") == 1

        run(work())

    def test_one_timeout_does_not_affect_other_readers(
        self, own_server: RedisServer, run: Run
    ) -> None:
        cache = Cache(own_server.url, on_error="raise", trip_timeout=0.05, connect_timeout=60)

        async def work() -> None:
            await warmed(cache)
            own_server.admin.client_pause(60_000)
            reads = [asyncio.ensure_future(cache.aget("a")) for _ in range(10)]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reads[0], 0.001)
            answers = await asyncio.gather(*reads[1:], return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreTimeoutError}

        run(work())


class TestLoops:
    def test_consecutive_loops_share_a_connection(self, own_server: RedisServer, run: Run) -> None:
        cache = Cache(own_server.url, on_error="raise")
        before = own_server.admin.info("stats")["total_connections_received"]
        for number in range(20):
            run(cache.aset("a", number))
            assert run(cache.aget("a")) == number
        after = own_server.admin.info("stats")["total_connections_received"]
        assert after - before == 1

    def test_loops_of_many_threads_share_nothing(self, cache: Cache, run: Run) -> None:
        async def page(name: str) -> None:
            for turn in range(10):
                async with cache.preload(name):
                    assert await cache.aget(name) == (turn or None)
                    await cache.aset(name, turn + 1)

        async def pages(thread: int) -> None:
            await asyncio.gather(*(page(f"{thread}:{number}") for number in range(10)))

        together(lambda thread: run(pages(thread)))

    def test_loop_that_ended_gets_no_late_answer(self, own_server: RedisServer, run: Run) -> None:
        cache = Cache(own_server.url, on_error="raise", trip_timeout=60)

        async def leave() -> None:
            reading = asyncio.ensure_future(cache.aget("a"))
            await asyncio.sleep(0)
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())

        cache.set("a", 1)
        for _ in range(20):
            run(leave())
            assert run(cache.aget("a")) == 1

    def test_forked_child_can_run_a_loop(self, cache: Cache, run: Run) -> None:
        cache.set("a", 1)

        async def read() -> None:
            assert await asyncio.gather(*(cache.aget("a") for _ in range(10))) == [1] * 10

        run(read())
        succeed([in_a_child(lambda: run(read())) for _ in range(3)])
        run(read())

    def test_connection_does_not_keep_the_first_request_alive(
        self, remote: Cache, run: Run
    ) -> None:
        class Request:
            pass

        running: ContextVar[Request] = ContextVar("running")

        async def page() -> weakref.ref[Request]:
            request = Request()
            running.set(request)
            # The first trip of a loop is when it begins to listen for answers.
            async with remote.preload("a"):
                await remote.aget("b")
            return weakref.ref(request)

        async def work() -> None:
            gone = await asyncio.create_task(page())
            # Until its turn is over, the loop itself holds the task that has ended.
            await asyncio.sleep(0)
            gc.collect()
            assert gone() is None

        run(work())


class TestCoroutines:
    def test_coroutine_protocol(self, cache: Cache) -> None:
        coroutine = cache.aget("a")
        assert inspect.isawaitable(coroutine)
        assert asyncio.iscoroutine(coroutine)
        assert repr(coroutine) == "<coroutine aget of onetrip>"
        coroutine.close()
        coroutine.close()

    def test_nothing_happens_before_await(self, cache: Cache) -> None:
        writing = cache.aset("a", 1)
        assert "a" not in cache
        with pytest.warns(RuntimeWarning, match="coroutine 'aset' was never awaited"):
            del writing

    def test_arguments_are_captured_at_the_call(self, cache: Cache, run: Run) -> None:
        value = [1]
        writing = cache.aset("a", value)
        value.append(2)
        run(writing)
        assert cache["a"] == [1]

    def test_second_await_raises(self, cache: Cache, run: Run) -> None:
        async def work() -> None:
            reading = cache.aget("a")
            await reading
            with pytest.raises(RuntimeError, match="already awaited"):
                await reading

        run(work())

    def test_throw_raises_in_the_coroutine(self, remote: Cache, run: Run) -> None:
        async def work() -> None:
            with pytest.raises(KeyboardInterrupt):
                remote.aget("a").throw(KeyboardInterrupt)
            reading = remote.aget("a")
            reading.send(None)
            with pytest.raises(ZeroDivisionError, match="thrown"):
                reading.throw(ZeroDivisionError("thrown"))
            assert await remote.aget("a") is None

        run(work())

    def test_wrong_arguments_raise_at_the_call(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="a key is a string, not int"):
            cache.aget(5)  # type: ignore[call-overload]

    def test_coroutines_run_as_tasks(self, remote: Cache, run: Run) -> None:
        async def work() -> None:
            tasks = [asyncio.create_task(remote.aset(str(number), number)) for number in range(5)]
            await asyncio.wait(tasks)
            assert await remote.aget_many(map(str, range(5))) == {str(n): n for n in range(5)}

        run(work())


class TestGetOrSet:
    def test_async_default_is_awaited(self, cache: Cache, run: Run) -> None:
        async def slow() -> list[int]:
            await asyncio.sleep(0)
            return [1]

        async def work() -> None:
            computed: Any = await cache.aget_or_set("a", slow)
            assert computed == [1]
            computed = await cache.aget_or_set("a", None)
            assert computed == [1]
            assert await cache.aget_or_set("b", lambda: 2) == 2
            assert await cache.aget_or_set("c", 3) == 3

        run(work())
        assert cache.get_many(["a", "b", "c"]) == {"a": [1], "b": 2, "c": 3}

    def test_failing_default_stores_nothing(self, cache: Cache, run: Run) -> None:
        async def fail() -> int:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run(cache.aget_or_set("a", fail))
        assert "a" not in cache


class TestOrder:
    """What one task asks for after another is done after it, whatever was cancelled between."""

    @pytest.fixture(params=["redis_url", "memcached_url"])
    def cold(self, request: pytest.FixtureRequest) -> Callable[[], Cache]:
        """Opens caches without a connection, on servers that keep no order between theirs."""
        url = request.getfixturevalue(request.param)
        return lambda: Cache(url, prefix="order", on_error="raise", trip_timeout=60)

    def test_later_write_wins(self, cold: Callable[[], Cache], run: Run) -> None:
        async def work(cache: Cache) -> None:
            early = asyncio.ensure_future(cache.aset("a", "early"))
            await asyncio.sleep(0)
            # It has left by the next turn.
            await asyncio.sleep(0)
            early.cancel()
            await cache.aset("a", "late")
            assert await cache.aget("a") == "late"
            with contextlib.suppress(asyncio.CancelledError):
                await early

        for _ in range(20):
            run(work(cold()))

    def test_cancelled_task_releases_its_lock(self, cold: Callable[[], Cache], run: Run) -> None:
        async def locked(cache: Cache) -> None:
            try:
                await cache.aadd("lock", 1)
            finally:
                await cache.adelete("lock")

        async def work(cache: Cache) -> None:
            task = asyncio.ensure_future(locked(cache))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await cache.aget("lock") is None

        for _ in range(20):
            run(work(cold()))

    def test_operations_of_one_turn_keep_their_order(self, remote: Cache, run: Run) -> None:
        remote.set("n", 1)

        async def work() -> None:
            for _ in range(50):
                tasks = [
                    asyncio.ensure_future(coroutine)
                    for coroutine in (
                        remote.aget("n"),
                        remote.aset("n", 5),
                        remote.aincr("n"),
                        remote.aget("n"),
                        remote.aset("n", 1),
                    )
                ]
                answers: list[Any] = await asyncio.gather(*tasks)
                assert answers == [1, None, 6, 6, None]

        run(work())

    def test_other_keys_do_not_wait_for_a_write(self, own_server: RedisServer, run: Run) -> None:
        cache = Cache(own_server.url, prefix="order", on_error="raise", trip_timeout=60)

        async def later(reading: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
            task = asyncio.ensure_future(reading)
            for _ in range(3):
                await asyncio.sleep(0)
            return task

        async def work() -> list[list[str]]:
            await warmed(cache)
            own_server.admin.client_pause(300)
            with cache.watch() as seen:
                tasks = [
                    await later(cache.aset("a", 1)),
                    await later(cache.aget("a")),
                    await later(cache.aget("b")),
                ]
                answers: list[Any] = await asyncio.gather(*tasks)
            assert answers == [None, 1, None]
            return sorted([f"{word} {name}" for word, name in trip.ops] for trip in seen.records)

        assert run(work()) == [["get order:a"], ["get order:b"], ["set order:a"]]

    def test_other_stores_do_not_wait_for_a_hung_one(
        self, own_server: RedisServer, run: Run
    ) -> None:
        hung = Cache(own_server.url, on_error="raise", trip_timeout=0.2)
        fine = Cache()

        async def work() -> None:
            await warmed(hung)
            own_server.admin.client_pause(60_000)
            waiting = asyncio.ensure_future(hung.aset("a", 1))
            following = asyncio.ensure_future(hung.aget("a"))
            assert await fine.aget("a") is None
            with pytest.raises(StoreTimeoutError):
                await waiting
            with pytest.raises(StoreTimeoutError):
                await following

        run(work())


class TestEdgeCases:
    def test_dropped_coroutine_keeps_the_current_exception(self, cache: Cache) -> None:
        def fail() -> object:
            raise ZeroDivisionError("ours")

        def call(*arguments: object) -> None:
            raise AssertionError(arguments)

        never = pytest.warns(RuntimeWarning, match="never awaited")
        with never, pytest.raises(ZeroDivisionError, match="ours"):
            call(cache.aget("a"), fail())

    def test_stop_iteration_of_a_default_is_an_error(self, cache: Cache, run: Run) -> None:
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            run(cache.aget_or_set("a", lambda: next(iter([]))))
        assert "a" not in cache

    def test_one_scope_cannot_be_entered_by_two_tasks(self, remote: Cache, run: Run) -> None:
        scope = remote.preload("a")

        async def page(name: str) -> str:
            async with scope:
                await remote.aset(name, 1)
                # The other comes by meanwhile.
                for _ in range(5):
                    await asyncio.sleep(0)
                return name

        async def work() -> None:
            answers = await asyncio.gather(page("one"), page("two"), return_exceptions=True)
            assert answers[0] == "one"
            assert isinstance(answers[1], ConfigurationError)
            assert "open already" in str(answers[1])
            assert await remote.aget("one") == 1

        run(work())

    def test_read_after_incr_sees_the_sum(self, remote: Cache, run: Run) -> None:
        remote.set("n", 1)

        async def page() -> None:
            async with remote.scope():

                async def reader() -> None:
                    await remote.aget("n")
                    await remote.aset("other", 1)

                _, counted, _ = await asyncio.gather(remote.aget("x"), remote.aincr("n"), reader())
                assert counted == 2
                assert await remote.aget("n") == 2

        for _ in range(5):
            remote.set("n", 1)
            run(page())

    def test_closed_loop_is_freed(self, remote: Cache) -> None:
        def leave() -> weakref.ref[asyncio.AbstractEventLoop]:
            loop = asyncio.new_event_loop()

            async def begin() -> None:
                task = asyncio.ensure_future(remote.aget("a"))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()

            loop.run_until_complete(begin())
            loop.close()
            return weakref.ref(loop)

        gone = [leave() for _ in range(10)]
        gc.collect()
        assert [loop() for loop in gone] == [None] * 10

    def test_interrupted_call_soon_is_retried(
        self, remote: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def work() -> None:
            loop = asyncio.get_running_loop()
            await warmed(remote)

            def fail(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(loop, "call_soon", fail)
                with pytest.raises(KeyboardInterrupt):
                    remote.aget("a").send(None)
            assert await remote.aget("a") is None

        asyncio.run(work())

    def test_many_with_wrong_arguments_stores_the_valid_calls(self, cache: Cache, run: Run) -> None:
        @cache.cached(key_fn=lambda args, _kwargs: args)
        async def f(n: int) -> int:
            await asyncio.sleep(0)
            return n

        with pytest.raises(TypeError, match="positional argument"):
            run(f.many([(1,), (2, 3), (4,)]))
        assert run(f.many([1, 4])) == [1, 4]
        assert cache.get_many([f.key(1), f.key(4)]) == {f.key(1): 1, f.key(4): 4}
