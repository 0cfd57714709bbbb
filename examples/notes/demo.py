"""What the index of all notes costs, without and with preload; then the pages themselves.

make demo                                       on the embedded store, as slow as a remote one
make demo STORE=redis://127.0.0.1:6379/0        on a server
make demo NOTES=~/notes                         with your own Markdown files
make demo ONCE=1                                only the table
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

from werkzeug.serving import make_server

from app import app
from caching import PREFIX, cache
from model import NOTES
from onetrip import Cache, StoreError
from settings import STORE
from table import Row, layout, measure

HOST, PORTS = "127.0.0.1", (8000, 8001, 8002, 8080, 0)


def main() -> None:
    _reach_the_store()
    print(f"The index of {len(NOTES)} notes, {2 * len(NOTES)} cached pieces, over {_store()}:\n")
    print(layout(rows()), flush=True)
    if not os.environ.get("ONCE"):
        _serve()


def rows() -> list[Row]:
    """The index cold (nothing is cached) and warm (everything is), without and with preload."""
    client = app.test_client()

    def index(preload: str) -> None:
        response = client.get("/", query_string={"preload": preload})
        assert response.status_code == 200, response.text

    index("no")  # compiles the templates, which is no part of the story
    return [
        measure("cold, without preload", cache, lambda: index("no"), before=cache.clear),
        measure("cold, with preload", cache, lambda: index("yes"), before=cache.clear),
        measure("warm, without preload", cache, lambda: index("no"), before=lambda: None),
        measure("warm, with preload", cache, lambda: index("yes"), before=lambda: None),
    ]


def _reach_the_store() -> None:
    # The pages would be made without it, as they should; the table would then tell nothing.
    try:
        Cache(STORE, prefix=PREFIX, on_error="raise").get("a key")
    except StoreError as error:
        raise SystemExit(f"STORE: {error}") from error


def _store() -> str:
    """The store as it names itself: without password, and saying if its latency is simulated."""
    with cache.watch() as seen:
        cache.get("a key")
    return seen.records[0].store


def _serve() -> None:
    with _listen() as listener:
        host, port = listener.getsockname()
        server = make_server(host, port, app, threaded=True, fd=listener.fileno())
        print(f"\nThe pages are at http://{host}:{port}/ until Ctrl-C.", flush=True)
        server.serve_forever()


def _listen() -> socket.socket:
    for port in PORTS:
        try:
            return socket.create_server((HOST, port))
        except OSError:
            continue
    raise SystemExit(f"no port of {HOST} can be listened on")


if __name__ == "__main__":
    # Told to end, it ends as on Ctrl-C: in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        main()
