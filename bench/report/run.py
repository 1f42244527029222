"""A run as a document: what terminal, Markdown and page show of it."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from bench.cells import BASELINE, PURE, Arm, Cell
from bench.estimates import MIN_WORKERS, PROGRAM, Estimate, Verdict, detectable, grouped
from bench.metrics import (
    BEFORE,
    HOST,
    METRICS,
    SAMPLED,
    STAGES,
    STARTUP,
    STEP,
    TOGETHER,
    Kind,
    label,
)
from bench.report import charts, wording
from bench.report.findings import REFERENCE, View, findings, views
from bench.report.table import MISSING, Column, Document, Row, Section, Table, percent, words
from common.config import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.estimates import EstimateTable
    from bench.report.charts import Figure
    from bench.report.table import Content
    from bench.runfile import CellResult, Results
    from bench.runfile.reader import Run

PROGRAM_COLUMN = "program"
"""Column that is no metric: how the compiled program differs from the baseline's."""
MAIN = (STEP, HOST, "compile", STARTUP, "peak_rss", "python_calls", PROGRAM_COLUMN)
"""Columns of the table that is read first."""
NEEDED = (STEP, HOST)
"""Of those, what the narrowest terminal shows."""
REST = [metric for metric in METRICS.values() if metric.name not in MAIN]
COUNTED = [metric for metric in REST if not metric.varies]
OTHERS = {
    "calls": [m.name for m in REST if m.kind is Kind.WARM and m.turn != STAGES],
    "before the first step": BEFORE,
    "programs and training": [metric.name for metric in COUNTED if metric.unit != "B"],
    "memory": [metric.name for metric in COUNTED if metric.unit == "B"],
}
"""Columns of the tables for those who look closer."""
COMPARED = [metric.name for metric in METRICS.values() if metric.varies and metric.compared]
"""Metrics of which ratios are shown, or what is added."""
OF_CALL = ("python_calls", "python_starts", "compilations_first", "compilations_warm")
"""Counts of a whole call; others are of one program, of which a call may run several."""
FIRST = 6
"""Findings that a terminal shows without `-v`; each takes a line or two."""
LAST_LINES = 5
"""Lines of a failed worker's standard error that are shown."""


def document(run: Run) -> Document:
    """Return what there is to say of a run, from its file alone."""
    results = run.results
    sentences = list(map(wording.sentence, findings(results)))
    more = (*sentences[FIRST:], *results.notes.values())
    left_out = (f"{n.replace('/', ' ')}: {why}." for n, why in results.left_out.items())
    devices = dict.fromkeys(results.conditions.devices.values())
    about = ", ".join(filter(None, [run.when.replace("T", " "), run.processor, *devices]))
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=about if run.when else "",
        warnings=tuple(results.warnings),
        sections=(
            Section("Results", tuple(_legend(results)), tuple(_main_tables(results))),
            Section("What it found", tuple(sentences[:FIRST])),
            _failures(results.cells),
            Section("Charts", figures=tuple(figures(results))),
            Section("More that it found", more, folded=True),
            *_other_tables(results),
            Section("What could not take part", tuple(left_out), folded=True),
            Section("Proven equal before they were timed", tuple(_proven(results)), folded=True),
            Section("How it was measured, and how to repeat it", tuple(_method(run)), folded=True),
        ),
        fine_print=tuple(_closing(results)),
    )


def _places(cells: Iterable[CellResult]) -> Iterator[tuple[str, list[CellResult]]]:
    """Yield each workload and backend in words, with the cells there, the baseline's first."""
    places = grouped((row.cell.place, row) for row in cells if not row.cell.is_control)
    for place, rows in places.items():
        order = [BASELINE.entrant, *(row.cell.entrant for row in rows)]
        yield place, sorted(rows, key=lambda r: (order.index(r.cell.entrant), r.cell.style != PURE))


# tables


def _main_tables(results: Results) -> Iterator[Table]:
    """Yield the table that is read first of each workload and backend."""
    table = results.table
    for place, rows in _places(results.cells):
        if not _is_bare(table, rows):
            made = _table(table, rows, MAIN, _title(table, place, rows))
            yield replace(made, notes=tuple(_notes(table, rows)))


def _is_bare(table: EstimateTable, rows: Sequence[CellResult]) -> bool:
    """Tell whether nothing was timed at a workload: what is counted says nothing by itself."""
    return not any(table.amount(row.cell, name) for row in rows for name in SAMPLED)


def _other_tables(results: Results) -> Iterator[Section]:
    """Yield a section for each workload and backend, with all other numbers."""
    table = results.table
    for place, rows in _places(results.good):
        tables = [
            *(_table(table, rows, names, f"{place}, {name}") for name, names in OTHERS.items()),
            _table(table, rows, COMPARED, f"{place}, times and sizes (medians)", medians=True),
        ]
        kept = tuple(made for made in tables if len(made.columns) > 1)
        yield Section(f"More about {place}", tables=kept, folded=True)


def _table(
    table: EstimateTable,
    rows: Sequence[CellResult],
    names: Sequence[str],
    title: str,
    *,
    medians: bool = False,
) -> Table:
    """Return a table with a row for each cell of a workload, and a column for each name.

    Columns are left out where no cell has any content. It has comparisons, or else `medians`, which
    are aligned to the right.
    """
    columns = (Column("style"), *(_column(name, number=medians) for name in names))
    lines = []
    for row in rows:
        style = str(row.cell.arm) + " failed" * (row.failure is not None)
        cells = [
            (table.amount(row.cell, name) or "") if medians else _compared(table, row, name)
            for name in names
        ]
        lines.append(Row((style, *cells)))
    return Table(columns, tuple(lines), title).without_empty()


def _column(name: str, *, number: bool) -> Column:
    if name == PROGRAM_COLUMN:
        return Column("program", help="how it differs from the baseline's", needed=False)
    metric = METRICS[name]
    needed = name in NEEDED or name not in MAIN
    return Column(metric.label, number or name not in COMPARED, metric.help, needed)


def _compared(table: EstimateTable, row: CellResult, name: str) -> Content:
    """Return a cell of a table: the baseline's own is a time, a size or a count."""
    if row.failure is not None:
        return ""
    if name == PROGRAM_COLUMN:
        return "" if row.cell.is_baseline else wording.program(row.proof)
    value = _startup(table, row.cell) if name == STARTUP else table.amount(row.cell, name)
    if value is None:
        return MISSING if name in row.missing else ""
    if name in SAMPLED or value.unit == "nats" or row.cell.is_baseline:
        return table.comparison(row.cell, name) or value
    if row.proof and not row.proof.whole_step and name not in OF_CALL:
        return "part"
    reference = table.amount(row.cell.baseline, name)
    if reference is None:
        return value
    difference = value.value - reference.value
    return structs.replace(value, form="added", value=difference) if difference else "="


def _startup(table: EstimateTable, cell: Cell) -> Estimate | None:
    """Return the seconds from a fresh process to the end of its first step.

    Of files from before it was a metric, the sum of all stages, which fresh processes measured.
    """
    stages = [stage for name in BEFORE if (stage := table.amount(cell, name))]
    of_fresh = len(stages) == len(BEFORE)
    total = sum(stage.value for stage in stages)
    known = Estimate(cell=cell, metric=STARTUP, form="amount", unit="s", value=total)
    return table.amount(cell, STARTUP) or (known if of_fresh else None)


def _title(table: EstimateTable, place: str, rows: Sequence[CellResult]) -> str:
    """Return a workload with its sizes, and how much was sampled."""
    known = WORKLOADS.get(rows[0].cell.workload)
    if known is not None:
        batch = "" if known.batch == 1 else f", batch {known.batch}"
        place += f": width {known.width}, {known.chunk} characters{batch}"
    measured = (table.amount(row.cell, name) for name in NEEDED for row in rows)
    first = next((estimate for estimate in measured if estimate), None)
    if first is None:
        return place
    processes = f"{first.workers} process{'es' * (first.workers > 1)}"
    return f"{place}; {first.blocks} block{'s' * (first.blocks > 1)}, {processes}"


# sentences


def _notes(table: EstimateTable, rows: Sequence[CellResult]) -> Iterator[str]:
    """Yield what is missing, and what is preliminary."""
    yield from wording.missing_words(rows)
    estimates = [e for name in NEEDED for row in rows if (e := table.comparison(row.cell, name))]
    thin = dict.fromkeys(label(e.metric) for e in estimates if e.preliminary)
    if thin:
        yield f"Preliminary, from fewer than {MIN_WORKERS} workers: {', '.join(thin)}."


def _legend(results: Results) -> Iterator[str]:
    """Yield how to read a cell."""
    compared = [row for row in results.estimates if row.verdict and not row.cell.is_control]
    if any(row.form == "ratio" for row in compared):
        yield (
            f"Ratios to {REFERENCE} with 95 % intervals; =: within "
            f"±{percent(results.options.margin)}, ?: inconclusive, all others differ."
        )
    if any(row.form == "added" for row in compared):
        yield "Host cost: time that a style adds to each call of a tiny model."
    if any(row.settled_by == PROGRAM and row.bound for row in compared):
        yield (
            "Proven: the baseline's own program, which can differ by what the style costs the host "
            "alone: at most by that much."
        )


def _failures(cells: Iterable[CellResult]) -> Section:
    """Return which arms failed and why, with the last lines of their workers."""
    failed = grouped(
        ((str(row.cell.arm), row.failure, row.stderr), row.cell.place)
        for row in cells
        if row.failure is not None
    )
    lines = []
    for (name, reason, stderr), places in failed.items():
        last = [line for line in stderr.splitlines() if line.strip()][-LAST_LINES:]
        text = f"FAILED {name} ({', '.join(places)}): {reason}"
        lines.append("\n".join([text, *(f"    {line}" for line in last)]))
    return Section("Failed", tuple(lines), status="bad")


def _proven(results: Results) -> Iterator[str]:
    """Yield what was proven, with the largest deviations."""
    proofs = [result.proof for result in results.good if result.proof]
    if proofs:
        yield (
            "From the same weights, every style computes a float64 reference's loss to "
            f"{max(p.loss for p in proofs):.1e} (allowed: {LOSS_TOLERANCE:g}) and its gradients to "
            f"{max(p.gradient for p in proofs):.1e} (allowed: {GRADIENT_TOLERANCE:g}), and ten "
            f"training steps of plain JAX to {max(p.trajectory for p in proofs):.1e} nats "
            f"(allowed: {TRAJECTORY_TOLERANCE:g}). {sum(p.same_program for p in proofs)} of "
            f"{len(proofs)} compile to the very same program as the baseline, itself included."
        )


def _method(run: Run) -> Iterator[str]:
    """Yield how the run was made, how to repeat it, and its conditions."""
    results = run.results
    yield (
        "Styles of a workload take turns in one process, in a new random order every round, over "
        "buffers that are new in each block; what happens once is measured in fresh processes. "
        "Plain JAX runs under a second name as well: what differs between the two is noise. The "
        "intervals of a column hold for all of its rows together (Dunnett)."
    )
    if commit := run.commit.get("id"):
        dirty = ", with changes that are not in it" if run.commit.get("dirty") else ""
        yield f"Measured at commit {str(commit)[:12]}{dirty}."
    if results.arguments:
        yield f"To repeat it: `pytest {shlex.join(results.arguments)}`"
    conditions: dict[str, object] = {
        name or "versions": info.versions for name, info in results.environments.items()
    }
    conditions |= structs.asdict(results.conditions)
    conditions |= {n: run.machine.get(n) for n in ("node", "system", "release")}
    for name, value in conditions.items():
        if text := _flat(value):
            yield f"{name.replace('_', ' ')}: {text}"


def _flat(value: object) -> str:
    """Return a value of a condition in words; nothing where it is empty."""
    if isinstance(value, dict):
        items = ((str(key).replace("_", " "), _flat(item)) for key, item in value.items())
        return ", ".join(f"{key} {text}" for key, text in items if text)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value in (None, "") else str(value)


def _closing(results: Results) -> Iterator[str]:
    """Yield what the run can detect, and what it took."""
    spent, table = results.spent, results.table
    if not spent.wall_seconds:
        return
    if bare := [place for place, rows in _places(results.good) if _is_bare(table, rows)]:
        yield f"Not measured within the budget: {wording.joined(bare)}."
    seen = [
        f"{percent(least)} (step, {view.at(workload)})"
        for view in views(results)
        for workload in view.workloads
        if math.isfinite(least := detectable(view.comparisons(workload, STEP).values()))
    ]
    yield from wording.more_words(results.estimates)
    forecast = f"; {percent(spent.forecast)} was forecast" if spent.forecast else ""
    yield (
        f"detectable difference: {', '.join(seen) or 'not known'}{forecast}; "
        f"{spent.wall_seconds:.0f} s, "
        f"{percent(round(spent.sampling_seconds / spent.wall_seconds, 2))} of it taking samples, "
        f"{spent.processes} processes"
    )


# charts


def figures(results: Results) -> Iterator[Figure]:
    """Yield the charts of a run, each question's for every backend."""
    for view in views(results):
        yield from _steps_chart(view)
        yield from _widths_chart(view)
        yield from _startup_chart(view)


def _steps_chart(view: View) -> Iterator[Figure]:
    """Yield the intervals of steps at the main workload, over what would not be found."""
    rows = {str(arm): ratio for arm, ratio in view.comparisons(view.main, STEP).items()}
    if rows:
        different = [arm for arm, row in rows.items() if row.verdict in ("slower", "faster")]
        arms = wording.few(different, 2) if different else "no style"
        title = f"At {view.at(view.main)}, {arms} differ{'s' * (len(different) < 2)}"
        band = detectable(view.comparisons(view.main, STEP).values())
        yield charts.intervals(f"{title} from {REFERENCE}", rows, band=band)


def _widths_chart(view: View) -> Iterator[Figure]:
    """Yield ratios of steps against the width of the model, of a sweep."""
    series: dict[Arm, dict[int, Estimate]] = {}
    for workload in TOGETHER["sweep"]:
        for arm, ratio in view.comparisons(workload, STEP).items():
            series.setdefault(arm, {})[WORKLOADS[workload].width] = ratio
    if any(len(row) > 1 for row in series.values()):
        limit = percent(view.margin)
        ends = [row[max(row)].verdict for row in series.values()]
        level = ends.count(Verdict.EQUIVALENT)
        title = f"At the widest, {level} of {len(ends)} steps are within ±{limit}"
        yield charts.lines(title, series, "width of the layers", band=view.margin)


def _startup_chart(view: View) -> Iterator[Figure]:
    """Yield what comes before the second step, stage by stage."""
    totals = [total for cell in view.cells if (total := _startup(view.table, cell))]
    main = wording.main_workload(total.cell.workload for total in totals)
    here = [total for total in totals if total.cell.workload == main]
    if not here:
        return
    rows = {str(total.cell.arm): _stages(view.table, total) for total in here}
    ends = (least(here, key=lambda total: total.value) for least in (min, max))
    words_of = ", ".join(f"{words(total)} with {total.cell.arm}" for total in ends)
    title = f"From a fresh process to the second step at {view.at(main)}: {words_of}"
    yield charts.bars(title, rows)


def _stages(table: EstimateTable, total: Estimate) -> dict[str, Estimate]:
    """Return what makes up a startup, all of it as fresh processes measured it.

    What compiling takes there is the rest: stages by themselves are measured in turns.
    """
    stages = {name: s for name in BEFORE if (s := table.amount(total.cell, name))}
    if table.amount(total.cell, STARTUP):
        stages = {name: s for name, s in stages.items() if METRICS[name].kind is Kind.COLD}
        rest = total.value - sum(stage.value for stage in stages.values())
        stages["trace, lower and compile"] = structs.replace(total, value=rest)
    return {label(name): stage for name, stage in stages.items()}
