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
def test_names_one_store(location: Any, url: str) -> None:
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
def test_what_is_no_url_is_told_how_to_become_one(location: str) -> None:
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
def test_what_are_several_stores_is_refused(location: list[str]) -> None:
    with pytest.raises(ImproperlyConfigured, match="not the servers of one store") as told:
        Cache(location, {})
    assert "s3cret" not in str(told.value)


def test_servers_where_a_store_has_one_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="redis:// takes one"):
        Cache(["redis://h1/0", "redis://h2/0"], {})


def test_an_unknown_store_is_told_which_there_are() -> None:
    with pytest.raises(ImproperlyConfigured, match="no store is named pigeon://; onetrip has mem"):
        Cache("pigeon://loft", {})


@pytest.mark.parametrize("location", [None, 5, [5], b"redis://h"])
def test_what_is_no_text_is_refused(location: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="LOCATION is a URL or a list of URLs, not "):
        Cache(location, {})
