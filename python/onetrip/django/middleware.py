"""Opens a scope for each request and names its page."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured

from onetrip._visit import is_safe
from onetrip.django import transactions
from onetrip.django.page import configured
from onetrip.django.streams import AsyncStream, Stream
from onetrip.django.visits import Naming, Visit, visit_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from onetrip import Scope

__all__ = ["PageMiddleware"]


class PageMiddleware:
    """Opens a scope for each request, on every onetrip cache in CACHES.

    Each piece is fetched once per page, and results are stored without waiting. Put it first in
    MIDDLEWARE, so that reads of other middleware are part of the page. A streamed response is part
    of its page until its end.

    Pages are named by route and view arguments. They learn what visits read, and ask for all of it
    in their first trip.

    Raises ImproperlyConfigured if CACHES has no onetrip cache.
    """

    sync_capable = True
    async_capable = True

    #: Called by Django before the view. A coroutine function in an asynchronous stack, since Django
    #: calls others in a thread there.
    process_view: Callable[..., Any]

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        if not configured():
            msg = (
                "PageMiddleware finds no onetrip cache; give an alias in CACHES "
                '"BACKEND": "onetrip.django.Cache" (its LOCATION may be "memory://"), '
                "or remove the middleware from MIDDLEWARE"
            )
            raise ImproperlyConfigured(msg)
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self._naming = Naming()
        transactions.observe()
        self.process_view = self._aname if self._is_async else self._name

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answers a request within its scope."""
        return self._awaited(request) if self._is_async else self._answered(request)

    def _name(self, request: HttpRequest, _view: object, args: Any, kwargs: Any) -> None:
        self._naming.name(request, args, kwargs)

    async def _aname(self, request: HttpRequest, _view: object, args: Any, kwargs: Any) -> None:
        await self._naming.aname(request, args, kwargs)

    def process_exception(self, request: HttpRequest, _error: Exception) -> None:
        """Learns nothing from a view that raises, even if a handler answers normally."""
        visit = visit_of(request)
        if visit is not None:
            visit.fail()

    def _answered(self, request: HttpRequest) -> HttpResponseBase:
        before = copy_context()
        with ExitStack() as scopes:
            visit = Visit([scopes.enter_context(scope) for scope in _scopes(request)])
            scopes.callback(visit.end)
            with visit.by(request), transactions.reading(is_safe(request.method)):
                response: HttpResponseBase = self._get_response(request)
            visit.note(response)
            if _is_made_while_sent(response):
                _stream(response, before, visit, scopes.pop_all().close)
        return response

    async def _awaited(self, request: HttpRequest) -> HttpResponseBase:
        before = copy_context()
        async with AsyncExitStack() as scopes:
            opened = _scopes(request)
            for scope in opened:
                await scopes.enter_async_context(scope)
            visit = Visit(opened)
            scopes.callback(visit.end)
            with visit.by(request), transactions.reading(is_safe(request.method)):
                response: HttpResponseBase = await self._get_response(request)
            visit.note(response)
            if not _is_made_while_sent(response):
                return response
            kept = scopes.pop_all()

            def close() -> None:
                visit.end()
                for scope in reversed(opened):
                    scope.__exit__(None, None, None)

            if getattr(response, "is_async", False):
                _stream(response, before, visit, close, kept.aclose)
            else:
                _stream(response, before, visit, close)
        return response


def _scopes(request: HttpRequest) -> list[Scope]:
    safe = is_safe(request.method)
    return [cache._request_scope(safe) for cache in configured()]  # noqa: SLF001 - of this package


def _is_made_while_sent(response: HttpResponseBase) -> bool:
    # The server sends files itself: they read no cache and must not be wrapped.
    return response.streaming and getattr(response, "file_to_stream", None) is None


def _stream(
    response: Any,
    before: Context,
    visit: Visit,
    close: Callable[[], None],
    aclose: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Moves the open scopes from here into the streamed response."""
    visit.begin_sending()
    page = copy_context()
    for variable in page:
        # Variables of other libraries keep the values that the view left.
        if variable.name == "onetrip":
            variable.set(before.get(variable))
    content = response.streaming_content
    response.streaming_content = (
        Stream(content, page, visit.fail, close)
        if aclose is None
        else AsyncStream(content, page, visit.fail, aclose, close)
    )
