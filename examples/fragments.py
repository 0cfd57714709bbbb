"""Cached pieces of a Jinja template, rendered by threads and by tasks alike.

It prints:

    counting
    <b>3 comments</b> on 5
    <b>3 comments</b> on 5
    counting
    <b>3 comments</b> on 6
    key: comments:6
    <b>3 comments</b> on 6, by a task in 1 trip
"""

from __future__ import annotations

import asyncio

from jinja2 import Environment

from onetrip import Cache
from onetrip.jinja import fragment_key, install

PAGE = '{% cache 60, "comments", note %}<b>{{ count() }} comments</b>{% endcache %} on {{ note }}'

cache = Cache("memory://")


def count() -> int:
    print("counting")
    return 3


environment = Environment(autoescape=True)
install(environment, cache)
page = environment.from_string(PAGE)
for note in (5, 5, 6):
    print(page.render(note=note, count=count))

print("key:", fragment_key("comments", 6))

# With enable_async the body may await; what is cached is the same.
environment = Environment(autoescape=True, enable_async=True)
install(environment, cache)
page = environment.from_string(PAGE)


async def main() -> None:
    with cache.watch() as seen, cache.preload(fragment_key("comments", 6)):
        text = await page.render_async(note=6, count=count)
    print(text + ", by a task in", seen.trips, "trip")


asyncio.run(main())
