"""What is cached in the benchmarks."""

from __future__ import annotations

from typing import Any

# 1.5 kB, as most rows have it.
TEXT = "0123456789abcde" * 100
KEYS = [f"page:{number}" for number in range(50)]
PAGE = dict.fromkeys(KEYS, TEXT)


def rows(text: str) -> list[dict[str, Any]]:
    """A hundred dicts, as a query gives them."""
    return [
        {"id": number, "title": f"{text} {number}", "score": number / 3, "tags": ["a", "b"]}
        for number in range(100)
    ]


def nested(branches: int) -> dict[str, Any]:
    """A dict of dicts, as a document is."""
    return {
        f"branch {number}": {"name": f"number {number}", "leaf": {"on": True, "sizes": [1, 2, 3]}}
        for number in range(branches)
    }


# By what they are called in the tables.
VALUES: dict[str, Any] = {
    "str of 10 B": "0123456789",
    "str of 1.5 kB": TEXT,
    "str of 100 kB": "0123456789" * 10_000,
    "nested dict of 1.5 kB": nested(22),
    "nested dict of 100 kB": nested(1500),
    "list of 100 dicts, 5 kB": rows("title"),
    "list of 100 dicts, 100 kB": rows("a long title " * 75),
}
