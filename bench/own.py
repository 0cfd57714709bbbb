"""onetrip, as it is measured."""

from __future__ import annotations

from typing import Any

import onetrip

# Where everything competes for two processors, anything may pause; a pause is no failure.
PATIENCE = 30


def cache(url: str, **options: Any) -> onetrip.Cache:
    """A cache that would rather fail than measure misses."""
    return onetrip.Cache(url, trip_timeout=PATIENCE, on_error="raise", **options)
