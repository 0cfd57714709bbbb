"""Laws 4 and 5 under threads, tasks and forks: the right answer to the right caller."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import random
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache
from onetrip._core import Everything
from tests.patience import pause, wait_until
from tests.pieces import fetch, is_held
from tests.servers import RedisServer
from tests.sockets import ports_to, unread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from tests.servers import Server

THREADS = 8


def together(work: Callable[[int], object], threads: int = THREADS) -> None:
    """Run `work` in so many threads, which begin at once; raise what one of them raised."""
    barrier = threading.Barrier(threads)

    def begin(number: int) -> object:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(begin, number) for number in range(threads)]:
            future.result()


class TestManyThreads:
    def test_each_thread_gets_its_own_answers(self, cache: Cache) -> None:
        def work(number: int) -> None:
            chance = random.Random(number)
            expected: dict[str, Any] = {}
            keys = [f"{number}:{key}" for key in range(10)]
            for turn in range(100):
                key, value = chance.choice(keys), [number, turn, "x" * chance.randrange(2000)]
                scopes: list[AbstractContextManager[object]] = [
                    cache.scope(),
                    cache.preload(keys),
                    contextlib.nullcontext(),
                ]
                with chance.choice(scopes):
                    if chance.random() < 0.3:
                        assert cache.delete(key) is (expected.pop(key, None) is not None)
                    else:
                        cache.set(key, value)
                        expected[key] = value
                    assert cache.get_many(keys) == expected
                assert cache.get_many(keys) == expected

        together(work)
        assert cache.stats().errors == cache.stats().bad_entries == 0

    def test_no_increment_is_lost(self, cache: Cache) -> None:
        cache.set("n", 0)
        added: list[bool] = []

        def work(number: int) -> None:
            for turn in range(100):
                cache.incr("n")
                added.append(cache.add(f"only one:{turn}", number))

        together(work)
        assert cache["n"] == THREADS * 100
        assert sum(added) == 100

    def test_threads_share_no_scope(self, cache: Cache) -> None:
        barrier = threading.Barrier(THREADS)

        def work(number: int) -> None:
            with cache.scope():
                fetch(cache, number)
                # Now each of them holds its own.
                barrier.wait()
                assert is_held(cache, number)
                assert not is_held(cache, (number + 1) % THREADS)

        together(work)

    def test_tasks_of_threads_share_no_scope(self, cache: Cache) -> None:
        async def page(thread: int, number: int) -> None:
            with cache.scope():
                for turn in range(5):
                    fetch(cache, (thread, number, turn))
                    await asyncio.sleep(0)
                    assert is_held(cache, (thread, number, turn))
                    assert not is_held(cache, (thread, number + 1, turn))

        async def pages(thread: int) -> None:
            await asyncio.gather(*(page(thread, number) for number in range(0, 20, 2)))

        together(lambda thread: asyncio.run(pages(thread)))

    def test_thread_can_finish_the_scope_of_another(self, cache: Cache) -> None:
        def page(number: int) -> Generator[int, None, None]:
            with cache.preload(f"{number}"):
                cache.set(f"{number}", number)
                yield cache[f"{number}"]
                yield number

        pages = [page(number) for number in range(THREADS)]
        together(lambda number: next(pages[number]))
        # By another thread than the one that began it.
        together(lambda number: pages[number - 1].close())
        assert cache.get_many(map(str, range(THREADS))) == {
            str(number): number for number in range(THREADS)
        }
        with cache.watch() as seen:
            cache.get("0")
            cache.get("0")
        assert seen.trips == 2

    def test_cache_can_be_closed_meanwhile(self, cache: Cache) -> None:
        def work(number: int) -> None:
            for turn in range(50):
                if number == 0:
                    cache.close()
                cache.set(f"{number}", turn)
                assert cache[f"{number}"] == turn

        together(work)
        assert cache.stats().errors == 0

    def test_caches_can_be_opened_and_dropped(self, store_url: str) -> None:
        keep = Cache(store_url)

        def work(number: int) -> None:
            for turn in range(20):
                cache = Cache(store_url)
                cache.set(f"{number}", turn)
                with cache.scope():
                    assert cache[f"{number}"] == turn
                del cache

        together(work)
        assert keep.get_many(map(str, range(THREADS))) == {str(n): 19 for n in range(THREADS)}


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server to stop and to count the connections of."""
    with RedisServer() as server:
        yield server


class TestConnections:
    def test_no_more_connections_than_concurrent_threads(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url, on_error="raise")
        before = own_server.connections()
        for _ in range(125):
            together(lambda number: cache.get(f"{number}"))
        assert 1 <= own_server.connections() - before <= THREADS

    def test_consecutive_threads_use_one_connection(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url, on_error="raise")
        before = own_server.connections()
        for number in range(100):
            thread = threading.Thread(target=cache.get, args=(f"{number}",))
            thread.start()
            thread.join()
            with cache.preload("a", "b"):
                cache.set("a", 1)
        assert own_server.connections() - before == 1

    def test_close_closes_idle_connections(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url, on_error="raise")
        together(lambda _: cache.get("a"))
        cache.close()
        cache.get("a")
        # The server sees the end of a connection soon, or later than the question of another.
        asked = (len(own_server.admin.client_list()) for _ in range(10_000))
        assert any(clients == 2 for clients in asked)

    def test_waiting_thread_releases_the_interpreter(self, own_server: RedisServer) -> None:
        # The server sleeps until another thread wakes it, and while the interpreter is given up
        # by nothing but waiting, that thread can run only if the trip lets it.
        cache = Cache(own_server.url, on_error="raise", trip_timeout=60)
        cache.set("a", 1)
        pid = own_server.pid
        ready, go = threading.Event(), threading.Lock()
        go.acquire()

        def wake() -> None:
            ready.set()
            go.acquire()
            os.kill(pid, signal.SIGCONT)

        waker = threading.Thread(target=wake)
        waker.start()
        ready.wait()
        interval = sys.getswitchinterval()
        os.kill(pid, signal.SIGSTOP)
        try:
            sys.setswitchinterval(1000)
            go.release()
            found = cache["a"]
        finally:
            sys.setswitchinterval(interval)
            os.kill(pid, signal.SIGCONT)
            waker.join()
        assert found == 1


def in_a_child(work: Callable[[], object]) -> int:
    """Start a child that does `work` and tells by its exit code whether it could."""
    with warnings.catch_warnings():
        # Newer versions of Python warn of forks among threads; servers do so all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    # A child that hangs is one that fails.
    signal.alarm(60)
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def succeed(children: list[int]) -> None:
    """Wait for all of them; fail if one of them did."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * len(children)


class TestForks:
    def test_child_shares_no_connection(self, own_server: RedisServer) -> None:
        cache = Cache(own_server.url, on_error="raise")
        cache.set("a", 1)

        def ask(who: str) -> None:
            for number in range(20):
                assert f"{who}:{number}" not in cache

        # redis-py has no types for this.
        with own_server.admin.monitor() as monitor:  # type: ignore[no-untyped-call]
            children = [in_a_child(functools.partial(ask, f"child{n}")) for n in range(3)]
            ask("parent")
            succeed(children)
            assert not cache.get("the end")
            ports: dict[str, set[str]] = {}
            for command in monitor.listen():
                words = command["command"].split()
                if words[-1] == "end":
                    break
                if words[0] == "GET":
                    ports.setdefault(words[1].split(":")[0], set()).add(command["client_port"])
        assert sorted(ports) == ["child0", "child1", "child2", "parent"]
        # One connection each, and each another.
        assert [len(own) for own in ports.values()] == [1, 1, 1, 1]
        assert len(set.union(*ports.values())) == 4

    def test_child_of_a_threaded_process_works(self, cache: Cache) -> None:
        cache.set_many({str(number): [number] for number in range(50)})
        stop = threading.Event()
        turns = [0] * 4

        def read() -> None:
            with cache.preload(map(str, range(0, 50, 7))):
                cache.set(f"by {os.getpid()}", "child or parent")
                for key in range(50):
                    assert cache[str(key)] == [key]

        def keep_reading(number: int) -> None:
            while not stop.is_set():
                read()
                turns[number] += 1

        def all_went_on(readers: list[Future[None]], before: list[int]) -> bool:
            now = zip(turns, before, readers, strict=True)
            return all(turn > then or reader.done() for turn, then, reader in now)

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(keep_reading, number) for number in range(4)]
            try:
                for _ in range(5):
                    succeed([in_a_child(lambda: together(lambda _: read(), 2)) for _ in range(2)])
                    before = list(turns)
                    while not all_went_on(readers, before):
                        stop.wait(0.001)
            finally:
                stop.set()
            for reader in readers:
                reader.result()
        assert cache.stats().errors == 0

    def test_writes_of_a_child_within_a_scope_are_seen(self, cache: Cache, store_url: str) -> None:
        # In its own memory a child leaves nothing to its parent; a server hears both.
        shared = not store_url.startswith("memory")
        with cache.scope():
            cache.set("before", 1)
            fetch(cache, "before")

            def work() -> None:
                assert cache["before"] == 1
                assert is_held(cache, "before")
                cache.set("within", 2)
                cache.delete("before")
                fetch(cache, "within")

            succeed([in_a_child(work)])
            assert ("before" in cache) is not shared
            assert ("within" in cache) is shared
            assert is_held(cache, "before")
            assert not is_held(cache, "within")

    def test_child_of_a_child_works(self, cache: Cache) -> None:
        cache.set("a", 1)

        def work() -> None:
            assert cache["a"] == 1
            succeed([in_a_child(lambda: cache["a"])])
            assert cache["a"] == 1

        succeed([in_a_child(work)])
        assert cache["a"] == 1

    def test_child_that_closes_the_cache_keeps_the_parents_connection(self, server: Server) -> None:
        cache = Cache(server.url, on_error="raise", trip_timeout=20)
        cache.set("a", 1)
        before = server.connections()

        def work() -> None:
            cache.close()
            os.kill(server.pid, signal.SIGCONT)
            assert cache["a"] == 1
            cache.close()

        with ThreadPoolExecutor(1) as pool:
            pause(server.pid)
            try:
                waiting = pool.submit(cache.get, "a")
                wait_until(lambda: unread(server.port))
                succeed([in_a_child(work)])
                assert waiting.result() == 1
            finally:
                os.kill(server.pid, signal.SIGCONT)
        assert cache["a"] == 1
        assert server.connections() - before == 1

    def test_child_holds_no_socket_of_its_parent(self, server: Server) -> None:
        others = server.clients()
        cache = Cache(server.url, on_error="raise")
        cache.set("a", 1)
        together(lambda _: cache["a"])
        # Each child tells what it holds, and ends when the parent closes this.
        (heard, told), (end, keep) = os.pipe(), os.pipe()

        def work() -> None:
            os.close(keep)
            together(lambda _: cache["a"], 2)
            os.write(told, b"%s\n" % " ".join(map(str, ports_to(server.port))).encode())
            os.read(end, 1)

        def fork() -> list[int]:
            children = []
            for _ in range(3):
                children.append(in_a_child(work))
                assert cache["a"] == 1
            return children

        with ThreadPoolExecutor(1) as pool:
            children = pool.submit(fork).result()
        together(lambda _: cache["a"], 2)
        with os.fdopen(heard) as lines:
            held = [set(map(int, lines.readline().split())) for _ in children]
        held.append(ports_to(server.port))
        # Nobody else is connected, but by what the children have copies of as well.
        wait_until(lambda: server.clients() <= set.union(*held))
        clients = server.clients() - others
        held = [ports & clients for ports in held]
        assert all(held)
        assert sum(map(len, held)) == len(clients), held
        for descriptor in (keep, end, told):
            os.close(descriptor)
        succeed(children)

    def test_child_of_watched_threads_does_not_hang(self, redis_url: str) -> None:
        # A child that was forked while another thread noted a trip would find the note locked.
        cache = Cache(redis_url, on_error="raise", trip_timeout=20)
        keys = [str(number) for number in range(100)]
        stop = threading.Event()

        def keep_reading() -> None:
            while not stop.is_set():
                cache.get_many(keys)

        with Everything(), cache.watch() as seen, ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(contextvars.copy_context().run, keep_reading) for _ in range(4)]
            try:
                for _ in range(50):

                    def work() -> None:
                        assert cache.get_many(keys) == {}
                        # It sees its own trips alone.
                        assert seen.trips == 1

                    succeed([in_a_child(work)])
            finally:
                stop.set()
            for reader in readers:
                reader.result()
        assert seen.trips > 1
