"""LOCATION in all its forms."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from onetrip.django import Cache
from onetrip.django.location import store_url


@pytest.mark.parametrize(
    ("location", "url"),
    [
        # One memory for all aliases that name none, as Django's own backend has it.
        ("", "memory://django"),
        ([], "memory://django"),
        ("memory://", "memory://django"),
        ("memory://?size=1MiB", "memory://django?size=1MiB"),
        ("memory://mine", "memory://mine"),
        ("redis://u:p@h:1/0?a=b", "redis://u:p@h:1/0?a=b"),
        (" redis://h ", "redis://h"),
        (["redis://h"], "redis://h"),
        (("redis://h",), "redis://h"),
        # Servers of one store.
        ("memcached://h1:1,h2:2", "memcached://h1:1,h2:2"),
        ("memcached://h1:1;h2", "memcached://h1:1,h2"),
        ("memcached://h1:1;memcached://h2", "memcached://h1:1,h2"),
        ("memcached://h1, memcached://h2", "memcached://h1,h2"),
        ("memcached://h1,h2;memcached://[::1]:3", "memcached://h1,h2,[::1]:3"),
        (["memcached://h1", "h2:2"], "memcached://h1,h2:2"),
        (["memcached://h1", "memcached://h2"], "memcached://h1,h2"),
        ("redis+cluster://u:p@h1:1,h2", "redis+cluster://u:p@h1:1,h2"),
        (["redis+cluster://u:p@h1/", "redis+cluster://u:p@h2/"], "redis+cluster://u:p@h1,h2/"),
        (["redis+sentinel://h1/s/0", "redis+sentinel://h2"], "redis+sentinel://h1,h2/s/0"),
        # Commas and semicolons that part nothing.
        ("disk:///var/a,b;c?size=1GiB", "disk:///var/a,b;c?size=1GiB"),
        ("redis://u:p,;q@h", "redis://u:p,;q@h"),
    ],
)
def test_location_names_one_store(location: Any, url: str) -> None:
    assert store_url(location) == url


@pytest.mark.parametrize(
    "location",
    [
        "127.0.0.1:11211",
        "127.0.0.1:11211;127.0.0.1:11212",
        "/var/cache/django",
        "unique-snowflake",
        "u:s3cret@host",
    ],
)
def test_location_without_scheme_shows_an_example(location: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="LOCATION is not a URL; write the sch") as told:
        Cache(location, {})
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    "location",
    [
        ["redis://h1/0", "redis://h2/1"],
        ["redis://h1", "memcached://h2"],
        ["redis://u:s3cret@h1", "redis://u:other@h2"],
        ["memcached+unix:///a", "memcached+unix:///b"],
    ],
)
def test_several_stores_raise(location: list[str]) -> None:
    with pytest.raises(ImproperlyConfigured, match="not servers of one store") as told:
        Cache(location, {})
    assert "s3cret" not in str(told.value)


def test_several_servers_of_a_single_server_store_raise() -> None:
    with pytest.raises(ImproperlyConfigured, match="redis:// takes one"):
        Cache(["redis://h1/0", "redis://h2/0"], {})


def test_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(ImproperlyConfigured, match="no store is named pigeon://; onetrip has mem"):
        Cache("pigeon://loft", {})


@pytest.mark.parametrize("location", [None, 5, [5], b"redis://h"])
def test_location_that_is_not_text_raises(location: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="LOCATION is a URL or a list of URLs, not "):
        Cache(location, {})
