"""A throttle before a password check: so many guesses, however many come at once."""

from __future__ import annotations

import http

import pytest

from tests.rows.sites import Page, Site, on

GUESSES = 40
ALLOWED = 5
KEY = "throttle_anon_192.0.2.1"


@on("django")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_throttle_allows_five_of_forty_concurrent_guesses(site: Site, method: str) -> None:
    """One comes when the one before is through the throttle, while all are checked together."""
    for worker in range(site.workers):
        for _ in range(GUESSES):
            site.ask("guess/", worker=worker)
    site.do("delete", KEY)
    body = b"" if method == "POST" else None
    checked: list[Page] = []
    for number in range(GUESSES):
        page = site.request("guess/", worker=number, body=body)
        if page.comes(10):
            checked.append(page)
        else:
            assert page.answer().status == http.HTTPStatus.TOO_MANY_REQUESTS
    for page in checked:
        page.go()
    assert {page.answer().status for page in checked} == {http.HTTPStatus.OK}
    assert len(checked) == ALLOWED
