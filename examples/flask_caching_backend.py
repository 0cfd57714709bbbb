"""onetrip behind Flask-Caching: what was written for that goes on. Its reads are exact.

It prints:

    16, 16, 16 by 3 trips, 3 hits
"""

from __future__ import annotations

from flask import Flask
from flask_caching import Cache

from onetrip.wsgi import PageMiddleware

app = Flask(__name__)
app.config["SECRET_KEY"] = "signs what is pickled, so that nobody else can put pickles there"  # noqa: S105
app.config["CACHE_TYPE"] = "onetrip.flask.caching_backend"
app.config["CACHE_OPTIONS"] = {"url": "memory://"}
cache = Cache(app)

# A page that is visited often learns to make fewer; functions that onetrip caches itself share one
# trip from the second visit on.
app.wsgi_app = PageMiddleware(app.wsgi_app, cache.cache.cache, server_timing=True)  # type: ignore[attr-defined,method-assign]


@cache.cached(timeout=60, key_prefix="sixteen")
def sixteen() -> int:
    return 16


@app.get("/")
def page() -> str:
    return f"{sixteen()}, {sixteen()}, {sixteen()}"


if __name__ == "__main__":
    client = app.test_client()
    client.get("/")  # computes it
    response = client.get("/")
    print(response.text, "by", response.headers["Server-Timing"].split('"')[1])
