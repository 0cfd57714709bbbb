"""What page a request is for: told to its open scopes, which learn from it what such pages read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from onetrip._core import Cache, Scope

# A page: the name of its view, and what the view is called with.
Page: TypeAlias = tuple[str, Mapping[str, object]]

# The user agents of bots, or a function that knows them.
Bots: TypeAlias = str | re.Pattern[str] | Callable[..., object]

# Where a request holds its scopes for those who know what page it is for.
_VISIT = "onetrip.visit"

# Requests that change nothing, so that others will read what these did.
_SAFE = frozenset({"GET", "HEAD"})

# Values whose text is theirs in every process, and costs nothing. That of an object which a route
# makes of its URL may be a question to the database, or an error outside of its session.
_PLAIN = (str, int, float, Decimal, UUID, date, time, type(None))


class Visit:
    """The scopes that are open for one request, each of which is told once what page it is for.

    Of several middlewares with one cache the outermost counts.
    """

    def __init__(self) -> None:
        self._unnamed: dict[Cache, Scope] = {}
        self._named: dict[Cache, Scope] = {}
        self._learns = True

    @classmethod
    def of(cls, request: MutableMapping[str, Any]) -> Visit:
        """Return that of a WSGI environment or an ASGI scope."""
        visit: Visit = request.setdefault(_VISIT, cls())
        return visit

    def open(self, cache: Cache, scope: Scope) -> None:
        """Take in a scope that was opened."""
        if cache not in self._named:
            self._unnamed.setdefault(cache, scope)

    def name(self, page: Page, *, learns: bool = True) -> None:
        """Say what page the scopes are for, and whether anything is learned from this visit."""
        route, arguments = page
        while self._unnamed:
            cache, scope = self._unnamed.popitem()
            tell(scope, route, arguments)
            self._named[cache] = scope
        self._learns = self._learns and learns

    def discard(self) -> None:
        """Learn nothing from what was done so far: it failed, or was not done to its end."""
        for scope in self._named.values():
            scope.discard()
        self._unnamed |= self._named
        self._named.clear()

    def end(self, scopes: Iterable[Scope]) -> None:
        """End the visit, and let go of scopes that stay open."""
        ending = list(scopes)
        self.close(ending)
        for scope in ending:
            scope._end_visit()  # noqa: SLF001 - of this package

    def close(self, scopes: Iterable[Scope]) -> None:
        """Let go of scopes that are about to close."""
        closing = list(scopes)
        if not self._learns:
            self.discard()
        for open_ in (self._unnamed, self._named):
            for cache in [cache for cache, scope in open_.items() if scope in closing]:
                del open_[cache]
        if not self._unnamed and not self._named:
            # The request may be made again.
            self._learns = True


def link(scopes: Sequence[Scope]) -> None:
    """Let the first trip of a page bring what it reads in all of these open scopes."""
    for number, scope in enumerate(scopes):
        for other in scopes[number + 1 :]:
            scope._link(other)  # noqa: SLF001 - of this package


def plain(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return those of a view's arguments that name a page: others are made for the view alone."""
    return {name: value for name, value in arguments.items() if isinstance(value, _PLAIN)}


def tell(scope: Scope, route: str, arguments: Mapping[str, object]) -> None:
    """Tell a scope which page it is for. No page fails for that: what has no text is left out."""
    texts = {}
    for name, value in arguments.items():
        try:
            texts[_text(name)] = _text(value)
        except Exception:  # noqa: BLE001, S112 - whatever the text of an application's object raises
            continue
    scope.visit(_text(route), **texts)


def _text(value: object) -> str:
    # What is no text in UTF-8 came from a path that was not.
    return str(value).encode("utf-8", "replace").decode()


def is_safe(method: object) -> bool:
    """Whether a request of that method is a visit that others will be like."""
    return method in _SAFE


def is_bot(
    bots: Callable[..., object] | re.Pattern[str] | None, agent: str, *request: object
) -> bool:
    """Whether the client is one that others will not be like, by its user agent or the request."""
    if isinstance(bots, re.Pattern):
        return bots.search(agent) is not None
    return bots is not None and bool(bots(*request))


def checked_name(page: Any) -> Page | None:
    """Return what an application's `name` gave, and refuse what is no page."""
    if page is None or (
        isinstance(page, tuple)
        and len(page) == 2  # noqa: PLR2004 - a pair
        and isinstance(page[0], str)
        and isinstance(page[1], Mapping)
    ):
        return page
    msg = (
        f"the name of a page is a route and its arguments, not {page!r}; return "
        '("note_detail", {"note_id": 5}), or None for what is no page'
    )
    raise ConfigurationError(msg)


def checked_query(option: str, query: Any) -> tuple[str, ...]:
    """Return the names of query parameters, and refuse a single text."""
    if not isinstance(query, str) and isinstance(query, Iterable):
        names = tuple(query)
        if all(isinstance(name, str) for name in names):
            return names
    msg = f'{option}={query!r} has to list query parameters by name, as in ["page", "sort"]'
    raise ConfigurationError(msg)


def checked_function(option: str, function: Any, example: str) -> Any:
    """Return a function that may be None, and refuse what is neither."""
    if function is None or callable(function):
        return function
    msg = f"{option}={function!r} is not a function; give one, as in {example}"
    raise ConfigurationError(msg)


def checked_bots(option: str, bots: Any) -> Any:
    """Return what tells bots, a text as a pattern."""
    if isinstance(bots, str):
        try:
            return re.compile(bots, re.IGNORECASE)
        except re.error as error:
            msg = f"{option}={bots!r} is not a regular expression: {error}"
            raise ConfigurationError(msg) from error
    if bots is None or isinstance(bots, re.Pattern) or callable(bots):
        return bots
    msg = (
        f"{option}={bots!r} is neither a pattern of user agents nor a function; "
        'give one, as in "bot|crawler|spider"'
    )
    raise ConfigurationError(msg)
