"""The same pages under an ASGI server, each in a thread.

uvicorn --app-dir examples/notes asgi:app
"""

from __future__ import annotations

from asgiref.wsgi import WsgiToAsgi

from app import app as flask_app

app = WsgiToAsgi(flask_app)  # type: ignore[no-untyped-call] # asgiref tells no types here
