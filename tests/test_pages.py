"""Pages that learn: the second visit makes one trip, and so does the first to a page never seen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache, ConfigurationError
from tests.conftest import stores_that_clear

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import OpenCache
    from tests.servers import RedisServer


def note_page(cache: Cache, number: int, extra: tuple[str, ...] = ()) -> None:
    """Read what the page of a note reads."""
    keys = [f"note_markup:{number}", f"note:{number}:tags", "menu", *extra]
    for key in keys:
        cache.get(key)


def trips(cache: Cache, work: Callable[[], object]) -> int:
    with cache.watch() as seen:
        work()
    return seen.trips


def visit(cache: Cache, number: int, extra: tuple[str, ...] = ()) -> int:
    """Visit the page of a note; how many trips that took."""

    def work() -> None:
        with cache.page("note_detail", note_id=number):
            note_page(cache, number, extra)

    return trips(cache, work)


@pytest.fixture(autouse=True)
def filled(open_cache: OpenCache) -> None:
    values: dict[str, Any] = {"menu": "menu"}
    for number in range(50):
        values[f"note_markup:{number}"] = f"<p>{number}"
        values[f"note:{number}:tags"] = ["a"]
    open_cache().set_many(values)


class TestLearning:
    def test_the_second_visit_is_one_trip(self, cache: Cache) -> None:
        assert visit(cache, 5) == 3
        assert visit(cache, 5) == 1

    def test_a_page_never_seen_is_one_trip(self, cache: Cache) -> None:
        visit(cache, 5)
        visit(cache, 6)
        for number in range(7, 50):
            assert visit(cache, number) == 1

    def test_by_what_the_server_counts(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url)
        visit(cache, 5)
        visit(cache, 6)
        # Other routes and workers are asked once a minute.
        visit(cache, 7)
        redis_server.reset_stats()
        assert visit(cache, 8) == 1
        assert redis_server.reads() == 1

    def test_a_page_that_reads_nothing_makes_no_trip(self, cache: Cache) -> None:
        visit(cache, 5)

        def work() -> None:
            with cache.page("note_detail", note_id=5):
                pass

        assert trips(cache, work) == 0

    def test_pages_without_arguments(self, cache: Cache) -> None:
        def home() -> None:
            with cache.page("home"):
                cache.get("menu")
                cache.get("note_markup:1")
                cache.get("absent")

        assert [trips(cache, home) for _ in range(3)] == [3, 1, 1]

    def test_what_a_single_page_reads_besides(self, cache: Cache) -> None:
        for number in range(5):
            visit(cache, number)
        assert visit(cache, 7, ("note_markup:40", "note_markup:41")) == 3
        assert visit(cache, 7, ("note_markup:40", "note_markup:41")) == 1
        assert visit(cache, 8) == 1

    def test_a_redesign_is_learned_within_a_few_visits(self, cache: Cache) -> None:
        def redesigned(number: int) -> int:
            def work() -> None:
                with cache.page("note_detail", note_id=number):
                    cache.get(f"v2:markup:{number}")
                    cache.get(f"v2:tags:{number}")

            return trips(cache, work)

        for number in range(10):
            visit(cache, number)
        assert [redesigned(number) for number in range(10, 20)][3:] == [1] * 7

    def test_many_reads_at_once_take_along_what_follows(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"):
                cache.get_many(["menu", "note_markup:1"])
                cache.get("note_markup:2")

        assert [trips(cache, work) for _ in range(2)] == [2, 1]

    def test_a_preload_takes_along_the_rest(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"), cache.preload("menu"):
                cache.get("menu")
                cache.get("note_markup:2")

        assert [trips(cache, work) for _ in range(2)] == [2, 1]

    def test_an_absent_key_that_is_computed_costs_no_trip(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"):
                for number in range(5):
                    cache.get_or_set(f"square:{number}", number * number, 0)

        # Nothing is stored for no time, but that it is absent comes along.
        work()
        with cache.watch() as seen, cache.page("list"):
            assert cache.get("square:0") is None
            assert cache.get("square:1") is None
        assert seen.trips == 1

    def test_in_tasks(self, cache: Cache) -> None:
        async def work() -> int:
            with cache.watch() as seen:
                async with cache.page("note_detail", note_id=5):
                    await cache.aget("note_markup:5")
                    await cache.aget("menu")
            return seen.trips

        assert [asyncio.run(work()) for _ in range(2)] == [2, 1]


class TestWhatIsLearnedFrom:
    def test_not_what_failed(self, cache: Cache) -> None:
        def fail() -> None:
            with cache.page("note_detail", note_id=5):
                cache.get("error_page")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert cache.pages() == []

    def test_not_what_was_discarded(self, cache: Cache) -> None:
        with cache.page("note_detail", note_id=5) as scope:
            cache.get("a")
            scope.discard()
        assert cache.pages() == []

    def test_a_scope_that_learns_late_what_it_is_for(self, cache: Cache) -> None:
        def work() -> None:
            with cache.scope() as scope:
                cache.get("session")
                scope.visit("note_detail", note_id=5)
                note_page(cache, 5)

        assert [trips(cache, work) for _ in range(2)] == [4, 2]

    def test_which_it_can_only_while_it_is_open(self, cache: Cache) -> None:
        with pytest.raises(ConfigurationError, match="not open; say in its with block"):
            cache.scope().visit("note_detail")

    def test_not_what_the_page_itself_wrote(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"):
                cache.set("own", 1)
                assert cache.get("own") == 1
                cache.get("menu")

        work()
        (route,) = cache.pages()
        assert [template for template, _ in route.templates] == ["menu"]

    def test_a_page_within_a_page(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("outer"):
                cache.get("menu")
                with cache.page("inner", n=1):
                    cache.get("note_markup:1")
                cache.get("note_markup:2")

        assert [trips(cache, work) for _ in range(2)] == [3, 1]
        assert {route.name for route in cache.pages()} == {"outer", "inner"}


class TestModes:
    def test_shadow_counts_and_asks_for_nothing(self, open_cache: OpenCache) -> None:
        cache = open_cache(pages="shadow")
        assert [visit(cache, number) for number in (5, 6, 7)] == [3, 3, 3]
        (route,) = cache.pages()
        assert route.visits == 3
        assert route.recall == pytest.approx(2 / 3, abs=0.1)

    def test_off_learns_nothing(self, open_cache: OpenCache) -> None:
        cache = open_cache(pages="off")
        assert [visit(cache, 5) for _ in range(2)] == [3, 3]
        assert cache.pages() == []

    def test_bounds(self, open_cache: OpenCache) -> None:
        # What a trip reads anyway is not what it brings ahead.
        few = open_cache(pages="preload", page_keys=1)
        visit(few, 5)
        assert visit(few, 5) == 2
        none = open_cache(page_keys=0)
        visit(none, 5)
        assert visit(none, 5) == 3
        small = open_cache(page_bytes=0)
        visit(small, 5)
        assert visit(small, 5) == 3

    def test_another_is_refused(self, open_cache: OpenCache) -> None:
        with pytest.raises(ConfigurationError, match="pages='x' is not one of \"preload\""):
            open_cache(pages="x")


class TestReports:
    def test_tell_what_was_learned(self, cache: Cache) -> None:
        for number in range(5):
            visit(cache, number)
        (route,) = cache.pages()
        assert (route.name, route.visits, route.reads) == ("note_detail", 5, 15)
        assert route.trips <= 8
        assert {template for template, share in route.templates if share == 1.0} == {
            "menu",
            "note_markup:{note_id}",
            "note:{note_id}:tags",
        }
        assert route.precision == 1.0
        assert route.waste == 0.0
        assert route.unused_bytes == 0
        assert repr(route) == f"<Route note_detail: 5 visits, {route.trips} trips for 15 reads>"

    def test_tell_of_waste(self, cache: Cache) -> None:
        visit(cache, 5)
        with cache.page("note_detail", note_id=5):
            cache.get("menu")
        (route,) = cache.pages()
        assert 0 < route.precision < 1
        assert route.waste > 0
        assert route.unused_bytes > 0


class TestSharing:
    def test_what_one_worker_learned_another_knows(self, open_cache: OpenCache) -> None:
        one, other = open_cache(), open_cache()
        for number in (5, 6, 7):
            visit(one, number)
        # It hears of the route with its first read, and of the rest with its second.
        assert visit(other, 8) == 2
        assert visit(other, 9) == 1

    def test_a_record_that_the_store_refuses_fails_no_read(
        self, redis_server: RedisServer, redis_url: str
    ) -> None:
        Cache(redis_url, prefix="test").set("menu", "menu")
        admin = redis_server.admin
        admin.acl_setuser(
            "reader", enabled=True, passwords=["+p"], categories=["+@read"], keys=["*"]
        )
        url = redis_url.replace("redis://", "redis://reader:p@")
        cache = Cache(url, prefix="test", on_error="raise")
        for number in range(5):
            with cache.page("note_detail", note_id=number):
                assert cache.get("menu") == "menu"
        admin.acl_deluser("reader")

    def test_it_costs_no_trip_of_its_own(self, open_cache: OpenCache) -> None:
        one = open_cache()
        assert [visit(one, number) for number in (5, 6, 7, 8)] == [3, 1, 1, 1]

    def test_neither_loses_its_part(self, open_cache: OpenCache) -> None:
        one, other, late = open_cache(), open_cache(), open_cache()

        def listing(cache: Cache) -> int:
            def work() -> None:
                with cache.page("list"):
                    cache.get("menu")
                    cache.get("note_markup:1")

            return trips(cache, work)

        for number in (5, 6, 7):
            visit(one, number)
            listing(other)
        assert visit(late, 9) == 2
        assert listing(late) == 1 + 1

    def test_bytes_that_are_no_record_are_ignored(self, open_cache: OpenCache) -> None:
        cache = open_cache()
        for junk in (b"junk", b"", b"\x93\x01\x90\x90", "text", 5):
            cache.set("onetrip:page:note_detail", junk)
            worker = open_cache()
            assert visit(worker, 5) == 3
            assert visit(worker, 5) == 1

    @stores_that_clear
    def test_it_survives_a_clear_of_the_store(self, cache: Cache) -> None:
        for number in (5, 6, 7):
            visit(cache, number)
        cache.clear()
        assert visit(cache, 8) == 1
