"""The data of a page's table: its script has the indices of a row at its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Arm, Cell
from bench.estimates import beside
from bench.metrics import EXACT, METRICS, label
from bench.report import wording
from bench.report.run import COMPARED, COUNTED, has
from bench.report.table import RATIO, Value
from bench.runfile.reader import TIME
from bench.runfile.section import number
from bench.stats.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.runfile import FinalLoss, Result
    from bench.runfile.reader import Run

SIGNIFICANT = 5
"""Digits of a number that sorts rows; the run file has all."""
SHOWN = (TIME, *(m.name for m in (*METRICS.values(), *EXACT.values()) if m.shown))
"""Columns that are shown until the reader picks others."""
ON_PAGE = (*COUNTED, "alias_bytes", "live_bytes", "flops")
"""What is counted that the page has, where it is not 0 for all."""
FIRST_OF_GROUP = "the first of each group"
"""What ratios refer to where nothing but medians is known."""
LOSSES: dict[str, Callable[[FinalLoss], float | None]] = {
    "final_loss": lambda final: final.same_weights,
    "final_loss_own": lambda final: final.own,
}

type Beside = dict[Cell, dict[str, tuple[float, Value]]]
"""By cell and metric: the ratio to a baseline, and what people read."""


def data(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the page's table is made of: see the indices at the head of its script."""
    cells = [cell for run in runs for cell in run.section.cells]
    names = [m for m in [*COMPARED, TIME] if any(has(run, m) for run in runs)]
    names += [m for m in ON_PAGE if any(cell.exact.get(m) for cell in cells)]
    names += LOSSES if any(cell.final_loss for cell in cells) else ()
    bases = [FIRST_OF_GROUP if has(run, TIME) else BASELINE[0] for run in runs]
    rows: list[list[Any]] = []
    ratios: dict[str, dict[int, Any]] = {}
    for i, run in enumerate(runs):
        known_ratios = by_baseline(run) if i == 0 else {BASELINE[0]: stored(run)}
        for cell in run.section.cells:
            for name, found in known_ratios.items():
                known = found.get(cell.cell, {})
                said = [compared(*known[m]) if m in known else 0 for m in names]
                if any(said):
                    base = bases[i] if name == BASELINE[0] else name
                    ratios.setdefault(base, {})[len(rows)] = said
            program = "" if cell.is_baseline else wording.program(cell.proof)
            values = [plain(cell, name) for name in names]
            style = f"{cell.style}{wording.over_devices(cell)}"
            about = (cell.entrant, style, cell.workload, cell.backend, cell.failure)
            rows.append([i, *about, program, values])
    first = runs[0].section.cells
    return {
        "runs": [run.name for run in runs],
        "metrics": [column(name) for name in names],
        "rows": rows,
        "ratios": {
            name: [found.get(i) or 0 for i in range(len(rows))] for name, found in ratios.items()
        },
        "bases": bases,
        "main": wording.main_workload(first) if first and not has(runs[0], TIME) else "all",
        "backend": first[0].backend if first else "",
        "several": len({cell.backend for cell in first}) > 1,
        "sized": {name: wording.sized(name) for name in dict.fromkeys(c.workload for c in cells)},
    }


def column(name: str) -> dict[str, Any]:
    """Return a column of the table."""
    known = METRICS.get(name) or EXACT.get(name)
    return {
        "name": name,
        "label": label(name),
        "title": known.help if known else "",
        "timed": name in (*COMPARED, TIME),
        "shown": name in SHOWN,
    }


def plain(cell: Result, name: str) -> list[Any] | int:
    """Return a row's number in a column, and how it is said; 0 stands for none."""
    if cell.failure is not None:
        return 0
    if name in LOSSES:
        found, unit = LOSSES[name](cell.final_loss) if cell.final_loss else None, "nats"
    elif name in EXACT:
        found, unit = cell.exact.get(name), EXACT[name].unit
    else:
        known = cell.measured(name)
        found, unit = (known.median, known.unit) if known else (None, "")
    return 0 if found is None else [rounded(found), str(Value(found, unit))]


def compared(ratio: float, value: Value) -> list[Any]:
    """Return a ratio for sorting and heat, what people read, and the colour's name."""
    return [rounded(ratio), f"{value.mark} {value}".strip(), value.colour]


def rounded(value: float) -> float:
    """Return a number with as many digits as the page needs."""
    return float(f"{value:.{SIGNIFICANT}g}")


def by_baseline(run: Run) -> dict[str, Beside]:
    """Return all ratios of a run, by entrant whose `pure` style they refer to.

    Those to the run's own baseline are as the run has them; the others come from its samples by
    the same statistics, and each baseline's comparisons are a family of their own.
    """
    section = run.section
    out = {BASELINE[0]: stored(run)}
    pure = dict.fromkeys(cell.entrant for cell in section.good if cell.style == BASELINE[1])
    others = [Arm(name, BASELINE[1]) for name in pure if name != BASELINE[0]]
    cells = {cell.cell: cell for cell in section.good}
    for group, arms in run.samples.items():
        known = {
            cell: samples
            for cell, samples in arms.items()
            if cell.is_control or (cell in cells and cells[cell].measured(group.metric))
        }
        for arm in others:
            for cell, estimate in beside(group, known, [arm]).items():
                if not cell.weak:  # other work
                    low, high = map(number, estimate.interval)
                    said = verdict(estimate, section.plan.margin)
                    value = Value(estimate.ratio, RATIO, low, high, said)
                    found = out.setdefault(arm.entrant, {}).setdefault(cell, {})
                    found[group.metric] = estimate.ratio, value
    return out


def stored(run: Run) -> Beside:
    """Return the ratios that a run's file has."""
    return {
        cell.cell: {
            metric: (found.ratio, Value.of(found))
            for metric in cell.metrics
            if (found := cell.compared(metric)) and found.ratio
        }
        for cell in run.section.cells
    }
