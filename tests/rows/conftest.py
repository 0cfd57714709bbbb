"""The sites that the rows are shown on, each with a scope for each request and without.

A site is started when the first test asks for it, and serves all that come after. A test says on
which it runs, `@on("django", "flask")`, and gets each of them twice: as `control`, which is right
today and stays the measure, and as `onetrip`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis

from tests.rows.sites import KINDS, ROOT, SITES, Site
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The first of the databases of Redis is that of the meetings; each site has one of its own.
DATABASES = {
    name: number
    for number, name in enumerate((f"{site}-{kind}" for site in SITES for kind in KINDS), start=1)
}


@pytest.fixture(scope="session")
def rows_server() -> Iterator[RedisServer]:
    """The store of all sites, apart from that of the other tests."""
    with RedisServer("--databases", str(len(DATABASES) + 1)) as server:
        yield server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of SQLite with the tables of the Django site, to be copied."""
    path = tmp_path_factory.mktemp("rows") / "empty.sqlite3"
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.rows.programs.settings",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "python", ROOT))),
        "ROWS_KIND": "control",
        "ROWS_SITE": "django",
        "ROWS_SESSIONS": "cache",
        "ROWS_STORE": "redis://nowhere",
        "ROWS_DESK": "redis://nowhere",
        "ROWS_DATABASE": str(path),
    }
    command = ["migrate", "--run-syncdb", "--verbosity", "0"]
    subprocess.run([sys.executable, "-m", "django", *command], env=env, cwd=ROOT, check=True)
    return path


@pytest.fixture(scope="session")
def start_site(rows_server: RedisServer, empty_database: Path) -> Iterator[Callable[[str], Site]]:
    """Start a site the first time that it is asked for."""
    desk = redis.Redis.from_url(rows_server.url, decode_responses=True, socket_timeout=None)
    started: dict[str, Site] = {}

    def start(name: str) -> Site:
        if name not in started:
            site, _, kind = name.rpartition("-")
            url = rows_server.url.removesuffix("/0")
            database = empty_database.with_name(f"{name}.sqlite3")
            shutil.copy(empty_database, database)
            in_redis = SITES[site].store == "redis"
            started[name] = Site(
                site,
                kind,
                desk,
                ROWS_STORE=f"{url}/{DATABASES[name]}" if in_redis else "memory://rows",
                ROWS_DESK=f"{url}/0",
                ROWS_DATABASE=str(database),
            )
        return started[name]

    yield start
    for site in started.values():
        site.terminate()
    for site in started.values():
        site.stop()
    desk.close()


@pytest.fixture
def site(
    request: pytest.FixtureRequest, start_site: Callable[[str], Site], rows_server: RedisServer
) -> Iterator[Site]:
    """A site that remembers nothing of the tests before, but what its pages learned."""
    site = start_site(request.param)
    rows_server.flush()
    if SITES[site.name].store == "memory":
        site.do("clear")
    yield site
    site.settle()
