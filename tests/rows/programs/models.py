"""The tables of the Django site."""

from __future__ import annotations

from django.db import models


class Note(models.Model):
    """What a page lists."""

    text: models.TextField[str, str] = models.TextField()

    def __str__(self) -> str:
        return self.text


class Order(models.Model):
    """What is paid for once."""

    charged: models.IntegerField[int, int] = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"order {self.pk}"
