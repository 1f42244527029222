"""The data of a page's table: its script has the indices of a row at its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Cell
from bench.metrics import EXACT, METRICS, label
from bench.report import wording
from bench.report.ratios import Beside, Ratio, by_baseline, stored
from bench.report.runs import TIME
from bench.report.terminal import COMPARED
from bench.report.wording import Facts, measured
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.runs import Run

VERDICTS = ("", *map(str, Verdict))
"""As ratios in the data number them."""
SIGNIFICANT, OF_RATIO = 5, 8
"""Digits of a number in the page's data, and of a ratio, so that rounding it again is rounding it;
the run file has all."""
SHOWN = (TIME, *(m.name for m in (*METRICS.values(), *EXACT.values()) if m.shown))
"""Columns that are shown until the reader picks others."""
COUNTED = ("python_calls", "jaxpr_equations", "hlo_instructions", "flops", "temp_bytes")
"""What is counted that the page has."""
FIRST_OF_GROUP = "the first of each group"
"""What ratios refer to where nothing but medians is known."""
LOSSES = {"same_weights": "loss, same weights", "own": "loss, own weights"}


def data(runs: Sequence[Run]) -> Facts:
    """Return what the page's table is made of: see the indices at the head of its script."""
    timed = [m for m in [*COMPARED, TIME] if any(has(run, m) for run in runs)]
    exact = [
        name
        for name in COUNTED
        if any(name in cell["exact"] for run in runs for cell in run.section["cells"])
    ]
    known = METRICS | EXACT
    metrics = [
        {
            "name": name,
            "label": label(name),
            "unit": known[name].unit if name in known else "s",
            "title": known[name].help if name in known else "",
            "timed": name in timed,
            "shown": name in SHOWN,
        }
        for name in [*timed, *exact]
    ]
    losses = any(cell["final_loss"] for run in runs for cell in run.section["cells"])
    if losses:
        metrics += [
            {
                "name": name,
                "label": label,
                "unit": "nats",
                "title": "",
                "timed": False,
                "shown": name in SHOWN,
            }
            for name, label in LOSSES.items()
        ]
    rows: list[list[Any]] = []
    ratios: dict[str, dict[int, Any]] = {}
    beside = [
        by_baseline(run) if i == 0 and not has(run, TIME) else {BASELINE[0]: stored(run)}
        for i, run in enumerate(runs)
    ]
    bases = [FIRST_OF_GROUP if has(run, TIME) else BASELINE[0] for run in runs]
    for i, run in enumerate(runs):
        for cell in run.section["cells"]:
            rows.append(row(i, cell, timed, exact, losses=losses))
            for name, found in beside[i].items():
                ratios.setdefault(bases[i] if name == BASELINE[0] else name, {})[len(rows) - 1] = (
                    compared(cell, timed, found)
                )
    cells = runs[0].section["cells"]
    plain = has(runs[0], TIME)
    return {
        "runs": [run.name for run in runs],
        "metrics": metrics,
        "rows": rows,
        "ratios": {
            name: [found.get(i) or 0 for i in range(len(rows))] for name, found in ratios.items()
        },
        "verdicts": VERDICTS,
        "bases": bases,
        "main": wording.main_workload(cells) if cells and not plain else "all",
        "backend": cells[0]["backend"] if cells else "",
        "several": len({cell["backend"] for cell in cells}) > 1,
        "sized": {
            name: wording.sized(name)
            for name in dict.fromkeys(c["workload"] for r in runs for c in r.section["cells"])
        },
    }


def has(run: Run, metric: str) -> bool:
    """Tell whether a run has a number for a metric."""
    return any(measured(cell, metric) for cell in run.section["cells"])


def row(run: int, cell: Facts, timed: Sequence[str], exact: Sequence[str], *, losses: bool) -> list:
    """Return one row of the table."""
    values: list[float | None] = []
    for metric in timed:
        found = measured(cell, metric)
        values.append(rounded(found["median"]) if found else None)
    values += [cell["exact"].get(name) for name in exact]
    if losses:
        final = cell["final_loss"]
        values += [
            rounded(final["same_weights"]) if final else None,
            rounded(wording.own_loss(final)) if final else None,
        ]
    program = "" if wording.is_baseline(cell) else wording.program(cell["proof"])
    return [
        run,
        cell["entrant"],
        cell["style"],
        cell["workload"],
        cell["backend"],
        cell["failure"],
        program,
        values,
    ]


def compared(cell: Facts, timed: Sequence[str], found: Beside) -> list | int:
    """Return a row's ratios by metric; 0 stands for none."""
    ratios = found.get(Cell(*(cell[name] for name in Cell._fields)), {})
    said: list[Ratio | None] = [ratios.get(metric) for metric in timed]
    if not any(said):
        return 0
    return [
        [
            *(rounded(value, OF_RATIO) for value in (r.ratio, r.low, r.high)),
            VERDICTS.index(r.verdict or ""),
        ]
        if r
        else 0
        for r in said
    ]


def rounded(value: float | None, digits: int = SIGNIFICANT) -> float | None:
    """Return a number with as many digits as the page needs."""
    return None if value is None else float(f"{value:.{digits}g}")
