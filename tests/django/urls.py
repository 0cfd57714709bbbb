"""The pages of the tests: each fetches and writes in the default cache."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from django.core.cache import cache
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils import translation

from onetrip.django import cache_of, fragment_key, preload
from tests import pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django.http import HttpRequest

# What outlives its request, for a test to await.
outliving: list[asyncio.Task[object]] = []


def fetch(name: str) -> object:
    """A piece that is its own name."""
    return pieces.fetch(cache_of("default"), name)


async def afetch(name: str) -> object:
    return await pieces.afetch(cache_of("default"), name)


def twice(request: HttpRequest) -> HttpResponse:
    """Fetches what is there twice, and writes and reads plainly."""
    first, second = fetch("there"), fetch("there")
    cache.set("written", 7)
    return HttpResponse(f"{first} {second} {cache.get('written')}")


async def atwice(request: HttpRequest) -> HttpResponse:
    first, second = await afetch("there"), await afetch("there")
    await cache.aset("written", 7)
    return HttpResponse(f"{first} {second} {await cache.aget('written')}")


def raises(request: HttpRequest) -> HttpResponse:
    cache.set("written", 1)
    raise LookupError("of the view")


async def araises(request: HttpRequest) -> HttpResponse:
    await cache.aset("written", 1)
    raise LookupError("of the view")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    there = fetch("there")

    def lines() -> Iterator[str]:
        for number in range(3):
            cache.set(f"streamed-{number}", number)
            yield f"{there} {fetch('there')} {cache.get('streamed-0')}\n"

    return StreamingHttpResponse(lines())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    there = await afetch("there")

    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            await cache.aset(f"streamed-{number}", number)
            await asyncio.sleep(0)
            yield f"{there} {await afetch('there')} {await cache.aget('streamed-0')}\n"

    return StreamingHttpResponse(lines())


async def cleaning_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Writes when it is cancelled."""

    async def lines() -> AsyncIterator[str]:
        yield "begun"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await cache.aset("cleaned", 1)
            raise

    return StreamingHttpResponse(lines())


async def mixed_stream(request: HttpRequest) -> StreamingHttpResponse:
    """An asynchronous view whose iterator is synchronous."""
    return stream(request)


def broken_stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        cache.set("streamed", 1)
        yield "a"
        raise LookupError("of the stream")

    return StreamingHttpResponse(lines())


def file(request: HttpRequest) -> FileResponse:
    cache.set("written", 1)
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 - Django closes it


def page(request: HttpRequest) -> HttpResponse:
    note = {"id": 5, "text": "Hello"}
    keys = fragment_key("note", 5), fragment_key("footer")
    with preload(keys, "there"):
        return render(request, "page.html", {"note": note})


async def outlives(request: HttpRequest) -> HttpResponse:
    """Starts a task that goes on when the request has ended."""
    await afetch("there")
    ended = asyncio.Event()

    async def work() -> object:
        await ended.wait()
        await cache.aset("late", 1)
        return await afetch("there")

    outliving.append(asyncio.create_task(work()))
    response = HttpResponse()
    response._resource_closers.append(ended.set)  # type: ignore[attr-defined] # called at the end
    return response


def speaks(request: HttpRequest) -> HttpResponse:
    """Leaves something in the context, as views do, for what is around them."""
    translation.activate("de")
    return StreamingHttpResponse(iter(["Hallo"]))  # type: ignore[return-value] # a response all the same


urlpatterns = [
    path(f"{view.__name__}/", view)
    for view in (
        twice,
        atwice,
        raises,
        araises,
        stream,
        astream,
        mixed_stream,
        cleaning_stream,
        broken_stream,
        page,
        outlives,
        speaks,
    )
]
