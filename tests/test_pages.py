"""Pages that learn: the second visit makes one trip, and so does the first to a page never seen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import Cache, ConfigurationError
from tests.conftest import PREFIX, stores_that_clear

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import OpenCache
    from tests.servers import RedisServer


def note_page(cache: Cache, number: int, extra: tuple[str, ...] = ()) -> None:
    """Read what the page of a note reads."""
    keys = [f"note_markup:{number}", f"note:{number}:tags", "menu", *extra]
    for key in keys:
        cache._piece_get(key)


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

    def test_unseen_page_is_one_trip(self, cache: Cache) -> None:
        visit(cache, 5)
        visit(cache, 6)
        for number in range(7, 50):
            assert visit(cache, number) == 1

    def test_server_counts_one_read(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url)
        visit(cache, 5)
        visit(cache, 6)
        # Other routes and workers are asked once a minute.
        visit(cache, 7)
        redis_server.reset_stats()
        assert visit(cache, 8) == 1
        assert redis_server.reads() == 1

    def test_page_without_reads_makes_no_trip(self, cache: Cache) -> None:
        visit(cache, 5)

        def work() -> None:
            with cache.page("note_detail", note_id=5):
                pass

        assert trips(cache, work) == 0

    def test_pages_without_arguments(self, cache: Cache) -> None:
        def home() -> None:
            with cache.page("home"):
                cache._piece_get("menu")
                cache._piece_get("note_markup:1")
                cache._piece_get("absent")

        assert [trips(cache, home) for _ in range(3)] == [3, 1, 1]

    def test_extra_keys_of_a_single_page(self, cache: Cache) -> None:
        for number in range(5):
            visit(cache, number)
        assert visit(cache, 7, ("note_markup:40", "note_markup:41")) == 3
        assert visit(cache, 7, ("note_markup:40", "note_markup:41")) == 1
        assert visit(cache, 8) == 1

    def test_changed_keys_are_learned_within_a_few_visits(self, cache: Cache) -> None:
        def redesigned(number: int) -> int:
            def work() -> None:
                with cache.page("note_detail", note_id=number):
                    cache._piece_get(f"v2:markup:{number}")
                    cache._piece_get(f"v2:tags:{number}")

            return trips(cache, work)

        for number in range(10):
            visit(cache, number)
        assert [redesigned(number) for number in range(10, 20)][3:] == [1] * 7

    def test_get_many_brings_the_keys_that_follow(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"):
                cache.get_many(["menu", "note_markup:1"])
                cache._piece_get("note_markup:2")

        assert [trips(cache, work) for _ in range(2)] == [2, 1]

    def test_preload_brings_the_rest_of_the_page(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"), cache.preload("menu"):
                cache._piece_get("menu")
                cache._piece_get("note_markup:2")

        assert [trips(cache, work) for _ in range(2)] == [2, 1]

    def test_computed_absent_key_makes_no_trip(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"):
                for number in range(5):
                    cache.get_or_set(f"square:{number}", number * number, 0)

        # Nothing is stored for no time, but that it is absent comes along.
        work()
        with cache.watch() as seen, cache.page("list"):
            assert cache._piece_get("square:0") is None
            assert cache._piece_get("square:1") is None
        assert seen.trips == 1

    def test_nested_pages_with_the_same_first_trip(self, open_cache: OpenCache) -> None:
        # What each brings and what it asks other workers for stays apart, with bytes as they are.
        open_cache(serializer="raw").set_many({"one": b"1", "two": b"2", "three": b"3"})

        def work(cache: Cache) -> None:
            with cache.page("outer"), cache.page("inner"):
                assert [cache._piece_get(key) for key in ("one", "two", "three")] == [
                    b"1",
                    b"2",
                    b"3",
                ]

        for _ in range(3):
            cache = open_cache(serializer="raw")
            for _ in range(3):
                work(cache)

    def test_page_in_tasks(self, cache: Cache) -> None:
        async def work() -> int:
            with cache.watch() as seen:
                async with cache.page("note_detail", note_id=5):
                    await cache._apiece_get("note_markup:5")
                    await cache._apiece_get("menu")
            return seen.trips

        assert [asyncio.run(work()) for _ in range(2)] == [2, 1]


class TestLearnedVisits:
    def test_failed_visit_is_not_learned(self, cache: Cache) -> None:
        def fail() -> None:
            with cache.page("note_detail", note_id=5):
                cache._piece_get("error_page")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert cache.pages() == []

    def test_discarded_visit_is_not_learned(self, cache: Cache) -> None:
        with cache.page("note_detail", note_id=5) as scope:
            cache._piece_get("a")
            scope.discard()
        assert cache.pages() == []

    def test_scope_named_after_its_first_read(self, cache: Cache) -> None:
        def work() -> None:
            with cache.scope() as scope:
                cache._piece_get("session")
                scope.visit("note_detail", note_id=5)
                note_page(cache, 5)

        assert [trips(cache, work) for _ in range(2)] == [4, 2]

    def test_visit_of_a_closed_scope_raises(self, cache: Cache) -> None:
        with pytest.raises(ConfigurationError, match="not open; call visit"):
            cache.scope().visit("note_detail")

    def test_keys_written_first_are_not_preloaded(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("list"):
                cache.set("own", 1)
                assert cache.get("own") == 1
                cache._piece_get("menu")

        for _ in range(10):
            work()
        # It is read where it is read, behind its write, and never ahead as well.
        with cache.watch() as seen:
            work()
        read = [name for trip in seen.records for word, name in trip.ops if word == "get"]
        assert read.count("test:own") == 1

    def test_nested_pages_both_learn(self, cache: Cache) -> None:
        def work() -> None:
            with cache.page("outer"):
                cache._piece_get("menu")
                with cache.page("inner", n=1):
                    cache._piece_get("note_markup:1")
                cache._piece_get("note_markup:2")

        assert [trips(cache, work) for _ in range(2)] == [3, 1]
        assert {route.name for route in cache.pages()} == {"outer", "inner"}


class TestStaleness:
    """What a page brought of a key is never more than any answer that a scope holds."""

    @pytest.fixture
    def learned(self, cache: Cache) -> Cache:
        """A cache whose page reads `menu`, two keys that are there and one that is not."""
        for _ in range(2):
            with cache.page("page"):
                cache._piece_get("menu")
                for key in ("note_markup:1", "note_markup:2", "absent"):
                    cache._piece_get(key)
        return cache

    def test_page_sees_its_own_writes(self, learned: Cache) -> None:
        with learned.page("page"):
            learned._piece_get("menu")
            learned.set("note_markup:1", "new")
            assert learned._piece_get("note_markup:1") == "new"
            learned.set("note_markup:2", "gone", 0)
            assert learned._piece_get("note_markup:2") is None
        assert learned._piece_get("note_markup:1") == "new"
        assert learned._piece_get("note_markup:2") is None

    def test_page_sees_writes_before_its_first_read(self, learned: Cache) -> None:
        with learned.page("page"):
            learned.set("note_markup:1", "new")
            learned._piece_get("menu")
            assert learned._piece_get("note_markup:1") == "new"

    def test_deletes_from_anywhere_in_the_process_are_seen(self, learned: Cache) -> None:
        with learned.page("page"):
            learned._piece_get("menu")
            with learned.scope(), learned.preload("note_markup:1"):
                assert learned.delete("note_markup:1")
            assert learned._piece_get("note_markup:1") is None
            assert learned._piece_get("note_markup:2") == "<p>2"

    def test_clear_is_seen(self, learned: Cache, store_url: str) -> None:
        if store_url.startswith("memcached"):
            learned.delete_many(["note_markup:1", "note_markup:2"])
        with learned.page("page"):
            learned._piece_get("menu")
            if not store_url.startswith("memcached"):
                learned.clear()
            assert learned.get_many(["note_markup:1", "note_markup:2"]) == {}

    def test_add_and_incr_ask_the_store(self, learned: Cache, open_cache: OpenCache) -> None:
        other = open_cache()
        with learned.page("page"):
            learned._piece_get("menu")
            other.set("absent", 5)
            assert not learned.add("absent", 1)
            assert learned.incr("absent") == 6
            assert learned._piece_get("absent") == 6
        with learned.page("page"):
            other.delete("absent")
            assert learned._piece_get("menu") == "menu"
            assert learned.add("absent", 1)
            assert learned._piece_get("absent") == 1

    def test_absence_answers_only_one_read(self, learned: Cache) -> None:
        with learned.page("page"):
            learned._piece_get("menu")
            with learned.watch() as seen:
                for _ in range(3):
                    assert learned._piece_get("absent") is None
            assert seen.trips == 2

    def test_absence_ends_when_this_process_sets_the_key(
        self, learned: Cache, open_cache: OpenCache
    ) -> None:
        with learned.page("page"):
            learned._piece_get("menu")
            open_cache().set("absent", 1)
            assert learned._piece_get("absent") == 1

    def test_explicit_preload_asks_for_missing_keys(self, learned: Cache) -> None:
        def work() -> None:
            with learned.page("page"), learned.preload("note_markup:1", "note_markup:3"):
                assert learned._piece_get("note_markup:1") == "<p>1"
                assert learned._piece_get("note_markup:2") == "<p>2"
                assert learned._piece_get("note_markup:3") == "<p>3"

        assert trips(learned, work) == 1

    def test_preloaded_values_end_with_the_scope(
        self, learned: Cache, open_cache: OpenCache
    ) -> None:
        with learned.page("page"):
            learned._piece_get("menu")
        open_cache().set("note_markup:1", "new")
        assert learned._piece_get("note_markup:1") == "new"
        with learned.scope():
            learned._piece_get("menu")
            open_cache().set("note_markup:1", "newer")
            assert learned._piece_get("note_markup:1") == "newer"

    def test_preloaded_values_obey_scope_max_age(self, open_cache: OpenCache) -> None:
        # Nothing is held, so nothing is brought either.
        cache, other = open_cache(scope_max_age=0), open_cache()
        for value in (1, 2, 3):
            with cache.page("page"):
                cache._piece_get("menu")
                other.set("note_markup:1", value)
                assert cache._piece_get("note_markup:1") == value

    def test_write_during_the_first_trip_is_seen(self, store_url: str) -> None:
        cache = Cache(store_url, prefix=PREFIX)

        async def visit(new: str | None) -> object:
            async with cache.page("page"):
                first = asyncio.create_task(cache._apiece_get("menu"))
                # It has left by now.
                await asyncio.sleep(0)
                if new is not None:
                    await cache.aset("note_markup:1", new)
                await first
                return await cache._apiece_get("note_markup:1")

        async def visits() -> list[object]:
            return [await visit(new) for new in (None, None, "new", None)]

        assert asyncio.run(visits()) == ["<p>1", "<p>1", "new", "new"]

    def test_short_error_pages_do_not_break_learning(self, cache: Cache) -> None:
        # A middleware makes a page of an error that came before anything else was read.
        for number in range(5, 45):
            failed = number % 4 == 0

            def work(number: int = number, *, failed: bool = failed) -> None:
                with cache.page("note_detail", note_id=number):
                    cache._piece_get("menu")
                    if not failed:
                        note_page(cache, number)

            taken = trips(cache, work)
            # It brings less when too much of it went unused, and never more trips than there were.
            assert taken <= 3
            if failed:
                assert taken == 1
        # Once there are no more of them, it is as if there had never been.
        for number in range(30):
            assert visit(cache, number) <= 3
        assert visit(cache, 30) == 1


class TestModes:
    def test_shadow_counts_but_preloads_nothing(self, open_cache: OpenCache) -> None:
        cache = open_cache(pages="shadow")
        assert [visit(cache, number) for number in (5, 6, 7)] == [3, 3, 3]
        (route,) = cache.pages()
        assert route.visits == 3
        assert route.recall == pytest.approx(2 / 3, abs=0.1)

    def test_off_learns_nothing(self, open_cache: OpenCache) -> None:
        cache = open_cache(pages="off")
        assert [visit(cache, 5) for _ in range(2)] == [3, 3]
        assert cache.pages() == []

    def test_page_keys_and_page_bytes_limit_the_preload(self, open_cache: OpenCache) -> None:
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

    def test_learns_reports_the_mode(self, open_cache: OpenCache) -> None:
        assert open_cache().learns
        assert open_cache(pages="shadow").learns
        assert not open_cache(pages="off").learns
        assert not open_cache(debug=True).learns
        # Nothing could be held until it is read.
        assert not open_cache(scope_max_age=0).learns

    def test_unknown_mode_raises(self, open_cache: OpenCache) -> None:
        with pytest.raises(ConfigurationError, match="pages='x' is not one of \"preload\""):
            open_cache(pages="x")


class TestReports:
    def test_pages_reports_what_was_learned(self, cache: Cache) -> None:
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

    def test_pages_reports_waste(self, cache: Cache) -> None:
        visit(cache, 5)
        with cache.page("note_detail", note_id=5):
            cache._piece_get("menu")
        (route,) = cache.pages()
        assert 0 < route.precision < 1
        assert route.waste > 0
        assert route.unused_bytes > 0


class TestSharing:
    def test_workers_share_what_they_learned(self, open_cache: OpenCache) -> None:
        one, other = open_cache(), open_cache()
        for number in (5, 6, 7):
            visit(one, number)
        # It hears of the route with its first read, and of the rest with its second.
        assert visit(other, 8) == 2
        assert visit(other, 9) == 1

    def test_refused_record_does_not_fail_reads(
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
                assert cache._piece_get("menu") == "menu"
        admin.acl_deluser("reader")

    def test_sharing_makes_no_extra_trip(self, open_cache: OpenCache) -> None:
        one = open_cache()
        assert [visit(one, number) for number in (5, 6, 7, 8)] == [3, 1, 1, 1]

    def test_merged_records_keep_both_parts(self, open_cache: OpenCache) -> None:
        one, other, late = open_cache(), open_cache(), open_cache()

        def listing(cache: Cache) -> int:
            def work() -> None:
                with cache.page("list"):
                    cache._piece_get("menu")
                    cache._piece_get("note_markup:1")

            return trips(cache, work)

        for number in (5, 6, 7):
            visit(one, number)
            listing(other)
        assert visit(late, 9) == 2
        assert listing(late) == 1 + 1

    def test_invalid_records_are_ignored(self, open_cache: OpenCache) -> None:
        # Where records are, for a cache with the prefix "test".
        cache = open_cache(prefix=f"{PREFIX}@onetrip")
        for junk in (b"junk", b"", b"\x93\x01\x90\x90", "text", 5):
            cache.set_many({"page:note_detail": junk, "pages": junk})
            worker = open_cache()
            # What else others told, such as the list of this page, is good.
            assert visit(worker, 5) <= 3
            assert visit(worker, 5) == 1

    @stores_that_clear
    def test_learning_survives_a_clear(self, cache: Cache, open_cache: OpenCache) -> None:
        for number in (5, 6, 7):
            visit(cache, number)
        cache.clear()
        assert visit(cache, 8) == 1
        # Keys are as good as they were: what was cleared is absent, and is asked for in one trip.
        other = open_cache()
        visit(other, 9)
        with other.watch() as seen, other.page("note_detail", note_id=10):
            names = ("note_markup:10", "note:10:tags")
            assert [other._piece_get(name) for name in names] == [None, None]
        assert seen.trips == 1

    @stores_that_clear
    @pytest.mark.parametrize("prefix", ["test", ""])
    def test_clear_does_not_count_records(self, open_cache: OpenCache, prefix: str) -> None:
        cache = open_cache(prefix=prefix)
        open_cache(prefix="").clear()
        for number in (5, 6, 7):
            visit(cache, number)
        cache.set("menu", "menu")
        assert [route.name for route in cache.shared_pages()] == ["note_detail"]
        assert cache.clear() == 1
        assert bool(cache.shared_pages()) is bool(prefix)
