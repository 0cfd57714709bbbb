"""Exceptions. Each message says what to do."""


class OneTripError(Exception):
    """Base class of all errors of onetrip."""


class ConfigurationError(OneTripError, ValueError):
    """A URL, an option, a decorator or a call is wrong: fix the program."""


class BadKeyError(OneTripError, TypeError):
    """A key is not a string, or cannot be made from the arguments."""


class SerializationError(OneTripError, TypeError):
    """The serializer cannot encode a value: convert it, or choose another serializer."""


class NotANumberError(OneTripError, ValueError):
    """`incr` or `decr` found an entry that is not an integer."""


class UnsupportedError(OneTripError, NotImplementedError):
    """The store does not support the operation."""


class StoreError(OneTripError):
    """The store failed. Raised only by a cache with `on_error="raise"`."""


class EntryTooLargeError(StoreError, ValueError):
    """The entry is larger than the store accepts."""


class StoreRefusedError(StoreError):
    """The store replied with an error."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not reply in time."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The store cannot be reached, or the connection broke."""
