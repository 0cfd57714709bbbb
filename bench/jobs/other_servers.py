"""The page of fifty keys on Memcached and on Kyoto Tycoon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import own
from bench.floor import floor
from bench.jobs.page import DJANGO, ONETRIP, RIGHT, UCACHE, one_by_one, preloaded, ucache
from bench.measure import Report, Work
from bench.peer import django_caches, module, peer
from bench.values import KEYS, PAGE
from tests.servers import HOST, MemcachedServer

if TYPE_CHECKING:
    from bench.kyoto import Kyoto

AIM = "≤ 1/3 of ucache's preload"


class QuietMemcached(MemcachedServer):
    """A Memcached that does not write down what it does, as it does for tests."""

    def _options(self, port: int) -> list[str]:
        return [option for option in super()._options(port) if option != "-vv"]


def on_memcached(report: Report, server: MemcachedServer) -> None:
    url = "memcached://{}:{}"
    address = (HOST, server.port)
    own.cache(server.url, prefix="o").set_many(PAGE)

    def pymemcache() -> Work:
        base = module("pymemcache.client.base")
        client = base.Client(
            address, key_prefix=b"p:", serde=module("pymemcache.serde").pickle_serde
        )
        client.set_many(PAGE)
        return Work("pymemcache, get_many", lambda: client.get_many(KEYS), PAGE)

    def django() -> Work:
        module("pymemcache")
        backend = "django.core.cache.backends.memcached.PyMemcacheCache"
        settings = {"BACKEND": backend, "LOCATION": f"{HOST}:{server.port}"}
        cache = django_caches({"default": settings})["default"]
        cache.set_many(PAGE)
        return Work(DJANGO, one_by_one(cache), RIGHT)

    def of_ucache() -> Work:
        client = module("pymemcache").Client(address, no_delay=True)
        return ucache(module("ucache").PyMemcacheCache(client=client, prefix="u"))

    section = report.compare(
        "A page of 50 keys, Memcached",
        [
            floor(
                server.port,
                lambda port: preloaded(own.cache(url.format(HOST, port), prefix="o")),
            ),
            Work(ONETRIP, preloaded(own.cache(server.url, prefix="o")), RIGHT),
            peer(report, "ucache", of_ucache),
            peer(report, "pymemcache", pymemcache),
            peer(report, "Django", django),
        ],
    )
    work = "page of 50 keys, preloaded, Memcached"
    report.aim(work, AIM, 1 / 3, section, (ONETRIP, UCACHE))


def on_kyoto(report: Report, kyoto: Kyoto) -> None:
    url = "kt://{}:{}/{}"
    mine = url.format(kyoto.host, kyoto.port, kyoto.database)
    own.cache(mine, prefix="o").set_many(PAGE)

    def of_ucache() -> Work:
        module("ukt")
        package = module("ucache")
        cache = package.KTCache(kyoto.host, kyoto.port, kyoto.database, prefix="u")
        return ucache(cache)

    def ukt() -> Work:
        client = module("ukt").KyotoTycoon(kyoto.host, kyoto.port, default_db=kyoto.database)
        names = {f"k:{key}": text for key, text in PAGE.items()}
        client.set_bulk(names)
        return Work("ukt, get_bulk", lambda: client.get_bulk(list(names)), names)

    section = report.compare(
        "A page of 50 keys, Kyoto Tycoon",
        [
            floor(
                kyoto.port,
                lambda port: preloaded(
                    own.cache(url.format(HOST, port, kyoto.database), prefix="o")
                ),
            ),
            Work(ONETRIP, preloaded(own.cache(mine, prefix="o")), RIGHT),
            peer(report, "ucache", of_ucache),
            peer(report, "ukt", ukt),
        ],
    )
    work = "page of 50 keys, preloaded, Kyoto Tycoon"
    report.aim(work, AIM, 1 / 3, section, (ONETRIP, UCACHE))
