"""What page of a Starlette or FastAPI application a request is for, before the application runs.

Their routes are asked in turn, as their routers do it. Starlette is not imported: who has such an
application has imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from onetrip._visit import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from onetrip._visit import Page


def page_of(app: object, scope: MutableMapping[str, Any]) -> Page | None:
    """Return the page of `scope`, if `app`, or the application it is part of, knows its route.

    The route is the path with its parameters' names, `/notes/{note_id}`, and so is that of an
    application that is mounted in another.
    """
    if not hasattr(app, "routes"):
        # A middleware of the application, whose routes are still to be asked.
        app = scope.get("app")
        if "router" in scope and scope["router"] is getattr(app, "router", None):
            return None
    # FastAPI keeps notes there while it matches.
    return _find(getattr(app, "routes", None) or (), {**scope}, "")


def _find(routes: Iterable[Any], scope: dict[str, Any], path: str) -> Page | None:
    for route in routes:
        matches = getattr(route, "matches", None)
        match, child = matches(scope) if matches is not None else (None, {})
        # The first that takes the path and the method has the request.
        if getattr(match, "name", None) == "FULL":
            return _within(route, {**scope, **child}, path)
    return None


def _within(route: Any, scope: dict[str, Any], path: str) -> Page | None:
    within = getattr(route, "routes", None)
    if within is not None:
        # Mounted, at a path or a host.
        return _find(within, scope, path + (getattr(route, "path", None) or route.host))
    path_format: str | None = getattr(route, "path_format", None)
    if path_format is not None:
        return path + path_format, plain(scope.get("path_params", {}))
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    # A router that FastAPI includes gives its routes by this function alone. What it gives for a
    # route of another kind is that route again, which has no path.
    if contexts is not None and hasattr(route, "original_router"):
        return _find(contexts([route]), scope, path)
    return None
