"""One page, one trip to the cache."""
