"""A panel for Django Debug Toolbar: the trips of a page, who made them, and which can be merged.

DEBUG_TOOLBAR_PANELS = [..., "onetrip.django.panel.OneTripPanel"]
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debug_toolbar.panels import Panel
from django.template import Context, Engine

from onetrip.django import recorder
from onetrip.django.page import by_alias, configured
from onetrip.django.visits import route_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from onetrip import Route, Trip, Watch
    from onetrip.django.recorder import Call

__all__ = ["OneTripPanel"]

_TEMPLATE = Path(__file__).with_name("panel.html")

# Items beyond these are counted, not listed.
_SHOWN_CALLS = 500
_SHOWN_KEYS = 20
_SHOWN_ROUTES = 100


class OneTripPanel(Panel):
    """Shows the trips, keys and hits of a request, and their callers."""

    is_async = True
    nav_title = "onetrip"
    title = "Trips to the cache"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open = ExitStack()
        self._calls: list[Call] = []
        self._watches: list[Watch] = []

    @classmethod
    def ready(cls) -> None:
        """Makes the backend record its calls."""
        recorder.instrument()

    def enable_instrumentation(self) -> None:
        """Starts recording."""
        self.disable_instrumentation()
        self._watches = [self._open.enter_context(cache.watch()) for cache in configured()]
        token = recorder.calls.set(self._calls)
        self._open.callback(recorder.calls.reset, token)

    def disable_instrumentation(self) -> None:
        """Stops recording."""
        self._open.close()

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = self.get_stats()  # type: ignore[no-untyped-call] # theirs
        return told

    @property
    def nav_subtitle(self) -> str:
        """A summary of the numbers."""
        told = self._told()
        return f"{_trips(told)}, {told['keys_read']} keys read, {told['hits']} hits"

    @property
    def content(self) -> str:
        """The panel's HTML. Its template needs no installed application."""
        template = Engine().from_string(_TEMPLATE.read_text(encoding="utf-8"))
        return template.render(Context(self._told()))

    def generate_stats(self, request: Any, response: object) -> None:  # noqa: ARG002 - its signature
        """Keeps the recorded numbers, trips and calls."""
        match = getattr(request, "resolver_match", None)
        routes = list(_routes(None if match is None else route_of(match)))
        reads = [call for call in self._calls if call.reads]
        trips = [trip for watch in self._watches for trip in watch.records]
        self.record_stats(  # type: ignore[no-untyped-call] # theirs
            {
                "trip_count": sum(watch.trips for watch in self._watches),
                "milliseconds": sum(trip.seconds for trip in trips) * 1000,
                # Includes cached functions, whose calls are not recorded.
                "keys_read": sum(watch.hits + watch.misses for watch in self._watches),
                "hits": sum(watch.hits for watch in self._watches),
                "of_scope": sum(len(call.keys) for call in reads if call.trips == 0),
                "posted": sum(watch.posted for watch in self._watches),
                "trips": [_shown_trip(trip) for trip in trips],
                "calls": [_shown_call(call) for call in self._calls[:_SHOWN_CALLS]],
                "more_calls": max(0, len(self._calls) - _SHOWN_CALLS),
                "together": list(together(self._calls)),
                "routes": routes[:_SHOWN_ROUTES],
                "more_routes": max(0, len(routes) - _SHOWN_ROUTES),
            }
        )

    def generate_server_timing(self, request: object, response: object) -> None:  # noqa: ARG002 - its signature
        """Adds the duration of the trips to the `Server-Timing` header."""
        told = self._told()
        self.record_server_timing("trips", _trips(told), told["milliseconds"])  # type: ignore[no-untyped-call] # theirs


def _trips(told: dict[str, Any]) -> str:
    count = told["trip_count"]
    return "1 trip" if count == 1 else f"{count} trips"


def together(calls: Iterable[Call]) -> Iterator[dict[str, Any]]:
    """Yields, per alias, the reads that made several trips and could have shared one.

    Keys that the request wrote before it read them cannot be preloaded.
    """
    travelled: dict[str, dict[str, None]] = {}
    trips: dict[str, int] = {}
    written: set[tuple[str, str]] = set()
    for call in calls:
        if not call.reads:
            written.update((call.alias, key) for key in call.keys)
        elif call.trips:
            keys = [key for key in call.keys if (call.alias, key) not in written]
            if keys:
                trips[call.alias] = trips.get(call.alias, 0) + 1
            names = [call.fragment] if call.fragment else [repr(key) for key in keys]
            travelled.setdefault(call.alias, {}).update(dict.fromkeys(names))
    for alias, named in travelled.items():
        if trips.get(alias, 0) > 1:
            arguments = [*named]
            if alias != "default":
                arguments.append(f"using={alias!r}")
            code = "".join(f"    {argument},\n" for argument in arguments)
            yield {"alias": alias, "trips": trips[alias], "code": f"with preload(\n{code}):"}


def _routes(current: str | None) -> Iterator[dict[str, Any]]:
    """Yields what this process learned of each route that reads keys, by alias."""
    for alias, cache in by_alias().items():
        for route in cache.pages():
            if route.reads:
                yield _shown_route(alias, route, is_current=route.name == current)


def _shown_route(alias: str, route: Route, *, is_current: bool) -> dict[str, Any]:
    templates = [f"{template} {share:.0%}" for template, share in route.templates]
    return {
        "alias": alias,
        "name": route.name,
        "is_current": is_current,
        "visits": route.visits,
        # Without preloads, each key is a trip.
        "before": f"{route.reads / route.visits:.1f}",
        "now": f"{route.trips / route.visits:.1f}",
        "recall": f"{route.recall:.0%}",
        "precision": f"{route.precision:.0%}",
        "waste": f"{route.waste:.0%}",
        "templates": templates[:_SHOWN_KEYS],
        "more": max(0, len(templates) - _SHOWN_KEYS),
    }


def _shown_trip(trip: Trip) -> dict[str, Any]:
    return {
        "store": trip.store,
        "milliseconds": trip.seconds * 1000,
        "operations": len(trip),
        "ops": [f"{word} {name}" for word, name in trip.ops[:_SHOWN_KEYS]],
        "more": max(0, len(trip) - _SHOWN_KEYS),
        "failed": trip.failed,
        "posted": trip.posted,
        "bytes_in": trip.bytes_in,
        "bytes_out": trip.bytes_out,
    }


def _shown_call(call: Call) -> dict[str, Any]:
    if call.trips:
        answered = "trip" if call.trips == 1 else f"{call.trips} trips"
    else:
        answered = "held by the page" if call.reads else "posted"
    missed = call.reads and call.hits < len(call.keys)
    return {
        "method": call.method,
        "alias": call.alias,
        "keys": [call.fragment] if call.fragment else call.keys[:_SHOWN_KEYS],
        "more": 0 if call.fragment else max(0, len(call.keys) - _SHOWN_KEYS),
        "answered": answered,
        "found": f"{call.hits} of {len(call.keys)}" if call.reads else "",
        "missed": missed,
        "place": call.place,
    }
