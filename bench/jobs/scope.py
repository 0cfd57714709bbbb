"""Hits in a scope: what a page does again and again once its keys are there."""

from __future__ import annotations

import functools
from contextlib import ExitStack

from bench import own
from bench.measure import Report, Statement, Work
from bench.peer import module, peer
from bench.values import TEXT

LRU = "functools.lru_cache, a hit"
KEY_FN = "the bare call of its key_fn"
GET = "onetrip, get in a scope"
CALL = "onetrip, a cached call"
UCACHE = "ucache, a cached call"


def key_fn(args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    del kwargs
    return args[0]


def run(report: Report) -> None:
    # What ucache preloads is there until the stack is left.
    with ExitStack() as stack:
        _gets(report, stack)
        _calls(report, stack)


def _gets(report: Report, stack: ExitStack) -> None:
    cache = own.cache("memory://")
    cache.set("one", TEXT)

    def of_ucache() -> Work:
        other = module("ucache").MemoryCache()
        other.set("one", TEXT)
        stack.enter_context(other.preload(["one"]))
        return Work("ucache, get after a preload", Statement("get('one')", get=other.get), TEXT)

    stack.enter_context(cache.preload("one"))
    lru = functools.lru_cache(lambda _key: TEXT)
    section = report.compare(
        "One get in a scope",
        [
            Work(LRU, Statement("cached('one')", cached=lru), TEXT),
            Work("a dict", Statement("held['one']", held={"one": TEXT}), TEXT),
            Work(GET, Statement("cache.get('one')", cache=cache), TEXT),
            peer(report, "ucache", of_ucache),
        ],
    )
    report.aim("one get in a scope", "≤ 2 × a hit of functools.lru_cache", 2, section, (GET, LRU))


def _calls(report: Report, stack: ExitStack) -> None:
    cache = own.cache("memory://")
    arguments: tuple[object, ...] = (5,)
    options: dict[str, object] = {}

    @cache.cached(timeout=60, key_fn=key_fn)
    def shout(number: int) -> str:
        return f"{number}!"

    def of_ucache() -> Work:
        other = module("ucache").MemoryCache()

        def shout(number: int) -> str:
            return f"{number}!"

        cached = other.cached(timeout=60, key_fn=key_fn)(shout)
        cached(5)
        stack.enter_context(other.preload([cached.make_key(arguments, options)]))
        return Work(UCACHE, Statement("shout(5)", shout=cached), "5!")

    stack.enter_context(cache.scope())
    shout(5)
    bare = Statement("key_fn(args, kwargs)", key_fn=key_fn, args=arguments, kwargs=options)
    section = report.compare(
        "A cached call that hits in a scope, with a key_fn",
        [
            Work(KEY_FN, bare, 5),
            Work(CALL, Statement("shout(5)", shout=shout), "5!"),
            peer(report, "ucache", of_ucache),
        ],
    )
    work = "a `cached` call that hits in a scope, with a key_fn"
    report.aim(work, "≤ 1/4 of ucache's", 1 / 4, section, (CALL, UCACHE))
    report.aim(work, "≤ 3 × the bare call of its key_fn", 3, section, (CALL, KEY_FN))
