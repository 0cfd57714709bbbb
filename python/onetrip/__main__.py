"""Command line: shows what the workers of a site learned of its pages.

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
    """Runs a command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="onetrip",
        description=(
            "Show what each route learned: how many keys recent visits read and in how many trips, "
            "how well preloads fit, and the keys as templates over the page's arguments with the "
            "share of visits that read them. Reads the store and changes nothing. For signed "
            f"records, set the variable {_SECRET} to the secret of the cache."
        ),
    )
    parser.add_argument("command", choices=["pages"], help="show what the workers learned")
    parser.add_argument("url", help="the URL of the store")
    parser.add_argument("route", nargs="*", help="only these routes, by name")
    parser.add_argument("--prefix", default="", help="the prefix of the cache")
    # Routes may come before and after options.
    given = parser.parse_intermixed_args(arguments)
    try:
        return _pages(given.url, given.prefix, given.route)
    except OneTripError as error:
        sys.stderr.write(f"onetrip: {error}\n")
        return 1


def _pages(url: str, prefix: str, routes: Sequence[str]) -> int:
    # An empty variable counts as unset.
    secret = os.environ.get(_SECRET) or None
    cache = Cache(url, prefix=prefix, secret=secret, on_error="raise")
    shared = {route.name: route for route in cache.shared_pages()}
    if cache.stats().bad_entries:
        sys.stderr.write(
            f"onetrip: some records cannot be read; check that {_SECRET} is the cache's secret\n"
        )
        return 1
    if not routes and not shared:
        sys.stdout.write("nothing is shared under this prefix\n")
    for name in dict.fromkeys(routes or shared):
        lines = _lines(shared[name]) if name in shared else [f"{name}: nothing is shared of it"]
        sys.stdout.write("\n".join([*map(_shown, lines), ""]))
    return 0


def _lines(route: Route) -> list[str]:
    """Returns the lines about a route: a summary of its recent visits, then its keys."""
    visits = max(route.visits, 1)
    trips = f"{_mean(route.reads, visits)} trips before, {_mean(route.trips, visits)} now"
    came = f"recall {route.recall:.0%}, precision {route.precision:.0%}, waste {route.waste:.0%}"
    keys = [f"{share:>6.0%}  {template}" for template, share in route.templates]
    return [f"{route.name}: {trips}; {came}", *keys]


def _shown(line: str) -> str:
    """Escapes control characters: anyone who can write to the store can name routes."""
    shown = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    return "".join(shown)


def _mean(total: int, visits: int) -> str:
    return f"{total / visits:.1f}"


if __name__ == "__main__":
    sys.exit(main())
