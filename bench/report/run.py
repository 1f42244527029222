"""A run as a document, for terminal, Markdown and page."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from bench.cells import BASELINE, PURE, Arm, Cell
from bench.estimates import (
    MIN_WORKERS,
    PROGRAM,
    Estimate,
    Verdict,
    find_detectable_difference,
    group_by_key,
)
from bench.metrics import (
    HOST,
    METRICS,
    SAMPLED,
    STAGES,
    START_STAGES,
    STARTUP,
    STEP,
    WORKLOAD_GROUPS,
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
    from bench.report.table import Content, Figure
    from bench.runfile import CellResult, Results
    from bench.runfile.reader import Run

PROGRAM_COLUMN = "program"
"""Column that is no metric: how the compiled program differs from the baseline's."""
MAIN_COLUMNS = (STEP, HOST, "compile", STARTUP, "peak_rss", "python_calls", PROGRAM_COLUMN)
"""Columns of the table that is read first."""
NEEDED_COLUMNS = (STEP, HOST)
"""Columns of it that the narrowest terminal shows."""
REST_METRICS = [metric for metric in METRICS.values() if metric.name not in MAIN_COLUMNS]
EXACT_METRICS = [metric for metric in REST_METRICS if not metric.varies]
OTHER_COLUMNS = {
    "calls": [m.name for m in REST_METRICS if m.kind is Kind.WARM and m.turn != STAGES],
    "before the first step": START_STAGES,
    "programs and training": [metric.name for metric in EXACT_METRICS if metric.unit != "B"],
    "memory": [metric.name for metric in EXACT_METRICS if metric.unit == "B"],
}
"""Title of a further table → its columns."""
COMPARED_METRICS = [metric.name for metric in METRICS.values() if metric.varies and metric.compared]
"""Metrics that are shown as ratios, or as added time."""
CALL_COUNTS = ("python_calls", "python_starts", "compilations_first", "compilations_warm")
"""Counts of a whole call; all others are of one program, and a call may run several."""
FIRST_FINDINGS = 6
"""Number of findings that a terminal shows without `-v`; each takes a line or two."""
LAST_LINES = 5
"""Number of last lines of a failed worker's standard error that are shown."""


def document(run: Run) -> Document:
    """Return the document of a run, from its file alone."""
    results = run.results
    sentences = list(map(wording.sentence, findings(results)))
    more = (*sentences[FIRST_FINDINGS:], *results.notes.values())
    left_out = (f"{n.replace('/', ' ')}: {why}." for n, why in results.left_out.items())
    devices = dict.fromkeys(results.conditions.devices.values())
    about = ", ".join(filter(None, [run.when.replace("T", " "), run.processor, *devices]))
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=about if run.when else "",
        warnings=tuple(results.warnings),
        sections=(
            Section("Results", tuple(_legend(results)), tuple(_main_tables(results))),
            Section("What it found", tuple(sentences[:FIRST_FINDINGS])),
            _failures(results.cells),
            Section("Charts", figures=tuple(figures(results))),
            Section("More that it found", more, folded=True),
            *_other_tables(results),
            Section("What could not take part", tuple(left_out), folded=True),
            Section(
                "Proven equal before they were timed", tuple(_proof_sentences(results)), folded=True
            ),
            Section("How it was measured, and how to repeat it", tuple(_method(run)), folded=True),
        ),
        fine_print=tuple(_closing_sentences(results)),
    )


def _group_places(cells: Iterable[CellResult]) -> Iterator[tuple[str, list[CellResult]]]:
    """Yield each workload and backend in words, with the cells there, the baseline's first."""
    places = group_by_key((row.cell.place, row) for row in cells if not row.cell.is_control)
    for place, rows in places.items():
        order = [BASELINE.entrant, *(row.cell.entrant for row in rows)]
        yield place, sorted(rows, key=lambda r: (order.index(r.cell.entrant), r.cell.style != PURE))


# tables


def _main_tables(results: Results) -> Iterator[Table]:
    """Yield the table that is read first of each workload and backend."""
    table = results.table
    for place, rows in _group_places(results.cells):
        if not _is_bare(table, rows):
            made = _table(table, rows, MAIN_COLUMNS, _title(table, place, rows))
            yield replace(made, notes=tuple(_notes(table, rows)))


def _is_bare(table: EstimateTable, rows: Sequence[CellResult]) -> bool:
    """Tell whether nothing was timed at a workload: counts say nothing by themselves."""
    return not any(table.amount(row.cell, name) for row in rows for name in SAMPLED)


def _other_tables(results: Results) -> Iterator[Section]:
    """Yield a section for each workload and backend, with all other numbers."""
    table = results.table
    for place, rows in _group_places(results.good_cells):
        tables = [
            *(
                _table(table, rows, names, f"{place}, {name}")
                for name, names in OTHER_COLUMNS.items()
            ),
            _table(
                table, rows, COMPARED_METRICS, f"{place}, times and sizes (medians)", medians=True
            ),
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

    Columns without content are left out. Cells are comparisons, or else `medians`, which are
    aligned to the right.
    """
    columns = (Column("style"), *(_column(name, number=medians) for name in names))
    lines = []
    for row in rows:
        style = str(row.cell.arm) + " failed" * (row.failure is not None)
        cells = [
            (table.amount(row.cell, name) or "") if medians else _table_cell(table, row, name)
            for name in names
        ]
        lines.append(Row((style, *cells)))
    return Table(columns, tuple(lines), title).drop_empty_columns()


def _column(name: str, *, number: bool) -> Column:
    if name == PROGRAM_COLUMN:
        return Column("program", help="how it differs from the baseline's", needed=False)
    metric = METRICS[name]
    needed = name in NEEDED_COLUMNS or name not in MAIN_COLUMNS
    return Column(metric.label, number or name not in COMPARED_METRICS, metric.help, needed)


def _table_cell(table: EstimateTable, row: CellResult, name: str) -> Content:
    """Return a cell of a table: the baseline's own is a time, a size or a count."""
    if row.failure is not None:
        return ""
    if name == PROGRAM_COLUMN:
        return "" if row.cell.is_baseline else wording.program(row.proof)
    value = _startup_time(table, row.cell) if name == STARTUP else table.amount(row.cell, name)
    if value is None:
        return MISSING if name in row.missing else ""
    if name in SAMPLED or value.unit == "nats" or row.cell.is_baseline:
        return table.comparison(row.cell, name) or value
    if row.proof and not row.proof.whole_step and name not in CALL_COUNTS:
        return "part"
    reference = table.amount(row.cell.baseline, name)
    if reference is None:
        return value
    difference = value.value - reference.value
    return structs.replace(value, form="added", value=difference) if difference else "="


def _startup_time(table: EstimateTable, cell: Cell) -> Estimate | None:
    """Return the seconds from a fresh process to the end of its first step.

    Files from before it was a metric have the sum of all stages, which fresh processes measured.
    """
    stages = [stage for name in START_STAGES if (stage := table.amount(cell, name))]
    of_fresh = len(stages) == len(START_STAGES)
    total = sum(stage.value for stage in stages)
    known = Estimate(cell=cell, metric=STARTUP, form="amount", unit="s", value=total)
    return table.amount(cell, STARTUP) or (known if of_fresh else None)


def _title(table: EstimateTable, place: str, rows: Sequence[CellResult]) -> str:
    """Return a workload with its sizes, and how much was sampled."""
    known = WORKLOADS.get(rows[0].cell.workload)
    if known is not None:
        batch = "" if known.batch == 1 else f", batch {known.batch}"
        place += f": width {known.width}, {known.chunk} characters{batch}"
    measured = (table.amount(row.cell, name) for name in NEEDED_COLUMNS for row in rows)
    first = next((estimate for estimate in measured if estimate), None)
    if first is None:
        return place
    processes = f"{first.workers} process{'es' * (first.workers > 1)}"
    return f"{place}; {first.blocks} block{'s' * (first.blocks > 1)}, {processes}"


# sentences


def _notes(table: EstimateTable, rows: Sequence[CellResult]) -> Iterator[str]:
    """Yield which numbers are missing, and which are preliminary."""
    yield from wording.explain_missing(rows)
    estimates = [
        e for name in NEEDED_COLUMNS for row in rows if (e := table.comparison(row.cell, name))
    ]
    thin = dict.fromkeys(label(e.metric) for e in estimates if e.is_preliminary)
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
    failed = group_by_key(
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


def _proof_sentences(results: Results) -> Iterator[str]:
    """Yield the result of the proofs, with the largest deviations."""
    proofs = [result.proof for result in results.good_cells if result.proof]
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
        if text := _flatten_value(value):
            yield f"{name.replace('_', ' ')}: {text}"


def _flatten_value(value: object) -> str:
    """Return a value of a condition in words; nothing where it is empty."""
    if isinstance(value, dict):
        items = ((str(key).replace("_", " "), _flatten_value(item)) for key, item in value.items())
        return ", ".join(f"{key} {text}" for key, text in items if text)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value in (None, "") else str(value)


def _closing_sentences(results: Results) -> Iterator[str]:
    """Yield the detectable differences, and the time and processes that the run took."""
    spent, table = results.spent, results.table
    if not spent.wall_seconds:
        return
    if bare := [
        place for place, rows in _group_places(results.good_cells) if _is_bare(table, rows)
    ]:
        yield f"Not measured within the budget: {wording.join_words(bare)}."
    seen = [
        f"{percent(least)} (step, {view.place_words(workload)})"
        for view in views(results)
        for workload in view.workloads
        if math.isfinite(
            least := find_detectable_difference(view.comparisons(workload, STEP).values())
        )
    ]
    yield from wording.suggest_more(results.estimates)
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
    """Yield the intervals of steps at the main workload, over undetectable differences."""
    rows = {str(arm): ratio for arm, ratio in view.comparisons(view.main_workload, STEP).items()}
    if rows:
        different = [arm for arm, row in rows.items() if row.verdict in ("slower", "faster")]
        arms = wording.name_few(different, 2) if different else "no style"
        title = (
            f"At {view.place_words(view.main_workload)}, {arms} differ{'s' * (len(different) < 2)}"
        )
        band = find_detectable_difference(view.comparisons(view.main_workload, STEP).values())
        yield charts.intervals(f"{title} from {REFERENCE}", rows, band=band)


def _widths_chart(view: View) -> Iterator[Figure]:
    """Yield ratios of steps against the width of the model, of a sweep."""
    series: dict[Arm, dict[int, Estimate]] = {}
    for workload in WORKLOAD_GROUPS["sweep"]:
        for arm, ratio in view.comparisons(workload, STEP).items():
            series.setdefault(arm, {})[WORKLOADS[workload].width] = ratio
    if any(len(row) > 1 for row in series.values()):
        limit = percent(view.margin)
        ends = [row[max(row)].verdict for row in series.values()]
        level = ends.count(Verdict.EQUIVALENT)
        title = f"At the widest, {level} of {len(ends)} steps are within ±{limit}"
        yield charts.lines(title, series, "width of the layers", band=view.margin)


def _startup_chart(view: View) -> Iterator[Figure]:
    """Yield the time before the second step, stage by stage."""
    totals = [total for cell in view.cells if (total := _startup_time(view.table, cell))]
    main = wording.main_workload(total.cell.workload for total in totals)
    here = [total for total in totals if total.cell.workload == main]
    if not here:
        return
    rows = {str(total.cell.arm): _stages(view.table, total) for total in here}
    ends = (least(here, key=lambda total: total.value) for least in (min, max))
    words_of = ", ".join(f"{words(total)} with {total.cell.arm}" for total in ends)
    title = f"From a fresh process to the second step at {view.place_words(main)}: {words_of}"
    yield charts.bars(title, rows)


def _stages(table: EstimateTable, total: Estimate) -> dict[str, Estimate]:
    """Return the stages of a startup, all of them as fresh processes measured them.

    The rest of the total is compiling: stages by themselves are measured in turns.
    """
    stages = {name: s for name in START_STAGES if (s := table.amount(total.cell, name))}
    if table.amount(total.cell, STARTUP):
        stages = {name: s for name, s in stages.items() if METRICS[name].kind is Kind.COLD}
        rest = total.value - sum(stage.value for stage in stages.values())
        stages["trace, lower and compile"] = structs.replace(total, value=rest)
    return {label(name): stage for name, stage in stages.items()}
