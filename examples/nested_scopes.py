"""Scopes nest: what an inner one reads and writes, the outer one sees, and all leaves together.

It prints:

    outer sees: written within
    nobody else does yet: None
    trip 1: get user, get menu
    trip 2: set menu
    now everybody does: written within
"""

from __future__ import annotations

from threading import Thread

from onetrip import Cache

cache = Cache("memory://")
cache["user"] = "Ada"


def look(text: str) -> None:
    print(text, cache.get("menu"))


def menu() -> None:
    # A part of the page that has its own scope, as it may also be shown alone.
    with cache.preload("user", "menu"):
        if cache.get("menu") is None:
            cache["menu"] = "written within"


with cache.watch() as seen, cache.preload("user", "menu"):  # the one trip in
    menu()  # asks for nothing: the outer scope holds both
    look("outer sees:")
    # A scope belongs to its thread: another request does not see what is not written yet.
    other = Thread(target=look, args=["nobody else does yet:"])
    other.start()
    other.join()
# Here the outer scope has closed, and the write has left: the one trip out.

for number, trip in enumerate(seen.records, 1):
    print(f"trip {number}:", ", ".join(f"{word} {key}" for word, key in trip.ops))
look("now everybody does:")
