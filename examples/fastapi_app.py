"""A FastAPI application with two lines more: each request has a scope, and tells its trips.

The endpoint runs in a thread and its dependencies in the event loop; all are in the one scope.

It prints:

    /notes/5: Fifty and more, by Ada (cold: 3 trips, 0 hits)
    /notes/5: Fifty and more, by Ada (warm: 1 trip, 2 hits)
"""

from __future__ import annotations

import asyncio

import httpx
from fastapi import Depends, FastAPI

from onetrip import Cache
from onetrip.asgi import PageMiddleware

cache = Cache("memory://")

app = FastAPI()
app.add_middleware(PageMiddleware, cache=cache, server_timing=True)


@cache.cached(timeout=60, key="title:{note_id}")
async def title(note_id: int) -> str:
    await asyncio.sleep(0)  # a database, or another service
    return {5: "Fifty and more"}[note_id]


@cache.cached(timeout=60, key="author:{note_id}")
def author(note_id: int) -> str:
    return {5: "Ada"}[note_id]


async def preloaded(note_id: int) -> None:
    """One trip for all that the page will read."""
    keys = (title.key(note_id), author.key(note_id))
    async with cache.preload(keys):
        # Within the scope of the request, so the answers stay when this one is left.
        pass


@app.get("/notes/{note_id}", dependencies=[Depends(preloaded)])
def show(note_id: int, text: str = Depends(title)) -> str:
    return f"{text}, by {author(note_id)}"


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://notes") as client:
        for state in ("cold", "warm"):
            response = await client.get("/notes/5")
            counts = response.headers["Server-Timing"].split('"')[1]
            print(f"/notes/5: {response.json()} ({state}: {counts})")


if __name__ == "__main__":
    asyncio.run(main())
