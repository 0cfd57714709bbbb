"""The programs of the rows, for any cache that speaks as Django's do.

Each is an ordinary program, right without a scope: a page is a function of the cache and of what
it was asked, a stream one that yields. A framework serves them by their names.
"""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rows.programs.meeting import Ask

    Page = Callable[[Any, Ask], object]
    Stream = Callable[[Any, Ask], Iterator[str]]

# Seconds after which a page gives up what it waits for.
ENOUGH = 3.0


def freshen(cache: Any, ask: Ask) -> None:
    """Say that there was news, if this visit is to say so and the cache can be told."""
    if ask.text("fresh") and hasattr(cache, "fresh"):
        cache.fresh()


def count(cache: Any, ask: Ask) -> int:
    """Read, add one and write, under a lock."""
    number: int = cache.get("number", 0)
    for _ in range(ask.number("times", 1)):
        while not cache.add("lock", 1, 60):
            time.sleep(0.005)
        number = cache.get("number", 0) + 1
        time.sleep(0.001)
        cache.set("number", number, 300)
        cache.delete("lock")
    return number


def job(cache: Any, ask: Ask) -> object:
    """Write down a job for another process, and wait until that has it."""
    cache.get("job")
    cache.set("job", "what is to do", 300)
    ask.meet()
    return cache.get("job")


def pending(cache: Any, ask: Ask) -> object:
    """Wait until a status is no longer pending."""
    deadline = time.monotonic() + ENOUGH
    polls = 0
    while (status := cache.get("status")) == "pending":
        if polls == 0:
            ask.meet()
        if time.monotonic() > deadline:
            return "gave up"
        polls += 1
        time.sleep(0.01)
    return status


def first(cache: Any, ask: Ask) -> object:
    """Write, while another may write after it."""
    cache.get("winner")
    cache.set("winner", "first", 300)
    ask.meet()
    return "written"


def publish(cache: Any, ask: Ask) -> int:
    """Write the data of the next version, then tell that it is there."""
    version: int = cache.get("version")
    cache.set(f"data:{version + 1}", f"data of {version + 1}", 300)
    version = cache.incr("version")
    ask.meet()
    return version


def ahead(cache: Any, ask: Ask) -> str:
    """Look whether the next version's data is there already; then wait for that version."""
    deadline = time.monotonic() + ENOUGH
    version: int = cache.get("version")
    found = cache.get(f"data:{version}")
    cache.get(f"data:{version + 1}")
    ask.meet()
    if ask.text("wait"):
        while cache.get("version") == version:
            if time.monotonic() > deadline:
                return "gave up"
            time.sleep(0.005)
        found = cache.get(f"data:{version + 1}")
    return str(found)


def remember(cache: Any, ask: Ask) -> object:
    """Read from the cache, or else from the database, and remember that."""
    value = cache.get("value")
    if value is None:
        value = ask.source()
        cache.set("value", value, 300)
    ask.meet()
    return value


def remember_once(cache: Any, ask: Ask) -> object:
    """The same in one call."""
    value = cache.get_or_set("value", ask.source, 300)
    ask.meet()
    return value


def door(cache: Any, ask: Ask) -> str:
    """Say that I am there, then look whether you are."""
    me, you = f"at:{ask.text('me')}", f"at:{ask.text('you')}"
    cache.get(you)
    cache.set(me, 1, 60)
    ask.meet()
    seen = cache.get(you)
    ask.meet()
    if ask.text("leave") == "delete":
        cache.delete(me)
    else:
        cache.set(me, 0, 60)
    return "saw you" if seen else "alone"


def done(cache: Any, ask: Ask) -> object:
    """Do what is to be done once; where another did it, take its result."""
    cache.get("result")
    ask.meet()
    if cache.add("done", 1, 60):
        cache.set("result", "mine", 300)
        return "mine"
    return cache.get("result")


def task(cache: Any, ask: Ask) -> object:
    """Take the result, or else have it made by another process, and take it then."""
    key = ask.text("key")
    result = cache.get(key)
    if result in (None, "out of date"):
        ask.meet()
        freshen(cache, ask)
        result = cache.get(key)
    return result


def listen(cache: Any, ask: Ask) -> str:
    """Read the news at each of two messages."""
    heard = []
    for _ in range(2):
        ask.meet()
        freshen(cache, ask)
        heard.append(cache.get(ask.text("key")))
    return json.dumps(heard)


def thread(cache: Any, ask: Ask) -> str:
    """Have a thread that knows nothing of the request write a stamp."""
    before = cache.get("stamp")
    with ThreadPoolExecutor(1) as pool:
        if not ask.text("quiet"):
            pool.submit(Context().run, cache.set, "stamp", "after", 300).result()
    return f"{before} {cache.get('stamp')}"


def token(cache: Any, ask: Ask) -> object:
    """Agree on one token with whoever else makes one."""
    if ask.text("look"):
        cache.get("token")
        ask.meet()
        return cache.get_or_set("token", lambda: uuid.uuid4().hex, 300)

    def make() -> str:
        ask.meet()
        return uuid.uuid4().hex

    return cache.get_or_set("token", make, 300)


def events(cache: Any, ask: Ask) -> Iterator[str]:
    """Tell the news as they come; meanwhile others see that somebody listens."""
    for number in range(10):
        ask.meet()
        cache.set("presence", number, 60)
        yield f"data: {cache.get('news')}\n"


def clock(cache: Any, ask: Ask) -> Iterator[str]:
    """Tell twice a second when a piece was made that lives for one."""
    for number in range(ask.number("ticks", 1)):
        if number:
            time.sleep(0.5)
        yield f"data: {cache.get_or_set('clock', time.monotonic, 1)}\n"


PAGES: dict[str, Page] = {
    page.__name__: page
    for page in (
        *(count, job, pending, first, publish, ahead, remember, remember_once, door, done),
        *(task, listen, thread, token),
    )
}
STREAMS: dict[str, Stream] = {stream.__name__: stream for stream in (events, clock)}


def do(cache: Any, body: bytes) -> str:
    """What the test does elsewhere: one call, told and answered as JSON."""
    name, arguments, options = json.loads(body)
    return json.dumps(getattr(cache, name)(*arguments, **options), default=str)
