"""A FastAPI application with a cache, and with a scope for each request or without."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from onetrip import Cache
from onetrip.asgi import PageMiddleware
from tests.rows.programs import apages, pages
from tests.rows.programs.meeting import Ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

application = FastAPI()
cache = Cache(os.environ["ROWS_STORE"], prefix="rows", on_error="raise", trip_timeout=20)
if os.environ["ROWS_KIND"] == "onetrip":
    application.add_middleware(PageMiddleware, cache=cache)


@cache.cached(timeout=300, key="remembered")
async def remembered() -> str:
    return await asyncio.to_thread(Ask.source)


@cache.cached(timeout=1, key="cached_clock")
async def cached_clock() -> float:
    return time.monotonic()


async def remember_cached(_: Cache, ask: Ask) -> object:
    value = await remembered()
    await apages.meet(ask)
    return value


async def forget_cached(_: Cache, ask: Ask) -> object:
    return await remembered.bust()


async def clock_cached(_: Cache, ask: Ask) -> AsyncIterator[str]:
    for number in range(ask.number("ticks", 1)):
        if number:
            await asyncio.sleep(0.5)
        yield f"data: {await cached_clock()}\n"


def page_view(page: apages.Page) -> Callable[[Request], Awaitable[PlainTextResponse]]:
    async def view(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(await page(cache, Ask(request.query_params))))

    return view


def stream_view(stream: apages.Stream) -> Callable[[Request], Awaitable[StreamingResponse]]:
    async def view(request: Request) -> StreamingResponse:
        made = stream(cache, Ask(request.query_params))
        return StreamingResponse(made, media_type="text/event-stream")

    return view


async def do(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await asyncio.to_thread(pages.do, cache, await request.body()))


for _page in (*apages.PAGES.values(), remember_cached, forget_cached):
    application.add_route(f"/{_page.__name__}/", page_view(_page))
for _stream in (*apages.STREAMS.values(), clock_cached):
    application.add_route(f"/{_stream.__name__}/", stream_view(_stream))
application.add_route("/do/", do, methods=["POST"])
