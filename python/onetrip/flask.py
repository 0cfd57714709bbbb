"""Flask: a scope for each request, `{% cache %}` in templates, options in the config.

    onetrip = OneTrip()

    @onetrip.cached(timeout=60, key="note_markup:{note_id}")
    def note_markup(note_id): ...

    def create_app():
        app = Flask(__name__)
        app.config["ONETRIP_URL"] = "redis://127.0.0.1:6379/0"
        onetrip.init_app(app)

`init_app` wraps `app.wsgi_app` in `onetrip.wsgi.PageMiddleware`. Pages are named by endpoint and
view arguments, and learn what they read.
"""

from __future__ import annotations

import inspect
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from weakref import WeakKeyDictionary

from flask import Flask, current_app, has_app_context, request

from onetrip._core import Cache, Cached, CachedProperty
from onetrip._visit import (
    Visit,
    checked_bots,
    checked_function,
    checked_name,
    checked_query,
    is_bot,
    is_safe,
    plain,
)
from onetrip.errors import ConfigurationError
from onetrip.jinja import install
from onetrip.wsgi import PageMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import timedelta

    from onetrip._core import CachedCoroutine, CachedDecorator, CachedPropertyDecorator
    from onetrip._visit import Page
    from onetrip.cachelib import OneTripCache

    _P = ParamSpec("_P")
    _R = TypeVar("_R")
    _S = TypeVar("_S")
    _T = TypeVar("_T")

__all__ = ["OneTrip", "caching_backend"]

_PREFIX = "ONETRIP_"
_SERVER_TIMING = "ONETRIP_SERVER_TIMING"
_PAGE_NAME = "ONETRIP_PAGE_NAME"
_PAGE_QUERY = "ONETRIP_PAGE_QUERY"
_PAGE_FACETS = "ONETRIP_PAGE_FACETS"
_PAGE_BOTS = "ONETRIP_PAGE_BOTS"

# Settings of an application, not of its cache.
_OWN = (_SERVER_TIMING, _PAGE_NAME, _PAGE_QUERY, _PAGE_FACETS, _PAGE_BOTS)


class OneTrip:
    """Gives Flask applications a cache: one shared by all of them, or one each.

    `OneTrip(app, Cache("redis://…"))` shares the given cache. Without one, each application opens
    its own from its configuration: `ONETRIP_URL`, and each option of `onetrip.Cache` in capitals,
    `ONETRIP_PREFIX`, `ONETRIP_TIMEOUT`, …

    More settings; their functions are called without arguments, within the request:

    - `ONETRIP_SERVER_TIMING` (False): the `server_timing` of `onetrip.wsgi.PageMiddleware`.
    - `ONETRIP_PAGE_NAME`: a function that returns route and arguments, or None if the request is
      for no page. Unset, pages are named by endpoint and view arguments.
    - `ONETRIP_PAGE_QUERY` (()): names of query parameters that are arguments of the page.
    - `ONETRIP_PAGE_FACETS`: a function that returns more arguments, such as the tenant.
    - `ONETRIP_PAGE_BOTS`: a pattern of user agents, or a function. Bots are served from the cache,
      but their visits teach it nothing.

    Raises ConfigurationError for an unknown setting or a wrong value.
    """

    def __init__(self, app: Flask | None = None, cache: Cache | None = None) -> None:
        self._ready = cache
        self._opened: WeakKeyDictionary[Flask, _Opened] = WeakKeyDictionary()
        # The only application's cache, usable outside of its context too.
        self._only: _Opened | None = None
        self._apps = 0
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Adds cache, scopes and template tag to `app`. Sets `app.extensions["onetrip"]`."""
        given: object = app
        if not isinstance(given, Flask):
            msg = (
                f"OneTrip takes a Flask application, not {given!r}; "
                "pass a cache by name, OneTrip(cache=cache)"
            )
            raise ConfigurationError(msg)
        if "onetrip" in app.extensions:
            msg = (
                f"the application {app.name!r} has a OneTrip already; call init_app once, and open "
                "scopes of another cache by app.wsgi_app = PageMiddleware(app.wsgi_app, cache)"
            )
            raise ConfigurationError(msg)
        naming = _Naming(app)
        cache = self._open(app)
        opened = _Opened(cache)
        self._apps += 1
        self._only = opened if self._apps == 1 else None
        self._opened[app] = opened
        app.extensions["onetrip"] = cache
        install(app.jinja_env, cache)
        # First: other preprocessors may remove arguments, such as a language code.
        if cache.learns:
            app.url_value_preprocessors.setdefault(None, []).insert(0, naming)
        timing = app.config.get(_SERVER_TIMING, False)
        # Flask's way to add a middleware: `app` stays a Flask object.
        app.wsgi_app = PageMiddleware(  # type: ignore[method-assign]
            app.wsgi_app, cache, server_timing=timing
        )

    def _open(self, app: Flask) -> Cache:
        given = {key for key in app.config if key.startswith(_PREFIX)} - {*_OWN}
        options = {_PREFIX + name.upper(): name for name in inspect.signature(Cache).parameters}
        unknown = sorted(given - options.keys())
        if unknown:
            msg = (
                f"the configuration of {app.name!r} has no {unknown[0]}; "
                f"it has {', '.join((*options, *_OWN[:-1]))} and {_OWN[-1]}"
            )
            raise ConfigurationError(msg)
        if self._ready is None:
            try:
                return Cache(**{options[key]: app.config[key] for key in given})
            except ConfigurationError as error:
                msg = f"{_PREFIX}… in the configuration of {app.name!r}: {error}"
                raise ConfigurationError(msg) from error
        if given:
            msg = (
                f"{min(given)} in the configuration of {app.name!r} has no effect, since "
                "OneTrip was given a cache; remove one of the two"
            )
            raise ConfigurationError(msg)
        return self._ready

    @property
    def cache(self) -> Cache:
        """The cache of the current application, or of the only one.

        Raises ConfigurationError if there is none, or if several have one and no application
        context is active.
        """
        return self._here().cache if self._ready is None else self._ready

    def _here(self) -> _Opened:
        if has_app_context():
            app: Flask = current_app._get_current_object()  # type: ignore[attr-defined] # noqa: SLF001 - Flask's own way to the application itself
            opened = self._opened.get(app)
            hint = f"the application {app.name!r} has no cache yet; call init_app(app)"
        else:
            opened = self._only
            hint = (
                "several applications have a cache each; use it within app.app_context()"
                if self._apps
                else "no application has a cache yet; call init_app(app), or pass a cache: "
                "OneTrip(cache=Cache(url))"
            )
        if opened is None:
            raise ConfigurationError(hint)
        return opened

    # As in `onetrip._core`.
    @overload
    def cached(  # type: ignore[overload-overlap]
        self, timeout: Callable[_P, Coroutine[Any, Any, _T]], /
    ) -> CachedCoroutine[_P, _T]: ...
    @overload
    def cached(self, timeout: Callable[_P, _R], /) -> Cached[_P, _R]: ...
    @overload
    def cached(
        self,
        timeout: float | timedelta | None = ...,
        *,
        key: str | None = None,
        key_fn: Callable[[tuple[Any, ...], dict[str, Any]], object] | None = None,
    ) -> CachedDecorator: ...
    def cached(self, *arguments: Any, **options: Any) -> Any:
        """Does what `Cache.cached` does, even before `init_app`."""
        return self._decorator("cached", arguments, options)

    @overload
    def cached_property(self, timeout: Callable[[_S], _T], /) -> CachedProperty[_S, _T]: ...
    @overload
    def cached_property(
        self,
        timeout: float | timedelta | None = ...,
        *,
        key: str | None = None,
        key_fn: Callable[[tuple[Any, ...], dict[str, Any]], object] | None = None,
    ) -> CachedPropertyDecorator: ...
    def cached_property(self, *arguments: Any, **options: Any) -> Any:
        """Does what `Cache.cached_property` does, even before `init_app`."""
        return self._decorator("cached_property", arguments, options)

    def _decorator(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._ready is not None:
            return getattr(self._ready, name)(*arguments, **options)
        if arguments and callable(arguments[0]):
            return _Decorated(self, lambda cache: getattr(cache, name), arguments[0])

        def decorator(function: Callable[..., Any]) -> _Decorated:
            return _Decorated(
                self, lambda cache: getattr(cache, name)(*arguments, **options), function
            )

        return decorator


class _Opened:
    """The cache of one application, and the functions decorated before it was opened."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.decorated: dict[_Decorated, Any] = {}


class _Naming:
    """Names the page of a request when its view is known, before anything else runs."""

    def __init__(self, app: Flask) -> None:
        config = app.config
        self._name = checked_function(
            _PAGE_NAME, config.get(_PAGE_NAME), 'lambda: ("home", {"user": g.user})'
        )
        self._query = checked_query(_PAGE_QUERY, config.get(_PAGE_QUERY, ()))
        self._facets = checked_function(
            _PAGE_FACETS, config.get(_PAGE_FACETS), 'lambda: {"tenant": request.host}'
        )
        self._bots = checked_bots(_PAGE_BOTS, config.get(_PAGE_BOTS))

    def __call__(self, endpoint: str | None, arguments: dict[str, Any] | None) -> None:
        """Names the page. Called by Flask as a URL value preprocessor."""
        page = self._page(endpoint, arguments or {}) if is_safe(request.method) else None
        if page is not None:
            learns = not is_bot(self._bots, request.headers.get("User-Agent", ""))
            Visit.of(request.environ).name(page, learns=learns)

    def _page(self, endpoint: str | None, arguments: dict[str, Any]) -> Page | None:
        if self._name is not None:
            page = checked_name(self._name())
        # Static files read no cache.
        elif endpoint is None or endpoint.rpartition(".")[2] == "static":
            page = None
        else:
            page = endpoint, plain(arguments)
        if page is None:
            return None
        facets = self._facets() if self._facets is not None else {}
        query = {name: request.args[name] for name in self._query if name in request.args}
        return page[0], {**facets, **query, **page[1]}


class _Decorated:
    """A function decorated before its cache was known. Delegates to a `Cached` per application.

    `cache.preload` takes it bound to an instance. For plain functions pass `.key(…)`.
    """

    def __init__(
        self,
        owner: OneTrip,
        decorator: Callable[[Cache], Callable[[Any], Any]],
        function: Callable[..., Any],
    ) -> None:
        self._owner = owner
        self._decorator = decorator
        self._function = function
        # A wrong decoration raises here, not at the first call.
        self._kind = type(decorator(Cache())(function))
        update_wrapper(self, function)

    def _here(self) -> Any:
        opened = self._owner._here()  # noqa: SLF001 - the two are one
        if self not in opened.decorated:
            opened.decorated[self] = self._decorator(opened.cache)(self._function)
        return opened.decorated[self]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._here()(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else self._here().__get__(instance, owner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._here() if hasattr(self._kind, name) else self._function, name)


def caching_backend(
    app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
) -> OneTripCache:
    """Returns a cache for Flask-Caching: `CACHE_TYPE = "onetrip.flask.caching_backend"`.

    `CACHE_OPTIONS` holds the `url` and other options of `onetrip.Cache`. Like Flask-Caching's own
    backends it pickles values, signed with the application's `SECRET_KEY`, unless there is no such
    key or the options name a `serializer` or `secret`.
    """
    from onetrip.cachelib import OneTripCache  # noqa: PLC0415 - only those who use it have cachelib

    options = {"key_prefix": config.get("CACHE_KEY_PREFIX"), **kwargs}
    if app.secret_key and not options.keys() & {"serializer", "secret"}:
        fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or []
        options |= {"serializer": "pickle", "secret": [app.secret_key, *fallbacks]}
    return OneTripCache(*args, **options)
