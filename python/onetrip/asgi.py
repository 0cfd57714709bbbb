"""A scope for each request of an ASGI application: FastAPI, Starlette, Quart and others.

    app.add_middleware(PageMiddleware, cache=cache)      # FastAPI and Starlette
    app = PageMiddleware(app, cache)                     # any

Within a request the cache is asked once for what is read again and again, and what is written
leaves in one trip, before the last of the body does: whoever has the page and asks for the next
one finds what this one wrote. Tasks that the request starts and functions that it runs in threads
are in its scope as well; what outlives the request reads and writes directly.

Background tasks, which run when the page is sent, have a scope of their own. A WebSocket has none:
it may be open for hours, and its writes would wait as long. Open one around what belongs together,
`async with cache.scope()`. When the application shuts down, idle connections are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from onetrip._page import Caches, server_timing, several, watches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onetrip import Cache, Watch

__all__ = ["PageMiddleware"]

_Scope: TypeAlias = MutableMapping[str, Any]
_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class PageMiddleware:
    """The ASGI application `app`, each of whose requests has a scope of `cache`, or of several.

    With `server_timing`, which may be a function of the ASGI scope, responses have a header
    `Server-Timing: cache;dur=0.4;desc="2 trips, 12 hits"`. It goes before the body: it tells all of
    a page whose length is known, and of one that is streamed what happened until it began.
    """

    def __init__(
        self,
        app: _App,
        cache: Caches | None = None,
        *,
        server_timing: bool | Callable[[_Scope], bool] = False,
    ) -> None:
        self.app = app
        self._caches = several(cache)
        self._timing = server_timing

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer a request in its scope; let everything else pass."""
        if scope["type"] == "http":
            seen: Sequence[Watch] = ()
            if self._timing(scope) if callable(self._timing) else self._timing:
                scope = {**scope}
                seen = watches(self._caches, scope)
            with ExitStack() as watching:
                for watch in seen:
                    watching.enter_context(watch)
                page = _Page(self._caches, seen, send)
                await page.make(self.app, scope, receive)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self._closing(send))
        else:
            await self.app(scope, receive, send)

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

    def __init__(self, caches: Sequence[Cache], seen: Sequence[Watch], send: _Send) -> None:
        self._caches = caches
        self._seen = seen
        self._send_on = send
        self._open = AsyncExitStack()
        self._task = asyncio.current_task()
        # The head, held back while what `Server-Timing` tells may still change.
        self._held: _Message | None = None

    async def make(self, app: _App, scope: _Scope, receive: _Receive) -> None:
        """Run `app`, until it ends or its client left."""
        await self._enter()
        try:
            await app(scope, receive, self._send)
        except BaseException as error:
            await self._leave(error)
            raise
        await self._leave()

    async def _enter(self) -> None:
        for cache in self._caches:
            await self._open.enter_async_context(cache.scope())

    async def _leave(self, error: BaseException | None = None) -> None:
        await self._open.pop_all().__aexit__(type(error) if error else None, error, None)

    async def _send(self, message: _Message) -> None:
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
            await self._enter()
        else:
            await self._send_head()
            await self._send_on(message)

    async def _send_head(self) -> None:
        if self._held is not None:
            message, self._held = self._held, None
            told = (b"server-timing", server_timing(self._seen).encode())
            await self._send_on({**message, "headers": [*message.get("headers", ()), told]})


def _is_last(message: _Message) -> bool:
    """Whether the body ends with this message: no more of it comes, or it is a file."""
    kind = message["type"]
    return kind == "http.response.pathsend" or (
        kind in {"http.response.body", "http.response.zerocopysend"}
        and not message.get("more_body", False)
    )


def _is_of_known_length(message: _Message) -> bool:
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
