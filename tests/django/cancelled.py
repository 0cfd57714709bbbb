"""A response whose reader goes away while more of it is made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.test import AsyncClient


async def read_and_cancel(path: str, begin: bytes) -> None:
    """Read how the stream at `path` begins, and cancel what waits for more of it."""
    response: Any = await AsyncClient().get(path)
    parts = aiter(response.streaming_content)
    assert await anext(parts) == begin
    waiting = asyncio.ensure_future(anext(parts))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(response.close)
