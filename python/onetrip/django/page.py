"""What a page knows beforehand: the keys that it will read, and the caches that hold them."""

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
    """Return the backend of an alias in CACHES, which has to be one of onetrip."""
    found = caches[alias]
    if not isinstance(found, Cache):
        msg = (
            f"CACHES[{alias!r}] is a {type(found).__module__}.{type(found).__qualname__}; "
            'give it "BACKEND": "onetrip.django.Cache", or name another alias'
        )
        raise ImproperlyConfigured(msg)
    return found


def cache_of(alias: str = DEFAULT_CACHE_ALIAS) -> onetrip.Cache:
    """Return the cache of onetrip behind an alias in CACHES, for its decorators.

        cache = cache_of("default")

        @cache.cached(timeout=60, key="note_markup:{note_id}")
        def note_markup(note_id): ...

    It is one for the whole process. KEY_PREFIX and VERSION are not part of its keys, so an alias
    that has a KEY_PREFIX is refused: its option `prefix` does the same for all keys.
    """
    found = backend(alias)
    if found.key_prefix:
        msg = (
            f"CACHES[{alias!r}] has a KEY_PREFIX, and the keys of cached functions would not; "
            f'give it "OPTIONS": {{"prefix": {found.key_prefix!r}}} instead'
        )
        raise ImproperlyConfigured(msg)
    return found.onetrip


def fragment_key(name: str, *vary_on: object) -> str:
    """Return the key of `{% cache 60 name vary_on… %}`, as `preload` and the backend take it."""
    return make_template_fragment_key(name, list(vary_on))


def preload(
    *keys: Any, using: str = DEFAULT_CACHE_ALIAS, version: int | None = None
) -> onetrip.Scope:
    """Enter a scope that holds the entries of `keys`, read in one trip.

        with preload("user:5:notes", fragment_key("note_comments", 5), note.note_markup):
            return render(request, "note.html", {"note": note})

    Takes keys as `cache.get` does, iterables of them, and what is cached by `cache_of(using)`: its
    methods, and functions bound to their arguments by `functools.partial`. (`note_markup.key(5)`
    is a key of that cache, and no key of Django's.) In an asynchronous view it is `async with`.
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


# The settings of which the caches were looked up last, and what was found. Settings that a test
# overrides are another object.
_known: tuple[Mapping[str, Any] | None, dict[str, onetrip.Cache]] = (None, {})


def configured() -> list[onetrip.Cache]:
    """Return the caches of onetrip that CACHES names, each once."""
    return list(by_alias().values())


def by_alias() -> Mapping[str, onetrip.Cache]:
    """Return the same by their aliases; one that several name has the first."""
    global _known  # noqa: PLW0603 - a memo: looking up is what each request would have to do
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
