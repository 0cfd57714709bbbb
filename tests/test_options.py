"""The URL and options of a cache: what they do, and what is said of those that cannot work."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from onetrip import (
    Cache,
    ConfigurationError,
    EntryTooLargeError,
    SerializationError,
    StoreError,
    StoreUnavailableError,
)
from tests.calls import CALLS
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenCache, Raw

OPTIONS = (
    "prefix, timeout, serializer, secret, compression, compression_min, on_error, "
    "connect_timeout, trip_timeout, scope_max_age, read_max_age, debug, "
    "pages, page_keys, page_bytes"
)

# Nothing listens on this port of the loopback: it is that of tcpmux.
REFUSING = "redis://127.0.0.1:1"


class TestUrl:
    def test_default_url_is_private_memory(self) -> None:
        one, two = Cache(), Cache()
        one.set("a", 1)
        assert "a" not in two
        assert Cache("memory://").get("a") is None
        assert Cache(url="memory://").get("a") is None

    def test_named_memory_is_shared(self) -> None:
        one, two = Cache("memory://shared"), Cache("memory://shared?size=256MiB")
        one.set("a", [1])
        assert two["a"] == [1]
        assert "a" not in Cache("memory://other")

    def test_shared_memory_with_two_sizes_raises(self) -> None:
        first = Cache("memory://sized?size=1MiB")
        with pytest.raises(ConfigurationError, match="size=1048576; give all its caches the same"):
            Cache("memory://sized?size=2MiB")
        assert "a" not in first

    def test_shared_memory_is_freed_with_its_last_cache(self) -> None:
        Cache("memory://brief").set("a", 1)
        assert "a" not in Cache("memory://brief")

    @pytest.mark.parametrize("size", ["4096", "4096B", "4kB", "4KB", "4KiB"])
    def test_size_units(self, size: str) -> None:
        cache = Cache(f"memory://?size={size}", on_error="raise")
        cache.set("a", b"x" * 3000)
        with pytest.raises(EntryTooLargeError):
            cache.set("a", b"x" * 5000)

    def test_memory_is_bounded(self) -> None:
        cache = Cache("memory://?size=64KiB")
        for number in range(1000):
            cache.set(str(number), b"x" * 1024)
        kept = cache.get_many(map(str, range(1000)))
        assert 0 < sum(map(len, kept.values())) <= 64 << 10

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("nourl", "is not a URL of a store"),
            ("", "is not a URL of a store"),
            ("redis//127.0.0.1", "is not a URL of a store"),
            (
                "http://127.0.0.1",
                "no store is named http://; onetrip has memory://, disk://, redis://",
            ),
            ("Memory2://", "onetrip has memory://"),
            ("memory://?sise=1", '"sise"; it has size, latency'),
            ("memory://?size=1&size=2", '"size"'),
            ("memory://?size=", "a size such as 64MB, 256MiB or 1GiB"),
            ("memory://?size=0", "a size such as"),
            ("memory://?size=-1", "a size such as"),
            ("memory://?size=1TB", "a size such as"),
            ("memory://?size=99999999999999999999", "a size such as"),
            ("memory://?size=18446744073709551615GiB", "a size such as"),
            ("memory://?latency=5", "a span of time such as 500us, 2ms or 1.5s"),
            ("memory://?latency=-5ms", "a span of time such as"),
            ("memory://?latency=infs", "a span of time such as"),
            ("memory://?latency=nans", "a span of time such as"),
            ("redis://127.0.0.1/first", "is not the number of a database, as in redis://host/0"),
            ("redis://127.0.0.1?db=first", "the number of a database"),
            ("redis://127.0.0.1?ssl_ca_certs=/ca.pem", '"ssl_ca_certs"; it has db'),
            ("redis://127.0.0.1?decode_responses=1", '"decode_responses"; it has db'),
            ("rediss://127.0.0.1?a=1", "it has db, ssl_ca_certs, ssl_certfile, ssl_keyfile"),
            ("redis+unix://", "names no socket; write its path, as in redis"),
            ("rediss://127.0.0.1?ssl_ca_certs=/no/ca.pem", "cannot be read: No such file"),
            ("rediss://127.0.0.1?ssl_certfile=/no/a.pem", "name a file in PEM format"),
        ],
    )
    def test_wrong_url_raises(self, url: str, said: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Cache(url)
        assert said in str(caught.value)

    def test_client_certificate_without_key_raises(self, tmp_path: Path) -> None:
        file = tmp_path / "client.pem"
        file.write_text("")
        for option in ("ssl_certfile", "ssl_keyfile"):
            with pytest.raises(ConfigurationError, match="both ssl_certfile= and ssl_keyfile="):
                Cache(f"rediss://127.0.0.1?{option}={file}")

    @pytest.mark.parametrize("option", ["ssl_ca_certs", "both"])
    def test_invalid_certificate_raises(self, tmp_path: Path, option: str) -> None:
        file = tmp_path / "wrong.pem"
        file.write_bytes(b"\xff not a certificate")
        query = f"ssl_ca_certs={file}"
        if option == "both":
            query = f"ssl_certfile={file}&ssl_keyfile={file}"
        cache_url = f"rediss://127.0.0.1:1?{query}"
        with pytest.raises((ConfigurationError, StoreError)):
            Cache(cache_url, on_error="raise").get("a")

    def test_password_is_never_shown(self) -> None:
        url = "redis://ann:hunter2@127.0.0.1:1"
        messages = [repr(Cache(url))]
        for wrong in (f"{url}/x", f"{url}?x=1", f"{url}?db=x"):
            with pytest.raises(ConfigurationError) as refused:
                Cache(wrong)
            messages.append(str(refused.value))
        with pytest.raises(StoreUnavailableError) as unavailable:
            Cache(url, on_error="raise").get("a")
        messages.append(str(unavailable.value))
        with Cache(url).watch() as seen:
            Cache(url).get("a")
        messages.extend(map(repr, seen.records))
        assert "hunter2" not in " ".join(messages)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://ann:hunter2@127.0.0.1:1",
            "redis://:hunter2@127.0.0.1:1/3",
            "rediss://ann:hunter2@127.0.0.1:1",
            "redis+unix://ann:hunter2@localhost/none.sock?db=2",
            "redis+unix://:hunter2@/none.sock",
        ],
    )
    def test_password_is_not_logged(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        said = [repr(Cache(url)), Cache(url).scope()]
        cache = Cache(url)
        with caplog.at_level(logging.DEBUG), cache.watch() as seen:
            for _ in range(5):
                cache.get("a")
                cache.delete("a")
        assert seen.records
        said += [repr(record) + record.store for record in seen.records]
        for path in ("/x", "?db=x", "?nothing=1", "#x", "@", ":x"):
            with pytest.raises((ConfigurationError, StoreError)) as caught:
                Cache(url + path, on_error="raise").get("a")
            said += [str(caught.value), repr(caught.value.__cause__)]
        said += [record.getMessage() for record in caplog.records]
        assert "hunter2" not in " ".join(map(str, said))

    @pytest.mark.parametrize("url", [5, b"memory://", ["memory://"]], ids=repr)
    def test_url_must_be_a_string(self, url: Any) -> None:
        with pytest.raises((TypeError, ConfigurationError)):
            Cache(url)

    def test_connects_to_nothing_before_the_first_trip(self) -> None:
        cache = Cache(REFUSING, on_error="raise")
        with cache.scope(), cache.batch(), cache.preload():
            cache.delete_many([])
            assert cache.get_many([]) == {}
            with pytest.raises(StoreUnavailableError):
                cache.get("b")
            cache.close()


class TestUnknownOptions:
    def test_error_lists_the_known_options(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Cache(max_size=5)  # type: ignore[call-arg]
        assert str(caught.value) == f'Cache has no option "max_size"; it has {OPTIONS}'

    def test_options_are_keywords(self) -> None:
        with pytest.raises(TypeError):
            Cache("memory://", "blog")  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"prefix": 5}, "prefix=5 is not a string"),
            ({"prefix": None}, "prefix=None is not a string"),
            ({"timeout": "x"}, "is not a timeout"),
            ({"serializer": "json"}, 'serializer=\'json\' is not one of "native", "pickle"'),
            ({"serializer": None}, "serializer=None is not one of"),
            ({"serializer": "Native"}, "is not one of"),
            ({"serializer": "pickle"}, 'serializer="pickle" needs secret='),
            ({"serializer": "pickle", "secret": None}, "needs secret="),
            ({"serializer": "pickle", "secret": []}, "needs secret="),
            ({"serializer": "raw", "secret": "s"}, "takes neither secret= nor compression="),
            ({"serializer": "raw", "compression": "zstd"}, "takes neither secret= nor"),
            ({"secret": ""}, "secret is empty"),
            ({"secret": b""}, "secret is empty"),
            ({"secret": ["good", ""]}, "secret is empty"),
            ({"secret": 5}, "secret= must be a string, bytes, or a list of these"),
            ({"secret": [5]}, "secret= must be a string, bytes, or a list of these"),
            ({"secret": [None]}, "secret= must be a string, bytes, or a list of these"),
            ({"secret": "\ud800"}, "secret= must be a string, bytes, or a list of these"),
            ({"compression": "gzip"}, 'compression=\'gzip\' is not one of "zstd", "lz4"'),
            ({"compression": True}, "is not one of"),
            ({"compression_min": -1}, "compression_min=-1 is not a number of bytes"),
            ({"compression_min": 1.5}, "is not a number of bytes"),
            ({"compression_min": None}, "is not a number of bytes"),
            ({"compression_min": 2**64}, "is not a number of bytes"),
            ({"on_error": "ignore"}, 'on_error=\'ignore\' is not one of "miss", "raise"'),
            ({"on_error": None}, "is not one of"),
            ({"connect_timeout": 0}, "above zero"),
            ({"connect_timeout": -1}, "above zero"),
            ({"connect_timeout": None}, "connect_timeout=None is not a span of time"),
            ({"connect_timeout": math.inf}, "is not a span of time"),
            ({"trip_timeout": 0.0}, "above zero"),
            ({"trip_timeout": True}, "trip_timeout=True is not a span of time"),
            ({"trip_timeout": math.nan}, "is not a span of time"),
            ({"trip_timeout": "1s"}, "is not a span of time"),
            ({"scope_max_age": None}, "scope_max_age=None is not a span of time"),
            ({"scope_max_age": []}, "is not a span of time"),
            ({"read_max_age": None}, "read_max_age=None is not a span of time"),
            ({"defer_writes": True}, 'no option "defer_writes"'),
            ({"pages": "on"}, 'pages=\'on\' is not one of "preload", "shadow", "off"'),
            ({"page_keys": -1}, "page_keys=-1 is not a number of keys"),
            ({"page_bytes": "1MiB"}, "is not a number of bytes"),
            ({"debug": "yes"}, "is not True or False"),
        ],
        ids=lambda value: repr(value) if isinstance(value, dict) else "",
    )
    def test_wrong_value_says_what_is_expected(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Cache(**options)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        "options",
        [
            {"prefix": ""},
            {"prefix": "блог 🗝️ \n"},
            {"timeout": None},
            {"timeout": 0},
            {"serializer": "native"},
            {"serializer": "pickle", "secret": "s"},
            {"secret": b"\xff\x00"},
            {"secret": ("a", b"b")},
            {"secret": None},
            {"compression": None},
            {"compression": "lz4", "compression_min": 0},
            {"connect_timeout": timedelta(seconds=1), "trip_timeout": 5},
            {"scope_max_age": 0},
            {"read_max_age": 0, "debug": True},
            {"pages": "shadow", "page_keys": 0, "page_bytes": 1 << 20},
        ],
        ids=repr,
    )
    def test_valid_options_are_accepted(self, options: dict[str, Any]) -> None:
        cache = Cache(**options)
        cache.set("a", [1])
        assert cache.get("a") in ([1], None)


class TestOnError:
    def test_miss_turns_failures_into_misses(self, caplog: pytest.LogCaptureFixture) -> None:
        cache = Cache(REFUSING)
        with caplog.at_level(logging.WARNING, "onetrip"):
            assert cache.get("a", "default") == "default"
        [record] = caplog.records
        assert record.name.startswith("onetrip")
        assert "1 of 1 operations failed" in record.message
        assert "is the server running, and the URL right?" in record.message
        assert "a" not in cache
        assert cache.get_many(["a", "b"]) == {}
        cache.set("a", 1)
        cache.set_many({"a": 1, "b": 2})
        assert cache.add("a", 1) is False
        assert cache.get_or_set("a", lambda: 5) == 5
        assert cache.touch("a", 60) is False
        assert cache.touch_many(["a", "b"], 60) == 0
        assert cache.delete("a") is False
        assert cache.delete_many(["a", "b"]) == 0
        assert cache.clear() == 0
        with pytest.raises(KeyError):
            cache.incr("a")
        with pytest.raises(KeyError):
            cache["a"]
        assert cache.cached(key="one")(lambda: [1])() == [1]
        with cache.preload("a", "b"):
            assert cache.get("a") is None
            # What could not be stored is made once for the page nonetheless.
            assert cache.cached(key="a")(lambda: "held")() == "held"
            assert cache.cached(key="a")(lambda: "made again")() == "held"
        stats = cache.stats()
        assert stats.hits == stats.scope_hits == 1
        assert stats.errors > stats.misses > 0

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
    def test_raise_uses_builtin_exception_classes_too(
        self, call: Callable[[Cache, Any], object]
    ) -> None:
        cache = Cache(REFUSING, on_error="raise")
        with pytest.raises(StoreUnavailableError) as caught:
            call(cache, "b")
        assert isinstance(caught.value, ConnectionError)
        assert isinstance(caught.value, StoreError)
        assert "redis://127.0.0.1:1 cannot be reached; is the server running" in str(caught.value)
        assert cache.stats().errors in {1, 2}

    def test_raise_applies_to_every_operation(self) -> None:
        cache = Cache(REFUSING, on_error="raise")
        cached = cache.cached(key="one")(lambda: 1)
        for call in (
            cache.clear,
            cache.preload("a").__enter__,
            cached,
            cached.refresh,
            cached.bust,
            lambda: cached.many([()]),
        ):
            with pytest.raises(StoreUnavailableError):
                call()

    def test_failed_preload_opens_no_scope(self) -> None:
        cache = Cache(REFUSING, on_error="raise")
        with pytest.raises(StoreUnavailableError), cache.preload("a"):
            pytest.fail("entered all the same")
        # Without a scope, a write goes at once.
        with pytest.raises(StoreUnavailableError):
            cache.set("a", 1)

    @pytest.mark.parametrize(
        "work",
        [lambda cache: cache.set("a", 1), lambda cache: cache.cached(key="a")(lambda: 1)()],
        ids=["set", "fetch"],
    )
    def test_raise_raises_at_the_call_not_at_the_scopes_end(
        self, work: Callable[[Cache], object]
    ) -> None:
        cache = Cache(REFUSING, on_error="raise")
        with cache.scope():
            with pytest.raises(StoreUnavailableError):
                work(cache)
            with pytest.raises(StoreUnavailableError):
                cache.get("a")

    def test_mistakes_raise_in_both_modes(self, redis_url: str) -> None:
        cache = Cache(redis_url)
        cache.set("a", "text")
        with pytest.raises(ValueError, match="does not hold an integer"):
            cache.incr("a")


class TestBreaker:
    """A server that fails again and again is not asked for a while."""

    def test_open_breaker_makes_no_trips_and_logs_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with RedisServer() as server:
            cache = Cache(server.url)
            cache.set("a", 1)
            server.stop()
            cache.reset_stats()
            caplog.clear()
            with cache.watch() as seen:
                for _ in range(20):
                    assert cache.get("a", "miss") == "miss"
            stats = cache.stats()
            # Three failures open it; few of the others are tries.
            assert 3 <= seen.trips == stats.trips < 20
            assert (stats.misses, stats.errors) == (20, 20)
            told = [record.getMessage() for record in caplog.records]
            assert all(record.name.startswith("onetrip") for record in caplog.records)
            assert sum("is not asked for" in message for message in told) == 1
            assert len(told) <= 3
            strict = Cache(server.url, on_error="raise")
            errors = set()
            for _ in range(20):
                with pytest.raises(StoreUnavailableError) as caught:
                    strict.get("a")
                errors.add(str(caught.value))
            assert any("is not asked, since it failed just now" in error for error in errors)
            caplog.clear()
            server.start()
            while cache.get("a") is None:
                cache.set("a", 2)
            told = [record.getMessage() for record in caplog.records]
            assert [message for message in told if "answers again" in message] == [
                f"{server.url} answers again"
            ]


class TestTooLarge:
    def test_old_entry_is_dropped_too(self, caplog: pytest.LogCaptureFixture) -> None:
        cache = Cache("memory://?size=4KiB")
        cache.set("a", "small")
        cache.set("a", "x" * 5000)
        assert "a" not in cache
        assert cache.add("a", "x" * 5000) is False
        assert cache.stats().errors == 2
        assert "give the store a larger size= or cache less at once" in caplog.text

    def test_other_entries_are_stored(self) -> None:
        cache = Cache("memory://?size=4KiB")
        cache.set_many({"a": 1, "b": "x" * 5000, "c": 3})
        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "c": 3}

    def test_raises_with_on_error_raise(self) -> None:
        cache = Cache("memory://?size=4KiB", on_error="raise")
        with pytest.raises(EntryTooLargeError, match="larger size= or cache less") as caught:
            cache.set("big", "x" * 5000)
        assert '"big"' in str(caught.value)
        assert isinstance(caught.value, ValueError)


class TestScopeMaxAge:
    def test_zero_asks_the_store_each_time(self, open_cache: OpenCache, cache: Cache) -> None:
        reader = open_cache(scope_max_age=0)
        cache.set("a", 1)
        with reader.watch() as seen, reader.preload("a"):
            for _ in range(3):
                assert reader["a"] == 1
        assert seen.trips == 4

    def test_limits_the_age_of_pieces(self, open_cache: OpenCache, cache: Cache) -> None:
        patient, hasty = open_cache(scope_max_age=3600), open_cache(scope_max_age=1e-6)
        cache.set("a", 1)
        for reader, trips in ((patient, 1), (hasty, 4)):
            with reader.watch() as seen, reader.preload("a"):
                for _ in range(3):
                    assert reader["a"] == 1
            assert seen.trips == trips

    def test_piece_never_outlives_its_timeout(self, open_cache: OpenCache) -> None:
        patient = open_cache(scope_max_age=3600)
        calls: list[int] = []

        @patient.cached(timeout=0.05, key="one")
        def piece() -> int:
            calls.append(1)
            return len(calls)

        with patient.scope():
            first = piece()
            time.sleep(0.1)
            # Memcached lets entries live for whole seconds.
            assert piece() >= first
            with patient.watch() as seen:
                time.sleep(0.1)
                piece()
            assert seen.trips >= 1


class TestRawSerializer:
    def test_stores_bytes_as_they_are(self, open_cache: OpenCache, raw: Raw) -> None:
        cache = open_cache(serializer="raw")
        for value in (b"", b"bytes \xc1\x01", b"5", bytes(range(256))):
            cache.set("a", value)
            assert raw["test:a"] == value
            assert cache["a"] == value
        raw["test:a"] = b"another program's"
        assert cache["a"] == b"another program's"

    @pytest.mark.parametrize(
        "value", ["text", 5, None, True, 1.5, [b"a"], bytearray(b"a"), object()], ids=repr
    )
    def test_other_types_raise(self, open_cache: OpenCache, value: object) -> None:
        with pytest.raises(SerializationError):
            open_cache(serializer="raw").set("a", value)

    def test_error_says_what_to_do(self) -> None:
        with pytest.raises(SerializationError, match="encode the value to bytes, or use the nat"):
            Cache(serializer="raw").set("a", "text")

    def test_incr_adds_to_digits(self, open_cache: OpenCache) -> None:
        cache = open_cache(serializer="raw")
        cache.set("n", b"5")
        with cache.scope():
            assert cache.incr("n") == 6
            assert cache["n"] == b"6"


class TestLatency:
    def test_behaves_like_memory(self) -> None:
        cache = Cache("memory://?latency=100us")
        cache.set("a", [1])
        with cache.preload("a", "b"), cache.watch() as seen:
            assert cache["a"] == [1]
            assert cache.get("b") is None
        assert seen.trips == 0
        assert cache.clear() == 1

    def test_label_shows_the_latency(self) -> None:
        cache = Cache("memory://?latency=100us")
        with cache.watch() as seen:
            cache.get("a")
        [trip] = seen.records
        assert trip.store == "memory:// (latency of 100µs simulated)"

    def test_shares_named_memory(self) -> None:
        fast, slow = Cache("memory://both"), Cache("memory://both?latency=100us")
        fast.set("a", 1)
        assert slow["a"] == 1


class TestCounting:
    def test_each_cache_counts_its_own_trips(
        self, redis_server: RedisServer, redis_url: str
    ) -> None:
        one, two = Cache(redis_url), Cache(redis_url)
        one.get("a")
        assert one.stats().trips == 1
        assert two.stats().trips == 0
        assert redis_server.commandstats()["get"] == 1
