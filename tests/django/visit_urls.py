"""Pages that name themselves, by a scope's middleware alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from django.core.cache import cache
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path, register_converter
from django.urls.converters import StringConverter

from onetrip.django import cache_of

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Iterator

    from django.http import HttpRequest

#: Two requests meet here, if a test says so.
meeting: list[threading.Barrier] = []


def piece(key: str) -> Any:
    """A piece of a page, which computes nothing here."""
    return cache_of("default")._piece_get(f":1:{key}", "none")


async def apiece(key: str) -> Any:
    return await cache_of("default")._apiece_get(f":1:{key}", "none")


def keys(note_id: object) -> list[str]:
    return ["title", f"note:{note_id}", f"comments:{note_id}"]


def note(request: HttpRequest, note_id: int) -> HttpResponse:
    found = []
    for key in keys(note_id):
        found.append(piece(key))
        for barrier in meeting:
            barrier.wait(60)
    return HttpResponse(" ".join(found))


async def anote(request: HttpRequest, note_id: int) -> HttpResponse:
    return HttpResponse(" ".join([await apiece(key) for key in keys(note_id)]))


def stream(request: HttpRequest, note_id: int) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for key in keys(note_id):
            yield piece(key)
            if "fail" in request.GET:
                raise LookupError("of the stream")

    return StreamingHttpResponse(lines())


async def astream(request: HttpRequest, note_id: int) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for key in keys(note_id):
            yield await apiece(key)
            if "fail" in request.GET:
                raise LookupError("of the stream")

    return StreamingHttpResponse(lines())


async def waiting(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        yield await apiece("title")
        await asyncio.Event().wait()

    return StreamingHttpResponse(lines())


def status(request: HttpRequest, code: int) -> HttpResponse:
    piece("title")
    return HttpResponse(status=code)


def raises(request: HttpRequest) -> HttpResponse:
    piece("title")
    raise LookupError("of the view")


async def araises(request: HttpRequest) -> HttpResponse:
    await apiece("title")
    raise LookupError("of the view")


def listed(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """A list, whose page depends on the query, and parts on who asks."""
    piece("title")
    piece(f"list:{request.GET.get('page', '1')}")
    piece(f"greeting:{request.headers.get('X-User', 'nobody')}")
    for key in (*args, *kwargs.values()):
        if isinstance(key, str):
            piece(f"argument:{key}")
    return HttpResponse()


class Asked:
    """What a URLconf may hand to its view: its text is a question to a database."""

    def __str__(self) -> str:
        raise AssertionError("nobody wants to know")


class AskedConverter(StringConverter):
    """Makes such an object of what stands in a URL."""

    def to_python(self, value: str) -> Any:
        return Asked() if value else None


register_converter(AskedConverter, "asked")


def facets(request: HttpRequest) -> dict[str, object]:
    return {"user": request.headers.get("X-User", "nobody")}


async def afacets(request: HttpRequest) -> dict[str, object]:
    return facets(request)


def twice(request: HttpRequest) -> dict[str, object]:
    return {"note_id": "facet", "by": "facet"}


async def _session() -> dict[str, object]:
    return {"user": await cache.aget("session")}


def of_session(request: HttpRequest) -> object:
    """Asks the cache: something to await in an asynchronous stack alone."""
    return _session() if hasattr(request, "scope") else {"user": cache.get("session")}


def no_facets(request: HttpRequest) -> list[str]:
    return ["user"]


def is_bot(request: HttpRequest) -> bool:
    return "X-Bot" in request.headers


inner = ([path("<int:note_id>/", note, name="note")], "inner")

urlpatterns = [
    path("note/<int:note_id>/", note, name="note"),
    path("anote/<int:note_id>/", anote, name="anote"),
    path("stream/<int:note_id>/", stream, name="stream"),
    path("astream/<int:note_id>/", astream, name="astream"),
    path("waiting/", waiting, name="waiting"),
    path("inner/", include(inner, namespace="one")),
    path("unnamed/<int:note_id>/", note),
    path("status/<int:code>/", status, name="status"),
    path("raises/", raises, name="raises"),
    path("araises/", araises, name="araises"),
    path("list/", listed, {"sort": "new", "queryset": Asked()}, name="list"),
    path("made/<asked:made>/", listed, name="made"),
    re_path(r"^positions/([a-z]+)/([a-z]+)/$", listed, name="positions"),
]
