"""Stores within the process, and within the machine: memory and disk."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from bench import own
from bench.measure import Report, Statement, Work
from bench.peer import django_caches, module, peer
from bench.values import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ONETRIP = "onetrip"

# Getting and setting, by one competitor.
Pair = tuple[Work, Work]


def _both(name: str, cache: Any) -> Pair:
    """By the methods that caches have."""
    return _by(name, cache, "cache.get('one')", "cache.set('one', text)")


def _mapping(name: str, held: Any) -> Pair:
    """By what a dict has."""
    return _by(name, held, "cache['one']", "cache.__setitem__('one', text)")


def _by(name: str, cache: Any, get: str, put: str) -> Pair:
    reading = Statement(get, cache=cache)
    writing = Statement(put, cache=cache, text=TEXT)
    writing()
    return Work(name, reading, TEXT), Work(name, writing, TEXT, reading)


def memory(report: Report) -> None:
    held = _mapping("a dict", {})
    mine = _both(ONETRIP, own.cache("memory://"))

    def cachebox(kind: str, *options: object) -> Pair:
        cache = getattr(module("cachebox"), kind)(10_000, *options)
        return _mapping(f"cachebox.{kind}", cache)

    def django() -> Pair:
        backend = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        return _both("Django, LocMemCache", django_caches({"default": backend})["default"])

    def of_ucache() -> Pair:
        return _both("ucache, MemoryCache", module("ucache").MemoryCache())

    makers = [
        ("cachebox", lambda: cachebox("LRUCache")),
        ("cachebox", lambda: cachebox("TTLCache", 300)),
        ("Django", django),
        ("ucache", of_ucache),
    ]
    peers = _all(report, makers)
    for number, word in enumerate(("get", "set")):
        section = report.compare(
            f"The memory store, {word}",
            [held[number], mine[number], *(pair[number] for pair in peers)],
            "onetrip stores values as bytes, so it returns fresh values and its memory is bounded. "
            "cachebox and the dict return the object that was put in.",
        )
        # Whichever is faster: the one that bounds, or the one that expires.
        boxes = [name for name in section.results if name.startswith("cachebox")]
        if boxes:
            fastest = min(boxes, key=lambda name: section.results[name].wall)
            aim = "≤ 2 × cachebox, though the value is encoded"
            report.aim(f"memory store, {word}", aim, 2, section, (ONETRIP, fastest))


def disk(report: Report, folder: Path) -> None:
    mine = _both(ONETRIP, own.cache(f"disk://{folder}/onetrip"))

    def diskcache() -> Pair:
        return _both("diskcache", module("diskcache").Cache(str(folder / "diskcache")))

    def django() -> Pair:
        settings = {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(folder / "django"),
        }
        return _both("Django, FileBasedCache", django_caches({"default": settings})["default"])

    path = folder / "bare"
    path.write_bytes(pickle.dumps(TEXT))
    bare = (
        Work("a file, read", path.read_bytes, pickle.dumps(TEXT)),
        Work(
            "a file, written",
            lambda: path.write_bytes(pickle.dumps(TEXT)),
            pickle.dumps(TEXT),
            path.read_bytes,
        ),
    )
    peers = _all(report, [("diskcache", diskcache), ("Django", django)])
    limits = {"get": (1 / 8, "≤ 1/8 of diskcache"), "set": (1 / 5, "≤ 1/5 of diskcache")}
    for number, (word, (limit, aim)) in enumerate(limits.items()):
        section = report.compare(
            f"The disk store, {word}",
            [bare[number], mine[number], *(pair[number] for pair in peers)],
        )
        report.aim(f"disk store, {word}", aim, limit, section, (ONETRIP, "diskcache"))


def _all(report: Report, makers: Sequence[tuple[str, Callable[[], Pair]]]) -> list[Pair]:
    """The pairs of those peers that are there."""
    pairs = [peer(report, package, make) for package, make in makers]
    return [pair for pair in pairs if pair is not None]
