"""Opens a scope for each request of a WSGI application.

    application = PageMiddleware(application, cache)

Within a request, each piece is fetched once and results are stored without waiting. Plain reads and
writes are exact.

The scope closes when the body has `Content-Length` bytes, when its iterable ends, or when the
server closes it, whichever comes first. Later reads and writes, also those of threads that outlive
the page, ask the store directly.

A named page learns what it reads, and brings it in one trip the next time. It is named by `name`,
or by the integration of a framework, such as Flask's.
"""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from onetrip._page import Caches, server_timing, several, watches
from onetrip._visit import Visit, checked_function, checked_name, is_safe, link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from onetrip import Cache, Watch
    from onetrip._visit import Page

__all__ = ["PageMiddleware"]


class PageMiddleware:
    """Wraps the WSGI application `app`: each request has a scope of `cache`, one or several.

    Nothing is learned from a response of status 400 or more, or from one that is cut short.

    `server_timing` (False): True, or a function of the environment, adds the header
    `Server-Timing: cache;dur=0.4;desc="2 trips, 12 hits"`. Headers precede the body, so for a
    streamed response it covers only the first part.

    `name`: a function of the environment that returns route and arguments,
    `("note_detail", {"note_id": 5})`, or None if the request is for no page. Called for GET and
    HEAD.

    Raises ConfigurationError if an argument is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        cache: Caches | None = None,
        *,
        server_timing: bool | Callable[[WSGIEnvironment], bool] = False,
        name: Callable[[WSGIEnvironment], Page | None] | None = None,
    ) -> None:
        self.app = app
        self._caches = several(cache)
        self._timing = server_timing
        self._name = checked_function("name", name, 'lambda environ: ("home", {})')

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request in its scope."""
        timed = self._timing(environ) if callable(self._timing) else self._timing
        named = self._page(environ)
        seen = watches(self._caches, environ) if timed else []
        safe = is_safe(environ.get("REQUEST_METHOD"))
        page = _Page(self._caches, seen, Visit.of(environ), safe=safe)
        if named is not None:
            page.visit.name(named)
        return _Response(page, start_response).begin(self.app, environ)

    def _page(self, environ: WSGIEnvironment) -> Page | None:
        if self._name is None or not is_safe(environ["REQUEST_METHOD"]):
            return None
        if not any(cache.learns for cache in self._caches):
            return None
        return checked_name(self._name(environ))


# The innermost page of this thread or greenlet. It may have ended.
_innermost: ContextVar[_Page | None] = ContextVar("onetrip.wsgi", default=None)


class _Page:
    """The open scopes of one request."""

    def __init__(
        self, caches: Sequence[Cache], seen: Sequence[Watch], visit: Visit, *, safe: bool
    ) -> None:
        self.seen = seen
        self.visit = visit
        # Whether the application runs. If not, it waits for the server to ask for more.
        self.at_work = False
        self._is_open = True
        self._outer = self._leave_unfinished()
        self._open = ExitStack()
        _innermost.set(self)
        for watch in seen:
            self._open.enter_context(watch)
        self._scopes = []
        for cache in caches:
            opened = cache._request_scope(safe)  # noqa: SLF001 - of this package
            scope = self._open.enter_context(opened)
            visit.open(cache, scope)
            self._scopes.append(scope)
        link(self._scopes)
        self._open.callback(visit.close, self._scopes)

    @staticmethod
    def _leave_unfinished() -> _Page | None:
        """Closes pages that earlier requests left open here. Returns the page around this one.

        A server may start a request without finishing or closing the previous response. The two
        must share nothing.
        """
        page = _innermost.get()
        while page is not None and not page.at_work:
            # As for an unfinished generator: a failure of the store raises nothing here.
            page.close(GeneratorExit())
            page = page._outer  # noqa: SLF001 - another of this class
        return page

    def close(self, error: BaseException | None = None) -> None:
        """Closes the scopes, because of `error` if there is one. A second call does nothing."""
        self._is_open = False
        self._open.pop_all().__exit__(type(error) if error else None, error, None)

    def begin_sending(self) -> None:
        """Limits the age of held pieces from now on: the response is being sent."""
        for scope in self._scopes:
            scope._begin_sending()  # noqa: SLF001 - of this package

    def discard(self) -> None:
        """Learns nothing from this request, unless it has been learned from already."""
        if self._is_open:
            self.visit.discard()


class _Response:
    """A response in progress, as the iterable of its body."""

    def __init__(self, page: _Page, start_response: StartResponse) -> None:
        self._page = page
        self._start_response = start_response
        self._write_on: Callable[[bytes], object] | None = None
        # The head, held back while the numbers of `Server-Timing` may still change.
        self._held: tuple[str, list[tuple[str, str]], OptExcInfo | None] | None = None
        self._holds = bool(page.seen)
        self._length: int | None = None
        self._made = 0
        self._body: Iterable[bytes] = ()
        self._chunks: Iterator[bytes] = iter(())
        self._ready: list[bytes] = []

    def begin(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Calls `app`, makes the first part of the body, and returns the body."""
        page = self._page
        page.at_work = True
        try:
            self._body = app(environ, self._start)
            whole = _is_whole(self._body, environ)
            if whole:
                page.close()
            else:
                self._chunks = iter(self._body)
                self._ready.extend(self._next())
            self._send_head()
        except BaseException as error:
            self.close(error)
            raise
        finally:
            page.at_work = False
        # Unwrapped, so that the server can send a file in its own way.
        return self._body if whole else self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ready:
            return self._ready.pop()
        self._page.begin_sending()
        self._page.at_work = True
        try:
            for chunk in self._next():
                return chunk
        finally:
            self._page.at_work = False
        raise StopIteration

    def _next(self) -> Iterable[bytes]:
        """Returns the next part of the body, or nothing at the end."""
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._page.close()
            return ()
        self._count(chunk)
        return (chunk,)

    def _count(self, chunk: bytes) -> None:
        self._made += len(chunk)
        if self._length is not None and self._made >= self._length:
            self._page.close()

    def close(self, error: BaseException | None = None) -> None:
        """Ends the response at any point. Called by the server."""
        close: Callable[[], object] | None = getattr(self._body, "close", None)
        try:
            if close is not None:
                close()
        finally:
            # If the page is still open, the body was cut short.
            self._page.discard()
            self._page.close(error)

    def __del__(self) -> None:
        # The server did not close it.
        self._page.close(GeneratorExit())

    def _start(
        self, status: str, headers: list[tuple[str, str]], error: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Takes the head of the response; the `start_response` of the application."""
        self._length = _content_length(headers)
        if _is_error(status):
            self._page.discard()
        if self._held is not None and error is None:
            # Started twice: let the server raise its error.
            self._send_head()
        self._held = (status, headers, error)
        if not self._holds:
            self._send_head()
        return self._write

    def _send_head(self) -> None:
        self._holds = False
        if self._held is None:
            return
        (status, headers, error), self._held = self._held, None
        if self._page.seen:
            headers = [*headers, ("Server-Timing", server_timing(self._page.seen))]
        told = () if error is None else (error,)
        self._write_on = self._start_response(status, headers, *told)

    def _write(self, data: bytes) -> object:
        """Sends `data` at once; the `write` that `start_response` returns."""
        self._count(data)
        self._page.begin_sending()
        self._send_head()
        assert self._write_on is not None  # noqa: S101 - the head is sent before `write`
        return self._write_on(data)


def _is_whole(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Returns whether `body` is complete: a list, or a file for the server to send."""
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple)) or (
        isinstance(wrapper, type) and isinstance(body, wrapper)
    )


def _is_error(status: str) -> bool:
    return status[:1] in {"4", "5"}


def _content_length(headers: Iterable[tuple[str, str]]) -> int | None:
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value) if value.isdecimal() else None
    return None
