"""The data of a page's table: its script has the indices of a row at its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Cell
from bench.metrics import EXACT, METRICS, label
from bench.report import wording
from bench.report.ratios import by_baseline, stored
from bench.report.run import COMPARED, COUNTED, has
from bench.report.table import Value
from bench.report.wording import Facts, measured
from bench.runfile.reader import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runfile.reader import Run

SIGNIFICANT = 5
"""Digits of a number that sorts rows; the run file has all."""
SHOWN = (TIME, *(m.name for m in (*METRICS.values(), *EXACT.values()) if m.shown))
"""Columns that are shown until the reader picks others."""
ON_PAGE = (*COUNTED, "flops")
"""What is counted that the page has."""
FIRST_OF_GROUP = "the first of each group"
"""What ratios refer to where nothing but medians is known."""
LOSSES = ("final_loss", "final_loss_own")


def data(runs: Sequence[Run]) -> Facts:
    """Return what the page's table is made of: see the indices at the head of its script."""
    cells = [cell for run in runs for cell in run.section["cells"]]
    names = [m for m in [*COMPARED, TIME] if any(has(run, m) for run in runs)]
    names += [m for m in ON_PAGE if any(m in cell["exact"] for cell in cells)]
    names += LOSSES if any(cell["final_loss"] for cell in cells) else ()
    beside = [
        by_baseline(run) if i == 0 and not has(run, TIME) else {BASELINE[0]: stored(run)}
        for i, run in enumerate(runs)
    ]
    bases = [FIRST_OF_GROUP if has(run, TIME) else BASELINE[0] for run in runs]
    rows: list[list[Any]] = []
    ratios: dict[str, dict[int, Any]] = {}
    for i, run in enumerate(runs):
        for cell in run.section["cells"]:
            for name, found in beside[i].items():
                known = found.get(Cell.of(cell), {})
                said = [compared(*known[m]) if m in known else 0 for m in names]
                if any(said):
                    base = bases[i] if name == BASELINE[0] else name
                    ratios.setdefault(base, {})[len(rows)] = said
            program = "" if wording.is_baseline(cell) else wording.program(cell["proof"])
            style = f"{cell['style']}{wording.over_devices(cell)}"
            about = (cell[n] for n in ("workload", "backend", "failure"))
            rows.append(
                [i, cell["entrant"], style, *about, program, [plain(cell, name) for name in names]]
            )
    first = runs[0].section["cells"]
    return {
        "runs": [run.name for run in runs],
        "metrics": [column(name) for name in names],
        "rows": rows,
        "ratios": {
            name: [found.get(i) or 0 for i in range(len(rows))] for name, found in ratios.items()
        },
        "bases": bases,
        "main": wording.main_workload(first) if first and not has(runs[0], TIME) else "all",
        "backend": first[0]["backend"] if first else "",
        "several": len({cell["backend"] for cell in first}) > 1,
        "sized": {
            name: wording.sized(name) for name in dict.fromkeys(c["workload"] for c in cells)
        },
    }


def column(name: str) -> Facts:
    """Return a column of the table."""
    known = METRICS.get(name) or EXACT.get(name)
    return {
        "name": name,
        "label": label(name),
        "title": known.help if known else "",
        "timed": name in (*COMPARED, TIME),
        "shown": name in SHOWN,
    }


def plain(cell: Facts, name: str) -> list[Any] | int:
    """Return a row's number in a column, and how it is said; 0 stands for none."""
    if name in LOSSES:
        final = cell["final_loss"]
        found = None
        if final and cell["failure"] is None:
            found = final["same_weights"] if name == LOSSES[0] else wording.own_loss(final)
        unit = "nats"
    elif name in EXACT:
        found, unit = cell["exact"].get(name), EXACT[name].unit
    else:
        known = measured(cell, name) or {}
        found, unit = known.get("median"), known.get("unit", "s")
    return 0 if found is None else [rounded(found), str(Value(found, unit))]


def compared(ratio: float, value: Value) -> list[Any]:
    """Return a ratio for sorting and heat, what people read, and the colour's name."""
    return [rounded(ratio), f"{value.mark} {value}".strip(), value.colour]


def rounded(value: float | None, digits: int = SIGNIFICANT) -> float | None:
    """Return a number with as many digits as the page needs."""
    return None if value is None else float(f"{value:.{digits}g}")
