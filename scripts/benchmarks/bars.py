"""The drawing: one group of bars for each workload, longest first."""

from __future__ import annotations

import statistics
from html import escape

from scripts.benchmarks.results import Results
from scripts.benchmarks.workloads import PEERS, WORKLOADS

WIDTH, LABELS, NUMBERS = 860, 270, 130
BAR, GAP, HEAD = 16, 6, 46
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #6e7781 }
.ours { fill: #1f7a5c } .other { fill: #9aa7b4 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #8d96a0 }
  .ours { fill: #3fb68b } .other { fill: #57626e }
}
"""


def drawing(results: Results) -> str:
    """The SVG."""
    parts: list[str] = []
    y = 8
    for name, workload in WORKLOADS.items():
        rates = _rates(results, name)
        if len(rates) > 1:
            parts += _group(y, f"{name}, images/s", workload.title, rates)
            y += HEAD + len(rates) * (BAR + GAP) + 14
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
        f'viewBox="0 0 {WIDTH} {y}" role="img">\n<title>Images per second of loaderd and its '
        f"peers</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _rates(results: Results, name: str) -> list[tuple[str, float]]:
    """Peers and their medians, the fastest first."""
    entries = results.entries.get(name, {})
    rates = {peer: statistics.median(entry.rates) for peer, entry in entries.items() if entry.rates}
    return sorted(rates.items(), key=lambda item: -item[1])


def _group(y: int, head: str, title: str, rates: list[tuple[str, float]]) -> list[str]:
    parts = [
        f'<text class="head" x="8" y="{y + 16}">{escape(head)}</text>',
        f'<text class="small" x="8" y="{y + 33}">{escape(title)}</text>',
    ]
    scale = (WIDTH - LABELS - NUMBERS) / rates[0][1]
    for row, (peer, rate) in enumerate(rates):
        top = y + HEAD + row * (BAR + GAP)
        kind = "ours" if "loaderd" in peer or peer == "share-two" else "other"
        end = LABELS + max(1.0, rate * scale)
        parts += [
            f'<text x="{LABELS - 8}" y="{top + 13}" text-anchor="end">'
            f"{escape(PEERS[peer].title)}</text>",
            f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{end - LABELS:.1f}" '
            f'height="{BAR}" rx="2"/>',
            f'<text x="{end + 6:.1f}" y="{top + 13}">{rate:,.0f}</text>',
        ]
    return parts
