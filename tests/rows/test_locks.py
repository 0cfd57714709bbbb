"""Locks, doors and whatever else two processes agree by."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from tests.rows.sites import DELAYS, Site, on

EVERYWHERE = on("django", "django-asgi", "flask", "flask-memory", "fastapi")


@EVERYWHERE
@pytest.mark.parametrize(("requests", "times"), [(40, 1), (2, 50)])
def test_no_count_under_a_lock_is_lost(site: Site, requests: int, times: int) -> None:
    path = site.page("count")
    site.warm(path)
    site.do("set", "number", 0)
    site.at_once(partial(site.get, path, worker, times=times) for worker in range(requests))
    assert site.do("get", "number") == requests * times


@on("django", "flask", "flask-memory")
@pytest.mark.parametrize("leave", ["delete", "mark"])
def test_one_of_two_announcers_sees_the_other(site: Site, leave: str) -> None:
    a: dict[str, Any] = {"me": "a", "you": "b", "leave": leave}
    b: dict[str, Any] = {"me": "b", "you": "a", "leave": leave}
    site.warm("door/", **a)
    site.warm("door/", **b)
    for delay in DELAYS:
        one = site.begin("door/", worker=0, **a)
        time.sleep(delay)
        other = site.begin("door/", worker=1, **b)
        # Both have said so, and only now they look.
        for page in (one, other):
            page.go()
            page.wait()
        for page in (one, other):
            page.go()
        assert [one.text(), other.text()] == ["saw you", "saw you"], delay


@on("django", "flask", "flask-memory")
@pytest.mark.parametrize("before", [None, "earlier"])
def test_late_caller_takes_the_result_of_the_lock_holder(site: Site, before: str | None) -> None:
    site.do("set", "result", "theirs")
    site.do("add", "done", 1)
    site.warm("done/")
    for delay in DELAYS:
        site.do("delete", "done")
        site.do("delete", "result")
        if before:
            site.do("set", "result", before)
        page = site.begin("done/")
        site.do("set", "result", "theirs")
        site.do("add", "done", 1)
        time.sleep(delay)
        page.go()
        assert page.text() == "theirs", delay


@on("django")
def test_an_order_is_charged_once(site: Site) -> None:
    site.get("new_order/")
    site.do("set", "paid", "yes")
    site.warm("pay/")
    for delay in DELAYS:
        site.get("new_order/")
        site.do("set", "paid", "no")
        one = site.begin("pay/", worker=0)
        # It looks before it waits for the row, which the first holds.
        other = site.begin("pay/", worker=1, meet_before=1)
        other.go()
        time.sleep(delay)
        one.go()
        assert one.text() == "charged"
        assert other.text() == "paid meanwhile", delay
        assert site.get("charged/") == "1"


@on("django")
def test_read_after_a_row_lock_is_fresh(site: Site) -> None:
    site.get("new_order/")
    site.do("set", "paid", "no")
    site.warm("locked/")
    for delay in DELAYS:
        site.do("set", "paid", "no")
        page = site.begin("locked/")
        site.do("set", "paid", "yes")
        time.sleep(delay)
        page.go()
        assert page.text() == "no yes", delay
