"""The exceptions of onetrip. Each message says what to do."""


class OneTripError(Exception):
    """Any error of onetrip."""


class ConfigurationError(OneTripError, ValueError):
    """A URL, an option, a decoration or a call that cannot work: mend the program."""


class BadKeyError(OneTripError, TypeError):
    """A key that is not a string, or that cannot be made of what was given."""


class SerializationError(OneTripError, TypeError):
    """A value that the serializer cannot hold: convert it, or choose another serializer."""


class NotANumberError(OneTripError, ValueError):
    """A number was asked of an entry that does not hold an integer."""


class UnsupportedError(OneTripError, NotImplementedError):
    """The store has no such operation."""


class StoreError(OneTripError):
    """The store failed. Raised only by a cache with `on_error="raise"`."""


class EntryTooLargeError(StoreError, ValueError):
    """The entry is larger than the store takes."""


class StoreRefusedError(StoreError):
    """The store answered with an error of its own."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not answer in time."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The store could not be reached, or the connection broke."""
