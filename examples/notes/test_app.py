"""The pages: what they show, and the trips they take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from caching import cache
from model import BY_ID, NOTES

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from onetrip.pytest_plugin import AssertTrips

PIECES = 2 * len(NOTES)
README = "/notes/README.md"


def body(client: FlaskClient, url: str) -> str:
    """The page without its footer, which alone may differ from visit to visit."""
    response = client.get(url)
    assert response.status_code == 200
    main = re.search(r"<main>.*</main>", response.text, re.DOTALL)
    assert main is not None
    return main[0].replace("?preload=no", "")


def test_the_index_shows_every_note(client: FlaskClient) -> None:
    page = body(client, "/")
    for note in NOTES:
        assert f'href="/notes/{note.id}"' in page
    assert page.count("No comments yet.") == len(NOTES)


def test_a_note_shows_its_rendered_markup(client: FlaskClient) -> None:
    note = BY_ID["CHANGELOG.md"]
    page = body(client, "/notes/CHANGELOG.md")
    assert str(note.note_markup.uncached()) in page
    assert "<h1" in page


@pytest.mark.parametrize("url", ["/", README])
def test_pages_are_the_same_cold_warm_and_preloaded(client: FlaskClient, url: str) -> None:
    client.post(README, data={"author": "Ada", "text": "Well said."})
    cold = body(client, url)
    assert body(client, url) == cold
    assert body(client, f"{url}?preload=no") == cold
    cache.clear()
    assert body(client, f"{url}?preload=no") == cold


def test_trips_of_the_index(client: FlaskClient, assert_trips: AssertTrips) -> None:
    with assert_trips(1) as cold:
        client.get("/")
    with assert_trips(1) as warm:
        client.get("/")
    look, *posts = cold.records
    assert [len(look), sum(map(len, posts))] == [PIECES, PIECES]
    assert {word for word, _ in look.ops} == {"get"}
    assert {word for post in posts for word, _ in post.ops} == {"set"}
    assert all(post.posted for post in posts)
    assert (len(warm.records), warm.records[0].posted) == (1, False)
    assert warm.records[0].ops == cold.records[0].ops


def test_trips_of_the_index_without_preload(client: FlaskClient, assert_trips: AssertTrips) -> None:
    with assert_trips(2 * PIECES):
        client.get("/?preload=no")
    with assert_trips(PIECES):
        client.get("/?preload=no")


def test_trips_of_a_note(client: FlaskClient, assert_trips: AssertTrips) -> None:
    for posts in (2, 0):
        with assert_trips(1) as seen:
            client.get(README)
        assert len(seen.records) == 1 + posts
    with assert_trips(2):
        client.get(f"{README}?preload=no")


def test_trips_without_a_list_of_keys(client: FlaskClient, assert_trips: AssertTrips) -> None:
    client.get("/")
    visited, unvisited = list(BY_ID)[:3], list(BY_ID)[3:]
    for note_id in visited:
        client.get(f"/notes/{note_id}?preload=learned")
    assert unvisited
    for note_id in [*visited, *unvisited]:
        with assert_trips(1) as seen:
            client.get(f"/notes/{note_id}?preload=learned")
        asked = {key for _, key in seen.records[0].ops if not key.startswith("notes@onetrip:")}
        assert asked == {f"notes:{key}" for key in BY_ID[note_id].cache_keys()}
    # The list of all notes is learned as well.
    client.get("/?preload=learned")
    with assert_trips(1):
        client.get("/?preload=learned")


def test_note_cached_by_the_index_is_warm(client: FlaskClient, assert_trips: AssertTrips) -> None:
    client.get("/")
    with assert_trips(1):
        client.get(README)


def test_footer_shows_the_trips(client: FlaskClient) -> None:
    def footer(url: str) -> str:
        return " ".join(client.get(url).text.partition("<footer>")[2].split())

    told = footer("/")
    assert "<strong>1 trip</strong>" in told
    assert f"{PIECES} pieces were posted: sent, and not waited for." in told
    told = footer("/")
    assert "<strong>1 trip</strong>" in told
    assert "0 Bytes written." in told
    assert "posted" not in told
    plain = footer("/?preload=no")
    assert f"<strong>{PIECES} trips</strong>" in plain
    assert "posted" not in plain
    assert "<code>notes:note_markup:README.md</code>" in footer(README)


def test_server_timing_header_counts_all_trips(client: FlaskClient) -> None:
    told = [client.get(README).headers["Server-Timing"] for _ in range(2)]
    assert [value.split('"')[1] for value in told] == ["1 trip, 0 hits", "1 trip, 2 hits"]
    assert "Server-Timing" not in client.get(f"{README}?preload=no").headers


def test_preloaded_keys_are_the_keys_read(client: FlaskClient) -> None:
    note = BY_ID["README.md"]
    assert note.cache_keys() == ["note_markup:README.md", "note_comments:README.md"]
    client.get(README)
    assert list(cache.get_many(note.cache_keys())) == note.cache_keys()


def test_new_comment_is_shown_at_once(client: FlaskClient, assert_trips: AssertTrips) -> None:
    client.get("/")
    with assert_trips(1) as busted:
        response = client.post(README, data={"author": " Ada ", "text": "Well <b>said</b>."})
    assert busted.records[0].ops == [("delete", "notes:note_comments:README.md")]
    assert response.status_code == 303
    assert response.headers["Location"] == f"{README}#comments"
    for url in ("/", README):
        page = body(client, url)
        assert "<strong>Ada</strong>" in page
        assert "Well &lt;b&gt;said&lt;/b&gt;." in page
    assert "Ada" not in body(client, "/notes/CHANGELOG.md")


def test_only_the_busted_fragment_is_rendered_again(
    client: FlaskClient, assert_trips: AssertTrips
) -> None:
    client.get("/")
    client.post(README, data={"text": "Anybody there?"})
    with assert_trips(1) as seen:
        page = body(client, "/")
    assert seen.records[1].ops == [("set", "notes:note_comments:README.md")]
    assert "<strong>Anonymous</strong>" in page


@pytest.mark.parametrize("text", ["", " \n ", "x" * 2001])
def test_empty_and_too_long_comments_are_refused(client: FlaskClient, text: str) -> None:
    response = client.post(README, data={"text": text})
    assert response.status_code == 400
    assert "between 1 and 2000 characters" in response.text
    assert "No comments yet." in body(client, README)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_note_is_404(client: FlaskClient, method: str, assert_trips: AssertTrips) -> None:
    with assert_trips(0):
        response = client.open("/notes/../etc/passwd", method=method, data={"text": "Hello"})
    assert response.status_code == 404
    assert "There is no such note." in response.text
