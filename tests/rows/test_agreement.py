"""`get_or_set` as an agreement on one token between processes."""

from __future__ import annotations

import time

import pytest

from tests.rows.sites import DELAYS, VISITS, Site, on, on_each_process


@on_each_process("django", "flask", "flask-memory", "fastapi")
def test_concurrent_get_or_set_agrees_on_one_token(site: Site, worker: int) -> None:
    path = site.page("token")
    site.do("set", "token", "known")
    site.warm(path)
    site.do("delete", "token")
    one = site.begin(path, worker=0)
    other = site.request(path, worker=worker)
    # In one process the second may wait for what the first makes.
    if other.comes(2.0 if worker else 0.2):
        other.go()
        other.text()
        one.go()
    else:
        one.go()
        other.go()
    assert one.text() == other.text() == site.do("get", "token")


@on("django", "django-asgi", "flask", "flask-memory", "fastapi")
@pytest.mark.parametrize("visits", ["found one", "made one"])
def test_token_made_by_another_process_is_used(site: Site, visits: str) -> None:
    path = site.page("token")
    site.do("set", "token", "known")
    for _ in range(VISITS):
        if visits == "made one":
            site.do("delete", "token")
        site.warm(path, 1, look=1)
    for delay in DELAYS:
        site.do("delete", "token")
        page = site.begin(path, look=1)
        site.do("set", "token", "theirs")
        time.sleep(delay)
        page.go()
        assert page.text() == "theirs", delay
        assert site.do("get", "token") == "theirs"
