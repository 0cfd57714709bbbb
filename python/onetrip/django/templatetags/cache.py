"""Django's `{% cache %}`, except that threads that miss a fragment together render it once.

Loaded by `{% load cache %}` if "onetrip.django" is in INSTALLED_APPS. Templates and keys stay the
same. Over a backend of another library it does what Django's tag does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.utils import make_template_fragment_key
from django.template import Library, VariableDoesNotExist
from django.templatetags.cache import CacheNode, do_cache

from onetrip.django.cache import Cache

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache
    from django.template import Context
    from django.template.base import Parser, Token

register = Library()


class FragmentNode(CacheNode):
    """A fragment that is looked up, rendered on a miss and stored in one operation."""

    def render(self, context: Context) -> Any:
        """Returns the fragment's markup."""
        try:
            backend = self._backend(context)
            timeout = self.expire_time_var.resolve(context)
            seconds = None if timeout is None else int(timeout)
            vary_on = [variable.resolve(context) for variable in self.vary_on]
        except (VariableDoesNotExist, InvalidCacheBackendError, TypeError, ValueError):
            # Django raises its own error.
            return super().render(context)
        if not isinstance(backend, Cache):
            return super().render(context)
        key = make_template_fragment_key(self.fragment_name, vary_on)
        return backend.fragment(key, seconds, lambda: self.nodelist.render(context))

    def _backend(self, context: Context) -> BaseCache:
        if self.cache_name:
            return caches[self.cache_name.resolve(context)]
        alias = "template_fragments"
        return caches[alias if alias in caches.settings else "default"]


@register.tag("cache")
def cache(parser: Parser, token: Token) -> CacheNode:
    """Parses `{% cache expire_time name vary_on… using="alias" %} … {% endcache %}`."""
    node = do_cache(parser, token)
    node.__class__ = FragmentNode
    return node
