"""The programs of `pages.py` where they are asynchronous: the rows that such a program has."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

from tests.rows.programs.pages import ENOUGH, freshen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.rows.programs.meeting import Ask

    Page = Callable[[Any, Ask], Awaitable[object]]
    Stream = Callable[[Any, Ask], AsyncIterator[str]]


async def meet(ask: Ask) -> None:
    await asyncio.to_thread(ask.meet)


async def count(cache: Any, ask: Ask) -> int:
    number: int = await cache.aget("number", 0)
    for _ in range(ask.number("times", 1)):
        while not await cache.aadd("lock", 1, 60):  # noqa: ASYNC110 - the lock is elsewhere
            await asyncio.sleep(0.005)
        number = await cache.aget("number", 0) + 1
        await asyncio.sleep(0.001)
        await cache.aset("number", number, 300)
        await cache.adelete("lock")
    return number


async def job(cache: Any, ask: Ask) -> object:
    await cache.aget("job")
    await cache.aset("job", "what is to do", 300)
    await meet(ask)
    return await cache.aget("job")


async def pending(cache: Any, ask: Ask) -> object:
    deadline = time.monotonic() + ENOUGH
    polls = 0
    while (status := await cache.aget("status")) == "pending":
        if polls == 0:
            await meet(ask)
        if time.monotonic() > deadline:
            return "gave up"
        polls += 1
        await asyncio.sleep(0.01)
    return status


async def first(cache: Any, ask: Ask) -> object:
    await cache.aget("winner")
    await cache.aset("winner", "first", 300)
    await meet(ask)
    return "written"


async def publish(cache: Any, ask: Ask) -> int:
    version: int = await cache.aget("version")
    await cache.aset(f"data:{version + 1}", f"data of {version + 1}", 300)
    version = await cache.aincr("version")
    await meet(ask)
    return version


async def task(cache: Any, ask: Ask) -> object:
    key = ask.text("key")
    result = await cache.aget(key)
    if result in (None, "out of date"):
        await meet(ask)
        freshen(cache, ask)
        result = await cache.aget(key)
    return result


async def remember(cache: Any, ask: Ask) -> object:
    value = await cache.aget("value")
    if value is None:
        value = await asyncio.to_thread(ask.source)
        await cache.aset("value", value, 300)
    await meet(ask)
    return value


async def token(cache: Any, ask: Ask) -> object:
    async def make() -> str:
        await meet(ask)
        return uuid.uuid4().hex

    if ask.text("look"):
        await cache.aget("token")
        await meet(ask)
        return await cache.aget_or_set("token", lambda: uuid.uuid4().hex, 300)
    return await cache.aget_or_set("token", make, 300)


async def events(cache: Any, ask: Ask) -> AsyncIterator[str]:
    for number in range(10):
        await meet(ask)
        await cache.aset("presence", number, 60)
        yield f"data: {await cache.aget('news')}\n"


async def clock(cache: Any, ask: Ask) -> AsyncIterator[str]:
    for number in range(ask.number("ticks", 1)):
        if number:
            await asyncio.sleep(0.5)
        yield f"data: {await cache.aget_or_set('clock', time.monotonic, 1)}\n"


PAGES: dict[str, Page] = {
    page.__name__: page for page in (count, job, pending, first, publish, task, remember, token)
}
STREAMS: dict[str, Stream] = {stream.__name__: stream for stream in (events, clock)}
