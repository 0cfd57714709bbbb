"""The fixture `assert_trips`, as a program's own tests use it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from onetrip import Cache

if TYPE_CHECKING:
    from onetrip.pytest_plugin import AssertTrips
    from tests.conftest import OpenCache


class TestAssertTrips:
    def test_passes_with_the_expected_number(
        self, assert_trips: AssertTrips, open_cache: OpenCache
    ) -> None:
        cache = open_cache()
        with assert_trips(0):
            cache.get_many([])
        with assert_trips(2) as seen:
            cache.get("a")
            cache.get("a")
        assert seen.trips == 2
        with assert_trips(expected=1), cache.preload("a", "b"):
            cache.get("a")
            cache.get("b")

    def test_failure_lists_the_trips(self, assert_trips: AssertTrips, store_url: str) -> None:
        cache = Cache(store_url, prefix="blog")

        def page() -> None:
            cache.set("note:5", "x")
            cache.get_many(["note:5", "note:6"])

        with pytest.raises(pytest.fail.Exception) as caught, assert_trips(1):
            page()
        assert str(caught.value) == (
            "1 trip expected, 2 made:\n"
            f"  1. set blog:note:5, to {store_url}\n"
            f"  2. get blog:note:5, get blog:note:6, to {store_url}"
        )

    def test_failure_message_is_short(self, assert_trips: AssertTrips) -> None:
        cache = Cache()
        with pytest.raises(pytest.fail.Exception) as none, assert_trips(3):
            pass
        assert str(none.value) == "3 trips expected, 0 made"
        with pytest.raises(pytest.fail.Exception) as many, assert_trips(0):
            cache.get_many(f"k{number}" for number in range(25))
        assert str(many.value) == (
            "0 trips expected, 1 made:\n  1. "
            + ", ".join(f"get k{number}" for number in range(10))
            + " and 15 more, to memory://"
        )
        with pytest.raises(pytest.fail.Exception) as failed, assert_trips(0):
            Cache("redis://127.0.0.1:1").get("a")
        assert str(failed.value).endswith("1. get a (1 failed), to redis://127.0.0.1:1")

    def test_at_most(self, assert_trips: AssertTrips) -> None:
        cache = Cache()
        for trips in range(3):
            with assert_trips(at_most=2):
                for _ in range(trips):
                    cache.get("a")
        with (
            pytest.raises(pytest.fail.Exception, match="at most 1 trip expected, 2 made"),
            assert_trips(at_most=1),
        ):
            cache.get_or_set("a", 1)

    def test_counts_all_threads_and_caches(self, assert_trips: AssertTrips) -> None:
        caches = [Cache(), Cache(), Cache("memory://?latency=1ms")]

        def work() -> None:
            for cache in caches:
                cache.get("a")

        with assert_trips(12):
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def test_exception_of_the_block_comes_first(self, assert_trips: AssertTrips) -> None:
        cache = Cache()
        with pytest.raises(ZeroDivisionError), assert_trips(5):
            cache.get(str(1 // 0))

    def test_may_be_nested(self, assert_trips: AssertTrips) -> None:
        cache = Cache()
        with assert_trips(2):
            cache.get("a")
            with assert_trips(1):
                cache.get("a")

    def test_needs_exactly_one_of_number_and_at_most(self, assert_trips: AssertTrips) -> None:
        for wrong in ({}, {"expected": 1, "at_most": 2}):
            with (
                pytest.raises(TypeError, match="a number of trips or at_most="),
                assert_trips(**wrong),
            ):
                pytest.fail("entered")


def test_plugin_comes_with_the_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from onetrip import Cache

        cache = Cache(prefix="blog")

        def test_good(assert_trips):
            with assert_trips(1):
                cache.get("a")

        def test_bad(assert_trips):
            with assert_trips(1):
                cache.get("note:5")
                cache.get("note:6")
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*Failed: 1 trip expected, 2 made:",
            "*1. get blog:note:5, to memory://",
            "*2. get blog:note:6, to memory://",
        ]
    )
    # The report shows the test and not the fixture's inside.
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")
