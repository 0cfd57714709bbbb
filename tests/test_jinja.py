"""Fragments of templates: the tag, its keys, and when its body is rendered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
import pytest
from markupsafe import Markup

from onetrip import Cache, ConfigurationError
from onetrip.jinja import CacheExtension, fragment_key, install

if TYPE_CHECKING:
    from tests.conftest import ExpectTrips
    from tests.servers import RedisServer


class Page:
    """Templates over one cache, whose bodies tell how often they were rendered."""

    def __init__(self, cache: Cache, *, is_async: bool = False, **options: Any) -> None:
        # Whether a page escapes is for each test to say.
        self.environment = jinja2.Environment(enable_async=is_async, **options)  # noqa: S701
        install(self.environment, cache)
        self.environment.globals.update(ran=self.ran, timedelta=timedelta)
        self.bodies: list[str] = []

    def ran(self, what: object = "body") -> str:
        """Note within a template that it is being rendered."""
        self.bodies.append(str(what))
        return str(what)

    def __call__(self, source: str, **variables: object) -> str:
        """Render `source`."""
        template = self.environment.from_string(source)
        if self.environment.is_async:
            return asyncio.run(template.render_async(**variables))
        return template.render(**variables)


@pytest.fixture(params=["sync", "async"])
def page(request: pytest.FixtureRequest, cache: Cache) -> Page:
    return Page(cache, is_async=request.param == "async", autoescape=True)


NOTE = SimpleNamespace(id=5, text="<b>")


class TestTag:
    def test_body_is_rendered_only_on_a_miss(self, page: Page, cache: Cache) -> None:
        source = (
            '<p>{% cache 60, "note_comments", note.id %}'
            "{{ ran() }} {{ note.text }}{% endcache %}</p>"
        )
        for _ in range(3):
            assert page(source, note=NOTE) == "<p>body &lt;b&gt;</p>"
        assert page.bodies == ["body"]
        assert cache["note_comments:5"] == "body &lt;b&gt;"

    def test_key_varies_with_the_arguments(self, page: Page, cache: Cache) -> None:
        source = '{% cache 60, "note_comments", note.id %}{{ ran(note.id) }}{% endcache %}'
        for number in (1, 2, 1, 2):
            assert page(source, note=SimpleNamespace(id=number)) == str(number)
        assert page.bodies == ["1", "2"]
        assert cache.get_many(["note_comments:1", "note_comments:2"]).keys() == {
            "note_comments:1",
            "note_comments:2",
        }

    def test_shows_the_cached_markup(self, page: Page, cache: Cache) -> None:
        cache.set("name:5", "<i>from the cache</i>")
        assert page('{% cache 60, "name", 5 %}{{ ran() }}{% endcache %}') == (
            "<i>from the cache</i>"
        )
        assert page.bodies == []

    def test_empty_body_is_cached(self, page: Page) -> None:
        for _ in range(2):
            assert page('{% cache 60, "a" %}{% if not ran() %}x{% endif %}{% endcache %}') == ""
        assert page.bodies == ["body"]

    def test_entry_that_is_not_text_is_replaced(self, page: Page, cache: Cache) -> None:
        cache.set("a", {"not": "text"})
        assert page('{% cache 60, "a" %}{{ ran() }}{% endcache %}') == "body"
        assert cache["a"] == "body"

    def test_stores_a_plain_string(self, page: Page, cache: Cache) -> None:
        page('{% cache 60, "a" %}x{% endcache %}')
        assert type(cache["a"]) is str

    def test_white_space_control(self, page: Page) -> None:
        source = 'a {%- cache 60, "a" -%} b {%- endcache -%} c'
        assert [page(source) for _ in range(2)] == ["abc", "abc"]

    def test_failing_body_is_not_stored(self, page: Page, cache: Cache) -> None:
        source = '{% cache 60, "a" %}{{ 1 // zero }}{% endcache %}'
        with pytest.raises(ZeroDivisionError):
            page(source, zero=0)
        assert "a" not in cache
        assert page(source, zero=1) == "1"

    def test_watch_counts_fragment_trips(self, page: Page, expect_trips: ExpectTrips) -> None:
        source = '{% cache 60, "a" %}{{ ran() }}{% endcache %}'
        # The asynchronous face has a connection of its own, whose handshake is no trip.
        page('{% cache 60, "another" %}{% endcache %}')
        with expect_trips(2):
            page(source)
        with expect_trips(1):
            page(source)

    def test_environments_keep_their_own_cache(self, page: Page) -> None:
        other = Page(Cache())
        source = '{% cache 60, "a" %}{{ ran(name) }}{% endcache %}'
        assert page(source, name="one") == "one"
        assert other(source, name="two") == "two"
        assert page(source, name="three") == "one"


class TestKeys:
    @pytest.mark.parametrize(
        ("arguments", "key"),
        [
            ('"note_comments", note.id', "note_comments:5"),
            ('"note_comments"', "note_comments"),
            ('"a", 1, "b", none, true, 1.5', "a:1:b:None:True:1.5"),
            ('"a", note.text', "a:<b>"),
            ('"a", "x:y", "50%"', "a:x%3Ay:50%25"),
            ('"a", ""', "a:"),
            ('"a", "é ☃"', "a:é ☃"),
            ('"a" ~ note.id, 1 + 1', "a5:2"),
            ('"a", [1, 2]|join("-")', "a:1-2"),
            ('"a", note.id|string|length', "a:1"),
            ('"a", nothing|default("none")', "a:none"),
            ("name, number", "named:7"),
        ],
    )
    def test_documented_keys(self, page: Page, cache: Cache, arguments: str, key: str) -> None:
        source = f"{{% cache 60, {arguments} %}}text{{% endcache %}}"
        assert page(source, note=NOTE, name="named", number=7) == "text"
        assert cache.get(key) == "text"

    @pytest.mark.parametrize("parts", [(), (5,), ("a:b",), ("%3A", ":"), (None, 1.5, "x")])
    def test_fragment_key_matches_the_tag(
        self, page: Page, cache: Cache, parts: tuple[object, ...]
    ) -> None:
        named = {f"part{number}": part for number, part in enumerate(parts)}
        arguments = ", ".join(['"fragment"', *named])
        page(f"{{% cache 60, {arguments} %}}text{{% endcache %}}", **named)
        assert cache.get(fragment_key("fragment", *parts)) == "text"

    def test_different_parts_have_different_keys(self) -> None:
        keys = {
            fragment_key("a", "b", "c"),
            fragment_key("a", "b:c"),
            fragment_key("a", "b%3Ac"),
            fragment_key("a", "b", "", "c"),
            fragment_key("a", "bc"),
        }
        assert len(keys) == 5

    def test_markup_and_text_share_a_key(self) -> None:
        assert fragment_key("a", Markup("<b>")) == fragment_key("a", "<b>") == "a:<b>"


class TestTimeouts:
    @pytest.mark.parametrize(
        ("timeout", "seconds"),
        [
            ("60", 60),
            ("60.5", 60.5),
            ("2 * minutes", 120),
            ("note.timeout", 90),
            ("timedelta(hours=1)", 3600),
            ("none", -1),
            ("None", -1),
            ("60 if minutes else 0", 60),
        ],
    )
    def test_timeout_may_be_an_expression(
        self,
        redis_server: RedisServer,
        redis_url: str,
        timeout: str,
        seconds: float,
    ) -> None:
        page = Page(Cache(redis_url))
        source = f'{{% cache {timeout}, "a" %}}{{{{ ran() }}}}{{% endcache %}}'
        for _ in range(2):
            assert page(source, minutes=60, note=SimpleNamespace(timeout=90)) == "body"
        assert page.bodies == ["body"]
        left = redis_server.admin.pttl("a")
        if seconds < 0:
            assert left == -1
        else:
            assert (seconds - 30) * 1000 < left <= seconds * 1000

    @pytest.mark.parametrize("timeout", ["0", "-5", "timedelta(0)"])
    def test_timeout_of_zero_stores_nothing(self, page: Page, cache: Cache, timeout: str) -> None:
        source = f'{{% cache {timeout}, "a" %}}{{{{ ran() }}}}{{% endcache %}}'
        for _ in range(3):
            assert page(source) == "body"
        assert len(page.bodies) == 3
        assert "a" not in cache

    @pytest.mark.parametrize("timeout", ['"soon"', "true", "[60]"])
    def test_wrong_timeout_raises(self, page: Page, timeout: str) -> None:
        with pytest.raises(ConfigurationError, match="is not a timeout"):
            page(f'{{% cache {timeout}, "a" %}}body{{% endcache %}}')


class TestEscaping:
    def test_escaped_on_miss_and_hit(self, page: Page) -> None:
        source = '{% cache 60, "a" %}<i>{{ text }}</i>{{ safe }}{% endcache %}'
        for _ in range(2):
            shown = page(source, text="<script>", safe=Markup("<b>"))
            assert shown == "<i>&lt;script&gt;</i><b>"

    def test_autoescape_off(self, cache: Cache) -> None:
        page = Page(cache, autoescape=False)
        source = '{% cache 60, "a" %}<i>{{ text }}</i>{% endcache %}'
        for _ in range(2):
            assert page(source, text="<script>") == "<i><script></i>"

    @pytest.mark.parametrize("autoescape", [True, False])
    def test_filters_and_set_blocks(self, cache: Cache, *, autoescape: bool) -> None:
        page = Page(cache, autoescape=autoescape)
        source = (
            '{% filter upper %}{% cache 60, "a" %}<i>{{ text }}</i>{% endcache %}{% endfilter %}'
            '{% set held %}{% cache 60, "b" %}<u>{{ text }}</u>{% endcache %}{% endset %}'
            "{{ held }}{{ held ~ text }}"
        )
        cold, warm = (page(source, text="&") for _ in range(2))
        assert cold == warm
        assert ("&amp;" in cold) is autoescape

    def test_autoescape_blocks(self, cache: Cache) -> None:
        page = Page(cache, autoescape=True)
        source = (
            '{% autoescape false %}{% cache 60, "a" %}{{ text }}{% endcache %}{% endautoescape %}'
            '{% cache 60, "b" %}{{ text }}{% endcache %}'
        )
        cold, warm = (page(source, text="<") for _ in range(2))
        assert cold == warm == "<&lt;"


class TestTemplateFeatures:
    def test_nested_fragments(self, page: Page, cache: Cache) -> None:
        source = (
            '{% cache 60, "outer" %}[{{ ran("outer") }} '
            '{% cache 60, "inner" %}{{ ran("inner") }}{% endcache %}]{% endcache %}'
        )
        for _ in range(2):
            assert page(source) == "[outer inner]"
        assert page.bodies == ["outer", "inner"]
        cache.delete("inner")
        assert page(source) == "[outer inner]"
        cache.delete("outer")
        assert page(source) == "[outer inner]"
        assert page.bodies == ["outer", "inner", "outer", "inner"]
        cache.delete("outer")
        assert page(source) == "[outer inner]"
        assert page.bodies[4:] == ["outer"]

    def test_loop_around_a_fragment(self, page: Page) -> None:
        source = (
            "{% for note in notes %}"
            '{% cache 60, "note", note, loop.index %}'
            "{{ loop.index }}/{{ loop.length }}={{ ran(note) }}{% if not loop.last %}, {% endif %}"
            "{% endcache %}{% endfor %}"
        )
        for _ in range(2):
            assert page(source, notes="abc") == "1/3=a, 2/3=b, 3/3=c"
        assert page.bodies == ["a", "b", "c"]

    def test_loop_within_a_fragment(self, page: Page) -> None:
        source = (
            '{% cache 60, "all" %}{% for note in notes if note != "b" %}'
            "{{ loop.index }}{{ ran(note) }}{% else %}none{% endfor %}{% endcache %}"
        )
        for _ in range(2):
            assert page(source, notes="abc") == "1a2c"
        assert page.bodies == ["a", "c"]

    def test_macros(self, page: Page) -> None:
        source = (
            # Within a body `caller` is the body's own, as it is within `call`.
            "{% macro note(id) %}{% set around = caller %}"
            '{% cache 60, "m", id %}{{ ran(id) }}{{ around() }}{% endcache %}{% endmacro %}'
            "{% call note(1) %}!{% endcall %}{% call note(1) %}?{% endcall %}"
            '{% cache 60, "around" %}{% call note(2) %}.{% endcall %}{% endcache %}'
        )
        for _ in range(2):
            assert page(source) == "1!1!2."
        assert page.bodies == ["1", "2"]

    def test_includes_blocks_and_parents(self, cache: Cache) -> None:
        for is_async in (False, True):
            cache.delete_many(["base", "block:5", "piece:5"])
            page = Page(cache, is_async=is_async)
            page.environment.loader = jinja2.DictLoader(
                {
                    "base": '<{% cache 60, "base" %}{% block body %}{% endblock %}{% endcache %}>',
                    "page": (
                        '{% extends "base" %}{% block body %}{{ super() }}'
                        '{% cache 60, "block", id %}{% include "piece" %}{% endcache %}'
                        "{% endblock %}"
                    ),
                    "piece": '{% cache 60, "piece", id %}{{ ran(id) }}{% endcache %}',
                }
            )
            for _ in range(2):
                assert page('{% extends "page" %}', id=5) == "<5>"
            assert page.bodies == ["5"]
            assert cache.get_many(["base", "block:5", "piece:5"]).keys() == {
                "base",
                "block:5",
                "piece:5",
            }

    def test_variables_set_in_a_fragment_stay_local(self, page: Page) -> None:
        source = '{% set x = 1 %}{% cache 60, "a" %}{% set x = 2 %}{{ x }}{% endcache %}{{ x }}'
        for _ in range(2):
            assert page(source) == "21"

    def test_awaitable_in_a_fragment(self, cache: Cache) -> None:
        page = Page(cache, is_async=True)

        async def text() -> str:
            await asyncio.sleep(0)
            return page.ran("awaited")

        for _ in range(2):
            assert page('{% cache 60, "a" %}{{ text() }}{% endcache %}', text=text) == "awaited"
        assert page.bodies == ["awaited"]

    def test_async_environment_renders_synchronously_too(self, cache: Cache) -> None:
        page = Page(cache, is_async=True)
        template = page.environment.from_string('{% cache 60, "a" %}{{ ran() }}{% endcache %}')
        for _ in range(2):
            assert template.render() == "body"
        assert page.bodies == ["body"]

    def test_generated_template(self, cache: Cache) -> None:
        page = Page(cache)
        template = page.environment.from_string('a{% cache 60, "a" %}b{% endcache %}c')
        for _ in range(2):
            assert "".join(template.generate()) == "abc"

    def test_environment_overlay(self, cache: Cache) -> None:
        page = Page(cache)
        overlay = page.environment.overlay(autoescape=True)
        source = '{% cache 60, "a" %}{{ "<" }}{% endcache %}'
        assert [overlay.from_string(source).render() for _ in range(2)] == ["&lt;"] * 2


class TestPreload:
    def test_fragments_are_one_trip(
        self, page: Page, cache: Cache, expect_trips: ExpectTrips
    ) -> None:
        source = (
            "{% for id in ids %}"
            '{% cache 60, "note", id %}{{ ran(id) }}{% endcache %}'
            '{% cache 60, "comments", id %}{{ ran(id) }}{% endcache %}'
            "{% endfor %}"
        )
        keys = [fragment_key(name, note) for name in ("note", "comments") for note in range(20)]
        # Cold: one trip and what it posts. Warm: one trip.
        for posts in (40, 0):
            with expect_trips(1, posts=posts), cache.preload(keys):
                page(source, ids=range(20))
        assert len(page.bodies) == 40

    def test_concurrent_renders_share_the_scope(self, cache: Cache) -> None:
        page = Page(cache, is_async=True)
        template = page.environment.from_string(
            '{% cache 60, "a", id %}{{ ran(id) }}{% endcache %}'
        )

        async def main() -> list[str]:
            with cache.preload("a:1", "a:2"), cache.watch() as seen:
                shown = await asyncio.gather(
                    *(template.render_async(id=number) for number in (1, 2, 1, 2))
                )
            assert seen.trips <= 2
            return shown

        assert asyncio.run(main()) == ["1", "2", "1", "2"]


class TestMistakes:
    @pytest.mark.parametrize(
        "source",
        [
            "{% cache %}x{% endcache %}",
            "{% cache 60 %}x{% endcache %}",
            '{% cache 60 "name" %}x{% endcache %}',
            '{% cache 60, "name", %}x{% endcache %}',
            '{% cache 60, "name" %}x',
            "{% endcache %}",
        ],
    )
    def test_syntax_errors_are_jinjas(self, page: Page, source: str) -> None:
        with pytest.raises(jinja2.TemplateSyntaxError):
            page(source)

    def test_missing_name_shows_its_line(self, page: Page) -> None:
        with pytest.raises(
            jinja2.TemplateSyntaxError, match=r"needs a name: \{% cache 60"
        ) as caught:
            page("\n\n{% cache 60 %}x{% endcache %}")
        assert caught.value.lineno == 3

    @pytest.mark.parametrize("name", ["5", "none", "nothing", "[1]"])
    def test_name_must_be_a_string(self, page: Page, name: str) -> None:
        with pytest.raises(ConfigurationError, match="the name of a fragment"):
            page(f"{{% cache 60, {name} %}}x{{% endcache %}}")

    @pytest.mark.parametrize("vary_on", ["missing", "note.missing", "1, missing"])
    def test_undefined_variable_raises(self, page: Page, vary_on: str) -> None:
        with pytest.raises(ConfigurationError, match="varies on an undefined variable"):
            page(f'{{% cache 60, "fragment", {vary_on} %}}text{{% endcache %}}', note={})

    @pytest.mark.parametrize("is_async", [False, True])
    def test_missing_cache_raises(self, *, is_async: bool) -> None:
        environment = jinja2.Environment(
            autoescape=True, extensions=[CacheExtension], enable_async=is_async
        )
        template = environment.from_string('{% cache 60, "a" %}x{% endcache %}')
        with pytest.raises(ConfigurationError, match=r"call onetrip\.jinja\.install\("):
            template.render()


class TestInstall:
    @pytest.mark.parametrize("extensions", [[], [CacheExtension], ["onetrip.jinja.CacheExtension"]])
    def test_works_with_and_without_the_extension(
        self, cache: Cache, extensions: list[Any]
    ) -> None:
        environment = jinja2.Environment(extensions=extensions, autoescape=True)
        install(environment, cache)
        template = environment.from_string('{% cache 60, "a" %}x{% endcache %}')
        assert template.render() == "x"
        assert cache["a"] == "x"

    def test_last_cache_wins(self, cache: Cache) -> None:
        environment = jinja2.Environment(autoescape=True)
        install(environment, Cache())
        install(environment, cache)
        environment.from_string('{% cache 60, "a" %}x{% endcache %}').render()
        assert cache["a"] == "x"

    def test_works_after_templates_were_compiled(self, cache: Cache) -> None:
        environment = jinja2.Environment(extensions=[CacheExtension], autoescape=True)
        template = environment.from_string('{% cache 60, "a" %}x{% endcache %}')
        install(environment, cache)
        assert template.render() == "x"
        assert cache["a"] == "x"
