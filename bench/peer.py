"""The peers, which are not installed where the tests run.

They are imported by name when they are measured, so that what is missing is told in the report,
and so that the types of this folder can be checked without them: a peer's own types end here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any, TypeVar

from bench.own import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measure import Report

T = TypeVar("T")

# The names they are installed by.
PACKAGES = [
    "cachebox",
    "coredis",
    "diskcache",
    "Django",
    "django-redis",
    "hiredis",
    "msgpack",
    "pymemcache",
    "redis",
    "ucache",
    "ukt",
    "valkey-glide",
    "valkey-glide-sync",
]


def module(name: str) -> Any:
    """A module of a peer."""
    return importlib.import_module(name)


def peer(report: Report, package: str, make: Callable[[], T]) -> T | None:
    """What is made of a peer; the report tells why there is nothing if it is not installed."""
    try:
        return make()
    except ImportError as error:
        report.absent[package] = f"it could not be imported: {error}"
        return None


def version(package: str) -> str:
    """The version of a peer that is installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def django_caches(settings: dict[str, dict[str, Any]]) -> Any:
    """Django's caches by their alias. Django is set up once in a process."""
    conf = module("django.conf")
    if not conf.settings.configured:
        conf.settings.configure()
    return module("django.core.cache").CacheHandler(settings)


def glide(name: str, port: int, database: int = 0) -> tuple[Any, Any]:
    """A class of clients of valkey-glide, and its configuration.

    `name` is `glide` for the asynchronous one, `glide_sync` for the other.
    """
    package = module(name)
    addresses = [package.NodeAddress("127.0.0.1", port)]
    configuration = package.GlideClientConfiguration(
        addresses, database_id=database, request_timeout=PATIENCE * 1000
    )
    return package.GlideClient, configuration
