"""`help()` shows the docstrings of the stub, which editors show."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import MethodDescriptorType, WrapperDescriptorType
from typing import TYPE_CHECKING

import pytest

from onetrip import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text(encoding="utf-8"))

# A docstring of the class would hide those of the functions that it wraps.
WITHOUT_DOCSTRING = {"Cached"}


def documented(nodes: list[ast.stmt], owner: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The names of the stub that have a docstring and exist at run time, and that docstring."""
    for node in nodes:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or not hasattr(owner, node.name):
            continue
        name = f"{path}{node.name}"
        text = ast.get_docstring(node)
        found = inspect.getattr_static(owner, node.name)
        # Python itself words the docstrings of operators.
        if text and name not in WITHOUT_DOCSTRING and not isinstance(found, WrapperDescriptorType):
            yield name, text
        if isinstance(node, ast.ClassDef):
            yield from documented(node.body, found, f"{name}.")


DOCUMENTED = dict(documented(STUB.body, _core))


def runtime_docstring(name: str) -> str | None:
    owner, _, member = name.rpartition(".")
    found = inspect.getattr_static(getattr(_core, owner) if owner else _core, member)
    return inspect.getdoc(found)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_runtime_docstring_is_the_stubs(name: str) -> None:
    assert runtime_docstring(name) == DOCUMENTED[name]


def test_every_public_method_has_a_docstring() -> None:
    missing = [
        f"{class_name}.{name}"
        for class_name, class_ in inspect.getmembers(_core, inspect.isclass)
        for name, member in vars(class_).items()
        if isinstance(member, MethodDescriptorType)
        and not name.startswith("__")
        and f"{class_name}.{name}" not in DOCUMENTED
    ]
    assert missing == []
