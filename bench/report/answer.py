"""The answer of a run as one small table: what a style adds to a call, and what a step takes.

It stands in the README, with at most eight rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import METRICS, TINY
from bench.report import wording
from bench.report.findings import StyleCells, view
from bench.report.table import Value, amount, percent
from bench.report.wording import Facts, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS = 8
CHEAP = 1e-5
"""Seconds added to a call, at most, of styles that share a row."""
WORKLOADS = ("toy", "seed", "wide")
LEFT_OUT = (("pure_jax", "tuned"), ("flax_linen", "blog"))
"""What nobody chooses: how fast it could be, and the tutorial's optimiser outside of jit."""


def table(section: Facts) -> str:
    """Return the table in Markdown, its rows from cheap to dear; of one backend, the first."""
    backend = section["cells"][0]["backend"]
    cells = [c for c in section["cells"] if c["backend"] == backend and c["failure"] is None]
    workloads = [w for w in WORKLOADS if any(c["workload"] == w for c in cells)]
    shown = [cell for cell in cells if (cell["entrant"], cell["style"]) not in LEFT_OUT]
    found = view(section | {"cells": shown}, backend)
    base, margin = found.baseline, found.margin
    styles = [style for style in found.styles if style.host() and is_choice(style)]
    others = sorted(styles, key=most)
    cheap = [style for style in others if is_cheap(style, margin)]
    dear = [style for style in others if style not in cheap]
    rows = [reference(base, workloads)]
    if cheap:
        rows.append(together(cheap, workloads, margin))
    room = MOST_ROWS - len(rows)
    rows += [alone(style, workloads) for style in dear[-room:]]
    head = ["style", "added to a call", *(f"step, `{w}`" for w in workloads), "compile"]
    return "\n".join(
        f"| {' | '.join(row)} |" for row in [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    )


def is_choice(style: StyleCells) -> bool:
    """Tell whether a style is one of a JAX library, and no outside reference."""
    return all(
        c["proof"] is None or wording.written_in_jax(c["proof"]) for c in style.cells.values()
    )


def most(style: StyleCells) -> float:
    """Return the seconds that a style adds to a call at most."""
    host = style.host()
    high = host["added"]["high"] if host else None
    return float("inf") if high is None else float(high)


def is_cheap(style: StyleCells, margin: float) -> bool:
    """Tell whether it is not shown to cost anything: next to nothing a call, no step slower."""
    steps = [measured(cell, "step") for w, cell in style.cells.items() if w not in TINY]
    return most(style) <= CHEAP and all(s is None or wording.within(s, margin) for s in steps)


def reference(base: StyleCells, workloads: Sequence[str]) -> list[str]:
    """Return the baseline's row, which has times."""
    row = [f"**{base.name}**", ""]
    row += [median(base.cells.get(workload), "step") for workload in workloads]
    return [*row, compiled(base)]


def together(cheap: Sequence[StyleCells], workloads: Sequence[str], margin: float) -> list[str]:
    """Return the row of all styles that cost nothing that could be shown."""
    limit = max(map(most, cheap))
    row = [", ".join(style.name for style in cheap), f"at most {1e6 * limit:.0f} µs"]
    for workload in workloads:
        found = [measured(s.cells[workload], "step") for s in cheap if workload in s.cells]
        ratios = [f["ratio"] for f in found if f]
        if workload in TINY:
            row.append(f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "")
        else:
            row.append(f"within ±{percent(margin)}" if ratios else "")
    times = [m["median"] for s in cheap for c in s.cells.values() if (m := measured(c, "compile"))]
    return [*row, amount(max(times), "s") if times else ""]


def alone(style: StyleCells, workloads: Sequence[str]) -> list[str]:
    """Return the row of one style, which has ratios."""
    host = style.host()
    row = [style.name, str(Value.of(host)) if host else ""]
    for workload in workloads:
        cell = style.cells.get(workload)
        found = None if cell is None else measured(cell, "step")
        row.append(f"{found['ratio']:.{digits(found['ratio'])}f}" if found else "")
    return [*row, compiled(style)]


def digits(ratio: float) -> int:
    """Return how many digits of a ratio a small table has."""
    return 2 if ratio < 10 else 1


def median(cell: Facts | None, metric: str) -> str:
    """Return a metric of a cell with its unit."""
    found = None if cell is None else measured(cell, metric)
    return amount(found["median"], METRICS[metric].unit) if found else ""


def compiled(style: StyleCells) -> str:
    """Return what compiling the step takes, at the largest workload that has it."""
    for cell in sorted(style.cells.values(), key=lambda c: wording.size(c["workload"]))[::-1]:
        if text := median(cell, "compile"):
            return text
    return ""
