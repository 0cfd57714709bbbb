"""Turns the LOCATION of Django's settings into the URL of a store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

# Separates URLs. Other commas and semicolons are part of a URL: between the hosts of
# `redis+cluster://h1,h2`, or in the path of a folder.
_BETWEEN = re.compile(r"\s*[;,]\s*(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)

# Scheme, login, hosts, and the rest.
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(?:([^/?#]*)@)?([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

# Name of the memory shared by all aliases without a LOCATION, as in Django's own backend.
_MEMORY = "django"


def store_url(location: str | Sequence[str]) -> str:
    """Returns the URL of the store that LOCATION names.

    A list, or a string with commas or semicolons, names the servers of one store:
    `["memcached://h1", "memcached://h2"]` becomes `memcached://h1,h2`. An empty LOCATION is the
    memory of this process.
    """
    given: Sequence[object] = location if isinstance(location, (list, tuple)) else [location]
    urls: list[str] = []
    for one in given:
        if not isinstance(one, str):
            msg = f"LOCATION is a URL or a list of URLs, not {location!r}"
            raise ImproperlyConfigured(msg)
        urls += (part.strip() for part in _BETWEEN.split(one) if part.strip())
    if not urls:
        return f"memory://{_MEMORY}"
    if len(urls) > 1:
        return _joined(urls)
    [url] = urls
    parts = _URL.fullmatch(url)
    if parts is None:
        raise _no_url()
    if parts[1].lower() == "memory" and not parts[3]:
        return f"memory://{_MEMORY}{parts[4]}"
    return _joined(urls) if ";" in parts[3] else url


def is_memcached(url: str) -> bool:
    """Returns whether the store is Memcached, which limits keys."""
    return urlsplit(url).scheme.startswith("memcached")


def _no_url() -> ImproperlyConfigured:
    # The message omits the value: it may hold a password.
    msg = (
        "LOCATION is not a URL; write the scheme of the store before the host, "
        'as in "memcached://127.0.0.1:11211" or "redis://127.0.0.1:6379/0"'
    )
    return ImproperlyConfigured(msg)


def _joined(urls: list[str]) -> str:
    """Returns one URL with the hosts of all `urls`."""
    scheme, login, rest, hosts = "", "", "", []
    for number, one in enumerate(urls):
        # After the first URL, a host is enough: "memcached://h1;h2".
        parts = _URL.fullmatch(one if number == 0 or "://" in one else f"{scheme}://{one}")
        if parts is None:
            raise _no_url()
        if number == 0:
            scheme, login, rest = parts[1], parts[2], parts[4]
        same = parts[1] == scheme and parts[2] in (None, login) and parts[4] in ("", rest)
        if not same or not parts[3]:
            msg = (
                "the URLs in LOCATION are not servers of one store; they may differ in host and "
                "port only. Give each other store its own alias in CACHES"
            )
            raise ImproperlyConfigured(msg)
        hosts += re.split(r"[;,]", parts[3])
    return f"{scheme}://{f'{login}@' if login else ''}{','.join(hosts)}{rest}"
