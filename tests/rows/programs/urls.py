"""The URLs of the Django site: the rows of every framework, and those that Django alone has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.cache import cache
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from tests.rows.programs import apages, pages, views
from tests.rows.programs.meeting import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from django.http import HttpRequest


def page_view(page: pages.Page) -> Callable[[HttpRequest], HttpResponse]:
    return lambda request: HttpResponse(str(page(cache, Ask(request.GET.dict()))))


def stream_view(stream: pages.Stream) -> Callable[[HttpRequest], StreamingHttpResponse]:
    return lambda request: StreamingHttpResponse(
        stream(cache, Ask(request.GET.dict())), content_type="text/event-stream"
    )


def apage_view(page: apages.Page) -> Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(await page(cache, Ask(request.GET.dict()))))

    return view


def astream_view(
    stream: apages.Stream,
) -> Callable[[HttpRequest], Coroutine[Any, Any, StreamingHttpResponse]]:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(
            stream(cache, Ask(request.GET.dict())), content_type="text/event-stream"
        )

    return view


def do(request: HttpRequest) -> HttpResponse:
    return HttpResponse(pages.do(cache, request.body))


urlpatterns = [
    *(path(f"{name}/", page_view(page), name=name) for name, page in pages.PAGES.items()),
    *(path(f"{name}/", stream_view(made), name=name) for name, made in pages.STREAMS.items()),
    *(path(f"a/{name}/", apage_view(page), name=f"a{name}") for name, page in apages.PAGES.items()),
    *(
        path(f"a/{name}/", astream_view(made), name=f"a{name}")
        for name, made in apages.STREAMS.items()
    ),
    path("do/", do),
    path("guess/", views.Guess.as_view(), name="guess"),
    *(path(f"{view.__name__}/", view, name=view.__name__) for view in views.VIEWS),
]
