"""What only a Django site has: sessions, throttles, fragments, row locks and a cached ORM."""

from __future__ import annotations

import json
import threading
from contextvars import Context
from typing import TYPE_CHECKING, Any

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from rest_framework.response import Response  # type: ignore[import-untyped]
from rest_framework.throttling import AnonRateThrottle  # type: ignore[import-untyped]
from rest_framework.views import APIView  # type: ignore[import-untyped]

from tests.rows.programs.meeting import Ask, desk
from tests.rows.programs.models import Note, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest
    from rest_framework.request import Request  # type: ignore[import-untyped]


def asked(request: HttpRequest) -> Ask:
    return Ask(request.GET.dict())


# Sessions


def sign_in(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get_or_create(username="ann")[0])
    return HttpResponse("signed in")


def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("signed out")


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


def basket(request: HttpRequest) -> HttpResponse:
    """Count a visit in the session, which is saved when the page is made."""
    visits = request.session.get("visits", 0) + 1
    asked(request).meet()
    request.session["visits"] = visits
    return HttpResponse(f"{request.user.get_username()} {visits}")


def put(request: HttpRequest) -> StreamingHttpResponse:
    """Put something in the session while the page is sent."""
    ask = asked(request)

    def lines() -> Iterator[str]:
        yield "first\n"
        request.session["fruit"] = ask.text("fruit")
        request.session.save()
        yield "put\n"
        ask.meet()
        yield "last\n"

    return StreamingHttpResponse(lines())


def fruit(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.session.get("fruit", "nothing"))


# A throttle before a password check


class Guess(APIView):  # type: ignore[misc]
    """A password is checked five times a minute."""

    throttle_classes = (AnonRateThrottle,)

    def get(self, request: Request) -> Response:
        Ask(request.query_params.dict()).meet()
        return Response("checked")

    def post(self, request: Request) -> Response:
        return self.get(request)


# Versions and fragments


def versions(request: HttpRequest) -> HttpResponse:
    """Move a document to its next version."""
    cache.delete("doc", version=2)
    cache.set("doc", "text", 300, version=1)
    cache.incr_version("doc", version=1)
    asked(request).meet()
    return HttpResponse(cache.get("doc", version=2))


def part(request: HttpRequest) -> HttpResponse:
    """Show a fragment that is made of what stands in the database."""
    ask = asked(request)
    made = render(request, "part.html", {"source": ask.source})
    ask.meet()
    return made


# Row locks


def pay(request: HttpRequest) -> HttpResponse:
    """Charge an order once, whoever asks at the same time."""
    ask = asked(request)
    if cache.get("paid") == "yes":
        return HttpResponse("paid already")
    if ask.text("meet_before"):
        ask.meet()
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=1)
        if cache.get("paid") == "yes":
            return HttpResponse("paid meanwhile")
        if not ask.text("meet_before"):
            ask.meet()
        order.charged += 1
        order.save()
        cache.set("paid", "yes", 300)
    return HttpResponse("charged")


def locked(request: HttpRequest) -> HttpResponse:
    """Look again once the row is locked, within one transaction."""
    ask = asked(request)
    with transaction.atomic():
        before = cache.get("paid")
        ask.meet()
        # On SQLite this locks nothing, but it is here that others' changes begin to count.
        list(Order.objects.select_for_update().filter(pk=1))
        return HttpResponse(f"{before} {cache.get('paid')}")


def new_order(request: HttpRequest) -> HttpResponse:
    Order.objects.update_or_create(pk=1, defaults={"charged": 0})
    return HttpResponse()


def charged(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Order.objects.get(pk=1).charged))


# A cached ORM


def texts(**conditions: Any) -> list[str]:
    return list(Note.objects.filter(**conditions).order_by("pk").values_list("text", flat=True))


def notes(request: HttpRequest) -> HttpResponse:
    """List a table, and again by another query when others may have changed it."""
    found = texts()
    ask = asked(request)
    ask.meet()
    if ask.text("again"):
        found = texts(pk__gt=0)
    return HttpResponse(json.dumps(found))


def add_note(request: HttpRequest) -> HttpResponse:
    Note.objects.create(text=asked(request).text("text"))
    return HttpResponse()


def add_in_thread(request: HttpRequest) -> HttpResponse:
    """Have a thread that knows nothing of the request add a note, and list the table again."""
    ask = asked(request)
    before = texts()

    def add() -> None:
        Note.objects.create(text=ask.text("text"))
        connection.close()

    if ask.text("text"):
        adding = threading.Thread(target=Context().run, args=(add,))
        adding.start()
        adding.join()
    return HttpResponse(json.dumps([before, texts()]))


def forget_notes(request: HttpRequest) -> HttpResponse:
    Note.objects.all().delete()
    return HttpResponse(desk.ping())


VIEWS = (
    *(sign_in, sign_out, whoami, basket, put, fruit, versions, part),
    *(pay, locked, new_order, charged, notes, add_note, add_in_thread, forget_notes),
)
