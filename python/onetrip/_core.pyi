from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Coroutine as _Coroutine
from datetime import timedelta
from functools import partial
from types import GenericAlias, TracebackType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    final,
    overload,
    type_check_only,
)

from typing_extensions import Never, Self, disjoint_base

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_R = TypeVar("_R")
_S = TypeVar("_S")
_T = TypeVar("_T")
_D = TypeVar("_D")
_T_co = TypeVar("_T_co", covariant=True)

_Timeout: TypeAlias = float | timedelta | None
_Key: TypeAlias = str | Cached[..., Any] | CachedCoroutine[..., Any] | partial[Any] | Iterable[_Key]
_Secret: TypeAlias = str | bytes

# The docstrings are those of the extension (crates/onetrip-py/src); tests/test_help.py compares.

__all__ = [
    "Batch",
    "Cache",
    "Cached",
    "CachedProperty",
    "Coroutine",
    "Everything",
    "Route",
    "Scope",
    "Stats",
    "Trip",
    "Watch",
    "__version__",
    "digest",
    "set_transaction_probe",
    "stable",
]

__version__: str

@disjoint_base
class Cache:
    """Caches values in one store, under one prefix. Thread-safe; share one per process.

        cache = Cache("redis://127.0.0.1:6379/0", prefix="blog", timeout=300)

    `url` names the store: "memory://" (the default), "disk:///path", "redis://host:port/db",
    "memcached://host:port", "kt://host:port/db". Nothing connects before the first trip. Times
    are seconds (int or float) or a timedelta.

    - `prefix` (""): prefix of all keys in the store, as in "prefix:key".
    - `timeout` (300): time to live of entries stored without one. None keeps them until they
      are evicted.
    - `serializer` ("native"): "native" for plain data, "pickle" (needs `secret`) or "raw" for
      bytes without a header.
    - `secret` (None): signs entries. Of several, the first signs and all are accepted.
    - `compression` (None): "zstd" or "lz4".
    - `compression_min` (1024): bytes from which payloads are compressed.
    - `on_error` ("miss"): "miss" turns a failing store into misses and dropped writes, "raise"
      into exceptions.
    - `connect_timeout` (1.0): limit for connecting.
    - `trip_timeout` (1.0): limit for one trip, connecting not included.
    - `scope_max_age` (10.0): maximum age of pieces held by a scope.
    - `read_max_age` (0.1): maximum age of plain answers held by a learned page, and of pieces
      once the response is being sent.
    - `debug` (False): True caches nothing.
    - `pages` ("preload"): "preload" loads what pages are known to read, "shadow" only counts
      what it would load, "off" learns nothing.
    - `page_keys` (512), `page_bytes` (1048576): limits of what a page preloads.

    Raises ConfigurationError for an unknown URL scheme, option or value. The message lists the
    known ones.
    """

    def __new__(
        cls,
        url: str = ...,
        *,
        prefix: str = ...,
        timeout: _Timeout = ...,
        serializer: Literal["native", "pickle", "raw"] = ...,
        secret: _Secret | Sequence[_Secret] | None = ...,
        compression: Literal["zstd", "lz4"] | None = ...,
        compression_min: int = ...,
        on_error: Literal["miss", "raise"] = ...,
        connect_timeout: float | timedelta = ...,
        trip_timeout: float | timedelta = ...,
        scope_max_age: float | timedelta = ...,
        read_max_age: float | timedelta = ...,
        debug: bool = ...,
        pages: Literal["preload", "shadow", "off"] = ...,
        page_keys: int = ...,
        page_bytes: int = ...,
    ) -> Self: ...
    @overload
    def get(self, key: str) -> Any | None:
        """Returns the value of `key`, or `default` if the key is missing. One trip outside scopes.

        A cached None is a hit. Raises BadKeyError if `key` is not a string.
        """
    @overload
    def get(self, key: str, default: _D) -> Any | _D: ...
    def __getitem__(self, key: str, /) -> Any:
        """Returns the value of `key`. Raises KeyError if the key is missing."""
    def __setitem__(self, key: str, value: object, /) -> None:
        """Stores `value` under `key` with the cache's timeout, as `set` does."""
    def __delitem__(self, key: str, /) -> None:
        """Deletes the entry of `key`. Raises KeyError if the key is missing."""
    __iter__: None
    def __contains__(self, key: str, /) -> bool:
        """Returns whether `key` has a value. Reads it, as `get` does."""
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Returns a dict of the `keys` that were found, in one trip. Missing keys are left out."""
    def set(self, key: str, value: object, timeout: _Timeout = ...) -> None:
        """Stores `value` under `key` and waits for the store.

        `timeout` is the time to live: seconds (int or float), a timedelta, or None for "until
        evicted". Unset, it is the cache's `timeout`. Zero or less deletes the entry. Within
        `batch()` the value leaves with the batch.

            cache.set("note:5", {"title": "Milk"}, timeout=60)

        Raises SerializationError if the serializer cannot encode `value`.
        """
    def set_many(
        self, mapping: Mapping[str, object] | Iterable[tuple[str, object]], timeout: _Timeout = ...
    ) -> None:
        """Stores many values in one trip. `timeout` is as in `set`.

        `mapping` is a dict or an iterable of (key, value) pairs. Raises SerializationError if a
        value cannot be encoded; nothing is stored then.
        """
    def add(self, key: str, value: object, timeout: _Timeout = ...) -> bool:
        """Stores `value` if `key` is absent. Returns True if it was stored.

        Atomic: of several processes that add one key, one gets True. `timeout` is as in `set`.
        """
    @overload
    def get_or_set(self, key: str, default: Callable[[], _T], timeout: _Timeout = ...) -> _T:
        """Returns the value of `key`. On a miss, stores `default` and returns it.

            notes = cache.get_or_set("notes", load_notes, timeout=60)

        A callable `default` is called on a miss, without arguments. Callers of this process that
        miss the key together call it once. If another process stores a value first, that value is
        kept and returned. `timeout` is as in `set`. One trip on a hit, two on a miss.
        """
    @overload
    def get_or_set(self, key: str, default: _T, timeout: _Timeout = ...) -> _T: ...
    def incr(self, key: str, delta: int = 1) -> int:
        """Adds `delta` to the integer under `key`, atomically. Returns the sum.

        The entry keeps its timeout. Raises KeyError if the key is missing, NotANumberError if the
        entry holds no integer or the sum does not fit in 64 bits.
        """
    def decr(self, key: str, delta: int = 1) -> int:
        """Subtracts `delta` from the integer under `key`, atomically. Returns the difference.

        Raises the errors of `incr`.
        """
    def touch(self, key: str, timeout: _Timeout) -> bool:
        """Gives the entry of `key` a new timeout, counted from now. Returns True if it exists.

        `timeout` is as in `set`.
        """
    def touch_many(self, keys: Iterable[str], timeout: _Timeout) -> int:
        """Gives many entries a new timeout, in one trip. Returns how many exist."""
    def delete(self, key: str) -> bool:
        """Deletes the entry of `key`. Returns True if there was one.

        A delete that cannot reach the store is sent again when the store is back. Until then the
        key is missing for this process.
        """
    def delete_many(self, keys: Iterable[str]) -> int:
        """Deletes many entries in one trip. Returns how many there were."""
    def clear(self) -> int:
        """Deletes every entry under this cache's prefix. Returns how many there were.

        Raises UnsupportedError on Memcached if the cache has a prefix.
        """
    @overload
    def aget(self, key: str) -> Coroutine[Any | None]:
        """Returns a coroutine of `get`. Calls made in one turn of the event loop share a trip."""
    @overload
    def aget(self, key: str, default: _D) -> Coroutine[Any | _D]: ...
    def aget_many(self, keys: Iterable[str]) -> Coroutine[dict[str, Any]]:
        """Returns a coroutine of `get_many`."""
    def aset(self, key: str, value: object, timeout: _Timeout = ...) -> Coroutine[None]:
        """Returns a coroutine of `set`. `value` is encoded at once."""
    def aset_many(
        self, mapping: Mapping[str, object] | Iterable[tuple[str, object]], timeout: _Timeout = ...
    ) -> Coroutine[None]:
        """Returns a coroutine of `set_many`. The values are encoded at once."""
    def aadd(self, key: str, value: object, timeout: _Timeout = ...) -> Coroutine[bool]:
        """Returns a coroutine of `add`. `value` is encoded at once."""
    @overload
    def aget_or_set(
        self, key: str, default: Callable[[], Awaitable[_T]], timeout: _Timeout = ...
    ) -> Coroutine[_T]:
        """Returns a coroutine of `get_or_set`. A callable `default` may return an awaitable."""
    @overload
    def aget_or_set(
        self, key: str, default: Callable[[], _T], timeout: _Timeout = ...
    ) -> Coroutine[_T]: ...
    @overload
    def aget_or_set(self, key: str, default: _T, timeout: _Timeout = ...) -> Coroutine[_T]: ...
    def aincr(self, key: str, delta: int = 1) -> Coroutine[int]:
        """Returns a coroutine of `incr`."""
    def adecr(self, key: str, delta: int = 1) -> Coroutine[int]:
        """Returns a coroutine of `decr`."""
    def atouch(self, key: str, timeout: _Timeout) -> Coroutine[bool]:
        """Returns a coroutine of `touch`."""
    def atouch_many(self, keys: Iterable[str], timeout: _Timeout) -> Coroutine[int]:
        """Returns a coroutine of `touch_many`."""
    def adelete(self, key: str) -> Coroutine[bool]:
        """Returns a coroutine of `delete`."""
    def adelete_many(self, keys: Iterable[str]) -> Coroutine[int]:
        """Returns a coroutine of `delete_many`."""
    def aclear(self) -> Coroutine[int]:
        """Returns a coroutine of `clear`."""
    def aclose(self) -> Coroutine[None]:
        """Returns a coroutine of `close`."""
    def _request_scope(self, safe: bool) -> Scope:
        """Returns the scope of one request. `safe` requests change nothing. For integrations."""
    def _fragment(self, key: str, timeout: _Timeout, render: Callable[[], str]) -> str:
        """Returns the markup under `key`, or renders and stores it. For integrations."""
    def _afragment(
        self, key: str, timeout: _Timeout, render: Callable[[], Awaitable[str]]
    ) -> Coroutine[str]:
        """Returns a coroutine of `_fragment`. `render` returns an awaitable."""
    def _fetch(self, key: str, timeout: _Timeout, compute: Callable[[], _T]) -> _T:
        """Returns the value of `key`, or computes and stores it. For integrations."""
    def _piece_get(self, key: str, default: Any = None) -> Any:
        """Does what `get` does, for a piece. For integrations."""
    def _piece_set(self, key: str, value: object, timeout: _Timeout = ...) -> None:
        """Does what `set` does, for a piece. For integrations."""
    def _apiece_get(self, key: str, default: Any = None) -> Coroutine[Any]:
        """Returns a coroutine of `_piece_get`."""
    def _apiece_set(self, key: str, value: object, timeout: _Timeout = ...) -> Coroutine[None]:
        """Returns a coroutine of `_piece_set`."""
    def preload(self, *keys: _Key) -> Scope:
        """Returns a scope that holds the entries of `keys`. Entering it reads them in one trip.

            with cache.preload("note_markup:5", note.comments):
                html = render(note)

        `keys` are strings, cached methods, functools.partial of cached functions, and iterables of
        these. For `scope_max_age` the scope also answers plain reads of these keys; keys found
        absent stay absent. Do not preload keys that must be exact, such as locks and counters.

        Raises BadKeyError for any other key.
        """
    def scope(self, *, max_age: float | timedelta | None = None) -> Scope:
        """Returns an empty scope. It fetches each piece once and stores results without waiting.

        Plain reads ask the store each time. With `max_age` (seconds) the scope answers them with
        what it holds, absences included, for that long.
        """
    def batch(self) -> Batch:
        """Returns a context manager that sends the `set` calls of a block in one trip.

        `set_many` calls count too. They leave with the next operation that asks the store, at the
        latest when the block ends.
        """
    def fresh(self) -> None:
        """Drops the plain answers held by the current scope. The next plain read asks the store.

        Call it after news that did not come through this cache: a message, a row lock.
        """
    def page(self, name: str, /, **args: object) -> Scope:
        """Returns a scope for one visit to a page. Its first read preloads the page's keys.

            with cache.page("note_detail", note_id=5):
                html = render(note)

        `name` is the name of the view and `args` are its arguments. The cache learns which keys a
        page reads, and predicts the keys of pages of the same view that nobody visited yet.
        """
    def pages(self) -> list[Route]:
        """Returns what this process learned of each route, the most visited first."""
    def shared_pages(self) -> list[Route]:
        """Returns what all workers learned of each recently visited route, by name. Two trips."""
    def ashared_pages(self) -> Coroutine[list[Route]]:
        """Returns a coroutine of `shared_pages`."""
    @property
    def learns(self) -> bool:
        """Whether pages learn. False with `pages="off"` or `debug=True`."""
    def watch(self) -> Watch:
        """Returns a context manager that counts and lists the trips of a block.

            with cache.watch() as seen:
                cache.get("note:5")
            assert seen.trips == 1

        It sees the trips of this thread or task and of the tasks that it starts.
        """
    # An `async def` fits the second overload too; the first match wins.
    @overload
    def cached(  # type: ignore[overload-overlap]
        self, timeout: Callable[_P, _Coroutine[Any, Any, _T]], /
    ) -> CachedCoroutine[_P, _T]:
        """Caches the results of a function, method or `async def`.

            @cache.cached(timeout=60, key="note_markup:{note_id}")
            def note_markup(note_id): ...

        `key` is a format over the arguments. `key_fn(args, kwargs)` returns the part of the key
        after the function's name and a colon. With neither, the key is the function's module and
        name with a digest of all arguments. `timeout` is as in `set`.

        Callers of this process that miss a result together compute it once. In a scope, results
        may be `scope_max_age` old, and new ones are stored without waiting.

        Raises ConfigurationError if the function cannot be cached. Calls raise BadKeyError if an
        argument has no stable form for a key.
        """
    @overload
    def cached(self, timeout: Callable[_P, _R], /) -> Cached[_P, _R]: ...
    @overload
    def cached(
        self,
        timeout: _Timeout = ...,
        *,
        key: str | None = None,
        key_fn: Callable[[tuple[Any, ...], dict[str, Any]], object] | None = None,
    ) -> CachedDecorator: ...
    @overload
    def cached_property(self, timeout: Callable[[_S], _T], /) -> CachedProperty[_S, _T]:
        """Turns a method without arguments into a property with cached values.

        The options are those of `cached`.
        """
    @overload
    def cached_property(
        self,
        timeout: _Timeout = ...,
        *,
        key: str | None = None,
        key_fn: Callable[[tuple[Any, ...], dict[str, Any]], object] | None = None,
    ) -> CachedPropertyDecorator: ...
    def prefixed(self, prefix: str) -> Cache:
        """Returns a cache of other keys over the same connections, under this cache's prefix.

            blog = Cache("redis://127.0.0.1:6379/0", prefix="blog")
            notes = blog.prefixed("notes")  # keys "blog:notes:…"

        Options, store, breaker and connections are shared. Counters, scopes, watches and pages are
        not. `clear()` of `notes` leaves the other keys of `blog`; `clear()` of `blog` removes the
        keys of `notes` too.
        """
    def stats(self) -> Stats:
        """Returns the counters since the cache was opened or reset, over all threads."""
    def reset_stats(self) -> None:
        """Sets all counters to zero."""
    def close(self) -> None:
        """Closes idle connections. The next trip opens a new one."""

@type_check_only
class CachedDecorator(Protocol):
    """Decorates a function as `Cache.cached` does. Returned by `cached(timeout=…)`."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[_P, _Coroutine[Any, Any, _T]], /
    ) -> CachedCoroutine[_P, _T]: ...
    @overload
    def __call__(self, function: Callable[_P, _R], /) -> Cached[_P, _R]: ...

@type_check_only
class CachedPropertyDecorator(Protocol):
    """Decorates a method as `Cache.cached_property` does."""

    def __call__(self, function: Callable[[_S], _T], /) -> CachedProperty[_S, _T]: ...

@final
class Cached(Generic[_P, _R]):
    """A function with cached results, made by `Cache.cached`. Calling it returns a result."""

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    def key(self, *args: _P.args, **kwargs: _P.kwargs) -> str:
        """Returns the key of the call with these arguments."""
    def bust(self, *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Deletes the stored result of the call. Returns True if it existed."""
    def refresh(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Computes the result of the call anew, stores it and returns it."""
    def uncached(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Calls the function itself, without the cache."""
    def many(self, arguments: Iterable[Any]) -> list[_R]:
        """Returns the results of many calls, in order.

        Reads all of them in one trip, computes the missing ones and stores those together. Each
        item is a call's only argument, or the tuple of its positional arguments.

            first, second = note_markup.many([5, 6])
        """
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: Cached[Concatenate[_S, _Q], _R], instance: _S, owner: type | None = None, /
    ) -> Cached[_Q, _R]: ...
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., _R]

@type_check_only
class CachedCoroutine(Generic[_P, _T]):
    """An `async def` with cached results, made by `Cache.cached`. A `Cached` at run time."""

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> Coroutine[_T]: ...
    def key(self, *args: _P.args, **kwargs: _P.kwargs) -> str:
        """Returns the key of the call with these arguments."""
    def bust(self, *args: _P.args, **kwargs: _P.kwargs) -> Coroutine[bool]:
        """Deletes the stored result of the call. Returns True if it existed."""
    def refresh(self, *args: _P.args, **kwargs: _P.kwargs) -> Coroutine[_T]:
        """Computes the result of the call anew, stores it and returns it."""
    def uncached(self, *args: _P.args, **kwargs: _P.kwargs) -> _Coroutine[Any, Any, _T]:
        """Calls the function itself, without the cache."""
    def many(self, arguments: Iterable[Any]) -> Coroutine[list[_T]]:
        """Returns the results of many calls, in order. Computes the missing ones side by side."""
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: CachedCoroutine[Concatenate[_S, _Q], _T], instance: _S, owner: type | None = None, /
    ) -> CachedCoroutine[_Q, _T]: ...
    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., _Coroutine[Any, Any, _T]]

@final
class CachedProperty(Generic[_S, _T]):
    """A property with cached values, made by `Cache.cached_property`."""

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(self, instance: _S, owner: type | None = None, /) -> _T: ...
    def key(self, instance: _S) -> str:
        """Returns the key of the property of `instance`."""
    def bust(self, instance: _S) -> bool:
        """Deletes the stored value of `instance`. Returns True if it existed."""
    def refresh(self, instance: _S) -> _T:
        """Computes the value of `instance` anew, stores it and returns it."""
    def uncached(self, instance: _S) -> _T:
        """Computes the value of `instance` without the cache."""
    def many(self, instances: Iterable[_S]) -> list[_T]:
        """Returns the values of many instances, in order.

        Reads all of them in one trip, computes the missing ones and stores those together.
        """
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    __name__: str

@final
class Route:
    """What was learned of one route, and how well its preloads fit. Returned by `Cache.pages`."""

    @property
    def name(self) -> str:
        """Name of the view."""
    @property
    def visits(self) -> int:
        """Number of visits learned from."""
    @property
    def reads(self) -> int:
        """Number of different keys that each visit read, summed: one trip each without preloads."""
    @property
    def trips(self) -> int:
        """Number of trips made to read them."""
    @property
    def exact(self) -> int:
        """Number of reads that must ask the store, because the key may change at any time."""
    @property
    def recall(self) -> float:
        """Share of the keys read that were preloaded, from 0 to 1. Exact reads do not count."""
    @property
    def precision(self) -> float:
        """Share of the preloaded keys that were read, from 0 to 1."""
    @property
    def waste(self) -> float:
        """Share of the preloaded bytes that were not read, from 0 to 1."""
    @property
    def unused_bytes(self) -> int:
        """Bytes of entries that were preloaded and not read."""
    @property
    def templates(self) -> list[tuple[str, float]]:
        """Learned keys, as in "note_markup:{note_id}", with the share of visits that read each."""

@final
class Scope:
    """Holds what one page or task has read from a cache. Opened by `with` or `async with`.

    Belongs to one thread or task, and to the tasks it starts. Made by `Cache.scope`,
    `Cache.preload` and `Cache.page`.
    """

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    def visit(self, route: str, /, **args: object) -> None:
        """Marks this open scope as a visit to the page `route` with the arguments `args`.

        The next read brings what the page usually reads. When the scope closes, the page learns
        what the visit read. Raises ConfigurationError if the scope is not open.
        """
    def discard(self) -> None:
        """Learns nothing from the visit, because it failed or is not typical."""
    def _end_visit(self) -> None:
        """Ends the visit and learns from it. The scope stays open. For integrations."""
    def _begin_sending(self) -> None:
        """Limits the age of held pieces to `read_max_age` from now on. For integrations."""
    def _link(self, other: Scope) -> None:
        """Shares the page's first trip with `other`, if both are on one store. For integrations."""
    def __enter__(self) -> Self:
        """Opens the scope and reads its preloaded keys in one trip."""
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None:
        """Closes the scope. Waits for the replies to posted writes, at most `trip_timeout`."""
    def __aenter__(self) -> Coroutine[Self]:
        """Returns a coroutine of `__enter__`."""
    def __aexit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> Coroutine[None]:
        """Returns a coroutine of `__exit__`."""

@final
class Batch:
    """Sends the plain `set` and `set_many` calls of a block in one trip. Made by `Cache.batch`."""

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    def __enter__(self) -> Self:
        """Starts collecting writes."""
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None:
        """Sends the writes that have not left yet."""
    def __aenter__(self) -> Coroutine[Self]:
        """Returns a coroutine of `__enter__`."""
    def __aexit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> Coroutine[None]:
        """Returns a coroutine of `__exit__`."""

@final
class Coroutine(_Coroutine[Any, Any, _T_co]):
    """Result of the `a…` methods. Starts when it is awaited."""

    def __await__(self) -> Generator[Any, Any, _T_co]: ...
    def __iter__(self) -> Generator[Any, Any, _T_co]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any:
        """Resumes the coroutine with `value`."""
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raises an exception in the coroutine."""
    def close(self) -> None:
        """Ends the coroutine."""
    __name__: str
    __qualname__: str

@final
class Stats:
    """Counters of a cache at one moment, as attributes and as a mapping. Made by `Cache.stats`."""

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    trips: int
    """Exchanges with the store, failed ones included."""
    hits: int
    """Reads that found a value, in a scope or in the store."""
    misses: int
    """Reads that found nothing."""
    scope_hits: int
    """Hits answered by a scope."""
    writes: int
    """Entries sent to the store."""
    posted: int
    """Writes that were sent without waiting for the reply."""
    deletes: int
    """Deletes sent to the store."""
    errors: int
    """Operations that the store failed to carry out."""
    bad_entries: int
    """Entries that could not be read: damaged, wrongly signed, of another version. Also misses."""
    bytes_in: int
    """Bytes of entries received."""
    bytes_out: int
    """Bytes of entries sent."""
    def keys(self) -> list[str]:
        """Returns the names of the counters."""
    def __getitem__(self, name: str, /) -> int: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...

@final
class Trip:
    """One exchange with a store, recorded by a `Watch`. `len` is the number of operations."""

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    @property
    def store(self) -> str:
        """URL of the store, without password."""
    @property
    def ops(self) -> list[tuple[str, str]]:
        """The first hundred operations as (word, key) pairs: ("get", "blog:note:5")."""
    @property
    def failed(self) -> int:
        """Number of operations that failed."""
    @property
    def posted(self) -> bool:
        """Whether it was posted: sent without waiting. Posts do not count as trips."""
    @property
    def bytes_in(self) -> int:
        """Bytes of entries received."""
    @property
    def bytes_out(self) -> int:
        """Bytes of entries sent."""
    @property
    def seconds(self) -> float:
        """Seconds from sending to the reply."""
    def __len__(self) -> int: ...

@final
class Watch:
    """Records the trips of one cache in a thread or task and the tasks it starts.

    Made by `Cache.watch`.
    """

    def __new__(cls, _: Never, /) -> Self: ...  # a cache makes it
    @property
    def trips(self) -> int:
        """Number of trips."""
    @property
    def posted(self) -> int:
        """Number of values posted: sent to the store without waiting."""
    @property
    def hits(self) -> int:
        """Number of reads that found a value, in a scope or in the store."""
    @property
    def misses(self) -> int:
        """Number of reads that found nothing."""
    @property
    def records(self) -> list[Trip]:
        """The trips, oldest first. The first ten thousand are kept."""
    def __enter__(self) -> Self:
        """Starts recording."""
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None:
        """Stops recording. The records stay."""

@final
class Everything:
    """Records the trips of all caches of this process, in all threads. For tests."""

    def __new__(cls) -> Self: ...
    @property
    def trips(self) -> int:
        """Number of trips."""
    @property
    def records(self) -> list[Trip]:
        """The trips, oldest first. The first ten thousand are kept."""
    def __enter__(self) -> Self:
        """Starts recording."""
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        value: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None:
        """Stops recording. The records stay."""

def digest(arguments: dict[str, Any]) -> str:
    """Returns a digest of a call's arguments by name, the same in every process.

    Raises BadKeyError if an argument has no stable form.
    """

def set_transaction_probe(probe: Callable[[], bool] | None) -> None:
    """Sets the function that tells whether its caller is within a database transaction.

    Values computed within a transaction are not shared with other callers. None removes the
    function.
    """

def stable(part: _T) -> _T:
    """Returns `part`, a part of a key, if its text is the same in every process.

    Raises BadKeyError otherwise, as for an object whose text is an address, or for a set.
    """
