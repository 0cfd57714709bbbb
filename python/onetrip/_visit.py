"""Tells the open scopes of a request which page it is for, so that they learn what it reads."""

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

# The name of a view, and its arguments.
Page: TypeAlias = tuple[str, Mapping[str, object]]

# A pattern of user agents, or a function that recognizes bots.
Bots: TypeAlias = str | re.Pattern[str] | Callable[..., object]

# Request key of the visit.
_VISIT = "onetrip.visit"

# Requests that change nothing: others will read what these read.
_SAFE = frozenset({"GET", "HEAD"})

# Types whose text is the same in every process and cheap. The text of other objects, such as those
# that a URL converter makes, may query a database or fail outside of its session.
_PLAIN = (str, int, float, Decimal, UUID, date, time, type(None))


class Visit:
    """The open scopes of one request. Each is told once which page it is for.

    If several middlewares have one cache, the outermost counts.
    """

    def __init__(self) -> None:
        self._unnamed: dict[Cache, Scope] = {}
        self._named: dict[Cache, Scope] = {}
        self._learns = True

    @classmethod
    def of(cls, request: MutableMapping[str, Any]) -> Visit:
        """Returns the visit of a WSGI environment or an ASGI scope."""
        visit: Visit = request.setdefault(_VISIT, cls())
        return visit

    def open(self, cache: Cache, scope: Scope) -> None:
        """Adds an open scope."""
        if cache not in self._named:
            self._unnamed.setdefault(cache, scope)

    def name(self, page: Page, *, learns: bool = True) -> None:
        """Names the page of the scopes. With `learns=False` nothing is learned from this visit."""
        route, arguments = page
        while self._unnamed:
            cache, scope = self._unnamed.popitem()
            tell(scope, route, arguments)
            self._named[cache] = scope
        self._learns = self._learns and learns

    def discard(self) -> None:
        """Learns nothing from the visit so far: it failed or was cut short."""
        for scope in self._named.values():
            scope.discard()
        self._unnamed |= self._named
        self._named.clear()

    def end(self, scopes: Iterable[Scope]) -> None:
        """Ends the visit and forgets its scopes, which stay open."""
        ending = list(scopes)
        self.close(ending)
        for scope in ending:
            scope._end_visit()  # noqa: SLF001 - of this package

    def close(self, scopes: Iterable[Scope]) -> None:
        """Forgets scopes that are about to close."""
        closing = list(scopes)
        if not self._learns:
            self.discard()
        for open_ in (self._unnamed, self._named):
            for cache in [cache for cache, scope in open_.items() if scope in closing]:
                del open_[cache]
        if not self._unnamed and not self._named:
            # The same environment may be used for another request.
            self._learns = True


def link(scopes: Sequence[Scope]) -> None:
    """Makes the first trip of a page preload for all of these open scopes."""
    for number, scope in enumerate(scopes):
        for other in scopes[number + 1 :]:
            scope._link(other)  # noqa: SLF001 - of this package


def plain(arguments: Mapping[str, object]) -> dict[str, object]:
    """Returns the arguments that can name a page: plain values, not objects made for the view."""
    return {name: value for name, value in arguments.items() if isinstance(value, _PLAIN)}


def tell(scope: Scope, route: str, arguments: Mapping[str, object]) -> None:
    """Tells a scope its page. Leaves out arguments whose `str` fails: a page never fails for it."""
    texts = {}
    for name, value in arguments.items():
        try:
            texts[_text(name)] = _text(value)
        except Exception:  # noqa: BLE001, S112 - `str` of an application's object may raise anything
            continue
    scope.visit(_text(route), **texts)


def _text(value: object) -> str:
    # A path that is not UTF-8 leaves surrogates.
    return str(value).encode("utf-8", "replace").decode()


def is_safe(method: object) -> bool:
    """Returns whether `method` changes nothing, so that visits can be learned from."""
    return method in _SAFE


def is_bot(
    bots: Callable[..., object] | re.Pattern[str] | None, agent: str, *request: object
) -> bool:
    """Returns whether the client is a bot, by its user agent or by the request."""
    if isinstance(bots, re.Pattern):
        return bots.search(agent) is not None
    return bots is not None and bool(bots(*request))


def checked_name(page: Any) -> Page | None:
    """Returns the result of an application's `name`. Refuses anything but a page or None."""
    if page is None or (
        isinstance(page, tuple)
        and len(page) == 2  # noqa: PLR2004 - a pair
        and isinstance(page[0], str)
        and isinstance(page[1], Mapping)
    ):
        return page
    msg = (
        f"a page is named by a route and its arguments, not {page!r}; return "
        '("note_detail", {"note_id": 5}), or None if the request is for no page'
    )
    raise ConfigurationError(msg)


def checked_query(option: str, query: Any) -> tuple[str, ...]:
    """Returns the names of query parameters. Refuses a single string."""
    if not isinstance(query, str) and isinstance(query, Iterable):
        names = tuple(query)
        if all(isinstance(name, str) for name in names):
            return names
    msg = f'{option}={query!r} must list query parameters by name, as in ["page", "sort"]'
    raise ConfigurationError(msg)


def checked_function(option: str, function: Any, example: str) -> Any:
    """Returns a function or None. Refuses anything else."""
    if function is None or callable(function):
        return function
    msg = f"{option}={function!r} is not a function; pass one, as in {example}"
    raise ConfigurationError(msg)


def checked_bots(option: str, bots: Any) -> Any:
    """Returns `bots`, compiled if it is a string. Refuses anything that cannot recognize bots."""
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
