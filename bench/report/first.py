"""The answer of a run as one small table: what a style adds to a call, and what a step takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE
from bench.metrics import HOST, METRICS, TINY
from bench.report import wording
from bench.report.wording import Facts, is_baseline, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_ROWS = 8
CHEAP = 1e-5
"""Seconds added to a call, at most, of styles that share a row."""
WORKLOADS = ("toy", "seed", "wide")
LEFT_OUT = (("pure_jax", "tuned"), ("flax_linen", "blog"))
"""What nobody chooses: how fast it could be, and the tutorial's optimiser outside of jit."""

type Cells = dict[str, Facts]
"""The cells of a style, by workload."""


class Style(NamedTuple):
    """A style with what its row says."""

    name: str
    cells: Cells
    host: Facts | None
    """Its host cost."""

    @property
    def most(self) -> float:
        """Seconds that it adds to a call at most."""
        high = self.host["added"]["high"] if self.host else None
        return float("inf") if high is None else float(high)

    def cheap(self, margin: float) -> bool:
        """Tell whether it is not shown to cost anything: next to nothing a call, no step slower."""
        steps = [measured(c, "step") for w, c in self.cells.items() if w not in TINY]
        return self.most <= CHEAP and all(s is None or wording.within(s, margin) for s in steps)


def table(section: Facts) -> str:
    """Return the table in Markdown, its rows from cheap to dear; of one backend, the first."""
    backend = section["cells"][0]["backend"]
    cells = [c for c in section["cells"] if c["backend"] == backend and c["failure"] is None]
    workloads = [w for w in WORKLOADS if any(c["workload"] == w for c in cells)]
    base, *others = sorted(styles(cells), key=lambda s: (s.name != BASELINE[0], s.most))
    margin = section["plan"]["margin"]
    cheap = [style for style in others if style.cheap(margin)]
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


def styles(cells: Iterable[Facts]) -> list[Style]:
    """Return the styles that somebody could choose."""
    found: dict[str, Cells] = {}
    for cell in cells:
        proof = cell["proof"]
        if (cell["entrant"], cell["style"]) not in LEFT_OUT and (
            proof is None or wording.written_in_jax(proof)
        ):
            found.setdefault(wording.name(cell), {})[cell["workload"]] = cell
    out = []
    for name, by_workload in found.items():
        hosts = [measured(by_workload[w], HOST) for w in TINY if w in by_workload]
        host = next((h for h in hosts if h and h.get("added")), None)
        if host or any(map(is_baseline, by_workload.values())):
            out.append(Style(name, by_workload, host))
    return out


def reference(base: Style, workloads: Sequence[str]) -> list[str]:
    """Return the baseline's row, which has times."""
    row = [f"**{base.name}**", ""]
    row += [amount(base.cells.get(workload), "step") for workload in workloads]
    return [*row, compiled(base)]


def together(cheap: Sequence[Style], workloads: Sequence[str], margin: float) -> list[str]:
    """Return the row of all styles that cost nothing that could be shown."""
    most = max(style.most for style in cheap)
    row = [", ".join(style.name for style in cheap), f"at most {1e6 * most:.0f} µs"]
    for workload in workloads:
        found = [measured(s.cells[workload], "step") for s in cheap if workload in s.cells]
        ratios = [f["ratio"] for f in found if f]
        if workload in TINY:
            row.append(f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "")
        else:
            row.append(f"within ±{wording.percent(margin)}" if ratios else "")
    times = [m["median"] for s in cheap for c in s.cells.values() if (m := measured(c, "compile"))]
    return [*row, wording.seconds(max(times)) if times else ""]


def alone(style: Style, workloads: Sequence[str]) -> list[str]:
    """Return the row of one style, which has ratios."""
    row = [style.name, wording.added(style.host) if style.host else ""]
    for workload in workloads:
        cell = style.cells.get(workload)
        found = None if cell is None else measured(cell, "step")
        row.append(f"{found['ratio']:.{digits(found['ratio'])}f}" if found else "")
    return [*row, compiled(style)]


def digits(ratio: float) -> int:
    """Return how many digits of a ratio a small table has."""
    return 2 if ratio < 10 else 1


def amount(cell: Facts | None, metric: str) -> str:
    """Return a metric of a cell with its unit."""
    found = None if cell is None else measured(cell, metric)
    return wording.amount(found["median"], METRICS[metric].unit) if found else ""


def compiled(style: Style) -> str:
    """Return what compiling the step takes, at the largest workload that has it."""
    for cell in sorted(style.cells.values(), key=lambda c: wording.size(c["workload"]))[::-1]:
        if text := amount(cell, "compile"):
            return text
    return ""
