"""Finds who calls the cache: a line of a template, or of the program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asgiref
import debug_toolbar
import django
from django.template.base import Node
from django.templatetags.cache import CacheNode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Code that calls the cache on behalf of others.
_MACHINERY = tuple(
    str(folder)
    for folder in (
        Path(__file__).parent,
        Path(django.__file__).parent,
        Path(asgiref.__file__).parent,
        Path(debug_toolbar.__file__).parent,
    )
)


def caller() -> tuple[str, str | None]:
    """Returns the place that calls the cache, and the code of its key if it is a fragment.

    The place is `template.html:3` or `notes/views.py:12 in detail`.
    """
    nearest: str | None = None
    for frame in _frames(sys._getframe(1)):  # noqa: SLF001 - like inspect, without reading files
        code = frame.f_code
        node = frame.f_locals.get("self") if code.co_name.startswith("render") else None
        if isinstance(node, Node) and getattr(node, "token", None) is not None:
            origin: Any = getattr(node, "origin", None)
            name = getattr(origin, "template_name", None) or "a template"
            return f"{name}:{getattr(node.token, 'lineno', '?')}", _fragment(node, frame)
        here = f"{_short(code.co_filename)}:{frame.f_lineno} in {code.co_name}"
        if not code.co_filename.startswith(_MACHINERY):
            return here, None
        if nearest is None and not code.co_filename.startswith(_MACHINERY[0]):
            nearest = here
    return nearest or "an unknown place", None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _fragment(node: Node, frame: FrameType) -> str | None:
    vary_on = frame.f_locals.get("vary_on")
    if not isinstance(node, CacheNode) or not isinstance(vary_on, list):
        return None
    return f"fragment_key({', '.join(map(repr, [node.fragment_name, *vary_on]))})"


def _short(path: str) -> str:
    """Returns the last parts of a path."""
    return "/".join(Path(path).parts[-3:])
