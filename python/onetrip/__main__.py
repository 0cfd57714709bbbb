"""onetrip on the command line: what the workers of a site learned of its pages.

onetrip pages redis://127.0.0.1:6379/0 --prefix blog
onetrip pages redis://127.0.0.1:6379/0 --prefix blog note_detail note_list
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from onetrip import Cache, OneTripError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onetrip import Route

__all__ = ["main"]

_SECRET = "ONETRIP_SECRET"  # noqa: S105 - the name of a variable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; how the process is to exit."""
    parser = argparse.ArgumentParser(
        prog="onetrip",
        description=(
            "Show for each route what its visits of late read and in how many trips, how good "
            "what was brought ahead was, and which keys its pages read, as templates over their "
            "arguments, with the share of visits that read them. It is read from the store, which "
            "is left as it is. Signed records want the secret of the cache in the variable "
            f"{_SECRET}."
        ),
    )
    parser.add_argument("command", choices=["pages"], help="what workers learned of their pages")
    parser.add_argument("url", help="the URL of the store")
    parser.add_argument("route", nargs="*", help="only these routes, by name")
    parser.add_argument("--prefix", default="", help="the prefix of the cache")
    # Routes may stand before and behind options.
    given = parser.parse_intermixed_args(arguments)
    try:
        return _pages(given.url, given.prefix, given.route)
    except OneTripError as error:
        sys.stderr.write(f"onetrip: {error}\n")
        return 1


def _pages(url: str, prefix: str, routes: Sequence[str]) -> int:
    # One that is empty signs nothing, as one that is not set.
    secret = os.environ.get(_SECRET) or None
    cache = Cache(url, prefix=prefix, secret=secret, on_error="raise")
    shared = {route.name: route for route in cache.shared_pages()}
    if cache.stats().bad_entries:
        sys.stderr.write(f"onetrip: some records cannot be read; is {_SECRET} that of the cache?\n")
        return 1
    if not routes and not shared:
        sys.stdout.write("nothing is shared under this prefix\n")
    for name in dict.fromkeys(routes or shared):
        lines = _lines(shared[name]) if name in shared else [f"{name}: nothing is shared of it"]
        sys.stdout.write("\n".join([*map(_shown, lines), ""]))
    return 0


def _lines(route: Route) -> list[str]:
    """Return what is told of a route: its visits of late, and its keys."""
    visits = max(route.visits, 1)
    trips = f"{_mean(route.reads, visits)} trips before, {_mean(route.trips, visits)} now"
    came = f"recall {route.recall:.0%}, precision {route.precision:.0%}, waste {route.waste:.0%}"
    keys = [f"{share:>6.0%}  {template}" for template, share in route.templates]
    return [f"{route.name}: {trips}; {came}", *keys]


def _shown(line: str) -> str:
    """Return a line without what a terminal obeys: whoever writes to the store names routes."""
    shown = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    return "".join(shown)


def _mean(total: int, visits: int) -> str:
    return f"{total / visits:.1f}"


if __name__ == "__main__":
    sys.exit(main())
