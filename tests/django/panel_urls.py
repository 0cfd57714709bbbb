"""Pages under Django Debug Toolbar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.cache import cache
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import include, path

from onetrip.django import cache_of, fragment_key, preload

if TYPE_CHECKING:
    from django.http import HttpRequest

EMPTY = "<html><body></body></html>"


def notes(request: HttpRequest) -> HttpResponse:
    """Five fragments and two keys, each asked for by itself."""
    title = cache.get("title")
    cache.get_many(iter(["title", "user:5"]))
    if title is None:
        cache.set("title", "<Notes>")
    return render(request, "notes.html", {"notes": range(5)})


def preloaded(request: HttpRequest) -> HttpResponse:
    """The same, asked for at once."""
    with preload(
        "title", "user:5", fragment_key("footer"), [fragment_key("note", n) for n in range(5)]
    ):
        return notes(request)


async def anotes(request: HttpRequest) -> HttpResponse:
    await cache.aget("title", "none")
    await cache.aget_or_set("user:5", lambda: "Ada")
    await cache.ahas_key("user:5")
    return HttpResponse(EMPTY)


def function(request: HttpRequest) -> HttpResponse:
    """Asks by a cached function."""

    @cache_of().cached(key="five")
    def five() -> str:
        return "5"

    return HttpResponse(EMPTY + five() + five())


def note(request: HttpRequest, note_id: int) -> HttpResponse:
    """Reads one key less where the query says so."""
    keys = ["title", f"note:{note_id}", "<footer>"]
    wanted = keys[: 2 if request.GET else 3]
    return HttpResponse([EMPTY, *(cache_of()._piece_get(f":1:{key}", "") for key in wanted)])


def idle(request: HttpRequest) -> HttpResponse:
    return HttpResponse(EMPTY)


urlpatterns = [
    path("notes/", notes),
    path("preloaded/", preloaded),
    path("anotes/", anotes),
    path("idle/", idle),
    path("note/<int:note_id>/", note, name="note"),
    path("function/", function),
    path("__debug__/", include("debug_toolbar.urls")),
]
