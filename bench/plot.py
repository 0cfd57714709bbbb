"""The plot of docs/benchmarks.md: for some works, how many times the floor each competitor takes.

The picture is plain enough to be written by hand: no library of plots, which weighs a hundred
times the rest of the benchmarks.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Section

WIDTH, LEFT, RIGHT = 860, 250, 30
TOP, ROW, GAP = 64, 20, 34
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-weight: 600 }
  .grid { stroke: #ddd }
  .bar { fill: #b8bec8 }
  .own { fill: #2f6fde }
  .value { fill: #666; font-size: 11px }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .grid { stroke: #444 } .bar { fill: #697080 } .own { fill: #6ea0ff }
    .value { fill: #aaa }
  }
"""


def svg(sections: Sequence[Section]) -> str:
    """A group of bars for each section, on one logarithmic scale."""
    ratios = [
        [(name, section.ratio(name, next(iter(section.results))).wall) for name in section.results]
        for section in sections
    ]
    flat = [ratio for group in ratios for _, ratio in group]
    low = min(0, math.floor(math.log10(min(flat))))
    high = math.ceil(math.log10(max(flat)))
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def at(ratio: float) -> float:
        return LEFT + (math.log10(ratio) - low) * scale

    height = TOP + sum(GAP + ROW * len(group) for group in ratios) + 10
    heading = "Wall time, as a multiple of the first of each group (logarithmic; shorter is faster)"
    parts = [f'<text class="title" x="10" y="22">{heading}</text>']
    for power in range(low, high + 1):
        x = at(10**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="48" x2="{x:.1f}" y2="{height - 8}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="42" text-anchor="middle">{_number(10.0**power)} ×</text>'
        )
    y = float(TOP)
    for section, group in zip(sections, ratios, strict=True):
        parts.append(f'<text class="title" x="10" y="{y + 12}">{escape(section.title)}</text>')
        y += 8
        for name, ratio in group:
            y += ROW
            # A bar begins where the scale does, so that the first of a group is seen as well.
            kind = "own" if name.startswith("onetrip") else "bar"
            width = max(at(ratio) - LEFT, 2)
            parts.append(
                f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            )
            parts.append(
                f'<rect class="{kind}" x="{LEFT}" y="{y - 6}" width="{width:.1f}" height="13"/>'
            )
            inside = at(ratio) > WIDTH - RIGHT - 40
            x, anchor = (at(ratio) - 6, "end") if inside else (LEFT + width + 6, "start")
            parts.append(
                f'<text class="value" x="{x:.1f}" y="{y + 4}" text-anchor="{anchor}">'
                f"{_number(ratio)}</text>"
            )
        y += GAP - 8
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="How many times the floor each competitor takes">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _number(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"
