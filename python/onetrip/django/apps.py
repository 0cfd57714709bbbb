"""onetrip as an application of Django: with it, `{% cache %}` computes once what many miss."""

from __future__ import annotations

from django.apps import AppConfig


class OneTripConfig(AppConfig):
    """The application `onetrip.django`. It is optional: backend and middleware need it not."""

    name = "onetrip.django"
    label = "onetrip"
