"""Every test of Django's cache suite that is not run over onetrip, and why."""

from __future__ import annotations

# Classes of `cache.tests`.
CLASSES = {
    "DummyCacheTests": "Django's dummy backend itself",
    "DBCacheTests": "Django's database backend itself",
    "DBCacheWithTimeZoneTests": "Django's database backend itself",
    "CreateCacheTableForDBCacheTests": "Django's database backend itself",
    "LocMemCacheTests": "Django's memory backend itself",
    "PyLibMCCacheTests": "Django's backend on pylibmc itself",
    "PyMemcacheCacheTests": "Django's backend on pymemcache itself",
    "FileBasedCacheTests": "Django's file backend itself",
    "FileBasedCachePathLibTests": "Django's file backend itself",
    "RedisCacheTests": "Django's Redis backend itself",
}

_CULL = "MAX_ENTRIES and CULL_FREQUENCY: stores of onetrip are bounded by bytes"

# Tests of the suite for backends, `onetrip_cases`.
TESTS = {
    "test_cull": _CULL,
    "test_zero_cull": _CULL,
    "test_cull_delete_when_store_empty": _CULL,
}

# The same, of the suite for Memcached's backends, by what tests them here.
MEMCACHED_TESTS = {
    "test_location_multiple_servers": "a private attribute: see tests/django/test_location.py",
    "test_set_many_returns_failing_keys": "mocks a client library: see tests/django/test_cache.py",
    "test_close": "mocks a client library: see tests/django/test_process.py",
}

_PRIVATE = "looks into the private parts of Django's memory backend"

# Tests of other classes.
OTHERS = {
    "DefaultNonExpiringCacheKeyTests.test_caches_set_with_timeout_as_none_set_non_expiring_key": (
        _PRIVATE
    ),
    "DefaultNonExpiringCacheKeyTests.test_caches_with_unset_timeout_set_expiring_key": _PRIVATE,
}

# The same over Memcached.
MEMCACHED_OTHERS = {
    "CacheMiddlewareTest.test_cache_page_timeout": (
        "an entry of one second is to be there now and gone in a second, and Memcached counts the "
        "seconds of its own clock: one ends at once or lasts longer"
    ),
}
