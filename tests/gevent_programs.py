"""Programs of greenlets, each run by `test_gevent.py` in a process of its own.

    python -m tests.gevent_programs NAME URL PID

`URL` is of a server whose process is `PID`, which a program stops and continues: a trip that holds
up its thread then fails, since nothing is left to continue the server.
"""

from __future__ import annotations

# Whatever else is imported must find the patched modules.
from gevent import monkey  # type: ignore[import-untyped]  # it has no types

if __name__ == "__main__":
    monkey.patch_all()

import contextlib
import contextvars
import logging
import os
import pickle
import signal
import sys
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from gevent._hub_local import get_hub_if_exists  # type: ignore[import-untyped]  # nor here
from gevent.event import Event  # type: ignore[import-untyped]  # nor here

from onetrip import Cache, StoreUnavailableError
from tests.patience import pause
from tests.pieces import fetch, is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20.0


class Server:
    """The server of a program."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid

    def cache(self, **options: Any) -> Cache:
        return Cache(self.url, **{"on_error": "raise", "trip_timeout": PATIENCE, **options})

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Nobody is answered until another greenlet lets it go on, or the block ends."""
        pause(self.pid)
        try:
            yield
        finally:
            self.go_on()


def others_ran() -> tuple[list[str], gevent.Greenlet]:
    """A list that has something in it as soon as this greenlet has given way to another."""
    ran: list[str] = []
    return ran, gevent.spawn(ran.append, "ran")


def wait_until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.001)


def others_run_while_one_waits(server: Server) -> None:
    cache = server.cache()
    cache.set_many({"a": 1, "n": 1})

    def enter_and_leave() -> None:
        with cache.preload("a", "b"):
            cache.set("b", 2)

    for call in (
        lambda: cache["a"],
        lambda: cache.get_many(["a", "b"]),
        lambda: cache.set("a", 2),
        lambda: cache.add("c", 3),
        lambda: cache.incr("n"),
        lambda: cache.touch("a", 60),
        lambda: cache.delete("a"),
        enter_and_leave,
    ):
        with server.stopped():
            # Runs when this greenlet gives way, and never if its thread is held up.
            waker = gevent.spawn(server.go_on)
            call()
        waker.get()
    assert cache["n"] == 2
    assert cache["b"] == 2


def each_gets_its_own_answers(server: Server) -> None:
    cache = server.cache()
    most = gevent.get_hub().threadpool.maxsize

    def work(number: int) -> None:
        keys = [f"{number}:{turn}" for turn in range(10)]
        for turn, key in enumerate(keys):
            cache.set(key, [number, turn])
            with cache.preload(keys):
                assert cache[key] == [number, turn]
                cache.set(key, (number, turn))
                assert cache[key] == (number, turn)
            assert cache.get_many(keys)[key] == (number, turn)

    gevent.joinall([gevent.spawn(work, number) for number in range(3 * most)], raise_error=True)
    assert cache.stats().errors == cache.stats().bad_entries == 0


def only_trips_give_way(server: Server) -> None:
    cache = server.cache()
    cache.set("a", 1)
    with cache.preload("a"):
        ran, other = others_ran()
        for _ in range(10):
            assert cache["a"] == 1
            assert fetch(cache, "a") == "a" or ran
            ran.clear()
        for _ in range(10):
            assert is_held(cache, "a")
        assert not ran
        cache.set("b", 2)
    other.get()
    ran, other = others_ran()
    for local in (Cache("memory://"), Cache(os.environ["DISK_URL"])):
        local.set("a", 1)
        with local.preload("a"):
            assert local["a"] == 1
        assert local.incr("a") == 2
    assert not ran
    other.get()


class Barrier:
    """Lets nobody go on before so many have come."""

    def __init__(self, parties: int) -> None:
        self.missing, self.complete = parties, Event()

    def wait(self) -> None:
        self.missing -= 1
        if self.missing == 0:
            self.complete.set()
        assert self.complete.wait(PATIENCE)


def scopes_do_not_leak(server: Server) -> None:
    cache, outside = server.cache(), server.cache()
    count = 5
    wrote, checked = Barrier(count + 1), Barrier(count + 1)

    def page(number: int) -> None:
        with cache.scope():
            fetch(cache, number)
            # Now each of them holds its own.
            wrote.wait()
            assert is_held(cache, number)
            assert not is_held(cache, (number + 1) % count)
            # A greenlet that it starts begins outside, as a thread does; it may be taken along.
            assert not gevent.spawn(is_held, cache, number).get()
            taken = contextvars.copy_context()
            assert gevent.spawn(taken.run, is_held, cache, number).get()
            checked.wait()
        assert not is_held(cache, number)

    pages = [gevent.spawn(page, number) for number in range(count)]
    wrote.wait()
    # This greenlet is in none of the scopes.
    assert not any(is_held(cache, number) for number in range(count))
    checked.wait()
    gevent.joinall(pages, raise_error=True)
    assert len(outside.get_many(f"piece:{number}" for number in range(count))) == count


class Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def failures_are_raised_where_they_belong(server: Server) -> None:
    closed = "redis://127.0.0.1:1"
    strict, lenient = Cache(closed, on_error="raise"), Cache(closed)
    log = Log()
    logging.getLogger("onetrip").addHandler(log)

    def ask() -> None:
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
            strict.get("a")

    gevent.joinall([gevent.spawn(ask) for _ in range(20)], raise_error=True)
    assert lenient.get("a", "miss") == "miss"
    while lenient.stats().errors < 5:
        lenient.set("a", 1)
    assert any("is not asked for" in message for message in log.messages)
    # The breaker is open: what it answers is there at once.
    ran, other = others_ran()
    assert lenient.get("a", "miss") == "miss"
    assert not ran
    other.get()
    # They are nobody else's failures.
    assert server.cache().get("a") is None


def one_that_stops_waiting_leaves_no_answer_behind(server: Server) -> None:
    cache, pool = server.cache(), gevent.get_hub().threadpool
    names = {name: name.upper() * 10 for name in "abcdef"}
    cache.set_many(names)
    for _ in range(5):
        with server.stopped():
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
                cache.get("a")
            with gevent.Timeout(0.001, False):
                cache.preload("b", "c").__enter__()
            killed = [gevent.spawn(cache.get, name) for name in "defabcdefabc"]
            wait_until(lambda: len(pool) >= pool.maxsize)
            gevent.killall(killed, timeout=PATIENCE)
            assert all(isinstance(one.value, gevent.GreenletExit) for one in killed)
            # Also those that are still under way.
            asked = {name: gevent.spawn(cache.get, name) for name in names}
        assert {name: one.get() for name, one in asked.items()} == names
        with cache.preload(names), cache.watch() as seen:
            assert {name: cache[name] for name in names} == names
        assert seen.trips == 0


def a_delete_that_is_not_waited_for_is_delivered(server: Server) -> None:
    cache = server.cache()
    cache.set("a", 1)
    with server.stopped():
        deleting = gevent.spawn(cache.delete, "a")
        wait_until(lambda: len(gevent.get_hub().threadpool) == 1)
        deleting.kill(timeout=PATIENCE)
    wait_until(lambda: "a" not in cache)


def the_hub_and_native_threads_wait_themselves(server: Server) -> None:
    cache, hub = server.cache(), gevent.get_hub()
    cache.set("a", 1)
    found: list[Any] = []
    hub.loop.run_callback(lambda: found.append(cache["a"]))
    wait_until(lambda: found)
    assert found == [1]

    def in_a_thread() -> tuple[Any, object]:
        return cache["a"], get_hub_if_exists()

    assert hub.threadpool.apply(in_a_thread) == (1, None)


class GivesWay:
    """Unpickled, it lets others run."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        gevent.sleep(0)
        self.__dict__.update(state)


def values_may_give_way_while_they_are_read(server: Server) -> None:
    # As the module that others import, not as the program that runs.
    value = sys.modules["__main__"].GivesWay()
    value.number = 5
    assert pickle.loads(pickle.dumps(value)).number == 5
    cache = server.cache(serializer="pickle", secret="s" * 32)
    cache.set_many({"a": value, "b": value})

    def read() -> None:
        for _ in range(20):
            assert cache["a"].number == cache["b"].number == 5

    with cache.preload("a", "b"):
        gevent.joinall([gevent.spawn(read) for _ in range(5)], raise_error=True)
    gevent.joinall([gevent.spawn(read) for _ in range(5)], raise_error=True)


def forked_children_go_on(server: Server) -> None:
    cache = server.cache()
    cache.set("a", 1)

    def keep_reading() -> None:
        while not done:
            assert cache["a"] == 1

    done: list[bool] = []
    reader = gevent.spawn(keep_reading)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            right = [gevent.spawn(cache.get, "a").get() for _ in range(5)] == [1] * 5
            os._exit(0 if right else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert cache["a"] == 1
    done.append(True)
    reader.get()


def a_miss_is_computed_once(server: Server) -> None:
    """Fifty greenlets, more than the hub has threads to block in."""
    for cache in (server.cache(), Cache("memory://")):
        calls: list[str] = []

        def compute(calls: list[str] = calls) -> str:
            calls.append("computed")
            gevent.sleep(0.2)
            return "value"

        name = f"once:{os.urandom(8).hex()}"
        together = [gevent.spawn(cache.get_or_set, name, compute) for _ in range(50)]
        gevent.joinall(together, raise_error=True)
        assert [greenlet.value for greenlet in together] == ["value"] * 50
        assert calls == ["computed"]


def a_killed_owner_hands_over(server: Server) -> None:
    cache = server.cache()
    calls: list[str] = []

    def compute() -> str:
        calls.append("computed")
        if len(calls) == 1:
            gevent.sleep(PATIENCE)
        return "value"

    name = f"killed:{os.urandom(8).hex()}"
    owner = gevent.spawn(cache.get_or_set, name, compute)
    wait_until(lambda: calls)
    waiter = gevent.spawn(cache.get_or_set, name, compute)
    gevent.sleep(0.05)
    owner.kill()
    with gevent.Timeout(0.9):
        assert waiter.get() == "value"
    assert len(calls) == 2


def a_circle_is_computed(server: Server) -> None:
    cache = server.cache()
    own = os.urandom(8).hex()
    here = Barrier(2)

    def compute(key: str, other: str) -> str:
        here.wait()
        return key + str(cache.get_or_set(other, "nobody's"))

    keys = [f"circle:{own}:{end}" for end in "ab"]
    with gevent.Timeout(0.9):
        greenlets = [
            gevent.spawn(cache.get_or_set, key, lambda key=key, other=other: compute(key, other))
            for key, other in (keys, keys[::-1])
        ]
        gevent.joinall(greenlets, raise_error=True)
    assert [greenlet.value for greenlet in greenlets] == [cache[key] for key in keys]


if __name__ == "__main__":
    # A program that hangs is one that fails.
    signal.alarm(120)
    globals()[sys.argv[1]](Server(sys.argv[2], int(sys.argv[3])))
