"""The answer of a run as one small table: what a style adds to a call, and what a step takes.

It stands in the README, with at most eight rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import structs

from bench.metrics import TINY
from bench.report import wording
from bench.report.choices import CHEAP
from bench.report.findings import StyleCells, view
from bench.report.table import Value, amount, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runfile import BakeoffSection, Metric

MOST_ROWS = 8
WORKLOADS = ("toy", "seed", "wide")
LEFT_OUT = (("pure_jax", "tuned"), ("flax_linen", "blog"))
"""What nobody chooses: how fast it could be, and the tutorial's optimiser outside of jit."""


def table(section: BakeoffSection) -> str:
    """Return the table in Markdown, its rows from cheap to dear; of one backend, the first."""
    backend = section.cells[0].backend
    cells = [cell for cell in section.good if cell.backend == backend]
    workloads = [w for w in WORKLOADS if any(c.workload == w for c in cells)]
    shown = [cell for cell in cells if (cell.entrant, cell.style) not in LEFT_OUT]
    found = view(structs.replace(section, cells=shown), backend)
    styles = [
        style
        for style in found.styles
        if style.host() and all(c.proof is None or c.proof.jax for c in style.cells.values())
    ]
    others = sorted(styles, key=most)
    cheap = [style for style in others if is_cheap(style, found.margin)]
    dear = [style for style in others if style not in cheap]
    rows = [row(found.baseline, f"**{found.baseline.name}**", workloads)]
    if cheap:
        rows.append(together(cheap, workloads, found.margin))
    room = MOST_ROWS - len(rows)
    rows += [row(style, style.name, workloads) for style in dear[-room:]]
    head = ["style", "added to a call", *(f"step, `{w}`" for w in workloads), "compile"]
    return "\n".join(
        f"| {' | '.join(row)} |" for row in [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    )


def most(style: StyleCells) -> float:
    """Return the seconds that a style adds to a call at most."""
    host = style.host()
    high = host.added.high if host and host.added else None
    return math.inf if high is None else high


def is_cheap(style: StyleCells, margin: float) -> bool:
    """Tell whether it is not shown to cost anything: next to nothing a call, no step slower."""
    steps = [cell.measured("step") for w, cell in style.cells.items() if w not in TINY]
    return most(style) <= CHEAP and all(s is None or wording.within(s, margin) for s in steps)


def together(cheap: Sequence[StyleCells], workloads: Sequence[str], margin: float) -> list[str]:
    """Return the row of all styles that cost nothing that could be shown."""
    limit = max(map(most, cheap))
    row = [", ".join(style.name for style in cheap), f"at most {1e6 * limit:.0f} µs"]
    for workload in workloads:
        ratios = [found.ratio or 1.0 for s in cheap if (found := s.measured(workload, "step"))]
        ends = f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else ""
        row.append(f"within ±{percent(margin)}" if ratios and workload not in TINY else ends)
    times = [m.median for s in cheap for c in s.cells.values() if (m := c.measured("compile"))]
    return [*row, amount(max(times), "s") if times else ""]


def row(style: StyleCells, name: str, workloads: Sequence[str]) -> list[str]:
    """Return the row of one style: ratios, or the baseline's times."""
    host = style.host()
    steps = [style.measured(workload, "step") for workload in workloads]
    compiled = [m for cell in style.cells.values() if (m := cell.measured("compile"))]
    return [
        name,
        str(Value.of(host)) if host else "",
        *("" if found is None else short(found) for found in steps),
        amount(compiled[-1].median, "s") if compiled else "",  # at the largest workload
    ]


def short(found: Metric) -> str:
    """Return a ratio with the digits of a small table; where there is none, the time."""
    if found.ratio is None:
        return amount(found.median, found.unit)
    return f"{found.ratio:.{2 if found.ratio < 10 else 1}f}"
