"""A scope for each request."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured

from onetrip.django.page import configured
from onetrip.django.streams import AsyncStream, Stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["PageMiddleware"]


class PageMiddleware:
    """One scope for each request, on every cache of onetrip in CACHES.

    What a page reads twice is asked for once, and all that it writes leaves in one trip when it is
    done. Put it first in MIDDLEWARE, so that what other middleware reads and writes is of the page
    too. A streamed response is part of its page until its end.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        if not configured():
            msg = (
                "PageMiddleware finds no cache of onetrip; give an alias in CACHES "
                '"BACKEND": "onetrip.django.Cache" (its LOCATION may be "memory://"), '
                "or take the middleware out of MIDDLEWARE"
            )
            raise ImproperlyConfigured(msg)
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer a request within its scope."""
        return self._awaited(request) if self._is_async else self._answered(request)

    def _answered(self, request: HttpRequest) -> HttpResponseBase:
        before = copy_context()
        with ExitStack() as scopes:
            for cache in configured():
                scopes.enter_context(cache.scope())
            response: HttpResponseBase = self._get_response(request)
            if _is_made_while_sent(response):
                _stream(response, before, scopes.pop_all().close)
        return response

    async def _awaited(self, request: HttpRequest) -> HttpResponseBase:
        before = copy_context()
        async with AsyncExitStack() as scopes:
            opened = [cache.scope() for cache in configured()]
            for scope in opened:
                await scopes.enter_async_context(scope)
            response: HttpResponseBase = await self._get_response(request)
            if not _is_made_while_sent(response):
                return response
            kept = scopes.pop_all()

            def close() -> None:
                for scope in reversed(opened):
                    scope.__exit__(None, None, None)

            if getattr(response, "is_async", False):
                _stream(response, before, close, kept.aclose)
            else:
                _stream(response, before, close)
        return response


def _is_made_while_sent(response: HttpResponseBase) -> bool:
    # A file that the server may send by itself reads no cache, and is to stay that file.
    return response.streaming and getattr(response, "file_to_stream", None) is None


def _stream(
    response: Any,
    before: Context,
    close: Callable[[], None],
    aclose: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Let the scopes that are open here go on within a response, and nowhere else."""
    page = copy_context()
    for variable in page:
        # Those of other libraries keep what the view left in them.
        if variable.name == "onetrip":
            variable.set(before.get(variable))
    content = response.streaming_content
    response.streaming_content = (
        Stream(content, page, close)
        if aclose is None
        else AsyncStream(content, page, aclose, close)
    )
