"""The calls of a cache: their answers, defaults and errors, over every store."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

import onetrip
from onetrip import BadKeyError, Cache, NotANumberError, SerializationError
from tests.awaited import Awaited
from tests.calls import CALLS
from tests.conftest import stores_that_clear

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import ExpectTrips, OpenCache

MISSING = object()

# Any string is a key: what a store cannot take is its own business.
KEYS = {
    "plain": "note:5",
    "empty": "",
    "space": " a key ",
    "control": "line\r\nbreak\x00\x07\x7f",
    "resp": "*1\r\n$8\r\nFLUSHALL\r\n",
    "glob": "*?[a-z]^\\",
    "colons": ":::",
    "prefix": "test:",
    "emoji": "🗝️",
    "surrogate": "\ud800",
    "long": "k" * 10_000,
    "astral": "\U0010ffff" * 1000,
}

any_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())


@pytest.fixture(params=[Cache, Awaited], ids=["blocking", "asynchronous"])
def face(request: pytest.FixtureRequest) -> Any:
    """Both faces of a cache."""
    return request.param


class Strange(str):
    """A key that behaves otherwise than the string that it is."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        raise AssertionError((encoding, errors))

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


class TestGet:
    def test_returns_the_stored_value(self, cache: Cache) -> None:
        cache.set("a", {"b": [1, 2]})
        assert cache.get("a") == {"b": [1, 2]}
        assert cache["a"] == {"b": [1, 2]}
        assert "a" in cache

    def test_missing_key_returns_the_default(self, cache: Cache) -> None:
        assert cache.get("a") is None
        assert cache.get("a", MISSING) is MISSING
        assert cache.get("a", default=MISSING) is MISSING
        assert cache.get(key="a") is None
        assert "a" not in cache

    def test_default_is_neither_stored_nor_called(self, cache: Cache) -> None:
        assert cache.get("a", print) is print
        assert "a" not in cache

    def test_missing_item_raises_key_error(self, cache: Cache) -> None:
        with pytest.raises(KeyError) as caught:
            cache["a b"]
        assert caught.value.args == ("a b",)

    def test_none_is_a_value(self, cache: Cache) -> None:
        cache.set("a", None)
        cache["b"] = None
        assert cache.get("a", MISSING) is None
        assert cache["b"] is None
        assert "a" in cache
        assert cache.get_many(["a", "b", "c"]) == {"a": None, "b": None}
        assert cache.add("a", 1) is False
        assert cache.get_or_set("a", 1) is None
        assert cache.touch("a", 60) is True
        assert cache.delete("a") is True
        with cache.preload("a", "b"):
            assert cache.get("a", MISSING) is MISSING
            assert cache.get("b", MISSING) is None

    @pytest.mark.parametrize("value", [0, "", b"", False, [], {}, (), 0.0], ids=repr)
    def test_false_values_are_hits(self, cache: Cache, value: object) -> None:
        cache.set("a", value)
        found = cache.get("a", MISSING)
        assert found == value
        assert type(found) is type(value)
        assert cache.get_or_set("a", MISSING) == value


class TestGetMany:
    def test_returns_found_keys_in_order(self, cache: Cache) -> None:
        cache.set_many({"a": 1, "b": 2, "c": 3})
        found = cache.get_many(["c", "x", "a"])
        assert found == {"c": 3, "a": 1}
        assert list(found) == ["c", "a"]

    @pytest.mark.parametrize("make", [list, tuple, set, dict.fromkeys, iter])
    def test_accepts_any_iterable(self, cache: Cache, make: Callable[[list[str]], Any]) -> None:
        cache.set_many({"a": 1, "b": 2})
        assert cache.get_many(make(["a", "b", "x"])) == {"a": 1, "b": 2}

    def test_accepts_repeated_keys(self, cache: Cache) -> None:
        cache.set("a", [1])
        assert cache.get_many(["a", "a"]) == {"a": [1]}

    def test_is_one_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        cache.set_many({f"{n}": n for n in range(100)})
        with expect_trips(1):
            found = cache.get_many(f"{n}" for n in range(200))
        assert found == {f"{n}": n for n in range(100)}

    def test_no_keys_make_no_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(0):
            assert cache.get_many([]) == {}


class TestSet:
    def test_returns_none(self, cache: Cache) -> None:
        # What a stub calls None should be nothing else.
        assert cache.set("a", 1) is None  # type: ignore[func-returns-value]
        assert cache.set_many({"b": 2}) is None  # type: ignore[func-returns-value]

    def test_replaces_the_value(self, cache: Cache) -> None:
        cache.set("a", 1)
        cache.set("a", "two")
        cache["a"] += "!"
        assert cache["a"] == "two!"

    def test_set_many_accepts_pairs(self, cache: Cache) -> None:
        cache.set_many([("a", 1), ("b", 2), ("a", 3)])
        cache.set_many(iter([("c", 4)]))
        cache.set_many({"d": 5}.items())
        assert cache.get_many("abcd"[i] for i in range(4)) == {"a": 3, "b": 2, "c": 4, "d": 5}

    def test_set_many_is_one_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        with expect_trips(1):
            cache.set_many({f"{n}": n for n in range(50)})
        with expect_trips(0):
            cache.set_many({})

    def test_set_many_with_an_unencodable_value_stores_nothing(self, cache: Cache) -> None:
        with pytest.raises(SerializationError):
            cache.set_many({"a": 1, "b": object(), "c": 3})
        assert cache.get_many(["a", "b", "c"]) == {}

    def test_unencodable_value_keeps_the_old_one(self, cache: Cache) -> None:
        cache.set("a", 1)
        with pytest.raises(SerializationError):
            cache.set("a", object())
        assert cache["a"] == 1

    @pytest.mark.parametrize("wrong", [5, None, [1], ["abc"], [("a", 1, 2)]])
    def test_set_many_without_mapping_raises(self, cache: Cache, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            cache.set_many(wrong)


class TestAdd:
    def test_stores_only_absent_keys(self, cache: Cache) -> None:
        assert cache.add("a", 1) is True
        assert cache.add("a", 2) is False
        assert cache["a"] == 1

    def test_stores_after_a_delete(self, cache: Cache) -> None:
        cache.add("a", 1)
        cache.delete("a")
        assert cache.add("a", 2) is True
        assert cache["a"] == 2


class TestGetOrSet:
    def test_stores_the_default(self, cache: Cache) -> None:
        assert cache.get_or_set("a", [1]) == [1]
        assert cache["a"] == [1]
        assert cache.get_or_set("a", [2]) == [1]

    def test_callable_is_called_only_on_a_miss(self, cache: Cache) -> None:
        calls: list[int] = []

        def make() -> str:
            calls.append(1)
            return "made"

        assert cache.get_or_set("a", make) == "made"
        assert cache.get_or_set("a", make) == "made"
        assert len(calls) == 1

    def test_none_is_cached(self, cache: Cache) -> None:
        calls: list[int] = []
        for _ in range(2):
            # `append` answers None.
            assert cache.get_or_set("a", lambda: calls.append(1)) is None
        assert len(calls) == 1

    def test_failing_default_is_not_stored(self, cache: Cache) -> None:
        def fail() -> int:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            cache.get_or_set("a", fail)
        assert cache.get_or_set("a", lambda: 2) == 2

    def test_callable_may_use_the_cache(self, cache: Cache) -> None:
        def make() -> int:
            return cache.get_or_set("inner", lambda: 20) + 1

        with cache.scope():
            assert cache.get_or_set("outer", make) == 21
        assert cache.get_many(["inner", "outer"]) == {"inner": 20, "outer": 21}

    def test_costs_two_trips_cold_and_one_warm(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(2):
            cache.get_or_set("a", 1)
        with expect_trips(1):
            cache.get_or_set("a", 1)


class TestNumbers:
    def test_counts_up_and_down(self, cache: Cache) -> None:
        cache.set("n", 10)
        assert cache.incr("n") == 11
        assert cache.incr("n", 5) == 16
        assert cache.incr("n", delta=-1) == 15
        assert cache.decr("n") == 14
        assert cache.decr("n", 4) == 10
        assert cache.decr("n", delta=-1) == 11
        assert cache.incr("n", 0) == 11
        assert cache["n"] == 11
        assert type(cache["n"]) is int

    @pytest.mark.parametrize("call", ["incr", "decr"])
    def test_missing_key_raises_key_error(self, cache: Cache, call: str) -> None:
        with pytest.raises(KeyError) as caught:
            getattr(cache, call)("n")
        assert caught.value.args == ("n",)
        assert "n" not in cache

    @pytest.mark.parametrize("value", ["1", b"1", 1.0, True, None, [1], 2**64], ids=repr)
    def test_other_values_raise_not_a_number(self, cache: Cache, value: object) -> None:
        cache.set("n", value)
        with pytest.raises(NotANumberError, match="set it to an integer"):
            cache.incr("n")
        assert cache["n"] == value

    @pytest.mark.parametrize(
        ("start", "delta"), [(2**63 - 1, 1), (-(2**63), -1), (1, 2**63 - 1), (-2, -(2**63))]
    )
    def test_overflow_raises(self, cache: Cache, start: int, delta: int) -> None:
        cache.set("n", start)
        with pytest.raises(NotANumberError, match="64 bits"):
            cache.incr("n", delta)
        assert cache["n"] == start

    @pytest.mark.parametrize("delta", [2**63, -(2**63) - 1, 2**200])
    def test_delta_beyond_64_bits_raises(self, cache: Cache, delta: int) -> None:
        cache.set("n", 0)
        with pytest.raises((OverflowError, NotANumberError)):
            cache.incr("n", delta)
        assert cache["n"] == 0

    def test_delta_must_be_an_integer(self, cache: Cache) -> None:
        cache.set("n", 0)
        for delta in (1.0, "1", None):
            with pytest.raises(TypeError):
                cache.incr("n", delta)  # type: ignore[arg-type]

    def test_is_one_trip(self, cache: Cache, expect_trips: ExpectTrips) -> None:
        cache.set("n", 0)
        with expect_trips(1):
            cache.incr("n")


class TestDelete:
    def test_returns_whether_the_key_existed(self, cache: Cache) -> None:
        cache.set("a", 1)
        assert cache.delete("a") is True
        assert cache.delete("a") is False
        assert "a" not in cache

    def test_delete_many_returns_how_many_existed(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set_many({"a": 1, "b": 2, "c": 3})
        with expect_trips(1):
            assert cache.delete_many(iter(["a", "b", "x", "a"])) == 2
        assert cache.get_many(["a", "b", "c"]) == {"c": 3}
        with expect_trips(0):
            assert cache.delete_many([]) == 0


class TestTouch:
    def test_returns_whether_the_key_exists(self, cache: Cache) -> None:
        cache.set("a", 1)
        assert cache.touch("a", 60) is True
        assert cache.touch("x", 60) is False
        assert cache["a"] == 1
        assert "x" not in cache

    def test_touch_many_returns_how_many_exist(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        cache.set_many({"a": 1, "b": 2})
        with expect_trips(1):
            assert cache.touch_many(["a", "b", "x"], 60) == 2
        with expect_trips(1):
            assert cache.touch_many(["a", "x"], None) == 1
        with expect_trips(0):
            assert cache.touch_many([], 60) == 0

    def test_timeout_is_required(self, cache: Cache) -> None:
        with pytest.raises(TypeError):
            cache.touch("a")  # type: ignore[call-arg]


class TestItems:
    def test_can_be_deleted(self, cache: Cache) -> None:
        cache["a"] = 1
        del cache["a"]
        assert "a" not in cache
        with pytest.raises(KeyError, match="'a'"):
            del cache["a"]
        with pytest.raises(BadKeyError):
            del cache[5]  # type: ignore[arg-type]  # no key

    def test_can_be_deleted_in_a_scope(self, cache: Cache) -> None:
        with cache.scope():
            cache["a"] = 1
            del cache["a"]
            assert "a" not in cache
        assert "a" not in cache

    def test_iteration_raises(self, cache: Cache) -> None:
        with pytest.raises(TypeError, match="object is not iterable"):
            iter(cache)  # type: ignore[call-overload]  # types say so too
        assert not issubclass(Cache, Iterable)


class TestPrefix:
    def test_prefixes_separate_keys(self, open_cache: OpenCache) -> None:
        blog, shop = open_cache(prefix="blog"), open_cache(prefix="shop")
        blog.set("a", 1)
        shop.set("a", 2)
        assert (blog["a"], shop["a"]) == (1, 2)
        assert blog.delete("a") is True
        assert shop["a"] == 2

    @stores_that_clear
    def test_clear_deletes_only_the_prefix(self, open_cache: OpenCache) -> None:
        blog, blogs = open_cache(prefix="blog"), open_cache(prefix="blogs")
        plain = open_cache(prefix="")
        blog.set_many({"a": 1, "b": 2})
        blogs.set("a", 3)
        plain.set("blog", 4)
        assert blog.clear() == 2
        assert blog.clear() == 0
        assert blog.get_many(["a", "b"]) == {}
        assert (blogs["a"], plain["blog"]) == (3, 4)

    @stores_that_clear
    @pytest.mark.parametrize("prefix", ["*", "[ab]", "b?", "\\", "^", "a\nb", "ключ", "{a}"])
    def test_glob_characters_are_literal(self, open_cache: OpenCache, prefix: str) -> None:
        odd, other = open_cache(prefix=prefix), open_cache(prefix="b")
        odd.set("k", 1)
        other.set("k", 2)
        assert odd.clear() == 1
        assert "k" not in odd
        assert other["k"] == 2

    @stores_that_clear
    def test_clear_without_prefix_deletes_everything(self, open_cache: OpenCache) -> None:
        everything, some = open_cache(prefix=""), open_cache(prefix="some")
        everything.set("a", 1)
        some.set("a", 2)
        assert everything.clear() == 2
        assert "a" not in some

    def test_keys_without_prefix_are_unchanged(self, open_cache: OpenCache) -> None:
        open_cache(prefix="").set("blog:a", 1)
        with pytest.raises(KeyError):
            # It is sealed under the same name, and is the same entry.
            open_cache(prefix="blo")["g:a"]
        assert open_cache(prefix="blog")["a"] == 1

    @stores_that_clear
    def test_clears_more_than_a_server_lists_at_once(self, cache: Cache) -> None:
        cache.set_many({f"{n}": n for n in range(3000)})
        assert cache.clear() == 3000
        assert cache.get_many(f"{n}" for n in range(3000)) == {}


class TestKeys:
    @any_key
    def test_any_string_is_a_key(self, cache: Cache, key: str) -> None:
        cache.set(key, key.encode("utf-8", "surrogatepass"))
        other = f"{key}x"
        assert cache[key] == key.encode("utf-8", "surrogatepass")
        assert key in cache
        assert other not in cache
        assert cache.get_many([key, other]) == {key: cache[key]}
        assert cache.add(key, 1) is False
        assert cache.touch(key, 60) is True
        with cache.preload(key, [other]):
            assert cache[key] == key.encode("utf-8", "surrogatepass")
            assert cache.get(other) is None
            cache.set_many({key: 1})
        assert cache.incr(key) == 2
        assert cache.delete(key) is True
        assert cache.get(key) is None
        with pytest.raises(KeyError) as caught:
            cache[key]
        assert caught.value.args == (key,)

    def test_different_strings_are_different_keys(self, cache: Cache) -> None:
        cache.set_many({key: name for name, key in KEYS.items()})
        assert cache.get_many(KEYS.values()) == {key: name for name, key in KEYS.items()}
        assert cache.delete_many(KEYS.values()) == len(KEYS)

    def test_str_subclass_uses_its_text(self, cache: Cache) -> None:
        cache.set(Strange("a"), 1)
        assert cache["a"] == 1
        assert cache[Strange("a")] == 1

    @pytest.mark.parametrize("wrong", [5, None, b"a", 1.5, ("a",), ["a"], str], ids=repr)
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
    def test_other_types_raise(self, call: Callable[[Cache, Any], object], wrong: object) -> None:
        cache = Cache()
        cache.set("a", "untouched")
        if call is CALLS["set_many"] and isinstance(wrong, list):
            # No dict holds such a key, so that Python itself refuses it.
            expected: type[Exception] = TypeError
        else:
            expected = BadKeyError
        with pytest.raises(expected):
            call(cache, wrong)
        assert cache["a"] == "untouched"

    def test_error_says_what_to_do(self) -> None:
        with pytest.raises(BadKeyError, match=r"string, not int; convert it with str\(\)"):
            Cache().get(5)  # type: ignore[call-overload]

    def test_single_string_for_many_keys_raises(self, cache: Cache) -> None:
        cache.set("a", 1)
        for call in (cache.delete_many, lambda keys: cache.touch_many(keys, 0)):
            with pytest.raises(BadKeyError, match="put it in a list"):
                call("a")
        assert cache["a"] == 1

    def test_non_iterable_for_many_keys_raises(self, cache: Cache) -> None:
        for call in (cache.get_many, cache.delete_many):
            with pytest.raises(TypeError):
                call(5)  # type: ignore[arg-type]

    def test_error_of_an_iterable_is_raised(self, cache: Cache) -> None:
        def keys() -> Any:
            yield "a"
            raise ZeroDivisionError

        for call in (cache.get_many, cache.delete_many, cache.preload):
            with pytest.raises(ZeroDivisionError):
                call(keys())


class TestDebug:
    def test_caches_nothing(self, open_cache: OpenCache) -> None:
        cache, other = open_cache(debug=True), open_cache()
        other.set("a", 1)
        with cache.watch() as seen:
            cache.set("b", 1)
            cache["c"] = 1
            cache.set_many({"d": 1})
            assert cache.add("e", 1) is True
            assert cache.get("a") is None
            assert "a" not in cache
            assert cache.get_many(["a", "b"]) == {}
            assert cache.get_or_set("a", lambda: 2) == 2
            assert cache.touch("a", 0) is False
            assert cache.touch_many(["a"], 0) == 0
            assert cache.delete("a") is False
            assert cache.delete_many(["a"]) == 0
            assert cache.clear() == 0
            for call in (cache.incr, cache.decr):
                with pytest.raises(KeyError):
                    call("a")
            with cache.preload("a"):
                cache.set("f", 1)
                assert cache.get("a") is None
                assert cache.get("f") is None
        assert seen.trips == 0
        assert cache.stats().trips == 0
        assert other.get_many("abcdef"[i] for i in range(6)) == {"a": 1}

    def test_computes_every_time(self, open_cache: OpenCache) -> None:
        calls: list[int] = []
        cached = open_cache(debug=True).cached(calls.append)
        for _ in range(3):
            cached(1)
        with open_cache(debug=True).scope():
            cached(1)
        assert cached.many([1, 1]) == [None, None]
        assert calls[:4] == [1] * 4

    def test_mistakes_still_raise(self, open_cache: OpenCache) -> None:
        cache = open_cache(debug=True)
        with pytest.raises(BadKeyError):
            cache.get(5)  # type: ignore[call-overload]
        with pytest.raises(SerializationError):
            cache.set("a", object())


class TestCacheObject:
    def test_usable_after_close(self, cache: Cache) -> None:
        cache.set("a", 1)
        for _ in range(2):
            cache.close()
            assert cache["a"] == 1

    def test_freed_with_the_last_reference(self) -> None:
        cache = Cache()
        gone = weakref.ref(cache)
        with cache.scope():
            cache.set("a", 1)
        del cache
        gc.collect()
        assert gone() is None

    def test_can_be_subclassed(self, store_url: str) -> None:
        class Blog(Cache):
            def note(self, number: int) -> Any:
                return self.get(f"note:{number}")

        blog = Blog(store_url, prefix="blog")
        blog.set("note:5", "text")
        assert blog.note(5) == "text"
        with blog.preload("note:5"):
            assert blog.note(5) == "text"

    def test_repr_shows_store_and_prefix(self) -> None:
        assert repr(Cache()) == "<onetrip.Cache memory://>"
        shown = repr(Cache("redis://ann:hunter2@db.example:6380/1?db=2", prefix="blog"))
        assert shown == '<onetrip.Cache redis://ann@db.example:6380/1 prefix="blog">'

    def test_all_public_names_exist(self) -> None:
        for name in onetrip.__all__:
            assert getattr(onetrip, name) is not None
        assert onetrip.__version__
