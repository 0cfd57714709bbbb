"""A Flask application with a cache, and with a scope for each request or without."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from flask import Flask, Response, request, stream_with_context

from onetrip import Cache
from onetrip.flask import OneTrip
from tests.rows.programs import pages
from tests.rows.programs.meeting import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

application = Flask(__name__)
cache = Cache(os.environ["ROWS_STORE"], prefix="rows", on_error="raise", trip_timeout=20)
if os.environ["ROWS_KIND"] == "onetrip":
    OneTrip(application, cache)


@cache.cached(timeout=300, key="remembered")
def remembered() -> str:
    return Ask.source()


@cache.cached(timeout=1, key="cached_clock")
def cached_clock() -> float:
    return time.monotonic()


def remember_cached(_: Cache, ask: Ask) -> object:
    value = remembered()
    ask.meet()
    return value


def forget_cached(_: Cache, ask: Ask) -> object:
    return remembered.bust()


def clock_cached(_: Cache, ask: Ask) -> Iterator[str]:
    for number in range(ask.number("ticks", 1)):
        if number:
            time.sleep(0.5)
        yield f"data: {cached_clock()}\n"


def page_view(page: pages.Page) -> Callable[[], str]:
    return lambda: str(page(cache, Ask(request.args)))


def stream_view(stream: pages.Stream) -> Callable[[], Response]:
    return lambda: Response(
        stream_with_context(stream(cache, Ask(request.args))), mimetype="text/event-stream"
    )


for _page in (*pages.PAGES.values(), remember_cached, forget_cached):
    application.add_url_rule(f"/{_page.__name__}/", _page.__name__, page_view(_page))
for _stream in (*pages.STREAMS.values(), clock_cached):
    application.add_url_rule(f"/{_stream.__name__}/", _stream.__name__, stream_view(_stream))


@application.post("/do/")
def do() -> str:
    return pages.do(cache, request.get_data())
