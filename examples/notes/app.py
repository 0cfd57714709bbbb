"""The pages. Each says what it will read before it begins, and then reads it in one trip.

With `?preload=learned` it does not say, and is known by its view: what earlier visits read comes in
one trip, also on a page that nobody has visited.

What a page computes is posted, in the scope that `OneTrip` gives each request: nobody waits for it.

    flask --app examples/notes/app run
    gunicorn --chdir examples/notes app:app
    uvicorn --app-dir examples/notes asgi:app
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from flask import Flask, abort, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

from caching import cache
from model import BY_ID, NOTES, Note
from onetrip.flask import OneTrip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.wrappers import Response

LONGEST_COMMENT = 2000

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
app.config["ONETRIP_SERVER_TIMING"] = True
without_scopes = app.wsgi_app
OneTrip(app, cache)
with_scopes = app.wsgi_app


def compare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve the same pages without any of this, to those who ask what that would cost."""
    served = without_scopes if "preload=no" in environ["QUERY_STRING"] else with_scopes
    return served(environ, start_response)


app.wsgi_app = compare  # type: ignore[method-assign]


@app.get("/")
def index() -> str:
    keys = (note.cache_keys() for note in NOTES)
    return page("index.html", keys, title="All notes", notes=NOTES)


@app.get("/notes/<path:note_id>")
def show(note_id: str) -> str:
    note = _note(note_id)
    return page("note.html", note.cache_keys(), title=note.title, note=note)


@app.post("/notes/<path:note_id>")
def comment(note_id: str) -> Response:
    note = _note(note_id)
    text = request.form.get("text", "").strip()
    if not 0 < len(text) <= LONGEST_COMMENT:
        abort(400, f"A comment has between 1 and {LONGEST_COMMENT} characters.")
    note.add_comment(request.form.get("author", "").strip()[:80] or "Anonymous", text)
    return redirect(url_for("show", note_id=note.id, _anchor="comments"), 303)


def page(template: str, keys: Iterable[str | list[str]], **values: Any) -> str:
    """A page that holds `keys` while it is made, with a footer that tells the trips until there."""
    preloading = request.args.get("preload") not in {"no", "learned"}
    with cache.watch() as seen, cache.preload(keys) if preloading else nullcontext():
        content = Markup(render_template(template, **values))  # noqa: S704 - from our template
    return render_template(
        "layout.html", content=content, preloading=preloading, seen=seen, **values
    )


@app.errorhandler(HTTPException)
def error(error: HTTPException) -> tuple[str, int]:
    content = Markup(render_template("error.html", error=error))  # noqa: S704 - from our template
    return render_template("layout.html", title=error.name, content=content), error.code or 500


@app.template_filter()
def excerpt(markup: Markup) -> str:
    """The first paragraphs, as plain text."""
    paragraphs = re.findall(r"<p>.*?</p>", markup, re.DOTALL)
    return Markup(" ".join(paragraphs[:3])).striptags()  # noqa: S704 - parts of the same markup


def _note(note_id: str) -> Note:
    if note_id not in BY_ID:
        abort(404, "There is no such note.")
    return BY_ID[note_id]
