"""One page, one trip to the cache.

from onetrip import Cache

cache = Cache("redis://127.0.0.1:6379/0", prefix="blog", timeout=300)

@cache.cached(timeout=60, key="note_markup:{note_id}")
def note_markup(note_id): ...

with cache.preload("note_markup:5", "note_comments:5"):
    ...  # one trip, whatever the page reads
"""

from onetrip._core import (
    Cache,
    Cached,
    CachedProperty,
    Route,
    Scope,
    Stats,
    Trip,
    Watch,
    __version__,
)
from onetrip.errors import (
    BadKeyError,
    ConfigurationError,
    EntryTooLargeError,
    NotANumberError,
    OneTripError,
    SerializationError,
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnsupportedError,
)

__all__ = [
    "BadKeyError",
    "Cache",
    "Cached",
    "CachedProperty",
    "ConfigurationError",
    "EntryTooLargeError",
    "NotANumberError",
    "OneTripError",
    "Route",
    "Scope",
    "SerializationError",
    "Stats",
    "StoreError",
    "StoreRefusedError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "Trip",
    "UnsupportedError",
    "Watch",
    "__version__",
]
