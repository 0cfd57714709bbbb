"""Werkzeug's server makes a thread for each request. They take over each other's connections."""

from __future__ import annotations

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from onetrip import Cache
from tests.gauge import Gauge
from tests.servers import HOST

if TYPE_CHECKING:
    from tests.servers import Server

REQUESTS, CLIENTS = 1000, 8


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


def test_no_more_connections_than_concurrent_requests(server: Server) -> None:
    cache = Cache(server.url, on_error="raise", trip_timeout=20)
    gauge = Gauge()

    @Request.application
    def application(request: Request) -> Response:
        with gauge, cache.preload("title", request.path):
            cache.set(request.path, f"page {request.path}")
        with gauge:
            return Response(cache[request.path])

    web = make_server(HOST, 0, application, threaded=True, request_handler=Quiet)
    before = server.connections()

    def visit(number: int) -> str:
        connection = http.client.HTTPConnection(HOST, web.server_port, timeout=20)
        try:
            connection.request("GET", f"/{number}")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    serving = threading.Thread(target=web.serve_forever)
    serving.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            pages = list(pool.map(visit, range(REQUESTS)))
    finally:
        web.shutdown()
        serving.join()
        web.server_close()
    assert pages == [f"page /{number}" for number in range(REQUESTS)]
    assert len(gauge.threads) == REQUESTS
    assert 1 <= server.connections() - before <= gauge.most <= CLIENTS
