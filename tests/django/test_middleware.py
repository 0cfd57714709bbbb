"""A page is one scope: what it fetches twice is asked for once, and its plain calls are exact."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils import translation

from onetrip.django import Cache, PageMiddleware
from tests.django import urls
from tests.django.cancelled import read_and_cancel
from tests.django.conftest import configured, on
from tests.pieces import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http.response import HttpResponseBase

    import onetrip

MIDDLEWARE = "onetrip.django.PageMiddleware"

FACES = ["sync", "async"]


@pytest.fixture
def site(location: str) -> Iterator[onetrip.Cache]:
    """The tests' pages over each store in turn; the cache behind them, with an entry in it."""
    # What pages learn is tested apart (test_visits.py): here each trip is what was asked for.
    with configured(default=on(location, OPTIONS={"pages": "off", "read_max_age": 60})):
        backend = caches["default"]
        assert isinstance(backend, Cache)
        fetch(backend.onetrip, "there")
        yield backend.onetrip


@pytest.fixture(params=FACES)
def get(request: pytest.FixtureRequest) -> Callable[[str], HttpResponseBase]:
    """Gets a page, by the synchronous stack and by the asynchronous one."""
    if request.param == "sync":
        return lambda path: Client().get(path)

    async def get(path: str) -> Any:
        return await AsyncClient().get(path)

    return lambda path: asyncio.run(get(path))


def ops(trips: list[onetrip.Trip]) -> list[list[tuple[str, str]]]:
    return [sorted(trip.ops) for trip in trips]


THERE = [("get", "piece:there")]
PLAIN = [[("set", ":1:written")], [("get", ":1:written")]]


@pytest.mark.parametrize("view", ["twice", "atwice"])
def test_page_makes_one_trip_plus_one_per_plain_call(
    site: onetrip.Cache, get: Any, assert_trips: Any, view: str
) -> None:
    with assert_trips(3) as seen:
        response = get(f"/{view}/")
    assert response.content == b"there there 7"
    assert ops(seen.records) == [THERE, *PLAIN]
    assert caches["default"].get("written") == 7


@pytest.mark.parametrize("view", ["twice", "atwice"])
def test_computed_values_are_stored_when_the_page_ends(
    site: onetrip.Cache, get: Any, view: str
) -> None:
    site.delete("piece:there")
    assert get(f"/{view}/").content == b"there there 7"
    assert site["piece:there"] == "there"


def test_aliases_with_one_cache_share_the_scope(location: str, assert_trips: Any) -> None:
    def view(request: object) -> HttpResponse:
        default, other = caches["default"], caches["other"]
        assert isinstance(default, Cache)
        assert isinstance(other, Cache)
        assert default.onetrip is other.onetrip
        for backend in (default, other, default):
            fetch(backend.onetrip, "a")
        return HttpResponse()

    with configured(default=on(location), other=on(location, KEY_PREFIX="other", VERSION=3)):
        middleware = PageMiddleware(view)
        middleware(RequestFactory().get("/"))
        with assert_trips(1):
            middleware(RequestFactory().get("/"))


def test_unused_alias_makes_no_trip(assert_trips: Any) -> None:
    # Nobody listens there.
    unused = on("redis://127.0.0.1:1/0", OPTIONS={"on_error": "raise"})
    with configured(default=on("memory://unused"), unused=unused):
        middleware = PageMiddleware(lambda _: HttpResponse())
        with assert_trips(0):
            middleware(RequestFactory().get("/"))


@pytest.mark.parametrize("view", ["raises", "araises"])
def test_writes_before_an_exception_are_kept(
    site: onetrip.Cache, get: Any, assert_trips: Any, view: str
) -> None:
    with assert_trips(1), pytest.raises(LookupError, match="of the view"):
        get(f"/{view}/")
    assert caches["default"].get("written") == 1
    with assert_trips(1):
        caches["default"].set("outside", 1)


def test_two_middlewares_are_one_page(site: onetrip.Cache, get: Any, assert_trips: Any) -> None:
    with override_settings(MIDDLEWARE=[MIDDLEWARE, MIDDLEWARE]):
        for view in ("twice", "atwice"):
            with assert_trips(3):
                assert get(f"/{view}/").content == b"there there 7"
        with assert_trips(7):
            assert b"".join(get("/stream/").streaming_content) == LINES


def test_missing_onetrip_cache_shows_an_example() -> None:
    locmem = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with configured(default=locmem):
        with pytest.raises(ImproperlyConfigured) as told:
            PageMiddleware(lambda _: HttpResponse())
        assert '"BACKEND": "onetrip.django.Cache"' in str(told.value)
        assert "from MIDDLEWARE" in str(told.value)


def test_a_request_leaves_no_scope_behind(site: onetrip.Cache, get: Any, assert_trips: Any) -> None:
    for _ in range(2):
        # Were a scope left open, the second page would find the entry in it.
        with assert_trips(3):
            get("/twice/")
        with assert_trips(2):
            fetch(site, "there")
            fetch(site, "there")


LINES = b"there there 0\n" * 3


def streamed(lines: int) -> list[list[tuple[str, str]]]:
    """What so many lines of a stream take: plain calls, each a trip."""
    get = [("get", ":1:streamed-0")]
    return [trip for number in range(lines) for trip in ([("set", f":1:streamed-{number}")], get)]


@pytest.mark.usefixtures("site")
class TestStreams:
    """A streamed response is a part of its page, until its end."""

    def test_stream_runs_in_the_scope(self, assert_trips: Any) -> None:
        with assert_trips(8) as seen:
            response: Any = Client().get("/stream/")
            assert ops(seen.records) == [THERE]
            # The thread that reads the response is in no page.
            caches["default"].set("apart", 1)
            assert seen.trips == 2
            assert b"".join(response.streaming_content) == LINES
        assert ops(seen.records[2:]) == streamed(3)

    def test_async_stream_runs_in_the_scope(self, assert_trips: Any) -> None:
        async def read() -> bytes:
            response: Any = await AsyncClient().get("/astream/")
            assert seen.trips == 1
            await caches["default"].aset("apart", 1)
            assert seen.trips == 2
            return b"".join([part async for part in response.streaming_content])

        with assert_trips(8) as seen:
            assert asyncio.run(read()) == LINES
        assert ops(seen.records[2:]) == streamed(3)

    def test_synchronous_iterator_in_an_asynchronous_view(self, assert_trips: Any) -> None:
        async def read() -> bytes:
            response: Any = await AsyncClient().get("/mixed_stream/")
            return await asyncio.to_thread(lambda: b"".join(response.streaming_content))

        with assert_trips(7) as seen:
            assert asyncio.run(read()) == LINES
        assert ops(seen.records[1:]) == streamed(3)

    def test_unfinished_stream_stores_its_values(self, assert_trips: Any) -> None:
        with assert_trips(3) as seen:
            response: Any = Client().get("/stream/")
            assert next(iter(response.streaming_content)) == b"there there 0\n"
            response.close()
        assert ops(seen.records[1:]) == streamed(1)

    def test_unfinished_async_stream_stores_its_values(self, assert_trips: Any) -> None:
        async def read() -> None:
            response: Any = await AsyncClient().get("/astream/")
            parts = aiter(response.streaming_content)
            assert await anext(parts) == b"there there 0\n"
            await parts.aclose()
            await asyncio.to_thread(response.close)

        with assert_trips(3) as seen:
            asyncio.run(read())
        assert ops(seen.records[1:]) == streamed(1)

    def test_cancelled_stream_stores_its_values(self, assert_trips: Any) -> None:
        async def read() -> None:
            response: Any = await AsyncClient().get("/astream/")
            begun = asyncio.Event()

            async def send() -> None:
                async for _ in response.streaming_content:
                    begun.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(send())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(response.close)

        with assert_trips(3) as seen:
            asyncio.run(read())
        assert ops(seen.records[1:]) == streamed(1)

    def test_cancelled_stream_cleans_up_in_the_scope(self, assert_trips: Any) -> None:
        with assert_trips(1) as seen:
            asyncio.run(read_and_cancel("/cleaning_stream/", b"begun"))
        assert ops(seen.records) == [[("set", ":1:cleaned")]]

    def test_raising_stream_stores_its_values(self, assert_trips: Any) -> None:
        with assert_trips(1) as seen:
            response: Any = Client().get("/broken_stream/")
            with pytest.raises(LookupError, match="of the stream"):
                list(response.streaming_content)
        assert ops(seen.records) == [[("set", ":1:streamed")]]

    def test_file_response_is_not_wrapped(self, assert_trips: Any) -> None:
        # As a server gets it: the client of tests reads it through an iterator.
        with assert_trips(1):
            response: Any = PageMiddleware(urls.file)(RequestFactory().get("/file/"))
        assert response.file_to_stream.read().startswith(b'"""The pages of the tests')
        response.close()

    def test_context_variables_of_the_view_are_kept(self) -> None:
        with translation.override("en"):
            response: Any = Client().get("/speaks/")
            assert translation.get_language() == "de"
            assert b"".join(response.streaming_content) == b"Hallo"


def test_work_that_outlives_its_request_asks_the_store(
    site: onetrip.Cache, assert_trips: Any
) -> None:
    async def read() -> object:
        response = await AsyncClient().get("/outlives/")
        await asyncio.to_thread(response.close)
        return await urls.outliving.pop()

    with assert_trips(3) as seen:
        assert asyncio.run(read()) == "there"
    assert ops(seen.records) == [THERE, [("set", ":1:late")], THERE]


def test_concurrent_requests_share_nothing(site: onetrip.Cache, assert_trips: Any) -> None:
    async def read() -> None:
        client = AsyncClient()
        pages = await asyncio.gather(*(client.get("/atwice/") for _ in range(10)))
        assert {page.content for page in pages} == {b"there there 7"}

    asyncio.run(read())
    assert caches["default"].get("written") == 7
