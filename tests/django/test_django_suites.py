"""Django's own tests of caches, over onetrip: each Django, each store, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts import django_sdists
from tests.django.servers import memcached
from tests.django.suite import excluded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

VERSIONS = list(django_sdists.requirements("django"))
STORES = ["memory", "disk", "redis", "memcached"]

LABELS = [
    "onetrip_cases",
    "cache.tests",
    "template_tests.syntax_tests.test_cache",
    "sessions_tests.tests.CacheSessionTests",
    "sessions_tests.tests.CacheDBSessionTests",
]

# Most of a run is waiting for entries to expire.
AT_ONCE = 10


@dataclass
class Done:
    code: int
    output: str
    report: dict[str, Any]


def run(version: str, url: str, folder: Path) -> Done:
    django = django_sdists.folder(version)
    report = folder / "report.json"
    path = [django, HERE / "suite", ROOT / "python"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "STORE_URL": url,
        "REPORT": str(report),
    }
    options = ["--settings=onetrip_settings", "--parallel=1"]
    done = subprocess.run(
        [sys.executable, "runtests.py", *options, *LABELS],
        cwd=django / "tests",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    told = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return Done(done.returncode, done.stdout, told)


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[tuple[str, str], Future[Done]]]:
    """All runs that this session asks for, begun at once."""
    django_sdists.main()

    def begin(version: str, store: str) -> Done:
        folder = tmp_path_factory.mktemp(f"{store}-{version}")
        # A clear empties the store, so each run has its own.
        with ExitStack() as stack:
            if store == "memcached":
                url = stack.enter_context(memcached())
            else:
                url = {
                    "memory": "memory://suite",
                    "disk": f"disk://{folder}/store",
                    "redis": f"{redis_server.url.rpartition('/')[0]}/{1 + VERSIONS.index(version)}",
                }[store]
            return run(version, url, folder)

    wanted = [
        (str(item.callspec.params["version"]), str(item.callspec.params["store"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test_suite.__name__
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {one: pool.submit(begin, *one) for one in wanted}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("version", VERSIONS)
def test_suite(runs: dict[tuple[str, str], Future[Done]], version: str, store: str) -> None:
    done = runs[version, store].result()
    assert done.code == 0, done.output
    left_out = {*excluded.CLASSES, *excluded.TESTS, *excluded.OTHERS}
    if store == "memcached":
        left_out.update(excluded.MEMCACHED_TESTS, excluded.MEMCACHED_OTHERS)
    # All that is left out is in the list, and nothing in the list is out of date.
    assert done.report["left_out"] == sorted(left_out)
    assert done.report["skipped"] == []
    assert done.report["expected_failures"] == []
    assert done.report["ran"] > 190


def test_every_django_version_supports_python_3_11(
    runs: dict[tuple[str, str], Future[Done]],
) -> None:
    assert runs is not None
    for version in VERSIONS:
        told = (django_sdists.folder(version) / "PKG-INFO").read_text(encoding="utf-8")
        assert f"\nVersion: {version}\n" in told
        assert "Programming Language :: Python :: 3.11\n" in told
