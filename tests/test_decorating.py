"""What may be decorated and how keys may be told: mistakes that once passed unseen."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from onetrip import BadKeyError, Cache, ConfigurationError


class Plain:
    """An instance whose text is an address, another one in each process."""


class Named:
    """An instance that says what its text is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


def identity(x: Any) -> Any:
    """What it is given."""
    return x


class TestDecoratedFunctions:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (functools.partial(identity, 1), "is not a function"),
            (max, "are unknown (no signature"),
            (property(identity), "use cache.cached_property instead of both"),
            (Named("x").__str__, None),
            (Plain(), None),
            (lambda x: x, "a lambda has no name to make keys of"),
            (int, "is not a function"),
        ],
        ids=["partial", "max", "property", "method", "instance", "lambda", "class"],
    )
    def test_only_named_functions_are_accepted(
        self, cache: Cache, wrong: Any, said: str | None
    ) -> None:
        for decorate in (cache.cached, cache.cached(60), cache.cached_property()):
            if said is None and callable(wrong):
                # A bound method is a function like any other.
                assert decorate(wrong) is not None
                continue
            with pytest.raises(ConfigurationError) as caught:
                decorate(wrong)
            assert said is None or said in str(caught.value)

    def test_lambda_with_a_whole_key_is_accepted(self, cache: Cache) -> None:
        assert cache.cached(key="a:{x}")(lambda x: [x])(5) == [5]
        assert cache["a:5"] == [5]
        with pytest.raises(ConfigurationError, match="a lambda has no name"):
            # What follows the name is told, and not the name.
            cache.cached(key_fn=lambda args, _: args[0])(lambda x: x)

    def test_options_after_a_function_are_used(self, cache: Cache) -> None:
        decorate: Any = cache.cached
        by_key = decorate(identity, key="a:{x}")
        by_function = decorate(identity, key_fn=lambda args, _: args[0] + 1)
        assert by_key.key(5) == "a:5"
        assert by_function.key(5) == "identity:6"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"key": 5}, "key=5 is not a format"),
            ({"key": b"a"}, "is not a format"),
            ({"key_fn": 5}, "key_fn=5 is not a function"),
            ({"key_fn": "a"}, "key_fn='a' is not a function"),
            ({"key": "a", "key_fn": identity}, "not both"),
            ({"timeout": "soon"}, "'soon' is not a timeout"),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_wrong_options_raise(self, cache: Cache, options: dict[str, Any], said: str) -> None:
        for decorate in (cache.cached, cache.cached_property):
            with pytest.raises(ConfigurationError) as caught:
                decorate(**options)
            assert said in str(caught.value)

    def test_url_must_be_a_string(self) -> None:
        with pytest.raises(ConfigurationError, match="url=5 is not a string"):
            Cache(5)  # type: ignore[arg-type]


class TestKeysWithoutStableText:
    @pytest.mark.parametrize(
        "value",
        [Plain(), identity, len, object(), {1, 2}, frozenset("ab"), {"a": 1}, [Plain()], Plain],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("form", ["o:{x}", "o:{x!s}", "o:{x!r}", "o:{x!a}"])
    def test_raises(self, cache: Cache, value: Any, form: str) -> None:
        ran: list[Any] = []

        @cache.cached(key=form)
        def by_key(x: Any) -> None:
            ran.append(x)

        decorate: Any = cache.cached(key_fn=lambda args, _: args[0])
        for cached in (by_key, decorate(identity)):
            for call in (cached, cached.key, cached.bust, cached.refresh):
                with pytest.raises(BadKeyError, match="text differs between processes"):
                    call(value)
        assert ran == []

    def test_class_with_str_is_accepted(self, cache: Cache) -> None:
        cached = cache.cached(key="o:{x}:{y.name}")(lambda x, y: [x.name, y.name])
        assert cached.key(Named("a"), Named("b")) == "o:a:b"
        decorate: Any = cache.cached(key_fn=lambda args, _: (args[0], [1, None]))
        assert decorate(identity).key("a") == "identity:('a', [1, None])"


class TestFormats:
    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("{x!z}", "has the unknown conversion !z; use !s, !r or !a"),
            ("{x:{y!z}}", "has the unknown conversion !z"),
            ("{x:{z}}", "names 'z', which is not an argument"),
            ("{x:{}}", "names '', which is not an argument"),
            ("{x!}", "is not a valid format"),
        ],
    )
    def test_wrong_format_raises(self, cache: Cache, key: str, said: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            cache.cached(key=key)(lambda x, y: (x, y))
        assert said in str(caught.value)

    def test_nested_fields(self, cache: Cache) -> None:
        assert cache.cached(key="{x:{y}}")(lambda x, y: (x, y)).key(5, "03d") == "005"
        with pytest.raises(BadKeyError):
            cache.cached(key="{x:{y}}")(lambda x, y: (x, y)).key(5, Plain())


class TestMethods:
    def test_key_without_field_raises(self, cache: Cache) -> None:
        with pytest.raises(ConfigurationError, match="names no argument"):

            class Page:
                @cache.cached(key="markup")
                def markup(self) -> str:
                    return "shown"

    def test_bound_to_the_same_instance_are_equal(self, cache: Cache) -> None:
        class Page:
            def __init__(self, number: int) -> None:
                self.number = number

            @cache.cached(key="markup:{self.number}")
            def markup(self) -> str:
                """What is shown."""
                return "shown"

            @cache.cached(key="title:{self.number}")
            def title(self) -> str:
                return "title"

        one, two = Page(1), Page(1)
        text: object = "markup"
        unbound: object = Page.markup
        assert one.markup == one.markup
        assert one.markup is not one.markup
        assert hash(one.markup) == hash(one.markup)
        assert one.markup != two.markup
        assert one.markup != one.title
        assert one.markup != unbound
        assert one.markup != text
        assert len({one.markup, one.markup, two.markup, one.title, Page.markup}) == 4
        assert Page.markup.__doc__ == "What is shown."

    def test_docstring_is_the_functions(self, cache: Cache) -> None:
        assert cache.cached(identity).__doc__ == "What it is given."


class TestMany:
    def test_each_result_is_its_own_object(self, cache: Cache) -> None:
        cached = cache.cached(key="{x}")(lambda x: [x])
        # Computed at first, and then read.
        for _ in range(2):
            first, second = cached.many([1, 1])
            assert first == second == [1]
            assert first is not second
            first.append(2)
            assert cached(1) == [1]


def test_smallest_delta_raises_overflow_error(cache: Cache) -> None:
    cache.set("n", 0)
    with pytest.raises(OverflowError, match="does not fit in 64 bits"):
        cache.decr("n", -(2**63))
    assert cache.incr("n", -(2**63)) == -(2**63)
    assert cache.decr("n", -(2**63 - 1)) == -1
