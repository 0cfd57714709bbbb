"""Cached fragments of Jinja2 templates.

    {% cache 60, "note_comments", note.id %} … {% endcache %}

renders its body at most once in 60 seconds for each `note.id`, under the key
`note_comments:<id>`. The timeout is in seconds, a `timedelta`, or `none` to keep the fragment until
it is evicted. All arguments may be expressions.

    env = Environment(extensions=[CacheExtension])
    install(env, cache)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Undefined, nodes
from jinja2.ext import Extension
from markupsafe import Markup

from onetrip.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from jinja2 import Environment
    from jinja2.parser import Parser

    from onetrip import Cache

__all__ = ["CacheExtension", "fragment_key", "install"]

# The attribute of an environment with its cache.
_CACHE = "onetrip_cache"


def install(environment: Environment, cache: Cache) -> None:
    """Adds `{% cache %}` to `environment`. Fragments are stored in `cache`."""
    environment.add_extension(CacheExtension)
    # `Environment.extend` would keep an earlier cache.
    setattr(environment, _CACHE, cache)


def fragment_key(name: str, *vary_on: object) -> str:
    """Returns the key of a fragment: its name and the values it varies on, joined by colons.

        cache.preload(fragment_key("note_comments", note.id))

    A colon within a part becomes `%3A`, and `%` becomes `%25`, so that no two fragments share a
    key.
    """
    return ":".join(str(part).replace("%", "%25").replace(":", "%3A") for part in (name, *vary_on))


class CacheExtension(Extension):
    """Adds the tag `{% cache timeout, name, vary_on… %} … {% endcache %}`."""

    tags = {"cache"}  # noqa: RUF012 - jinja2 declares it as a plain set

    def parse(self, parser: Parser) -> nodes.Node:
        """Compiles the tag to a call with the body as `caller`."""
        lineno = next(parser.stream).lineno
        arguments = [parser.parse_expression()]
        while parser.stream.skip_if("comma"):
            arguments.append(parser.parse_expression())
        if len(arguments) == 1:
            parser.fail('a fragment needs a name: {% cache 60, "note_comments", note.id %}', lineno)
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        render = "_render_async" if self.environment.is_async else "_render"
        call = self.call_method(render, arguments, lineno=lineno)
        return nodes.CallBlock(call, [], [], body, lineno=lineno)

    def _key(self, name: object, vary_on: tuple[object, ...]) -> tuple[Cache, str]:
        """Returns the cache and the key of a fragment. Raises if one cannot be had."""
        cache: Cache | None = getattr(self.environment, _CACHE, None)
        if cache is None:
            msg = (
                "a template uses {% cache %}, but its environment has no cache; "
                "call onetrip.jinja.install(environment, cache)"
            )
            raise ConfigurationError(msg)
        if not isinstance(name, str):
            msg = (
                f"the name of a fragment is a string, not {name!r}; write it after the timeout, "
                'as in {% cache 60, "note_comments", note.id %}'
            )
            raise ConfigurationError(msg)
        if any(isinstance(part, Undefined) for part in vary_on):
            msg = (
                f"the fragment {name!r} varies on an undefined variable, "
                "so all pages would share one text; fix its name, or define it"
            )
            raise ConfigurationError(msg)
        return cache, fragment_key(name, *vary_on)

    def _render(
        self,
        timeout: float | timedelta | None,
        name: object,
        *vary_on: object,
        caller: Callable[[], str],
    ) -> str:
        cache, key = self._key(name, vary_on)
        markup = cache._fragment(key, timeout, lambda: str(caller()))  # noqa: SLF001 - of this package
        return Markup(markup)  # noqa: S704 - markup as rendered

    async def _render_async(
        self,
        timeout: float | timedelta | None,
        name: object,
        *vary_on: object,
        caller: Callable[[], Awaitable[str]],
    ) -> str:
        cache, key = self._key(name, vary_on)

        async def render() -> str:
            return str(await caller())

        markup = await cache._afragment(key, timeout, render)  # noqa: SLF001 - of this package
        return Markup(markup)  # noqa: S704 - markup as rendered
