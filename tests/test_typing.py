"""What a type checker knows of programs that use onetrip: the types of what they decorate stay."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from mypy import api

if TYPE_CHECKING:
    from pathlib import Path

PROLOGUE = """
from __future__ import annotations
from datetime import timedelta
from functools import partial
from typing import Any
import onetrip
from onetrip import Cache, Cached

cache = Cache()

@cache.cached
def bare(a: int, b: str = "") -> list[int]:
    return [a]

@cache.cached(60, key="{a}")
def called(a: int, *, c: bool) -> str:
    return ""

class Note:
    id = 1

    @cache.cached(timeout=timedelta(1), key_fn=lambda args, kwargs: args[0].id)
    def markup(self, length: int = 5) -> bytes:
        return b""

    @cache.cached_property(key="{self.id}")
    def words(self) -> dict[str, int]:
        return {}

    @cache.cached_property
    def bare_words(self) -> list[str]:
        return []

    @staticmethod
    @cache.cached
    def static(x: float) -> float:
        return x

note = Note()
version: str = onetrip.__version__
"""

# An expression, and its type.
REVEALED = {
    "bare(1)": "list[int]",
    "bare(1, b='x')": "list[int]",
    "bare.key(1)": "str",
    "bare.bust(1)": "bool",
    "bare.refresh(1)": "list[int]",
    "bare.uncached(1)": "list[int]",
    "bare.many([1, (2, 'b')])": "list[list[int]]",
    "called(1, c=True)": "str",
    "called.many([1])": "list[str]",
    "note.markup()": "bytes",
    "note.markup(length=3)": "bytes",
    "note.markup.key(3)": "str",
    "note.markup.refresh()": "bytes",
    "Note.markup(note, 3)": "bytes",
    "Note.markup.many([note])": "list[bytes]",
    "note.words": "dict[str, int]",
    "Note.words.key(note)": "str",
    "Note.words.many([note])": "list[dict[str, int]]",
    "note.bare_words": "list[str]",
    "Note.static(1.0)": "float",
    "cache.get('a')": "Any | None",
    "cache.get('a', 5)": "Any | int",
    "cache['a']": "Any",
    "'a' in cache": "bool",
    "cache.get_many(['a'])": "dict[str, Any]",
    "cache.get_or_set('a', 5)": "int",
    "cache.get_or_set('a', lambda: [1])": "list[int]",
    "cache.get_or_set('a', list[str])": "list[str]",
    "cache.add('a', 1)": "bool",
    "cache.incr('a')": "int",
    "cache.touch_many(['a'], None)": "int",
    "cache.delete('a')": "bool",
    "cache.clear()": "int",
    "cache.stats().trips": "int",
    "cache.preload('a', ['b', ['c']], note.markup, partial(bare, 1)).__enter__()": "Scope",
    "cache.watch().__enter__().records[0].ops": "list[tuple[str, str]]",
}

# A mistake, and what is said of it.
WRONG = {
    "bare('a')": 'Argument 1 to "__call__" of "Cached" has incompatible type "str"',
    "bare()": "Missing positional argument",
    "bare.key()": "Missing positional argument",
    "called(1)": 'Missing named argument "c"',
    "note.markup('a')": "incompatible type",
    "note.markup.refresh(1, 2)": "Too many arguments",
    "Note.markup()": "Missing positional argument",
    "Cache(max_size=5)": 'Unexpected keyword argument "max_size"',
    "Cache('memory://', 'blog')": "Too many positional arguments",
    "Cache(serializer='json')": "incompatible type",
    "Cache(on_error='ignore')": "incompatible type",
    "cache.get(5)": "No overload variant",
    "cache.set('a', 1, 'soon')": "incompatible type",
    "cache.incr('a', 1.5)": "incompatible type",
    "cache.preload(5)": "incompatible type",
    "cache.stats().nothing": 'has no attribute "nothing"',
    "cache.scope().__enter__().trips": 'has no attribute "trips"',
    "cache.cached(key=5)": "No overload variant",
    "list(cache)": "No overload variant",
    "onetrip.Cached()": "Too few arguments",
    "onetrip.Cached(len)": "incompatible type",
    "onetrip.Scope()": "Too few arguments",
}


def check(folder: Path, lines: list[str]) -> dict[int, str]:
    """What mypy says of each of `lines`, behind the prologue."""
    program = folder / "program.py"
    program.write_text(PROLOGUE + "\n".join(lines) + "\n")
    options = ["--strict", "--no-incremental", "--hide-error-context", "--no-error-summary"]
    said, failed, _ = api.run([*options, "--config-file=", str(program)])
    assert not failed
    first = PROLOGUE.count("\n") + 1
    told: dict[int, str] = {}
    for line, text in re.findall(r"^.*program\.py:(\d+): (.*)$", said, re.MULTILINE):
        told[int(line) - first] = told.get(int(line) - first, "") + text
    return told


def plain(revealed: str) -> str:
    """A type as a program writes it."""
    return re.sub(r"\b(builtins|typing|onetrip\._core)\.", "", revealed).replace("?", "")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What is said of `REVEALED` and then of `WRONG`: one run takes seconds, however much it is."""
    lines = [f"reveal_type({expression})" for expression in REVEALED]
    return check(tmp_path_factory.mktemp("typing"), [*lines, *WRONG])


def test_decorated_types_are_kept(told: dict[int, str]) -> None:
    revealed = {
        expression: plain(told.get(line, "").removeprefix("note: Revealed type is ").strip('"'))
        for line, expression in enumerate(REVEALED)
    }
    assert revealed == REVEALED


def test_type_errors_are_reported(told: dict[int, str]) -> None:
    untold = [
        (expression, told.get(line))
        for line, (expression, said) in enumerate(WRONG.items(), len(REVEALED))
        if not (told.get(line, "").startswith("error") and said in told[line])
    ]
    assert untold == []


def test_correct_code_has_no_type_errors(told: dict[int, str]) -> None:
    assert set(told) == set(range(len(REVEALED) + len(WRONG)))
