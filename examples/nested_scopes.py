"""Scopes nest: what an inner one fetched the outer one holds. What is written, all see at once.

It prints:

    fetched within: soup of the day
    held by the outer: soup of the day
    another thread sees: Grace
    trip 1: get user, get menu:soup
    trip 2: set menu:soup
    trip 3: set user
"""

from __future__ import annotations

from threading import Thread

from onetrip import Cache

cache = Cache("memory://")
cache["user"] = "Ada"


@cache.cached(key="menu:{name}")
def soup(name: str) -> str:
    return f"{name} of the day"


def menu() -> str:
    # A part of the page that has its own scope, as it may also be shown alone.
    with cache.preload("user", "menu:soup"):
        return soup("soup")


with cache.watch() as seen, cache.preload("user", "menu:soup"):  # one trip
    print("fetched within:", menu())  # asks for nothing: the outer scope holds both
    print("held by the outer:", cache["menu:soup"])
    # What is written by `set` is written when that returns. No scope keeps it back.
    cache["user"] = "Grace"
    other = Thread(target=lambda: print("another thread sees:", cache["user"]))
    other.start()
    other.join()

for number, trip in enumerate(seen.records, 1):
    print(f"trip {number}:", ", ".join(f"{word} {key}" for word, key in trip.ops))
