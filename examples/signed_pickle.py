"""Pickle is there for objects that data cannot hold, and only with a signature.

It prints:

    serializer="pickle" needs secret=: unpickling runs code, so entries must be signed
    Point(x=1, y=2)
    forged: None, 1 bad entry
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from onetrip import Cache, ConfigurationError


@dataclass
class Point:
    x: int
    y: int


try:
    Cache("memory://", serializer="pickle")
except ConfigurationError as error:
    print(error)

# A real one comes from the program's settings.
SECRET = secrets.token_bytes(32)

# Caches that name a memory store share it, as those of two programs share a server.
cache = Cache("memory://shared", serializer="pickle", secret=SECRET)
cache["here"] = Point(1, 2)
print(cache["here"])

# Who does not know the secret cannot make us unpickle anything: the entry is a counted miss. It
# is logged as a warning too; here it is expected.
logging.getLogger("onetrip").setLevel(logging.ERROR)
stranger = Cache("memory://shared", serializer="pickle", secret=secrets.token_bytes(32))
stranger["here"] = Point(6, 6)
print(f"forged: {cache.get('here')}, {cache.stats().bad_entries} bad entry")
