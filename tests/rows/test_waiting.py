"""Pages that wait for what another process or thread will write."""

from __future__ import annotations

import time

import pytest

from tests.rows.sites import DELAYS, VISITS, Site, on

EVERYWHERE = on("django", "django-asgi", "flask", "flask-memory", "fastapi")


@EVERYWHERE
def test_polling_page_sees_the_new_status(site: Site) -> None:
    path = site.page("pending")
    site.do("set", "status", "done")
    site.warm(path)
    for delay in DELAYS[:: len(DELAYS) - 1]:
        site.do("set", "status", "pending")
        page = site.begin(path)
        page.go()
        time.sleep(delay)
        site.do("set", "status", "done")
        assert page.text() == "done", delay


@EVERYWHERE
@pytest.mark.parametrize(
    ("before", "visits"), [(None, "quiet"), ("out of date", "quiet"), ("out of date", "lively")]
)
def test_result_is_read_once_its_task_is_done(site: Site, before: str | None, visits: str) -> None:
    """Earlier visits found the result, or had it made as well.

    Where they found it, nothing tells it from a menu. The page then says that there was news.
    """
    path, key = site.page("task"), f"result-{before is None}-{visits}"
    fresh = "1" if visits == "quiet" else ""

    def visit(delay: float, worker: int = 0) -> str:
        site.do("delete", key)
        if before:
            site.do("set", key, before)
        page = site.begin(path, worker=worker, key=key, fresh=fresh)
        site.do("set", key, "new", worker=1 - worker)
        time.sleep(delay)
        page.go()
        return page.text()

    if visits == "quiet":
        site.do("set", key, "new")
        site.warm(path, key=key)
    else:
        for number in range(VISITS):
            visit(0, number % 2)
    assert {delay: visit(delay) for delay in DELAYS} == dict.fromkeys(DELAYS, "new")


@on("django", "flask", "flask-memory")
@pytest.mark.parametrize("visits", ["quiet", "lively"])
def test_listener_reads_the_value_of_each_message(site: Site, visits: str) -> None:
    """Earlier visits heard the same news twice, or new ones with each message.

    Where they heard the same, nothing tells it from a menu. The page then says that there was news.
    """
    key = f"news-{visits}"
    fresh = "1" if visits == "quiet" else ""

    def visit(delay: float) -> str:
        site.do("set", key, 0)
        page = site.begin("listen/", key=key, fresh=fresh)
        for number in (1, 2):
            site.do("set", key, number)
            time.sleep(delay)
            page.go()
            if number == 1:
                page.wait()
        return page.text()

    site.do("set", key, 0)
    if visits == "quiet":
        site.warm("listen/", key=key)
    else:
        for _ in range(VISITS):
            visit(0)
    heard = {delay: visit(delay) for delay in DELAYS}
    assert heard == dict.fromkeys(DELAYS, "[1, 2]")


@on("django", "flask", "flask-memory")
def test_write_by_a_thread_of_the_page_is_read(site: Site) -> None:
    site.do("set", "stamp", "before")
    site.warm("thread/", quiet=1)
    assert site.get("thread/") == "before after"
