"""Fragments of Jinja that many miss together are rendered once, held by their page, and posted."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any

import jinja2
import pytest

from onetrip.jinja import install
from tests.test_threads import together

if TYPE_CHECKING:
    from onetrip import Cache
    from tests.conftest import ExpectTrips

SOURCE = '{% cache 60, "note", id %}{{ slow() }}{% endcache %}'


class Slow:
    """Counts how often it is rendered, which takes a while."""

    def __init__(self) -> None:
        self.rendered = 0

    def blocking(self) -> str:
        self.rendered += 1
        time.sleep(0.2)
        return "slow"

    async def awaited(self) -> str:
        self.rendered += 1
        await asyncio.sleep(0.2)
        return "slow"


def environment(cache: Cache, **options: Any) -> jinja2.Environment:
    made = jinja2.Environment(autoescape=True, **options)
    install(made, cache)
    return made


@pytest.fixture
def unknown() -> str:
    """What a fragment varies on: nobody knows what it costs, which says how long others wait."""
    return secrets.token_hex(16)


def test_threads_render_a_fragment_once(cache: Cache, unknown: str) -> None:
    slow, template = Slow(), environment(cache).from_string(SOURCE)
    shown: list[str] = []
    together(lambda _: shown.append(template.render(slow=slow.blocking, id=unknown)))
    assert (set(shown), slow.rendered) == ({"slow"}, 1)


def test_tasks_render_a_fragment_once(cache: Cache, unknown: str) -> None:
    slow, template = Slow(), environment(cache, enable_async=True).from_string(SOURCE)

    async def main() -> list[str]:
        pages = (template.render_async(slow=slow.awaited, id=unknown) for _ in range(20))
        return list(await asyncio.gather(*pages))

    assert asyncio.run(main()) == ["slow"] * 20
    assert slow.rendered == 1


def test_tasks_of_pages_begun_before_render_once(cache: Cache, unknown: str) -> None:
    slow, template = Slow(), environment(cache, enable_async=True).from_string(SOURCE)

    async def page(begun: list[int], go_on: asyncio.Event) -> str:
        async with cache._request_scope(True):
            begun.append(1)
            if len(begun) == 8:
                go_on.set()
            await go_on.wait()
            return await template.render_async(slow=slow.awaited, id=unknown)

    async def main() -> list[str]:
        begun: list[int] = []
        go_on = asyncio.Event()
        return list(await asyncio.gather(*(page(begun, go_on) for _ in range(8))))

    assert asyncio.run(main()) == ["slow"] * 8
    assert slow.rendered == 1


def test_fragments_are_posted_in_a_scope(
    cache: Cache, unknown: str, expect_trips: ExpectTrips
) -> None:
    slow, template = Slow(), environment(cache).from_string(SOURCE)
    with expect_trips(1, posts=1), cache.scope():
        for _ in range(3):
            template.render(slow=slow.blocking, id=unknown)
    assert cache[f"note:{unknown}"] == "slow"


def test_failing_body_is_rendered_by_each_caller(cache: Cache, unknown: str) -> None:
    template = environment(cache).from_string('{% cache 60, "note", id %}{{ 1 / 0 }}{% endcache %}')
    failed: list[str] = []

    def work(_: int) -> None:
        try:
            template.render(id=unknown)
        except ZeroDivisionError as error:
            failed.append(str(error))

    together(work)
    assert len(failed) == 8
