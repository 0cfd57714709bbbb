"""Names the page of a request, and decides whether its visit is learned from.

A page is the name of a route with the arguments of its view, and with what these settings add:

ONETRIP_PAGE_QUERY = ["page"]  # query parameters that pages depend on
ONETRIP_PAGE_FACETS = "notes.pages.facets"  # other arguments: request -> dict
ONETRIP_PAGE_BOTS = "bot|spider"  # user agents whose visits teach nothing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from onetrip._visit import checked_bots, is_bot, is_safe, link, plain, tell
from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from django.urls import ResolverMatch

    from onetrip import Scope

__all__ = ["Naming", "Visit", "route_of", "visit_of"]

# From this status on, a response is an error.
_ERRORS = 400

# The dotted path of a function.
_DOTTED = re.compile(r"\w+(\.\w+)+")


class Visit:
    """A visit to a page, in all scopes of a request."""

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self._scopes = scopes
        link(scopes)
        self._is_named = False
        #: Whether to learn from it: it did not fail, and no bot made it.
        self.learns = True

    def name(self, route: str, args: Mapping[str, Any]) -> None:
        """Names the page. Only the first call counts: nested middlewares are one page."""
        if not self._is_named:
            self._is_named = True
            for scope in self._scopes:
                tell(scope, route, args)

    def fail(self) -> None:
        """Learns nothing from the visit."""
        self.learns = False

    def begin_sending(self) -> None:
        """Limits the age of held pieces from now on: the response is being sent."""
        for scope in self._scopes:
            scope._begin_sending()  # noqa: SLF001 - of this package

    def note(self, response: HttpResponseBase) -> None:
        """Learns nothing from an error response."""
        if response.status_code >= _ERRORS:
            self.fail()

    def end(self) -> None:
        """Ends the visit before its scopes close. Until then it uses what was learned."""
        if not self.learns:
            for scope in self._scopes:
                scope.discard()

    @contextmanager
    def by(self, request: Any) -> Iterator[None]:
        """Attaches the visit to `request` for the block, unless the request has one."""
        if visit_of(request) is not None:
            yield
            return
        request.onetrip_visit = self
        try:
            yield
        finally:
            # The same request object may be served again.
            del request.onetrip_visit


def visit_of(request: Any) -> Visit | None:
    """Returns the visit of a request, if a middleware has opened one."""
    found: Visit | None = getattr(request, "onetrip_visit", None)
    return found


def route_of(match: ResolverMatch) -> str:
    """Returns the name of a URL pattern, or the pattern itself if it has no name."""
    return match.view_name if match.url_name else f"/{match.route}"


class Naming:
    """Reads the settings about pages. Raises ImproperlyConfigured if one is wrong."""

    def __init__(self) -> None:
        self._query = _query(getattr(settings, "ONETRIP_PAGE_QUERY", ()))
        self._facets = _function("ONETRIP_PAGE_FACETS")
        self._awaits_facets = iscoroutinefunction(self._facets)
        self._bots = _bots()

    def name(self, request: HttpRequest, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Names the page of a request before its view is called."""
        visit = self._wanted(request)
        if visit is not None:
            facets = self._facets
            if facets and self._awaits_facets:
                facets = async_to_sync(facets)
            told = facets(request) if facets else {}
            self._tell(visit, request, args, kwargs, told)

    async def aname(
        self, request: HttpRequest, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Names the page in an asynchronous stack, where facets may be awaitable."""
        visit = self._wanted(request)
        if visit is not None:
            told: Any = self._facets(request) if self._facets else {}
            if isawaitable(told):
                told = await told
            self._tell(visit, request, args, kwargs, told)

    def _wanted(self, request: HttpRequest) -> Visit | None:
        """Returns the visit of a safe request. Other requests are not visits."""
        return visit_of(request) if is_safe(request.method) else None

    def _tell(
        self,
        visit: Visit,
        request: HttpRequest,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        facets: object,
    ) -> None:
        match = request.resolver_match
        if match is None:
            return
        if not isinstance(facets, Mapping):
            msg = (
                "ONETRIP_PAGE_FACETS must return a dict of what pages depend on, "
                f'as in {{"user": request.user.pk}}; it returned {facets!r}'
            )
            raise ImproperlyConfigured(msg)
        if is_bot(self._bots, request.headers.get("User-Agent", ""), request):
            visit.fail()
        named = {str(name): value for name, value in facets.items()}
        for parameter in self._query:
            if parameter in request.GET:
                named[parameter] = ",".join(request.GET.getlist(parameter))
        named |= plain({str(number): value for number, value in enumerate(args)})
        named |= plain(kwargs)
        visit.name(route_of(match), named)


def _query(given: object) -> tuple[str, ...]:
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) for name in given):
        msg = (
            "ONETRIP_PAGE_QUERY must list query parameters that pages depend on, "
            f'as in ["page"], not {given!r}'
        )
        raise ImproperlyConfigured(msg)
    return tuple(given)


def _function(setting: str) -> Callable[[HttpRequest], Any] | None:
    given = getattr(settings, setting, None)
    if given is None:
        return None
    if isinstance(given, str):
        try:
            given = import_string(given)
        except ImportError as error:
            msg = f"{setting} names a function that cannot be imported: {error}"
            raise ImproperlyConfigured(msg) from error
    if not callable(given):
        msg = f"{setting} must be a function of a request, or its dotted path, not {given!r}"
        raise ImproperlyConfigured(msg)
    function: Callable[[HttpRequest], Any] = given
    return function


def _bots() -> Callable[[HttpRequest], Any] | re.Pattern[str] | None:
    given = getattr(settings, "ONETRIP_PAGE_BOTS", None)
    if isinstance(given, re.Pattern):
        return given
    # As for other frameworks, a string is a pattern, unless it is the dotted path of a function.
    if isinstance(given, str) and not _DOTTED.fullmatch(given):
        try:
            pattern: re.Pattern[str] = checked_bots("ONETRIP_PAGE_BOTS", given)
        except ConfigurationError as error:
            raise ImproperlyConfigured(str(error)) from error
        return pattern
    return _function("ONETRIP_PAGE_BOTS")
