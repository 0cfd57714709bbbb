"""Law 1: whatever is done, in whatever scopes, a cache answers as a plain dict would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from onetrip import Cache, NotANumberError, UnsupportedError
from tests.awaited import Awaited

if TYPE_CHECKING:
    from onetrip import Scope

KEYS = "abcd"
MISSING = object()

keys = st.sampled_from(KEYS)
# Some are found in no scope and no store.
any_keys = st.sampled_from([*KEYS, "x"])
numbers = st.integers(-3, 3)
values: st.SearchStrategy[Any] = st.one_of(
    numbers, st.none(), st.just([]), st.lists(numbers, max_size=2), st.sampled_from(["", "text"])
)
# Nothing expires within a test, but what is stored for no time is removed at once.
timeouts: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {"timeout": None}, {"timeout": 60}, {"timeout": 0}, {"timeout": -1}]
)


class Program(RuleBasedStateMachine):
    """A program that uses a cache, and notes in a dict what that should hold."""

    url: ClassVar[str]
    face: ClassVar[type[Cache]]
    options: ClassVar[dict[str, Any]]

    def __init__(self) -> None:
        super().__init__()
        shared: dict[str, Any] = {
            "prefix": "model",
            "on_error": "raise",
            "secret": self.options.get("secret"),
        }
        self.cache = self.face(self.url, **{**shared, **self.options})
        self.other = Cache(self.url, **shared)
        self.cache.delete_many([*KEYS, "x"])
        # Pages bring what others did: here all there is, known to be absent.
        for route in ("one", "two"):
            for argument in "ab":
                with self.cache.page(route, argument=argument):
                    self.cache.get_many([*KEYS, "x"])
        self.expected: dict[str, Any] = {}
        # Whether something was posted that may be under way.
        self.posted = False
        self.scopes: list[Scope] = []

    def note(self, key: str, value: Any, options: dict[str, Any]) -> None:
        timeout = options.get("timeout")
        if timeout is not None and timeout <= 0:
            self.expected.pop(key, None)
        else:
            self.expected[key] = value

    def enter(self, scope: Scope) -> None:
        scope.__enter__()
        self.scopes.append(scope)

    @rule()
    @precondition(lambda self: len(self.scopes) < 4)
    def enter_scope(self) -> None:
        self.enter(self.cache.scope())

    @rule(preloaded=st.lists(any_keys, max_size=5))
    @precondition(lambda self: len(self.scopes) < 4)
    def enter_preload(self, preloaded: list[str]) -> None:
        self.enter(self.cache.preload(preloaded))

    @rule(route=st.sampled_from(["one", "two"]), argument=keys)
    @precondition(lambda self: len(self.scopes) < 4)
    def enter_page(self, route: str, argument: str) -> None:
        self.enter(self.cache.page(route, argument=argument))

    @rule()
    @precondition(lambda self: self.scopes)
    def leave(self) -> None:
        self.scopes.pop().__exit__()

    @rule(data=st.data())
    @precondition(lambda self: len(self.scopes) > 1)
    def leave_another(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.scopes) - 1))
        self.scopes.pop(index).__exit__()

    @rule(key=keys, value=values, options=timeouts)
    def write(self, key: str, value: Any, options: dict[str, Any]) -> None:
        self.cache.set(key, value, **options)
        self.note(key, value, options)

    @rule(items=st.dictionaries(keys, values, max_size=3), options=timeouts)
    def write_many(self, items: dict[str, Any], options: dict[str, Any]) -> None:
        self.cache.set_many(items, **options)
        for key, value in items.items():
            self.note(key, value, options)

    @rule(key=keys, value=values)
    def set_item(self, key: str, value: Any) -> None:
        self.cache[key] = value
        self.expected[key] = value

    @rule(key=keys, value=values, options=timeouts)
    def add(self, key: str, value: Any, options: dict[str, Any]) -> None:
        absent = key not in self.expected
        assert self.cache.add(key, value, **options) is absent
        if absent:
            self.note(key, value, options)

    @rule(key=keys, value=values, options=timeouts, call=st.booleans())
    def get_or_set(self, key: str, value: Any, options: dict[str, Any], *, call: bool) -> None:
        absent = key not in self.expected
        found = self.cache.get_or_set(key, (lambda: value) if call else value, **options)
        assert found == self.expected.get(key, value)
        if absent:
            self.note(key, value, options)

    @rule(key=keys, value=values, timeout=st.sampled_from([60, 60, None, 0]))
    def fetch(self, key: str, value: Any, timeout: float | None) -> None:
        absent = key not in self.expected
        found = self.cache.cached(timeout, key="{name}")(lambda name: [name, value][1])(key)
        assert found == self.expected.get(key, value)
        if absent:
            self.note(key, value, {"timeout": timeout})
            self.posted = True

    @rule(key=any_keys, delta=numbers, down=st.booleans())
    def count(self, key: str, delta: int, *, down: bool) -> None:
        count = self.cache.decr if down else self.cache.incr
        number = self.expected.get(key, MISSING)
        if number is MISSING:
            with pytest.raises(KeyError):
                count(key, delta)
        elif type(number) is int:
            self.expected[key] = number - delta if down else number + delta
            assert count(key, delta) == self.expected[key]
        else:
            with pytest.raises(NotANumberError):
                count(key, delta)

    @rule(key=any_keys)
    def delete(self, key: str) -> None:
        assert self.cache.delete(key) is (self.expected.pop(key, MISSING) is not MISSING)

    @rule(several=st.sets(any_keys, max_size=3))
    def delete_many(self, several: set[str]) -> None:
        there = several & set(self.expected)
        assert self.cache.delete_many(several) == len(there)
        for key in there:
            del self.expected[key]

    @rule(key=any_keys, timeout=st.sampled_from([60, None, 0]))
    def touch(self, key: str, timeout: float | None) -> None:
        assert self.cache.touch(key, timeout) is (key in self.expected)
        if timeout == 0:
            self.expected.pop(key, None)

    @rule(several=st.sets(any_keys, max_size=3))
    def touch_many(self, several: set[str]) -> None:
        assert self.cache.touch_many(several, 60) == len(several & set(self.expected))

    @rule()
    def clear(self) -> None:
        if self.url.startswith("memcached"):
            # It says so, and does nothing else.
            with pytest.raises(UnsupportedError):
                self.cache.clear()
        else:
            assert self.cache.clear() == len(self.expected)
            self.expected.clear()

    @rule(key=any_keys)
    def get(self, key: str) -> None:
        assert self.cache.get(key, MISSING) == self.expected.get(key, MISSING)

    @rule(key=any_keys)
    def get_item(self, key: str) -> None:
        if key in self.expected:
            assert self.cache[key] == self.expected[key]
        else:
            with pytest.raises(KeyError):
                self.cache[key]

    @rule(key=any_keys)
    def contains(self, key: str) -> None:
        assert (key in self.cache) is (key in self.expected)

    @rule(several=st.lists(any_keys, max_size=5))
    def get_many(self, several: list[str]) -> None:
        assert self.cache.get_many(several) == {
            key: self.expected[key] for key in several if key in self.expected
        }

    @rule(key=keys)
    def change_what_was_read(self, key: str) -> None:
        found = self.cache.get(key)
        if isinstance(found, list):
            found.append(MISSING)

    @rule(key=keys, value=st.lists(numbers, max_size=2))
    def change_what_was_written(self, key: str, value: list[Any]) -> None:
        self.cache.set(key, value)
        self.expected[key] = list(value)
        value.append(MISSING)

    @rule()
    def fresh(self) -> None:
        self.cache.fresh()

    @invariant()
    def no_plain_write_waits(self) -> None:
        if not self.posted or not self.scopes:
            self.posted = False
            assert self.other.get_many(KEYS[i] for i in range(len(KEYS))) == self.expected

    def teardown(self) -> None:
        while self.scopes:
            self.scopes.pop().__exit__()
        assert self.other.get_many([*KEYS, "x"]) == self.expected
        assert self.cache.stats().bad_entries == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"scope_max_age": 0}, {"read_max_age": 0}, {"compression": "lz4", "secret": "s"}],
    ids=["as it is", "no age", "no snapshot", "signed"],
)
@pytest.mark.parametrize("face", [Cache, Awaited], ids=["blocking", "asynchronous"])
def test_cache_behaves_like_a_dict(
    store_url: str, face: type[Cache], options: dict[str, Any]
) -> None:
    attributes = {"url": store_url, "face": face, "options": options}
    program = type("Program", (Program,), attributes)
    examples = 60 if not options else 15
    run_state_machine_as_test(
        program, settings=settings(max_examples=examples, stateful_step_count=25)
    )
