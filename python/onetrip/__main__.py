"""onetrip on the command line: what the workers of a site learned of its pages.

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

__all__ = ["main"]

_SECRET = "ONETRIP_SECRET"  # noqa: S105 - the name of a variable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; how the process is to exit."""
    parser = argparse.ArgumentParser(prog="onetrip", description="Look into a cache of onetrip.")
    commands = parser.add_subparsers(required=True, metavar="command")
    pages = commands.add_parser(
        "pages",
        help="show what workers have learned of routes, and shared through the store",
        description=(
            "Show which keys workers have learned that the pages of a route read, as templates "
            "over its arguments, with the share of visits that read them. It is read from the "
            "store, which is left as it is. Signed records want the secret of the cache in the "
            f"variable {_SECRET}."
        ),
    )
    pages.add_argument("url", help="the URL of the store")
    pages.add_argument("route", nargs="+", help="the name of a route, as its pages have it")
    pages.add_argument("--prefix", default="", help="the prefix of the cache")
    given = parser.parse_args(arguments)
    try:
        return _pages(given.url, given.prefix, given.route)
    except OneTripError as error:
        sys.stderr.write(f"onetrip: {error}\n")
        return 1


def _pages(url: str, prefix: str, routes: Sequence[str]) -> int:
    # One that is empty signs nothing, as one that is not set.
    secret = os.environ.get(_SECRET) or None
    cache = Cache(url, prefix=prefix, secret=secret, on_error="raise")
    for name in dict.fromkeys(routes):
        lines = _shared(cache, name) or ["        nothing is shared of it"]
        sys.stdout.write("\n".join([name, *lines, ""]))
    return 0


def _shared(cache: Cache, name: str) -> list[str]:
    """Return what the store tells of a route to a worker that does not know it."""
    # A route is told of once it was visited; from a page that reads nothing nothing is learned.
    with cache.page(name):
        pass
    bad = cache.stats().bad_entries
    with cache.page(name) as page:
        # The record comes along with whatever is read first. Read by itself, it tells if it is bad.
        cache.get(f"onetrip:page:{name}")
        page.discard()
    if cache.stats().bad_entries > bad:
        return [f"        its record cannot be read; is {_SECRET} that of the cache?"]
    [route] = (route for route in cache.pages() if route.name == name)
    return [f"{share:>6.0%}  {template}" for template, share in route.templates]


if __name__ == "__main__":
    sys.exit(main())
