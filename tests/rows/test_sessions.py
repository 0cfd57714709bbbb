"""Sessions in the cache: who signed out stays signed out."""

from __future__ import annotations

import time

import pytest

from tests.rows.sites import DELAYS, VISITS, Site, on

both_engines = on("django", "django-db")
workers = pytest.mark.parametrize("worker", [0, 1], ids=["same-process", "other-process"])


def sign_in(site: Site) -> dict[str, str]:
    cookies = site.ask("sign_in/").cookies
    for worker in range(site.workers):
        for _ in range(VISITS):
            answer = site.ask("basket/", worker=worker, cookies=cookies)
    assert answer.text == f"ann {VISITS * site.workers}"
    return cookies


def user(site: Site, cookies: dict[str, str]) -> list[str]:
    """Return who the cookies stand for, in each process."""
    return [
        site.ask("whoami/", worker=worker, cookies=cookies).text for worker in range(site.workers)
    ]


@both_engines
@workers
def test_logout_elsewhere_is_not_undone(site: Site, worker: int) -> None:
    for delay in DELAYS:
        cookies = sign_in(site)
        assert user(site, cookies) == ["ann", "ann"]
        page = site.begin("basket/", cookies=cookies)
        site.ask("sign_out/", worker=worker, cookies=cookies)
        time.sleep(delay)
        page.go()
        page.answer()
        assert user(site, cookies) == ["", ""], delay


@both_engines
@workers
def test_logout_is_not_undone_by_a_page_of_a_second(site: Site, worker: int) -> None:
    cookies = sign_in(site)
    page = site.begin("basket/", cookies=cookies)
    time.sleep(0.4)
    site.ask("sign_out/", worker=worker, cookies=cookies)
    time.sleep(0.6)
    page.go()
    page.answer()
    assert user(site, cookies) == ["", ""]


@both_engines
@workers
def test_what_a_stream_puts_in_the_session_is_seen_by_the_next_request(
    site: Site, worker: int
) -> None:
    cookies = sign_in(site)
    stream = site.stream("put/", cookies=cookies, fruit="apple")
    assert [stream.line(), stream.line()] == ["first", "put"]
    stream.wait()
    found = site.ask("fruit/", worker=worker, cookies=cookies).text
    stream.go()
    assert (found, stream.line()) == ("apple", "last")
    stream.close()
