"""A store that does not answer never breaks a page: reads are misses and writes are dropped.

It prints:

    Hello, Ada
    2 operations failed
    raised: redis://127.0.0.1:1 cannot be reached
"""

from __future__ import annotations

import logging

from onetrip import Cache, StoreUnavailableError

# Nobody listens at this port. The failures are logged as warnings too; here they are expected.
NOBODY = "redis://127.0.0.1:1"
logging.getLogger("onetrip").setLevel(logging.ERROR)

cache = Cache(NOBODY)


@cache.cached(key="greeting:{name}")
def greeting(name: str) -> str:
    return f"Hello, {name}"


with cache.scope():
    print(greeting("Ada"))
print(cache.stats().errors, "operations failed")

# A program that would rather know asks for exceptions.
try:
    Cache(NOBODY, on_error="raise").get("greeting:Ada")
except StoreUnavailableError as error:
    print("raised:", str(error).partition(";")[0])
