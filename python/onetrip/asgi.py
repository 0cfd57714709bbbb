"""A scope for each request of an ASGI application: FastAPI, Starlette, Quart and others.

    app.add_middleware(PageMiddleware, cache=cache)      # FastAPI and Starlette
    app = PageMiddleware(app, cache)                     # any

Within a request the cache is asked once for the pieces that are fetched again and again, and what
is computed is stored without waiting. Plain reads and writes are exact. Tasks that the request
starts and functions that it runs in threads are in its scope as well; what outlives the request
reads and writes directly.

Background tasks, which run when the page is sent, have a scope of their own. A WebSocket has none:
it may be open for hours. Open one around what belongs together, `async with cache.scope()`. When
the application shuts down, idle connections are closed.

The scope of a Starlette or FastAPI application's request knows which page it is for, by its route
and path parameters. It learns what such pages read, and brings it in one trip the next time.
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

# The statuses of errors, of the client and of the application, begin here.
_ERRORS = 400


class PageMiddleware:
    """The ASGI application `app`, each of whose requests has a scope of `cache`, or of several.

    With `server_timing`, which may be a function of the ASGI scope, responses have a header
    `Server-Timing: cache;dur=0.4;desc="2 trips, 12 hits"`. It goes before the body: it tells all of
    a page whose length is known, and of one that is streamed what happened until it began.

    A page is named for GET and HEAD, by the route and path parameters of a Starlette or FastAPI
    application. For another, `name` is a function of the ASGI scope that gives the two,
    `("note_detail", {"note_id": 5})`, or None for what is no page. Its arguments are also the query
    parameters that `query` lists, and the facets, such as the tenant, that `facets` gives for the
    ASGI scope. `bots`, a pattern of user agents or a function of the ASGI scope, tells from whose
    visits nothing is learned; they are served as fast. Nothing is learned from a response of status
    400 or more, nor from one that raises, is cancelled or cut short.
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
        """Answer a request in its scope; let everything else pass."""
        if scope["type"] == "http":
            # Routes are matched a second time for it, which is for nothing where nobody learns.
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
        """Return what sends for the lifespan, and closes connections when that is over."""

        async def close_and_send(message: _Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                for cache in self._caches:
                    await cache.aclose()
            await send(message)

        return close_and_send


class _Page:
    """A response that is being made, in scopes that its application's task opens and closes."""

    def __init__(
        self, caches: Sequence[Cache], seen: Sequence[Watch], send: _Send, *, safe: bool
    ) -> None:
        self._caches = caches
        self._is_safe = safe
        self._seen = seen
        self._send_on = send
        self._open = AsyncExitStack()
        # Whether the last of the body was sent.
        self._is_sent = False
        self._visit: Visit | None = None
        self._scopes: list[Scope] = []
        self._task = asyncio.current_task()
        # The head, held back while what `Server-Timing` tells may still change.
        self._held: _Message | None = None

    async def make(
        self, app: _App, scope: _Scope, receive: _Receive, named: Page | None, *, learns: bool
    ) -> None:
        """Run `app` for the page that is named, until it ends or its client left."""
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
            # What follows the page is a visit to none.
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
        # Context variables belong to a task. Of one that was started only to send, as Starlette
        # starts one to stream where it cannot know that the client left, the scope stays open.
        elif _is_last(message) and asyncio.current_task() is self._task:
            await self._leave()
            await self._send_head()
            await self._send_on(message)
            # For the background tasks.
            await self._enter(cache.scope() for cache in self._caches)
        else:
            if _is_last(message) and self._visit is not None:
                # What it reads from here on, in background tasks, is none of the page.
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
    """Return the query parameters of those names; of one that is repeated, the last."""
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
    """Whether the body ends with this message: no more of it comes, or it is a file."""
    kind = message["type"]
    return kind == "http.response.pathsend" or (
        kind in {"http.response.body", "http.response.zerocopysend"}
        and not message.get("more_body", False)
    )


def _is_of_known_length(message: _Message) -> bool:
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
