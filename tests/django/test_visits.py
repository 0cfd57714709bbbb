"""The middleware names each page by itself: the second request to a view is one trip."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings

from onetrip.django import Cache, PageMiddleware
from tests.django import visit_urls
from tests.django.cancelled import read_and_cancel
from tests.django.conftest import configured, on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest

    import onetrip
    from tests.servers import RedisServer

MIDDLEWARE = "onetrip.django.PageMiddleware"
_numbers = itertools.count()

HERE = "tests.django.visit_urls"


@pytest.fixture
def site(location: str) -> Iterator[onetrip.Cache]:
    """The pages over each store in turn; the cache behind them."""
    with configured(default=alone(location)), override_settings(ROOT_URLCONF=HERE):
        yield fill()


def alone(location: str) -> dict[str, Any]:
    """An alias whose cache has learned nothing; that of a server would be the last test's."""
    # What a stream reads is held as long as elsewhere: machines are busy.
    options = {"prefix": f"visits-{next(_numbers)}", "read_max_age": 60}
    return on(location, OPTIONS=options)


def fill() -> onetrip.Cache:
    backend = caches["default"]
    assert isinstance(backend, Cache)
    for number in range(20):
        backend.set_many({f"note:{number}": f"n{number}", f"comments:{number}": f"c{number}"})
    backend.set("title", "Notes")
    return backend.onetrip


class Get:
    """Gets pages, by the synchronous stack or by the asynchronous one."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.prefix = "a" if is_async else ""

    def __call__(self, path: str, method: str = "get", **options: Any) -> bytes:
        """The content, without spaces."""
        if not self.is_async:
            response: Any = getattr(Client(), method)(path, **options)
            return b"".join(response).replace(b" ", b"")

        async def ask() -> bytes:
            response: Any = await getattr(AsyncClient(), method)(path, **options)
            if getattr(response, "is_async", False):
                parts = [part async for part in response]
            else:
                parts = await asyncio.to_thread(list, response)
            return b"".join(parts).replace(b" ", b"")

        return asyncio.run(ask())


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest) -> Get:
    return Get(is_async=request.param == "async")


def trips(cache: onetrip.Cache, work: Callable[[], object]) -> int:
    with cache.watch() as seen:
        work()
    return seen.trips


def templates(cache: onetrip.Cache) -> dict[str, set[str]]:
    """What is known of each route that read anything: its keys without the version."""
    return {
        route.name: {template.removeprefix(":1:") for template, _ in route.templates}
        for route in cache.pages()
        if route.reads
    }


NOTE = {"title", "note:{note_id}", "comments:{note_id}"}


@pytest.mark.parametrize("view", ["note", "stream"])
class TestTrips:
    def test_second_request_is_one_trip(self, site: onetrip.Cache, get: Get, view: str) -> None:
        path = f"/{get.prefix}{view}/5/"
        assert [trips(site, lambda: get(path)) for _ in range(3)] == [3, 1, 1]
        assert get(path) == b"Notesn5c5"

    def test_first_request_of_an_unseen_page_is_one_trip(
        self, site: onetrip.Cache, get: Get, view: str
    ) -> None:
        route = f"{get.prefix}{view}"
        get(f"/{route}/5/")
        get(f"/{route}/6/")
        for number in range(7, 20):
            path = f"/{route}/{number}/"
            assert trips(site, partial(get, path)) == 1
        assert templates(site) == {route: NOTE}

    def test_server_counts_one_read(self, redis_server: RedisServer, get: Get, view: str) -> None:
        redis_server.flush()
        route = f"{get.prefix}{view}"
        default = alone(redis_server.url)
        with configured(default=default), override_settings(ROOT_URLCONF=HERE):
            fill()
            get(f"/{route}/5/")
            redis_server.reset_stats()
            get(f"/{route}/5/")
            assert redis_server.reads() == 1
            get(f"/{route}/6/")
            redis_server.reset_stats()
            assert get(f"/{route}/7/") == b"Notesn7c7"
            assert redis_server.reads() == 1

    def test_two_middlewares_make_the_trips_of_one(
        self, site: onetrip.Cache, get: Get, view: str
    ) -> None:
        with override_settings(MIDDLEWARE=[MIDDLEWARE, MIDDLEWARE]):
            path = f"/{get.prefix}{view}/5/"
            assert [trips(site, lambda: get(path)) for _ in range(3)] == [3, 1, 1]
        [route] = site.pages()
        assert (route.visits, route.reads) == (3, 9)


class TestNames:
    @pytest.mark.parametrize(
        ("path", "route"),
        [
            ("/note/5/", "note"),
            ("/inner/5/", "one:note"),
            ("/unnamed/5/", "/unnamed/<int:note_id>/"),
        ],
    )
    def test_route_name_is_the_page_name(
        self, site: onetrip.Cache, get: Get, path: str, route: str
    ) -> None:
        get(path)
        assert [known.name for known in site.pages()] == [route]

    def test_positional_arguments(self, site: onetrip.Cache, get: Get) -> None:
        for path in ("/positions/a/b/", "/positions/c/d/", "/positions/e/f/"):
            get(path)
        assert {"argument:{0}", "argument:{1}"} <= templates(site)["positions"]

    def test_extra_arguments_of_the_urlconf(self, site: onetrip.Cache, get: Get) -> None:
        # Text counts; what would have to be asked for its text is not asked.
        assert [trips(site, lambda: get("/list/")) for _ in range(2)] == [4, 1]
        get("/list/?page=7")
        assert "argument:{sort}" in templates(site)["list"]

    def test_objects_of_converters_are_left_out(self, site: onetrip.Cache, get: Get) -> None:
        for _ in range(2):
            get("/made/5/")
        assert templates(site)["made"] == {"title", "list:1", "greeting:nobody"}

    def test_declared_query_parameters(self, site: onetrip.Cache, get: Get) -> None:
        with override_settings(ONETRIP_PAGE_QUERY=["page"]):
            for page in (11, 12, 13):
                get(f"/list/?page={page}&at={page}")
            assert trips(site, lambda: get("/list/?page=14&at=99")) == 1
        assert "list:{page}" in templates(site)["list"]

    def test_undeclared_query_parameters_are_ignored(self, site: onetrip.Cache, get: Get) -> None:
        for page in (11, 12, 13):
            get(f"/list/?page={page}")
        assert "list:{page}" not in templates(site)["list"]
        assert trips(site, lambda: get("/list/?page=14")) == 2

    @pytest.mark.parametrize("name", ["facets", "afacets"])
    def test_facets(self, site: onetrip.Cache, get: Get, name: str) -> None:
        for given in (f"{HERE}.{name}", getattr(visit_urls, name)):
            with override_settings(ONETRIP_PAGE_FACETS=given):
                for user in ("ada", "bob", "eve"):
                    get("/list/", headers={"X-User": user})
                assert trips(site, lambda: get("/list/", headers={"X-User": "kim"})) == 1
        assert "greeting:{user}" in templates(site)["list"]

    def test_view_arguments_win_over_facets(self, site: onetrip.Cache, get: Get) -> None:
        given = {"ONETRIP_PAGE_QUERY": ["note_id", "by"], "ONETRIP_PAGE_FACETS": f"{HERE}.twice"}
        with override_settings(**given):
            for number in (5, 6):
                get(f"/{get.prefix}note/{number}/?note_id=x{number}&by=y{number}")
            path = f"/{get.prefix}note/7/?note_id=8&by=9"
            assert trips(site, lambda: get(path)) == 1
        assert "note:{note_id}" in templates(site)[f"{get.prefix}note"]

    def test_facets_that_read_the_session(self, site: onetrip.Cache, get: Get) -> None:
        path = f"/{get.prefix}note/5/"
        with override_settings(ONETRIP_PAGE_FACETS=f"{HERE}.of_session"):
            assert [trips(site, lambda: get(path)) for _ in range(2)] == [4, 2]


class TestLearnedVisits:
    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
    def test_unsafe_method_is_not_learned(self, site: onetrip.Cache, get: Get, method: str) -> None:
        assert [trips(site, lambda: get("/note/5/", method)) for _ in range(2)] == [3, 3]
        assert site.pages() == []

    def test_head_is_learned_like_get(self, site: onetrip.Cache, get: Get) -> None:
        get("/note/5/", "head")
        assert trips(site, lambda: get("/note/5/")) == 1

    @pytest.mark.parametrize("code", [400, 404, 410, 500, 503])
    def test_error_response_is_not_learned(self, site: onetrip.Cache, get: Get, code: int) -> None:
        get(f"/status/{code}/")
        get("/nowhere/")
        assert site.pages() == []

    @pytest.mark.parametrize("code", [200, 304, 302])
    def test_redirect_and_not_modified_are_learned(
        self, site: onetrip.Cache, get: Get, code: int
    ) -> None:
        get(f"/status/{code}/")
        assert templates(site) == {"status": {"title"}}

    def test_raising_view_is_not_learned(self, site: onetrip.Cache, get: Get) -> None:
        with pytest.raises(LookupError, match="of the view"):
            get(f"/{get.prefix}raises/")
        assert site.pages() == []

    def test_handled_exception_is_not_learned(self, site: onetrip.Cache, get: Get) -> None:
        forgiving = f"{__name__}.Forgiving"
        with override_settings(MIDDLEWARE=[forgiving, MIDDLEWARE]):
            assert get(f"/{get.prefix}raises/") == b"forgiven"
        assert site.pages() == []

    def test_raising_stream_is_not_learned(self, site: onetrip.Cache, get: Get) -> None:
        with pytest.raises(LookupError, match="of the stream"):
            get(f"/{get.prefix}stream/5/?fail=1")
        assert site.pages() == []

    def test_stream_left_by_its_reader_is_learned(self, site: onetrip.Cache) -> None:
        response: Any = Client().get("/stream/5/")
        assert next(iter(response.streaming_content)) == b"Notes"
        response.close()
        assert templates(site) == {"stream": {"title"}}

    def test_cancelled_stream_is_learned(self, site: onetrip.Cache) -> None:
        asyncio.run(read_and_cancel("/waiting/", b"Notes"))
        assert templates(site) == {"waiting": {"title"}}

    @pytest.mark.parametrize(
        ("bots", "headers"),
        [
            (re.compile("(?i)bot"), {"User-Agent": "GoodBot/1.0"}),
            (f"{HERE}.is_bot", {"X-Bot": "1"}),
            (visit_urls.is_bot, {"X-Bot": "1"}),
        ],
    )
    def test_bot_is_served_fast_but_not_learned(
        self, site: onetrip.Cache, get: Get, bots: object, headers: dict[str, str]
    ) -> None:
        with override_settings(ONETRIP_PAGE_BOTS=bots):
            # The second is a synchronous stream, in either stack.
            for route in (f"{get.prefix}note", "stream", "astream")[: 3 if get.is_async else 2]:
                get(f"/{route}/5/", headers=headers)
                assert route not in templates(site)
                for number in (5, 6):
                    get(f"/{route}/{number}/")
                assert trips(site, partial(get, f"/{route}/7/", headers=headers)) == 1
                assert [known.visits for known in site.pages() if known.name == route] == [2]

    def test_bot_is_learned_by_default(self, site: onetrip.Cache, get: Get) -> None:
        get("/note/5/", headers={"User-Agent": "GoodBot/1.0"})
        assert [route.name for route in site.pages()] == ["note"]


class Forgiving:
    """A middleware that makes an answer of an error of the view."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self._get_response(request)

    def process_exception(self, _request: HttpRequest, _error: Exception) -> HttpResponse:
        return HttpResponse("forgiven")


def test_reused_request_object_is_another_visit(site: onetrip.Cache, get: Get) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Again", MIDDLEWARE]):
        assert [trips(site, lambda: get(f"/{get.prefix}note/5/")) for _ in range(2)] == [4, 2]
    [route] = site.pages()
    assert route.visits == 4


class Again(Forgiving):
    """A middleware that makes each request twice."""

    def __call__(self, request: HttpRequest) -> Any:
        self._get_response(request)
        return self._get_response(request)


class TestConcurrentVisits:
    def test_threads_learn_separately(self, site: onetrip.Cache) -> None:
        barrier = threading.Barrier(2)
        pages: dict[int, bytes] = {}

        def ask(number: int) -> None:
            pages[number] = Client().get(f"/note/{number}/").content

        visit_urls.meeting.append(barrier)
        try:
            threads = [threading.Thread(target=ask, args=(number,)) for number in (5, 6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            visit_urls.meeting.clear()
        assert pages == {5: b"Notes n5 c5", 6: b"Notes n6 c6"}
        [route] = site.pages()
        assert (route.visits, route.reads) == (2, 6)
        assert trips(site, lambda: Client().get("/note/7/")) == 1

    def test_tasks_learn_separately(self, site: onetrip.Cache) -> None:
        async def ask() -> list[bytes]:
            client = AsyncClient()
            pages = await asyncio.gather(*(client.get(f"/anote/{n}/") for n in (5, 6)))
            return [page.content for page in pages]

        assert asyncio.run(ask()) == [b"Notes n5 c5", b"Notes n6 c6"]
        [route] = site.pages()
        assert (route.visits, route.reads) == (2, 6)
        assert trips(site, lambda: Get(is_async=True)("/anote/7/")) == 1


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("ONETRIP_PAGE_QUERY", "page", r"must list query parameters.* not 'page'"),
        ("ONETRIP_PAGE_FACETS", "no.such.facets", "a function that cannot be imported"),
        ("ONETRIP_PAGE_FACETS", 5, "a function of a request, or its dotted path, not 5"),
        ("ONETRIP_PAGE_BOTS", ["bot"], r"dotted path, not \['bot'\]"),
    ],
)
def test_wrong_settings_raise(setting: str, value: object, told: str) -> None:
    with (
        override_settings(**{setting: value}),
        pytest.raises(ImproperlyConfigured, match=f"{setting} .*{told}"),
    ):
        PageMiddleware(lambda _: HttpResponse())


def test_facets_that_are_not_a_dict_raise(site: onetrip.Cache, get: Get) -> None:
    with (
        override_settings(ONETRIP_PAGE_FACETS=f"{HERE}.no_facets"),
        pytest.raises(ImproperlyConfigured, match=r"must return a dict .*; it returned \['user'\]"),
    ):
        get("/note/5/")
