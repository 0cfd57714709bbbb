"""That the rows are shown where they are in danger: on pages that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rows.sites import Site, on

if TYPE_CHECKING:
    from tests.servers import RedisServer


@on("django", "flask")
def test_a_scope_brings_what_a_page_reads_in_one_trip(site: Site, rows_server: RedisServer) -> None:
    site.do("set", "version", 1)
    site.do("set", "data:1", "data of 1")
    site.do("set", "data:2", "data of 2")
    site.warm("ahead/")
    trips = []
    for _ in range(5):
        rows_server.reset_stats()
        assert site.get("ahead/") == "data of 1"
        trips.append(rows_server.reads())
    # A visit may also tell other processes what it learned.
    assert min(trips) == (3 if site.kind == "control" else 1)
