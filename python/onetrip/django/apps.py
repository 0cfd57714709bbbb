"""The Django application. With it, threads that miss a fragment together render it once."""

from __future__ import annotations

from django.apps import AppConfig


class OneTripConfig(AppConfig):
    """The application `onetrip.django`. Optional: backend and middleware work without it."""

    name = "onetrip.django"
    label = "onetrip"
