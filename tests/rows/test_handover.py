"""What is written for another process is there for it, in the order in which it was written."""

from __future__ import annotations

import time

import pytest

from tests.rows.sites import DELAYS, Site, on, on_each_process

EVERYWHERE = on_each_process("django", "django-asgi", "flask", "flask-memory", "fastapi")


@EVERYWHERE
def test_job_is_stored_before_its_message_arrives(site: Site, worker: int) -> None:
    path = site.page("job")
    site.warm(path)
    site.do("delete", "job")
    page = site.begin(path)
    found = site.do("get", "job", worker=worker)
    site.do("delete", "job", worker=worker)
    page.go()
    assert (found, page.text()) == ("what is to do", "None")


@EVERYWHERE
def test_last_write_wins(site: Site, worker: int) -> None:
    path = site.page("first")
    site.warm(path)
    for delay in DELAYS:
        page = site.begin(path)
        time.sleep(delay)
        site.do("set", "winner", "second", worker=worker)
        page.go()
        assert page.text() == "written"
        assert site.do("get", "winner") == "second", delay


@EVERYWHERE
def test_data_is_stored_before_its_version(site: Site, worker: int) -> None:
    path = site.page("publish")
    site.do("set", "version", 1)
    site.warm(path)
    page = site.begin(path)
    version = site.do("get", "version", worker=worker)
    data = site.do("get", f"data:{version}", worker=worker)
    page.go()
    assert page.text() == str(version)
    assert data == f"data of {version}"


@on_each_process("django")
def test_document_is_found_under_the_new_version(site: Site, worker: int) -> None:
    site.warm("versions/")
    page = site.begin("versions/")
    found = [site.do("get", "doc", version=version, worker=worker) for version in (1, 2)]
    page.go()
    assert page.text() == "text"
    assert found == [None, "text"]


@on("django", "flask")
@pytest.mark.parametrize("absence", ["known", "new"])
def test_version_read_has_its_data(site: Site, absence: str) -> None:
    """Its data was absent when the page began, and at each visit before if that is known."""
    site.do("set", "version", 1)
    site.do("set", "data:1", "data of 1")
    if absence == "new":
        site.do("set", "data:2", "data of 2")
    site.warm("ahead/")
    for delay in DELAYS:
        site.do("delete", "data:2")
        site.do("set", "version", 1)
        page = site.begin("ahead/", wait=1)
        site.do("set", "data:2", "data of 2")
        site.do("incr", "version")
        time.sleep(delay)
        page.go()
        assert page.text() == "data of 2", delay


@EVERYWHERE
def test_deleted_value_is_not_put_back(site: Site, worker: int) -> None:
    not_put_back(site, site.page("remember"), worker)


@on_each_process("django", "flask", "flask-memory")
def test_deleted_get_or_set_value_is_not_put_back(site: Site, worker: int) -> None:
    not_put_back(site, "remember_once/", worker)


@on_each_process("django")
def test_deleted_fragment_is_not_put_back(site: Site, worker: int) -> None:
    not_put_back(site, "part/", worker, key="template.cache.part.d41d8cd98f00b204e9800998ecf8427e")


@on_each_process("flask", "flask-memory", "fastapi")
def test_deleted_cached_result_is_not_put_back(site: Site, worker: int) -> None:
    not_put_back(site, "remember_cached/", worker, forget="forget_cached/")


def not_put_back(
    site: Site, path: str, worker: int, *, key: str = "value", forget: str | None = None
) -> None:
    site.source("older")
    site.warm(path)
    for delay in DELAYS:
        site.do("delete", key) if forget is None else site.get(forget, worker)
        site.source("old")
        page = site.begin(path)
        site.source("new")
        site.do("delete", key, worker=worker) if forget is None else site.get(forget, worker)
        time.sleep(delay)
        page.go()
        assert page.text() == "old"
        assert [site.get(path, each) for each in range(site.workers)] == ["new"] * site.workers
