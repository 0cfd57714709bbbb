"""Finds the page of a Starlette or FastAPI request before the application runs.

Asks the routes in turn, as a router does. Does not import Starlette: such an application has
imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from onetrip._visit import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from onetrip._visit import Page


def page_of(app: object, scope: MutableMapping[str, Any]) -> Page | None:
    """Returns the page of `scope`, if `app` or its application knows the route.

    The route is the path with parameter names, `/notes/{note_id}`, including the path of a mount.
    """
    if not hasattr(app, "routes"):
        # `app` is a middleware of the application: ask the application itself.
        app = scope.get("app")
        if "router" in scope and scope["router"] is getattr(app, "router", None):
            return None
    # A copy: FastAPI writes into the scope while it matches.
    return _find(getattr(app, "routes", None) or (), {**scope}, "")


def _find(routes: Iterable[Any], scope: dict[str, Any], path: str) -> Page | None:
    for route in routes:
        matches = getattr(route, "matches", None)
        match, child = matches(scope) if matches is not None else (None, {})
        # The first route that takes both path and method gets the request.
        if getattr(match, "name", None) == "FULL":
            return _within(route, {**scope, **child}, path)
    return None


def _within(route: Any, scope: dict[str, Any], path: str) -> Page | None:
    within = getattr(route, "routes", None)
    if within is not None:
        # A mount, at a path or a host.
        return _find(within, scope, path + (getattr(route, "path", None) or route.host))
    path_format: str | None = getattr(route, "path_format", None)
    if path_format is not None:
        return path + path_format, plain(scope.get("path_params", {}))
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    # Only this function lists the routes of an included FastAPI router. It returns any other route
    # as it is, without a path.
    if contexts is not None and hasattr(route, "original_router"):
        return _find(contexts([route]), scope, path)
    return None
