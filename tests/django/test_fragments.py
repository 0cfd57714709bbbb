"""Django's `{% cache %}`, and the same of onetrip: pieces, whose markup is posted."""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.template import Context as Values
from django.template import Engine

from onetrip.django import cache_of
from tests.django.conftest import configured, on

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onetrip

#: Which library `{% load cache %}` loads: Django's own, or that of INSTALLED_APPS.
LIBRARIES = {
    "django": "django.templatetags.cache",
    "onetrip": "onetrip.django.templatetags.cache",
}

SOURCE = "{% load cache %}{% cache 60 note id %}{{ slow }}{% endcache %}"


@pytest.fixture
def site(location: str) -> Iterator[onetrip.Cache]:
    with configured(default=on(location, OPTIONS={"pages": "off"})):
        yield cache_of("default")


class Slow:
    """Counts how often it is rendered, which takes a while."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.rendered = 0

    def __str__(self) -> str:
        self.rendered += 1
        time.sleep(self.seconds)
        return "slow"


def render(library: str, source: str = SOURCE, **values: Any) -> str:
    engine = Engine(libraries={"cache": LIBRARIES[library]})
    return str(engine.from_string(source).render(Values(values)))


@pytest.mark.parametrize("library", LIBRARIES)
class TestFragments:
    @pytest.mark.usefixtures("site")
    def test_rendered_once(self, library: str) -> None:
        slow = Slow()
        assert [render(library, slow=slow, id=5) for _ in range(3)] == ["slow"] * 3
        assert slow.rendered == 1
        assert caches["default"].get(make_template_fragment_key("note", [5])) == "slow"

    def test_held_by_the_page(self, site: onetrip.Cache, library: str) -> None:
        slow = Slow()
        with site.watch() as seen, site.scope():
            for _ in range(3):
                render(library, slow=slow, id=5)
        assert slow.rendered == 1
        looks = [trip for trip in seen.records if trip.ops[0][0] == "get"]
        assert len(looks) == 1

    def test_posted_to_a_server(self, site: onetrip.Cache, location: str, library: str) -> None:
        with site.watch() as seen, site.scope():
            render(library, slow=Slow(), id=5)
        is_server = location.startswith(("redis", "memcached"))
        assert (seen.trips, seen.posted) == ((1, 1) if is_server else (2, 0))
        assert caches["default"].get(make_template_fragment_key("note", [5])) == "slow"

    def test_deleted_fragment_is_rendered_again(self, site: onetrip.Cache, library: str) -> None:
        slow = Slow()
        with site.scope():
            render(library, slow=slow, id=5)
            caches["default"].delete(make_template_fragment_key("note", [5]))
            render(library, slow=slow, id=5)
        assert slow.rendered == 2

    @pytest.mark.usefixtures("site")
    def test_wrong_arguments_raise_djangos_errors(self, library: str) -> None:
        with pytest.raises(Exception, match="non-integer timeout"):
            render(library, "{% load cache %}{% cache 'soon' note %}{% endcache %}")


def test_threads_that_miss_a_fragment_together_render_it_once(site: onetrip.Cache) -> None:
    slow, barrier = Slow(0.3), threading.Barrier(8)
    # Nobody knows what it costs, which says how long others wait.
    unknown = secrets.token_hex(8)

    def work(_: int) -> str:
        barrier.wait()
        return render("onetrip", slow=slow, id=unknown)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == ["slow"] * 8
    assert slow.rendered == 1


def test_other_backend_behaves_as_in_django() -> None:
    locmem = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with configured(default=locmem):
        slow = Slow()
        assert [render("onetrip", slow=slow, id=5) for _ in range(2)] == ["slow"] * 2
        assert slow.rendered == 1
