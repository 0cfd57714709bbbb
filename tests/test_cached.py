"""Functions, methods and properties whose results are cached."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import subprocess
import sys
import weakref
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onetrip import BadKeyError, Cache, Cached, CachedProperty, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import ExpectTrips, OpenCache
    from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent


# Tests call it wrongly, and find in the cache what it would not answer.
Double: TypeAlias = "Cached[..., Any]"


class Calls(list[Any]):
    """What a function was called with, so that a test sees when it was."""

    def __call__(self, *what: object) -> None:
        self.append(what[0] if len(what) == 1 else what)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def double(cache: Cache, calls: Calls) -> Double:
    @cache.cached(60, key="double:{number}")
    def double(number: int) -> int:
        """Twice the number."""
        calls(number)
        return 2 * number

    return double


class TestCalls:
    def test_computed_only_on_a_miss(self, double: Double, calls: Calls) -> None:
        assert [double(1), double(1), double(2), double(number=1)] == [2, 2, 4, 2]
        assert calls == [1, 2]

    def test_one_trip_warm_and_two_cold(self, double: Double, expect_trips: ExpectTrips) -> None:
        with expect_trips(2):
            double(1)
        with expect_trips(1):
            double(1)

    def test_decorator_works_bare_and_called(self, cache: Cache, calls: Calls) -> None:
        @cache.cached
        def bare(number: int) -> int:
            calls(number)
            return number

        @cache.cached()
        def called(number: int) -> int:
            calls(number)
            return number

        @cache.cached(timeout=60)
        def timed(number: int) -> int:
            calls(number)
            return number

        for function in (bare, called, timed):
            assert isinstance(function, Cached)
            calls.clear()
            assert (function(1), function(1)) == (1, 1)
            assert calls == [1]

    def test_none_is_cached(self, cache: Cache, calls: Calls) -> None:

        @cache.cached
        def cached(number: int) -> None:
            calls(number)

        for _ in range(3):
            assert cached(1) is None
        assert cached.many([1, 1, 2]) == [None, None, None]
        assert cached.many([1, 2]) == [None, None]
        assert calls == [1, 2]

    def test_exceptions_are_not_cached(self, cache: Cache) -> None:
        fails = iter([True, True, False])

        @cache.cached(key="answer")
        def answer() -> int:
            if next(fails):
                raise ZeroDivisionError
            return 42

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                answer()
            assert "answer" not in cache
        assert answer() == 42
        # A fourth call of the function would find `fails` at its end.
        assert answer() == 42

    def test_unencodable_result_raises(self, cache: Cache) -> None:
        @cache.cached
        def cached() -> object:
            return object()

        with pytest.raises(TypeError, match="value of type object cannot be cached"):
            cached()

    def test_each_call_returns_its_own_object(self, cache: Cache) -> None:
        @cache.cached
        def cached() -> dict[str, list[int]]:
            return {"list": [1]}

        for _ in range(2):
            cached()["list"].append(2)
        assert cached() == {"list": [1]}
        with cache.preload(cached):
            for _ in range(2):
                cached()["list"].append(3)
            cached.refresh()["list"].append(4)
            assert cached() == {"list": [1]}
            cached.many([()])[0]["list"].append(5)
            assert cached.many([()]) == [{"list": [1]}]

    def test_recursive_function(self, cache: Cache, calls: Calls) -> None:
        @cache.cached
        def fibonacci(number: int) -> int:
            calls(number)
            return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

        with cache.scope():
            assert fibonacci(20) == 6765
        assert len(calls) == 21

    def test_wrong_arguments_raise_type_error(self, double: Double, calls: Calls) -> None:
        for call in (double, double.key, double.bust, double.refresh):
            with pytest.raises(TypeError, match="argument"):
                call()
            with pytest.raises(TypeError, match="argument"):
                call(1, nothing=2)
        assert calls == []


class TestFunctionMethods:
    def test_key(self, double: Double, cache: Cache) -> None:
        assert double.key(5) == double.key(number=5) == "double:5"
        double(5)
        assert cache["double:5"] == 10

    def test_bust(self, double: Double, calls: Calls) -> None:
        assert double.bust(1) is False
        double(1)
        assert double.bust(1) is True
        assert double.bust(number=1) is False
        double(1)
        assert calls == [1, 1]

    def test_refresh(self, double: Double, cache: Cache, calls: Calls) -> None:
        cache.set("double:1", "old")
        assert double(1) == "old"
        assert double.refresh(1) == 2
        assert double(1) == 2
        assert double.refresh(number=1) == 2
        assert calls == [1, 1]

    def test_uncached(self, double: Double, cache: Cache, calls: Calls) -> None:
        cache.set("double:1", "old")
        assert double.uncached(1) == double.uncached(number=1) == 2
        assert double(1) == "old"
        assert double.uncached(3) == 6
        assert "double:3" not in cache
        assert calls == [1, 1, 3]

    def test_bust_and_refresh_in_a_scope(
        self, double: Double, cache: Cache, open_cache: OpenCache
    ) -> None:
        other = open_cache()
        with cache.preload(functools.partial(double, 1)):
            assert double(1) == 2
            assert double.bust(1) is True
            assert "double:1" not in other
            assert double.refresh(1) == 2
        assert other["double:1"] == 2


class TestMany:
    def test_returns_results_in_order(self, double: Double, calls: Calls) -> None:
        double(2)
        calls.clear()
        assert double.many([3, 2, 1]) == [6, 4, 2]
        assert calls == [3, 1]
        assert double.many(iter([1, 2, 3])) == [2, 4, 6]
        assert calls == [3, 1]
        assert double.many([]) == []

    def test_one_trip_to_read_and_one_to_store(
        self, double: Double, expect_trips: ExpectTrips
    ) -> None:
        with expect_trips(2):
            assert double.many(range(50)) == [2 * number for number in range(50)]
        with expect_trips(1):
            double.many(range(50))
        with expect_trips(2):
            double.many(range(25, 75))
        with expect_trips(0):
            double.many([])

    def test_one_command_per_trip(self, redis_server: RedisServer, redis_url: str) -> None:
        cache = Cache(redis_url)
        cached = cache.cached(key="{number}")(lambda number: number)
        cached.many([1])
        redis_server.reset_stats()
        cached.many([1, 2, 3])
        assert redis_server.commandstats() == {"mget": 1, "set": 2}
        assert redis_server.reads() == 2

    def test_uses_values_held_by_the_scope(
        self, double: Double, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        keys = [double.key(number) for number in range(10)]
        with expect_trips(1, posts=10), cache.preload(keys):
            double.many(range(10))
            double.many(range(10))
        with expect_trips(1), cache.preload(keys):
            double.many(range(10))

    def test_repeated_arguments_are_computed_once(self, double: Double, calls: Calls) -> None:
        assert double.many([1, 2, 1, 2, 1]) == [2, 4, 2, 4, 2]
        assert calls == [1, 2]

    def test_tuple_holds_positional_arguments(self, cache: Cache) -> None:
        @cache.cached(key="power:{base}:{exponent}")
        def power(base: int, exponent: int = 2) -> Any:
            return base**exponent

        assert power.many([(2, 3), (3,), 4]) == [8, 9, 16]
        assert cache.get_many(["power:2:3", "power:3:2", "power:4:2"]) == {
            "power:2:3": 8,
            "power:3:2": 9,
            "power:4:2": 16,
        }

    def test_list_is_a_single_argument(self, cache: Cache) -> None:
        assert cache.cached(len).many([[1, 2], "abc", ((1, 2, 3, 4),)]) == [2, 3, 4]

    def test_results_before_a_failure_are_stored(self, cache: Cache, calls: Calls) -> None:
        @cache.cached(key="inverse:{number}")
        def inverse(number: int) -> float:
            calls(number)
            return 1 / number

        with pytest.raises(ZeroDivisionError):
            inverse.many([1, 2, 0, 4])
        assert calls == [1, 2, 0]
        assert cache.get_many(["inverse:1", "inverse:2", "inverse:0", "inverse:4"]) == {
            "inverse:1": 1.0,
            "inverse:2": 0.5,
        }

    def test_unencodable_result_raises(self, cache: Cache) -> None:
        cached = cache.cached(key="{number}")(lambda number: object() if number == 2 else number)
        with pytest.raises(TypeError, match="cannot be cached"):
            cached.many([1, 2, 3])

    def test_wrong_arguments_make_no_trip(self, double: Double, cache: Cache) -> None:
        with cache.watch() as seen:
            for wrong in ([1, (1, 2)], 5, [()]):
                with pytest.raises(TypeError):
                    double.many(wrong)  # type: ignore[arg-type]
        assert seen.trips == 0


class Note:
    """A model as an application has it. Its cache is put in by `notes`."""

    def __init__(self, id: int, text: str = "text") -> None:  # noqa: A002 - as models call it
        self.id = id
        self.text = text
        self.calls = Calls()


@pytest.fixture
def notes(cache: Cache) -> Any:
    """The class of notes with cached methods and properties."""

    class CachedNote(Note):
        @cache.cached(60, key_fn=lambda args, _kwargs: args[0].id)
        def note_markup(self) -> str:
            """The text as markup."""
            self.calls("markup")
            return f"<p>{self.text}</p>"

        @cache.cached(key="excerpt:{self.id}:{length}")
        def excerpt(self, length: int = 2, *, dots: str = "…") -> str:
            self.calls(length)
            return self.text[:length] + dots

        @cache.cached_property(key="words:{self.id}")
        def words(self) -> list[str]:
            """The words of the text."""
            self.calls("words")
            return self.text.split()

        @cache.cached_property(60, key_fn=lambda args, _kwargs: args[0].id)
        def size(self) -> int:
            self.calls("size")
            return len(self.text)

        @classmethod
        @cache.cached(key="newest:{count}")
        def newest(cls, count: int) -> list[int]:
            return list(range(count))

        @staticmethod
        @cache.cached(key="shout:{text}")
        def shout(text: str) -> str:
            return text.upper()

    return CachedNote


class TestMethods:
    def test_cached_per_instance(self, notes: Any, cache: Cache) -> None:
        one, again, two = notes(1, "one"), notes(1, "else"), notes(2, "two")
        assert one.note_markup() == "<p>one</p>"
        assert again.note_markup() == "<p>one</p>"
        assert two.note_markup() == "<p>two</p>"
        assert (one.calls, again.calls, two.calls) == (["markup"], [], ["markup"])
        assert cache["note_markup:1"] == "<p>one</p>"

    def test_key_bust_refresh_and_uncached(self, notes: Any) -> None:
        note = notes(1, "some text")
        assert note.excerpt.key() == note.excerpt.key(length=2) == "excerpt:1:2"
        assert note.excerpt.key(3, dots="!") == "excerpt:1:3"
        assert note.excerpt() == "so…"
        note.text = "other text"
        assert note.excerpt() == "so…"
        assert note.excerpt.uncached() == "ot…"
        assert note.excerpt.refresh() == "ot…"
        assert note.excerpt() == "ot…"
        assert note.excerpt.bust() is True
        assert note.excerpt.many([2, (3,)]) == ["ot…", "oth…"]

    def test_callable_on_the_class(self, notes: Any) -> None:
        note = notes(1, "one")
        assert notes.note_markup(note) == note.note_markup() == "<p>one</p>"
        assert notes.note_markup.key(note) == note.note_markup.key() == "note_markup:1"
        assert notes.note_markup.bust(note) is True

    def test_many_instances(self, notes: Any, expect_trips: ExpectTrips) -> None:
        some = [notes(number, f"{number}") for number in range(20)]
        for trips in (2, 1):
            with expect_trips(trips):
                assert notes.note_markup.many(some) == [f"<p>{n}</p>" for n in range(20)]
        with expect_trips(1):
            assert notes.words.many(some[:0]) == []
            assert [note.calls for note in some] == [["markup"]] * 20
            notes.note_markup.many(some)

    def test_class_and_static_methods(self, notes: Any, cache: Cache) -> None:
        assert notes.newest(2) == notes(1).newest(2) == [0, 1]
        assert notes.newest.key(3) == "newest:3"
        assert notes.shout("a") == notes(1).shout("a") == "A"
        assert cache.get_many(["newest:2", "shout:a"]) == {"newest:2": [0, 1], "shout:a": "A"}

    def test_inherited_and_overridden_methods(self, notes: Any, cache: Cache) -> None:
        class Draft(notes):  # type: ignore[misc]  # the class is made for each test
            pass

        class Essay(notes):  # type: ignore[misc]  # as above
            @cache.cached(key="essay:{self.id}")
            def note_markup(self) -> str:
                return f"<article>{super().note_markup()}</article>"

        assert Draft(1, "draft").note_markup() == "<p>draft</p>"
        essay = Essay(2, "essay")
        assert essay.note_markup() == "<article><p>essay</p></article>"
        assert notes.note_markup(essay) == "<p>essay</p>"
        assert cache["essay:2"] == "<article><p>essay</p></article>"
        assert cache["note_markup:2"] == "<p>essay</p>"
        assert super(Essay, essay).note_markup() == "<p>essay</p>"

    def test_instance_without_stable_form_raises(self, cache: Cache) -> None:
        class Keyless:
            @cache.cached
            def method(self) -> int:
                return 1

        with pytest.raises(BadKeyError, match=r"argument self \(.*Keyless\) has no stable form"):
            Keyless().method()

    def test_class_with_slots(self, cache: Cache) -> None:
        class Slotted:
            __slots__ = ("id",)

            def __init__(self) -> None:
                self.id = 7

            @cache.cached(key="slotted:{self.id}")
            def method(self) -> int:
                return self.id

        assert Slotted().method() == 7

    def test_instance_is_not_kept_alive(self, notes: Any) -> None:
        note = notes(1)
        note.note_markup()
        gone = weakref.ref(note)
        del note
        assert gone() is None


class TestProperties:
    def test_cached_per_instance(self, notes: Any, cache: Cache) -> None:
        note = notes(1, "two words")
        assert note.words == note.words == ["two", "words"]
        assert note.calls == ["words"]
        assert notes(1, "else").words == ["two", "words"]
        assert note.size == 9
        assert cache.get_many(["words:1", "size:1"]) == {"words:1": ["two", "words"], "size:1": 9}

    def test_key_bust_refresh_and_uncached(self, notes: Any) -> None:
        note = notes(1, "two words")
        assert isinstance(notes.words, CachedProperty)
        assert notes.words.key(note) == "words:1"
        assert notes.words.bust(note) is False
        assert note.words == ["two", "words"]
        note.text = "three"
        assert notes.words.uncached(note) == ["three"]
        assert note.words == ["two", "words"]
        assert notes.words.refresh(note) == ["three"]
        assert note.words == ["three"]
        assert notes.words.bust(note) is True
        assert note.words == ["three"]
        assert note.calls == ["words"] * 4

    def test_many_instances(self, notes: Any, expect_trips: ExpectTrips) -> None:
        some = [notes(number, f"{number}") for number in range(20)]
        for trips in (2, 1):
            with expect_trips(trips):
                assert notes.words.many(some) == [[f"{number}"] for number in range(20)]

    def test_each_read_returns_its_own_object(self, notes: Any, cache: Cache) -> None:
        note = notes(1, "two words")
        with cache.scope():
            for _ in range(3):
                note.words.append("more")
        assert note.words == ["two", "words"]

    def test_name_and_docstring_are_kept(self, notes: Any) -> None:
        assert notes.words.__name__ == "words"
        assert notes.words.__doc__ == "The words of the text."
        assert "words" in repr(notes.words)

    def test_instance_without_stable_form_raises(self, cache: Cache) -> None:
        class Keyless:
            @cache.cached_property
            def one(self) -> int:
                return 1

        with pytest.raises(BadKeyError, match="argument self"):
            _ = Keyless().one


class TestSignatures:
    def test_signature_is_the_functions(self, cache: Cache) -> None:
        def original(a: int, /, b: str = "x", *c: float, d: bool, **e: None) -> list[int]:
            """What it does."""
            return []

        original.extra = "extra"  # type: ignore[attr-defined]  # a function may have attributes
        cached = cache.cached(key="{a}")(original)
        assert inspect.signature(cached) == inspect.signature(original)
        assert inspect.unwrap(cached) is original
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
            assert getattr(cached, name) == getattr(original, name)
        assert getattr(cached, "extra") == "extra"  # noqa: B009 - no type has it
        assert inspect.getdoc(cached) == "What it does."
        assert callable(cached)
        assert "original" in repr(cached)

    def test_methods_keep_their_docstring(self, cache: Cache) -> None:
        class Note:
            @cache.cached(key="{self}")
            def markup(self) -> str:
                """The note as HTML."""
                return ""

            @cache.cached(key="{self}")
            def nothing(self) -> None:
                pass

        assert Note().markup.__doc__ == Note.markup.__doc__ == "The note as HTML."
        assert inspect.getdoc(Note().markup) == "The note as HTML."
        assert Note().nothing.__doc__ is None

    def test_bound_method_signature_omits_self(self, notes: Any) -> None:
        note = notes(1)
        assert list(inspect.signature(note.excerpt).parameters) == ["length", "dots"]
        assert list(inspect.signature(notes.excerpt).parameters) == ["self", "length", "dots"]
        assert inspect.signature(note.excerpt).return_annotation == "str"
        assert note.note_markup.__name__ == "note_markup"
        assert note.note_markup.__qualname__.endswith("CachedNote.note_markup")
        assert note.note_markup.__self__ is note
        assert repr(note.note_markup).startswith("<cached <function")

    def test_missing_attribute_raises(self, double: Any, notes: Any) -> None:
        for owner in (double, notes(1).excerpt):
            with pytest.raises(AttributeError):
                _ = owner.nothing
        assert not hasattr(double, "__self__")

    def test_weak_references(self, double: Double) -> None:
        assert weakref.ref(double)() is double


class TestFormats:
    def test_fields_name_arguments(self, cache: Cache, notes: Any) -> None:
        @cache.cached(key="{b}:{a.id:03d}:{c[0]}:{d[x]}:{d[x]!r}:{e[z]}")
        def function(a: Any, b: int = 2, *c: int, d: Any = None, **e: int) -> int:
            return 1

        key = function.key(notes(5), 3, 7, 8, d={"x": "y"}, z=1)
        assert key == "3:005:7:y:'y':1"

    @given(
        pieces=st.lists(
            st.one_of(
                st.sampled_from(["'", '"', "\\", "\n", "{{", "}}", "é", "a:b", "'''", "_"]),
                st.sampled_from(
                    [
                        *["{a}", "{b}", "{c}", "{a!r}", "{b!s:>9}", "{b!a}", "{b:>{a}}"],
                        *["{b:{fill}<{a}}", "{b:'^9}", '{b:"^9}', "{c[0]}", "{d[x y]}", "{d['y']}"],
                        *["{e.real}", "{e.imag:.2f}", "{rest[0]}", "{rest}", "{a:\\>4}"],
                    ]
                ),
            )
        )
    )
    def test_same_text_as_str_format(self, pieces: list[str]) -> None:
        key = "{a}" + "".join(pieces)
        d = {"x y": 1, "'y'": 2}

        def f(
            a: Any, /, b: Any = "é'", *rest: Any, c: Any, d: Any = d, e: Any = 2.5, fill: Any = "-"
        ) -> None:
            """Take arguments of every kind."""

        made = Cache().cached(key=key)(f).key(4, "b", 7, c=(1, 2))
        said = {"a": 4, "b": "b", "rest": (7,), "c": (1, 2), "d": d, "e": 2.5, "fill": "-"}
        assert made == key.format(**said)

    def test_escaped_braces_are_kept(self, cache: Cache) -> None:
        assert cache.cached(key="{{{x}}}")(lambda x: x).key(1) == "{1}"

    def test_arguments_may_have_any_name(self, cache: Cache) -> None:
        def f(_onetrip_0: int, _onetrip_1: int = 5, _onetrip__2: int = 6) -> None:
            """Take arguments that are named like what keys are made with."""

        assert cache.cached(key="{_onetrip_0}:{_onetrip_1:>{_onetrip__2}}")(f).key(4) == "4:     5"
        assert cache.cached(f).key(4) == cache.cached(f).key(4, _onetrip_1=5)

    def test_keyword_as_parameter_name_raises(self, cache: Cache) -> None:
        def f(a: int) -> None:
            """Say to have an argument that no function of Python has."""

        only = [inspect.Parameter("class", inspect.Parameter.POSITIONAL_ONLY)]
        f.__signature__ = inspect.Signature(only)  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match="named like a Python keyword"):
            cache.cached(f)

    def test_function_without_arguments_needs_no_field(self, cache: Cache) -> None:
        assert cache.cached(key="front page")(lambda: 1).key() == "front page"

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("note", "names no argument, so all calls would share one result"),
            ("", "names no argument"),
            ("{note}", "names 'note', which is not an argument"),
            ("{note.id}", "names 'note', which is not an argument"),
            ("{x}:{y[0]}", "names 'y', which is not an argument"),
            ("{}", "names '', which is not an argument"),
            ("{0}", "names '0', which is not an argument"),
            ("{x", "is not a valid format"),
            ("x}", "is not a valid format"),
            ("{x.}", "is not a valid format"),
            ("{x[0]y}", "is not a valid format"),
        ],
    )
    def test_wrong_format_raises_when_decorating(self, cache: Cache, key: str, said: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            cache.cached(key=key)(lambda x: x)
        assert said in str(caught.value)
        assert "(it has x), as in 'note:{" in str(caught.value)

    def test_format_must_be_a_string(self, cache: Cache) -> None:
        with pytest.raises((TypeError, ConfigurationError)):
            cache.cached(key=5)  # type: ignore[call-overload]


class TestKeyFunctions:
    @pytest.mark.parametrize(
        ("part", "key"),
        [
            (5, "f:5"),
            ("a b", "f:a b"),
            ("", "f:"),
            (None, "f:None"),
            (1.5, "f:1.5"),
            (Decimal("1.50"), "f:1.50"),
            (UUID(int=1), "f:00000000-0000-0000-0000-000000000001"),
            (date(2026, 11, 22), "f:2026-11-22"),
            ("\ud800", "f:\ud800"),
        ],
        ids=ascii,
    )
    def test_result_follows_the_function_name(self, cache: Cache, part: object, key: str) -> None:
        @cache.cached(key_fn=lambda _args, _kwargs: part)
        def f() -> int:
            return 1

        assert f.key() == key
        assert f() == cache[key] == 1

    def test_arguments_are_passed_unchanged(self, cache: Cache, calls: Calls) -> None:
        def key_fn(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
            calls(args, kwargs)
            return ""

        @cache.cached(key_fn=key_fn)
        def f(a: int, b: int = 2) -> int:
            return a + b

        f(1)
        f(1, b=3)
        assert calls == [((1,), {}), ((1,), {"b": 3})]

    def test_result_without_stable_text_raises(self, cache: Cache) -> None:
        class Plain:
            pass

        @cache.cached(key_fn=lambda args, _kwargs: args[0])
        def cached(_: object) -> int:
            return 1

        with pytest.raises(BadKeyError, match="pass a string, a number, or a tuple of these"):
            cached(Plain())

    def test_error_of_key_fn_is_raised(self, cache: Cache, calls: Calls) -> None:
        cached = cache.cached(key_fn=lambda args, _kwargs: args[5])(calls.__call__)
        for call in (cached, cached.key, cached.bust, cached.refresh, cached.many):
            with pytest.raises(IndexError):
                call([1])
        assert calls == []

    def test_key_and_key_fn_together_raise(self, cache: Cache) -> None:
        with pytest.raises(ConfigurationError, match="takes key= or key_fn=, not both"):
            cache.cached(key="{x}", key_fn=lambda _args, _kwargs: 1)


class TestDigests:
    """Keys of neither `key=` nor `key_fn=`: the function's name and a digest of its arguments."""

    @staticmethod
    def function(cache: Cache) -> Cached[..., Any]:
        def f(x: Any = None, *args: Any, y: Any = 0, **kwargs: Any) -> Any:
            return x

        cached: Cached[..., Any] = cache.cached(f)
        return cached

    def test_key_begins_with_the_function_name(self) -> None:
        key = self.function(Cache()).key(1)
        name = "TestDigests.function.<locals>.f:"
        assert name in key
        assert len(key.split(":")[-1]) == 32
        int(key.split(":")[-1], 16)

    def test_positional_and_keyword_arguments_share_a_key(self) -> None:
        f = self.function(Cache())
        assert f.key(1) == f.key(x=1) == f.key(1, y=0)
        assert f.key() == f.key(None)
        assert f.key(1, a=1, b=2) == f.key(b=2, a=1, x=1)
        assert f.key({"a": 1, "b": 2}) == f.key({"b": 2, "a": 1})
        assert f.key(dict.fromkeys(range(100))) == f.key(dict.fromkeys(reversed(range(100))))
        assert f.key({"a", "b", "c", "d"}) == f.key({"d", "c", "b", "a"})
        assert f.key([frozenset([frozenset("ab"), frozenset("cd")])]) == f.key(
            [frozenset([frozenset("dc"), frozenset("ba")])]
        )

    def test_different_arguments_have_different_keys(self) -> None:
        f = self.function(Cache())
        values: list[Any] = [
            *[None, True, False, 0, 1, 0.0, -0.0, 1.0, "1", b"1"],
            *[2**63, -(2**63), 2**64, 2**100, "", b"", bytearray()],
            *[[], (), {}, set(), frozenset(), [[]], [()], ["a", "b"]],
            *[["ab"], ("a", "b"), {"a": "b"}, {"a", "b"}],
            *[Decimal(1), Decimal("1.0"), UUID(int=1), timedelta(1), timedelta(0, 1)],
            *[date(2026, 1, 1), datetime(2026, 1, 1)],  # noqa: DTZ001 - that is the difference
            datetime(2026, 1, 1, tzinfo=timezone.utc),
        ]
        different: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            *[((value,), {}) for value in values],
            ((1, 2), {}),
            ((1,), {"y": 2}),
            ((1,), {"z": 2}),
            ((1,), {"kwargs": {"z": 2}}),
            ((1, {"z": 2}), {}),
        ]
        keys = [f.key(*args, **kwargs) for args, kwargs in different]
        assert len(set(keys)) == len(different)

    def test_different_functions_have_different_keys(self) -> None:
        cache = Cache()

        def one(x: int) -> int:
            return x

        def two(x: int) -> int:
            return x

        assert cache.cached(one).key(1) != cache.cached(two).key(1)

    @pytest.mark.parametrize(
        "value",
        [object(), lambda: 1, [object()], {"a": {1: object()}}, Note(1), "\ud800", 1j],
        ids=["object", "function", "list", "dict", "instance", "surrogate", "complex"],
    )
    def test_argument_without_stable_form_raises(self, value: object) -> None:
        f = self.function(Cache())
        for call in (f, f.key, f.bust, f.refresh):
            with pytest.raises(
                BadKeyError, match=r"argument x \(.*pass key= or key_fn= to cached\(\)"
            ):
                call(value)
        with pytest.raises(BadKeyError, match="argument x"):
            f.many([(value,)])
        with pytest.raises(BadKeyError, match="argument kwargs"):
            f(1, z=object())
        assert f.uncached(value) is value

    def test_keys_are_the_same_in_every_process(self) -> None:
        program = """
from datetime import datetime, timezone
from decimal import Decimal
from uuid import UUID
from onetrip import Cache

@Cache().cached
def f(x, y=2, *, z=3, **more):
    return x

print(f.key({"a", "b", "c", "d", "e", "f"}))
print(f.key({"x": frozenset("abcdef"), "y": {"p": {"q", "r", "s"}}}, z=("t", b"u", 1.5, None)))
print(f.key(Decimal("1.10"), UUID(int=7), more=datetime(2026, 1, 1, tzinfo=timezone.utc)))
print(f.key(2**100, -1, z=True, b=1, a=2))
"""
        said = {
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONHASHSEED": seed},
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for seed in ("0", "1", "2", "random")
        }
        assert len(said) == 1
        # Entries must be found after an update too, so these digests are fixed for good.
        assert said.pop().split() == [
            "__main__.f:6020f3e956c88e261fde08cf20c9de2a",
            "__main__.f:a6760db31c42929f5fe41bb663e97a2a",
            "__main__.f:aec3784e87c9ab34f6618e8b784e734f",
            "__main__.f:9a617cad6aaa679b8b54a3fa41511c13",
        ]


class TestPreload:
    def test_accepts_partials_and_methods(
        self, notes: Any, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        one, two = notes(1, "one"), notes(2, "two")
        partial = functools.partial
        page = cache.preload(
            one.note_markup,
            [two.note_markup, one.excerpt],
            partial(one.excerpt, 3),
            partial(notes.excerpt, two, length=4),
            partial(partial(two.excerpt), 5, dots="!"),
            (notes.words.key(note) for note in (one, two)),
            partial(notes.newest, 3),
        )
        for posts in (9, 0):
            with expect_trips(1, posts=posts), page:
                assert one.note_markup() + two.note_markup() == "<p>one</p><p>two</p>"
                assert [one.excerpt(), one.excerpt(3)] == ["on…", "one…"]
                assert [two.excerpt(4), two.excerpt(5, dots="!")] == ["two…", "two!"]
                assert one.words + two.words == ["one", "two"]
                assert notes.newest(3) == [0, 1, 2]

    def test_accepts_functions_without_arguments(
        self, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        @cache.cached
        def front() -> str:
            return "front"

        front()
        with expect_trips(1), cache.preload(front):
            assert front() == "front"

    def test_missing_arguments_raise(self, double: Double, cache: Cache) -> None:
        with pytest.raises(TypeError, match="argument"):
            cache.preload(double)
        with pytest.raises(TypeError, match="argument"):
            cache.preload(functools.partial(double, 1, 2))

    def test_function_of_another_cache_raises(self, double: Double) -> None:
        for what in (functools.partial(double, 1), [functools.partial(double, 1)]):
            with pytest.raises(ConfigurationError, match="preload it with that cache"):
                Cache().preload(what)


class TestMistakes:
    @pytest.mark.parametrize("kind", [staticmethod, classmethod])
    def test_staticmethod_below_the_decorator_raises(self, cache: Cache, kind: Any) -> None:
        decorators: list[Any] = [
            cache.cached,
            cache.cached(60),
            cache.cached_property,
            cache.cached_property(),
        ]
        for decorate in decorators:
            with pytest.raises(ConfigurationError) as caught:
                decorate(kind(len))
            assert f"put @{kind.__name__} above the caching decorator" in str(caught.value)

    def test_generator_function_raises(self, cache: Cache) -> None:
        async def asynchronous_generator() -> AsyncIterator[int]:
            yield 1

        def generator() -> Iterator[int]:
            yield 1

        with pytest.raises(ConfigurationError, match="return a list instead"):
            cache.cached(60)(asynchronous_generator)
        with pytest.raises(ConfigurationError, match="return a list instead"):
            cache.cached(generator)

    def test_result_that_is_a_coroutine_raises(self, cache: Cache) -> None:
        async def coroutine() -> None:
            pass

        made = coroutine()

        @cache.cached
        def cached() -> object:
            return made

        with pytest.raises(TypeError, match="value of type coroutine cannot be cached"):
            cached()
        asyncio.run(made)

    @pytest.mark.parametrize("wrong", [int, Note], ids=repr)
    def test_class_raises(self, cache: Cache, wrong: Callable[..., Any]) -> None:
        for decorate in (cache.cached, cache.cached()):
            with pytest.raises(ConfigurationError, match="is not a function"):
                decorate(wrong)

    def test_non_function_raises(self, cache: Cache) -> None:
        for wrong in (5, "f", None):
            with pytest.raises(ConfigurationError, match="is not a function"):
                cache.cached()(wrong)  # type: ignore[call-overload]
