"""Preloads keys, and finds the caches behind Django's aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.utils import make_template_fragment_key
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from onetrip.django.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import onetrip

__all__ = ["backend", "by_alias", "cache_of", "configured", "fragment_key", "preload"]


def backend(alias: str) -> Cache:
    """Returns the backend of an alias. Raises ImproperlyConfigured if it is not onetrip's."""
    found = caches[alias]
    if not isinstance(found, Cache):
        msg = (
            f"CACHES[{alias!r}] is a {type(found).__module__}.{type(found).__qualname__}; "
            'give it "BACKEND": "onetrip.django.Cache", or name another alias'
        )
        raise ImproperlyConfigured(msg)
    return found


def cache_of(alias: str = DEFAULT_CACHE_ALIAS) -> onetrip.Cache:
    """Returns the onetrip cache behind an alias in CACHES, for its decorators.

        cache = cache_of("default")

        @cache.cached(timeout=60, key="note_markup:{note_id}")
        def note_markup(note_id): ...

    The whole process shares it. KEY_PREFIX and VERSION are not part of its keys. An alias with a
    KEY_PREFIX raises ImproperlyConfigured: use the option `prefix`, which applies to all keys.
    """
    found = backend(alias)
    if found.key_prefix:
        msg = (
            f"CACHES[{alias!r}] has a KEY_PREFIX, which keys of cached functions would lack; "
            f'set "OPTIONS": {{"prefix": {found.key_prefix!r}}} instead'
        )
        raise ImproperlyConfigured(msg)
    return found.onetrip


def fragment_key(name: str, *vary_on: object) -> str:
    """Returns the key of `{% cache 60 name vary_on… %}`, for `preload` and the backend."""
    return make_template_fragment_key(name, list(vary_on))


def preload(
    *keys: Any, using: str = DEFAULT_CACHE_ALIAS, version: int | None = None
) -> onetrip.Scope:
    """Returns a scope that holds the entries of `keys`. Entering it reads them in one trip.

        with preload("user:5:notes", fragment_key("note_comments", 5), note.note_markup):
            return render(request, "note.html", {"note": note})

    `keys` are keys as for `cache.get`, iterables of them, methods cached by `cache_of(using)`, and
    functools.partial of functions cached by it. (`note_markup.key(5)` is a key of that cache, not
    of Django's.) Use `async with` in an asynchronous view.
    """
    cache = backend(using)

    def names(keys: Iterable[Any]) -> Iterator[Any]:
        for key in keys:
            if isinstance(key, str):
                yield cache.make_and_validate_key(key, version=version)
            elif callable(key) or not hasattr(key, "__iter__"):
                yield key
            else:
                yield from names(key)

    return cache.onetrip.preload(*names(keys))


# The settings looked up last, and their caches. A test that overrides settings makes a new object.
_known: tuple[Mapping[str, Any] | None, dict[str, onetrip.Cache]] = (None, {})


def configured() -> list[onetrip.Cache]:
    """Returns the onetrip caches in CACHES, each once."""
    return list(by_alias().values())


def by_alias() -> Mapping[str, onetrip.Cache]:
    """Returns the onetrip caches by alias. A cache with several aliases has the first."""
    global _known  # noqa: PLW0603 - a memo: each request asks
    settings, found = _known
    if settings is not caches.settings:
        settings, found = caches.settings, {}
        for alias, params in settings.items():
            if issubclass(import_string(params["BACKEND"]), Cache):
                cache = backend(alias).onetrip
                if cache not in found.values():
                    found[alias] = cache
        _known = settings, found
    return found
