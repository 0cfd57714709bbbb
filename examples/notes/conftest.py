from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import comments
from app import app
from caching import cache

if TYPE_CHECKING:
    from flask.testing import FlaskClient


@pytest.fixture
def client() -> FlaskClient:
    """A reader of the application, which has nothing cached and no comments."""
    cache.clear()
    comments.FILE.unlink(missing_ok=True)
    return app.test_client()
