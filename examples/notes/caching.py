"""The cache of this application."""

from __future__ import annotations

from onetrip import Cache, ConfigurationError
from settings import STORE

PREFIX = "notes"

try:
    cache = Cache(STORE, prefix=PREFIX)
except ConfigurationError as error:
    raise SystemExit(f"STORE={STORE} cannot be used: {error}") from error
