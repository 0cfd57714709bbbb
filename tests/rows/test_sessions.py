"""Sessions in the cache: who signed out stays signed out."""

from __future__ import annotations

import time

from tests.rows.sites import DELAYS, FEW_VISITS, VISITS, Site, on, on_each_process

both_engines = on_each_process("django", "django-db")


def sign_in(site: Site, visits: int = VISITS) -> dict[str, str]:
    """Sign in, visit the basket in each process, and return the cookies."""
    cookies = site.ask("sign_in/").cookies
    for number in range(visits * site.workers):
        answer = site.ask("basket/", worker=number, cookies=cookies)
        assert answer.text == f"ann {number + 1}"
    return cookies


def user(site: Site, cookies: dict[str, str]) -> list[str]:
    """Return who the cookies stand for, in each process."""
    return [
        site.ask("whoami/", worker=worker, cookies=cookies).text for worker in range(site.workers)
    ]


@both_engines
def test_logout_elsewhere_is_not_undone(site: Site, worker: int) -> None:
    for delay in DELAYS:
        cookies = sign_in(site, VISITS if delay == 0 else FEW_VISITS)
        assert user(site, cookies) == ["ann", "ann"]
        page = site.begin("basket/", cookies=cookies)
        site.ask("sign_out/", worker=worker, cookies=cookies)
        time.sleep(delay)
        page.go()
        page.answer()
        assert user(site, cookies) == ["", ""], delay


@on("django", "django-db")
def test_logout_is_not_undone_by_a_slow_page(site: Site) -> None:
    users = [sign_in(site) for _ in range(site.workers)]
    pages = [site.begin("basket/", cookies=cookies) for cookies in users]
    time.sleep(0.4)
    for worker, cookies in enumerate(users):
        site.ask("sign_out/", worker=worker, cookies=cookies)
    time.sleep(0.6)
    for page in pages:
        page.go()
        page.answer()
    assert [user(site, cookies) for cookies in users] == [["", ""], ["", ""]]


@both_engines
def test_session_write_of_a_stream_is_seen_by_the_next_request(site: Site, worker: int) -> None:
    cookies = sign_in(site)
    with site.stream("put/", cookies=cookies, fruit="apple") as stream:
        assert [stream.line(), stream.line()] == ["first", "put"]
        stream.wait()
        found = site.ask("fruit/", worker=worker, cookies=cookies).text
        stream.go()
        assert (found, stream.line()) == ("apple", "last")
