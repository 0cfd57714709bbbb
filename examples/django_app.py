"""A Django application with two lines more: each request is a page, which asks its cache once.

The view says beforehand what the page reads: a cached fragment of its template, a key, and what a
cached function made. The counter is added to at once, so it makes a trip of its own.

It prints:

    /notes/5: Fifty and more, by Ada; 1 comment (cold: 4 trips)
    /notes/5: Fifty and more, by Ada; 1 comment (warm: 1 trip)
    /visits: 1 (2 trips)
    /visits: 2 (1 trip)
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse
from django.template import engines
from django.test import Client
from django.urls import path

from onetrip.django import cache_of, fragment_key, preload

if TYPE_CHECKING:
    from django.http import HttpRequest

settings.configure(
    SECRET_KEY=secrets.token_urlsafe(),
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["testserver"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    # The two lines.
    CACHES={"default": {"BACKEND": "onetrip.django.Cache", "LOCATION": "memory://example"}},
    MIDDLEWARE=["onetrip.django.PageMiddleware"],
)
django.setup()

TEMPLATE = """{% load cache %}{{ title }}, by {{ author }}; \
{% cache 60 comments note_id %}{{ comments|length }} comment{% endcache %}"""


@cache_of("default").cached(timeout=60, key="author:{note_id}")
def author(note_id: int) -> str:
    return {5: "Ada"}[note_id]  # a database, or another service


def note(_request: HttpRequest, note_id: int) -> HttpResponse:
    reads = f"title:{note_id}", partial(author, note_id), fragment_key("comments", note_id)
    with preload(reads):
        context = {
            "title": cache.get_or_set(f"title:{note_id}", lambda: "Fifty and more"),
            "author": author(note_id),
            "comments": ["First!"],
            "note_id": note_id,
        }
        return HttpResponse(engines["django"].from_string(TEMPLATE).render(context))


def visits(_request: HttpRequest) -> HttpResponse:
    try:
        return HttpResponse(cache.incr("visits"))
    except ValueError:
        cache.set("visits", 1)
        return HttpResponse(1)


urlpatterns = [path("notes/<int:note_id>", note), path("visits", visits)]


def main() -> None:
    client = Client()

    def get(url: str) -> tuple[str, str]:
        with cache_of("default").watch() as seen:
            text = client.get(url).content.decode()
        return text, "1 trip" if seen.trips == 1 else f"{seen.trips} trips"

    for state in ("cold", "warm"):
        text, trips = get("/notes/5")
        print(f"/notes/5: {text} ({state}: {trips})")
    for _ in range(2):
        text, trips = get("/visits")
        print(f"/visits: {text} ({trips})")


if __name__ == "__main__":
    main()
