"""Opens a scope for each request of an ASGI application: FastAPI, Starlette, Quart and others.

    app.add_middleware(PageMiddleware, cache=cache)      # FastAPI and Starlette
    app = PageMiddleware(app, cache)                     # any

Within a request, each piece is fetched once and results are stored without waiting. Plain reads and
writes are exact. Tasks and threads started by the request share its scope. Work that outlives the
request asks the store directly.

Background tasks, which run after the response, get a scope of their own. A WebSocket gets none,
since it may be open for hours: use `async with cache.scope()` around each unit of work. When the
application shuts down, idle connections are closed.

Requests of a Starlette or FastAPI application are named by route and path parameters. The cache
learns what such pages read, and brings it in one trip the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

from onetrip._page import Caches, server_timing, several, watches
from onetrip._routes import page_of
from onetrip._visit import (
    Bots,
    Visit,
    checked_bots,
    checked_function,
    checked_name,
    checked_query,
    is_bot,
    is_safe,
    link,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onetrip import Cache, Watch
    from onetrip._core import Scope
    from onetrip._visit import Page

__all__ = ["PageMiddleware"]

_Scope: TypeAlias = MutableMapping[str, Any]
_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

# From this status on, a response is an error.
_ERRORS = 400


class PageMiddleware:
    """Wraps the ASGI application `app`: each request has a scope of `cache`, one or several.

    Pages are named for GET and HEAD requests. Nothing is learned from a response of status 400 or
    more, or from one that raises, is cancelled or cut short.

    `server_timing` (False): True, or a function of the ASGI scope, adds the header
    `Server-Timing: cache;dur=0.4;desc="2 trips, 12 hits"`. Headers precede the body, so for a
    streamed response it covers the time until the body began.

    `name`: a function of the ASGI scope that returns route and arguments,
    `("note_detail", {"note_id": 5})`, or None if the request is for no page. Unset, it is the route
    and the path parameters of Starlette or FastAPI.

    `query`: names of query parameters that are arguments of the page.

    `facets`: a function of the ASGI scope that returns more arguments, such as the tenant.

    `bots`: a pattern of user agents, or a function of the ASGI scope. Bots are served from the
    cache, but their visits teach it nothing.

    Raises ConfigurationError if an argument is wrong.
    """

    def __init__(
        self,
        app: _App,
        cache: Caches | None = None,
        *,
        server_timing: bool | Callable[[_Scope], bool] = False,
        name: Callable[[_Scope], Page | None] | None = None,
        query: Iterable[str] = (),
        facets: Callable[[_Scope], Mapping[str, object]] | None = None,
        bots: Bots | None = None,
    ) -> None:
        self.app = app
        self._caches = several(cache)
        self._timing = server_timing
        self._name = checked_function("name", name, 'lambda scope: ("home", {})')
        self._query = checked_query("query", query)
        self._facets = checked_function("facets", facets, 'lambda scope: {"tenant": "a"}')
        self._bots = checked_bots("bots", bots)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answers a request in its scope. Passes everything else on."""
        if scope["type"] == "http":
            # Naming matches the routes a second time. Skip it if no cache learns.
            learning = any(cache.learns for cache in self._caches)
            named = self._page(scope) if learning and is_safe(scope.get("method")) else None
            learns = named is None or not is_bot(self._bots, _user_agent(scope), scope)
            seen: Sequence[Watch] = ()
            if self._timing(scope) if callable(self._timing) else self._timing:
                scope = {**scope}
                seen = watches(self._caches, scope)
            with ExitStack() as watching:
                for watch in seen:
                    watching.enter_context(watch)
                page = _Page(self._caches, seen, send, safe=is_safe(scope.get("method")))
                await page.make(self.app, scope, receive, named, learns=learns)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self._closing(send))
        else:
            await self.app(scope, receive, send)

    def _page(self, scope: _Scope) -> Page | None:
        page = checked_name(self._name(scope)) if self._name else page_of(self.app, scope)
        if page is None:
            return None
        route, arguments = page
        facets = self._facets(scope) if self._facets else {}
        return route, {**facets, **_declared(self._query, scope), **arguments}

    def _closing(self, send: _Send) -> _Send:
        """Returns a `send` for the lifespan that closes idle connections at shutdown."""

        async def close_and_send(message: _Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                for cache in self._caches:
                    await cache.aclose()
            await send(message)

        return close_and_send


class _Page:
    """A response in progress. The application's task opens and closes its scopes."""

    def __init__(
        self, caches: Sequence[Cache], seen: Sequence[Watch], send: _Send, *, safe: bool
    ) -> None:
        self._caches = caches
        self._is_safe = safe
        self._seen = seen
        self._send_on = send
        self._open = AsyncExitStack()
        # Whether the whole body was sent.
        self._is_sent = False
        self._visit: Visit | None = None
        self._scopes: list[Scope] = []
        self._task = asyncio.current_task()
        # The head, held back while the numbers of `Server-Timing` may still change.
        self._held: _Message | None = None

    async def make(
        self, app: _App, scope: _Scope, receive: _Receive, named: Page | None, *, learns: bool
    ) -> None:
        """Runs `app` for the page `named`, until it ends or the client leaves."""
        await self._enter(
            cache._request_scope(self._is_safe)  # noqa: SLF001 - of this package
            for cache in self._caches
        )
        self._visit = Visit.of(scope)
        for cache, opened in zip(self._caches, self._scopes, strict=True):
            self._visit.open(cache, opened)
        if named is not None:
            self._visit.name(named, learns=learns)
        try:
            await app(scope, receive, self._send)
        except BaseException as error:
            await self._leave(error)
            raise
        if not self._is_sent:
            self._discard()
        await self._leave()

    async def _enter(self, scopes: Iterable[Scope]) -> None:
        for scope in scopes:
            self._scopes.append(await self._open.enter_async_context(scope))
        link(self._scopes)

    def _discard(self) -> None:
        if self._visit is not None:
            self._visit.discard()

    async def _leave(self, error: BaseException | None = None) -> None:
        if self._visit is not None:
            self._visit.close(self._scopes)
            # What follows the page is not part of its visit.
            self._visit = None
        self._scopes = []
        await self._open.pop_all().__aexit__(type(error) if error else None, error, None)

    async def _send(self, message: _Message) -> None:
        self._is_sent = self._is_sent or _is_last(message)
        if message.get("status", 0) >= _ERRORS:
            self._discard()
        if message["type"] == "http.response.body" and message.get("more_body", False):
            for scope in self._scopes:
                scope._begin_sending()  # noqa: SLF001 - of this package
        if self._seen and message["type"] == "http.response.start":
            self._held = message
            if not _is_of_known_length(message):
                await self._send_head()
        # Context variables belong to a task, so only the task that opened the scope can close it.
        # Starlette may stream from another task, to notice a client that leaves. Then the scope
        # stays open.
        elif _is_last(message) and asyncio.current_task() is self._task:
            await self._leave()
            await self._send_head()
            await self._send_on(message)
            # A scope of their own for background tasks.
            await self._enter(cache.scope() for cache in self._caches)
        else:
            if _is_last(message) and self._visit is not None:
                # Background tasks follow; their reads are not part of the page.
                self._visit.end(self._scopes)
                self._visit = None
            await self._send_head()
            await self._send_on(message)

    async def _send_head(self) -> None:
        if self._held is not None:
            message, self._held = self._held, None
            told = (b"server-timing", server_timing(self._seen).encode())
            await self._send_on({**message, "headers": [*message.get("headers", ()), told]})


def _declared(names: Sequence[str], scope: _Scope) -> dict[str, str]:
    """Returns the query parameters with these names. The last one wins if it is repeated."""
    if not names:
        return {}
    text = scope.get("query_string", b"").decode("latin-1")
    pairs = parse_qsl(text, keep_blank_values=True)
    return {name: value for name, value in pairs if name in names}


def _user_agent(scope: _Scope) -> str:
    for name, value in scope.get("headers", ()):
        if name.lower() == b"user-agent":
            return bytes(value).decode("latin-1")
    return ""


def _is_last(message: _Message) -> bool:
    """Returns whether `message` ends the body: no more follows, or it sends a file."""
    kind = message["type"]
    return kind == "http.response.pathsend" or (
        kind in {"http.response.body", "http.response.zerocopysend"}
        and not message.get("more_body", False)
    )


def _is_of_known_length(message: _Message) -> bool:
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
