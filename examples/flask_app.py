"""A Flask application with a cache from its configuration, and functions cached before it is made.

What the page reads is learned: on the next visit it comes in one trip, without a list of keys. On a
server, what it computes is posted, and no trip; memory takes it at once.

It prints:

    <h1>Note 5</h1> <p>No comments yet.</p> (cold: 4 trips, 0 hits)
    <h1>Note 5</h1> <p>No comments yet.</p> (warm: 1 trip, 2 hits)
"""

from __future__ import annotations

from flask import Flask, render_template_string

from onetrip.flask import OneTrip

onetrip = OneTrip()


@onetrip.cached(timeout=60, key="note_markup:{note_id}")
def note_markup(note_id: int) -> str:
    return f"<h1>Note {note_id}</h1>"  # what takes long


TEMPLATE = """
{{- markup|safe }}
{% cache 60, "note_comments", note_id %}<p>No comments yet.</p>{% endcache %}
"""


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["ONETRIP_URL"] = "memory://"
    app.config["ONETRIP_SERVER_TIMING"] = True
    onetrip.init_app(app)

    @app.get("/notes/<int:note_id>")
    def show(note_id: int) -> str:
        return render_template_string(TEMPLATE, note_id=note_id, markup=note_markup(note_id))

    return app


if __name__ == "__main__":
    client = create_app().test_client()
    for state in ("cold", "warm"):
        response = client.get("/notes/5")
        counts = response.headers["Server-Timing"].split('"')[1]
        print(" ".join(response.text.split("\n")), f"({state}: {counts})")
