"""A run as a document: what terminal, Markdown and page show of it."""

from __future__ import annotations

import math
import shlex
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from bench.cells import BASELINE, PURE
from bench.estimates import MIN_WORKERS, PROGRAM
from bench.metrics import EXACT, HOST, METRICS, SAMPLED, STARTUP, STEP, TOGETHER, Kind, label
from bench.report import charts, wording
from bench.report.choices import RULE, choices
from bench.report.findings import REFERENCE, sentences
from bench.report.table import MISSING, Column, Document, Row, Section, Table, percent, words
from bench.report.view import startup, views
from common.config import WORKLOADS
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.cells import Arm
    from bench.estimates import Estimate, EstimateTable
    from bench.report.charts import Figure
    from bench.report.table import Content
    from bench.report.view import View
    from bench.runfile import CellResult, Results
    from bench.runfile.reader import Run

SUM, PROGRAM_COLUMN = "startup", "program"
"""Columns that are no metric: the sum of all stages up to the first step, and how the compiled
program differs from the baseline's."""
MAIN = (STEP, HOST, "compile", SUM, "peak_rss", "python_calls", PROGRAM_COLUMN)
"""Columns of the table that is read first."""
NEEDED = (STEP, HOST)
"""Of those, what the narrowest terminal shows."""
OTHERS = {
    "calls": ("step_pipelined", "host_cost_pipelined", "cores_used"),
    "before the first step": STARTUP,
    "programs and training": (
        *("python_starts", "jaxpr_equations", "hlo_instructions", "flops"),
        *("compilations_first", "compilations_warm", "final_loss", "final_loss_own"),
    ),
    "memory": ("temp_bytes", "argument_bytes", "alias_bytes", "live_bytes"),
}
"""Columns of the tables for those who look closer."""
COMPARED = tuple(
    m.name for m in METRICS.values() if m.kind in (Kind.WARM, Kind.COLD) and m.compared
)
"""Metrics of which ratios are shown, or what is added."""
USUAL_COUNTS = {"compilations_first": 1, "compilations_warm": 0}
"""Counts that are shown only where one is unusual."""
OF_CALL = ("python_calls", "python_starts")
"""Counts of a whole call; others are of one program, of which a call may run several."""
LINES, WIDTH = 8, 80
"""Most lines of findings on a terminal without `-v`, and the width in which they are counted."""
LAST_LINES = 5
"""Lines of a failed worker's standard error that are shown."""


def document(run: Run) -> Document:
    """Return what there is to say of a run, from its file alone."""
    results = run.results
    short, more = _divided(sentences(results))
    devices = dict.fromkeys(results.conditions.devices.values())
    about = ", ".join(filter(None, [run.when.replace("T", " "), run.processor, *devices]))
    sections = (
        Section("Results", tuple(_legend(results)), tuple(_main_tables(results))),
        Section("What it found", tuple(short)),
        _failures(results.cells),
        _which(results),
        Section("Charts", figures=tuple(figures(results)), needed=False),
        Section("More that it found", tuple(more), folded=True),
        *_other_tables(results),
        Section("What was not measured", tuple(_not_measured(results)), folded=True),
        _proofs(results),
        Section("How it was measured, and how to repeat it", tuple(_method(run)), folded=True),
    )
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=about if run.when else "",
        warnings=tuple(results.warnings),
        sections=tuple(section for section in sections if not section.empty),
        fine_print=tuple(_closing(results)),
    )


def _divided(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sentences for which a small terminal has room, and the others."""
    short: list[str] = []
    more: list[str] = []
    room = LINES
    for text in texts:
        lines = len(textwrap.wrap(text, WIDTH, subsequent_indent="  "))
        (short if lines <= room else more).append(text)
        room -= lines if lines <= room else 0
    return short, more


def _places(cells: Iterable[CellResult]) -> Iterator[tuple[str, list[CellResult]]]:
    """Yield each workload and backend in words, with the cells there, the baseline's first."""
    places: dict[str, list[CellResult]] = {}
    for result in cells:
        if not result.cell.is_control:
            places.setdefault(result.cell.place, []).append(result)
    for place, rows in places.items():
        order = [BASELINE.entrant, *(row.cell.entrant for row in rows)]
        yield place, sorted(rows, key=lambda r: (order.index(r.cell.entrant), r.cell.style != PURE))


# tables


def _main_tables(results: Results) -> Iterator[Table]:
    """Yield the table that is read first of each workload and backend."""
    table = results.table
    for place, rows in _places(results.cells):
        made = _table(table, rows, MAIN, _title(table, place, rows), _notes(table, rows))
        if len(made.columns) > 1 and not _is_bare(table, rows):
            yield made


def _is_bare(table: EstimateTable, rows: Sequence[CellResult]) -> bool:
    """Tell whether nothing was timed at a workload: what is counted says nothing by itself."""
    return not any(table.amount(row.cell, name) for row in rows for name in SAMPLED)


def _other_tables(results: Results) -> Iterator[Section]:
    """Yield a section for each workload and backend, with all other numbers."""
    table = results.table
    for place, rows in _places(results.good):
        tables = [_table(table, rows, names, f"{place}, {name}") for name, names in OTHERS.items()]
        amounts = f"{place}, times and sizes (medians)"
        tables.append(_table(table, rows, COMPARED, amounts, amounts=True))
        kept = tuple(made for made in tables if len(made.columns) > 1)
        if kept:
            yield Section(f"More about {place}", tables=kept, folded=True)


def _table(
    table: EstimateTable,
    rows: Sequence[CellResult],
    names: Sequence[str],
    title: str,
    notes: Iterable[str] = (),
    *,
    amounts: bool = False,
) -> Table:
    """Return a table with a row for each cell, and a column for each metric that was measured.

    Args:
        table: Estimates of the run.
        rows: Cells of one workload and backend.
        names: Of metrics, and of columns that are no metric.
        title: Of the table.
        notes: Below it.
        amounts: Whether times and sizes are shown in place of their ratios.
    """
    base = next((row for row in rows if row.cell.is_baseline), None)

    def content(row: CellResult, name: str) -> Content:
        if row.failure is not None:
            return ""
        return (table.amount(row.cell, name) or "") if amounts else _content(table, row, base, name)

    lines = [Row((r.cell.arm.words, *(content(r, name) for name in names))) for r in rows]
    columns = (Column("style"), *(_column(name, number=amounts) for name in names))
    made = Table(columns, tuple(lines), title, tuple(notes)).without_empty()
    failed = [row.failure is not None for row in rows]
    shown = (
        replace(line, cells=(line.cells[0], "failed", *line.cells[2:])) if failed[i] else line
        for i, line in enumerate(made.rows)
    )
    return replace(made, rows=tuple(shown)) if any(failed) else made


def _column(name: str, *, number: bool) -> Column:
    if name == PROGRAM_COLUMN:
        return Column("program", help="how it differs from the baseline's", needed=False)
    if name == SUM:
        about = "from a fresh process to the end of its first step: the sum of all stages"
        return Column("startup", number=True, help=about, needed=False)
    metric = METRICS[name]
    needed = name in NEEDED or name not in MAIN
    return Column(metric.label, number or name not in COMPARED, metric.help, needed)


def _content(table: EstimateTable, row: CellResult, base: CellResult | None, name: str) -> Content:
    """Return a cell of a table: the baseline's own is a time, a size or a count."""
    if name == PROGRAM_COLUMN:
        return "" if row.cell.is_baseline else wording.program(row.proof)
    if name == SUM:
        return startup(table, row.cell) or ""
    value = table.amount(row.cell, name)
    if value is None:
        return MISSING if name in row.missing else ""
    if name in USUAL_COUNTS:
        return "" if value.value == USUAL_COUNTS[name] else value
    if name not in EXACT or METRICS[name].unit == "nats" or base is None or base is row:
        return table.comparison(row.cell, name) or value
    if row.proof and not row.proof.whole_step and name not in OF_CALL:
        return "part"
    reference = table.amount(base.cell, name)
    if reference is None:
        return value
    difference = value.value - reference.value
    return structs.replace(value, form="added", value=difference) if difference else "="


def _title(table: EstimateTable, place: str, rows: Sequence[CellResult]) -> str:
    """Return a workload with its sizes, and how much was sampled."""
    known = WORKLOADS.get(rows[0].cell.workload)
    if known is not None:
        batch = "" if known.batch == 1 else f", batch {known.batch}"
        place += f": width {known.width}, {known.chunk} characters{batch}"
    measured = (table.amount(row.cell, name) for name in NEEDED for row in rows)
    first = next((estimate for estimate in measured if estimate), None)
    return f"{place}; {first.blocks} blocks, {first.workers} processes" if first else place


# sentences


def _notes(table: EstimateTable, rows: Sequence[CellResult]) -> Iterator[str]:
    """Yield why steps, host costs or whole columns are missing, and what is preliminary."""
    yield from _missing(rows, NEEDED)
    absent: dict[str, list[str]] = {}
    for metric in METRICS.values():
        reasons = [row.missing[metric.name] for row in rows if metric.name in row.missing]
        has_any = any(table.amount(row.cell, metric.name) for row in rows)
        if metric.shown and metric.name not in NEEDED and reasons and not has_any:
            absent.setdefault(reasons[0], []).append(label(metric.name))
    for reason, names in absent.items():
        yield f"{reason[0].upper()}{reason[1:]}: {wording.joined(names)}."
    estimates = [e for name in NEEDED for row in rows if (e := table.comparison(row.cell, name))]
    thin = dict.fromkeys(label(e.metric) for e in estimates if e.preliminary)
    if thin:
        yield f"Preliminary, from fewer than {MIN_WORKERS} workers: {', '.join(thin)}."


def _missing(rows: Iterable[CellResult], names: Iterable[str]) -> Iterator[str]:
    """Yield why metrics of cells are missing, in one sentence for each reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name in names:
            if reason := row.missing.get(name):
                metrics = reasons.setdefault(reason, {})
                metrics.setdefault(label(name), []).append(row.cell.arm.words)
    for reason, metrics in reasons.items():
        arms = list(dict.fromkeys(arm for several in metrics.values() for arm in several))
        yield f"{reason}: {wording.joined(list(metrics))} of {wording.few(arms, 3)}."


def _not_measured(results: Results) -> Iterator[str]:
    """Yield styles that could not take part, and metrics that were asked for and not measured."""
    for name, reason in results.left_out.items():
        yield f"{name.replace('/', ' ')}: {reason}."
    for place, rows in _places(results.good):
        yield from (f"{place}: {text}" for text in _missing(rows, METRICS))


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
    failed: dict[tuple[str, str, str], list[str]] = {}
    for result in cells:
        if result.failure is not None:
            name = f"{result.cell.entrant} {result.cell.style}"
            places = failed.setdefault((name, result.failure, result.stderr), [])
            places.append(result.cell.place)
    lines = []
    for (name, reason, stderr), places in failed.items():
        last = [line for line in stderr.splitlines() if line.strip()][-LAST_LINES:]
        text = f"FAILED {name} ({', '.join(places)}): {reason}"
        lines.append("\n".join([text, *(f"    {line}" for line in last)]))
    return Section("Failed", tuple(lines), status="bad")


def _which(results: Results) -> Section:
    """Return what to take in each situation, and what is known of entrants."""
    lines = [str(choice) for view in views(results) for choice in choices(view)]
    rule = [RULE] if lines else []
    return Section("Which library for me?", (*lines, *rule, *results.notes.values()), needed=False)


def _proofs(results: Results) -> Section:
    """Return what was proven with the largest deviations, and how far each style is off."""
    proven = [(result.cell, result.proof) for result in results.good if result.proof]
    title = "Proven equal before they were timed"
    if not proven:
        return Section(title)
    rows = [
        Row((cell.arm.words, cell.place, *(f"{x:.1e}" for x in (p.loss, p.gradient, p.trajectory))))
        for cell, p in proven
    ]
    heads = [Column(head, number=True) for head in ("loss", "gradient", "ten steps,\nnats")]
    proofs = [proof for _, proof in proven]
    text = (
        "From the same weights, every style computes a float64 reference's loss to "
        f"{max(p.loss for p in proofs):.1e} (allowed: {LOSS_TOLERANCE:g}) and its gradients to "
        f"{max(p.gradient for p in proofs):.1e} (allowed: {GRADIENT_TOLERANCE:g}), and ten "
        f"training steps of plain JAX to {max(p.trajectory for p in proofs):.1e} nats "
        f"(allowed: {TRAJECTORY_TOLERANCE:g}). {sum(p.same_program for p in proofs)} of "
        f"{len(proofs)} compile to the very same program as the baseline, itself included."
    )
    table = Table((Column("style"), Column("at"), *heads), tuple(rows))
    return Section(title, (text,), (table,), folded=True)


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
    seen = []
    for view in views(results):
        for workload in view.workloads:
            least = view.table.detectable(STEP, workload, view.backend)
            if math.isfinite(least):
                seen.append(f"{percent(least)} (step, {workload}{view.on})")
    yield (
        f"detectable difference: {', '.join(seen) or 'not known'}; {spent.wall_seconds:.0f} s, "
        f"{percent(round(spent.sampling_share, 2))} of it taking samples, "
        f"{spent.processes} processes"
    )


# charts


def figures(results: Results) -> Iterator[Figure]:
    """Yield the charts of a run, each question's for every backend."""
    for view in views(results):
        suffix = f"-{view.backend}" if view.several else ""
        yield from _steps_chart(view, f"steps{suffix}")
        yield from _widths_chart(view, f"widths{suffix}")
        yield from _startup_chart(view, f"startup{suffix}")


def _steps_chart(view: View, name: str) -> Iterator[Figure]:
    """Yield the intervals of steps at the main workload, over what would not be found."""
    rows = {arm.words: ratio for arm, ratio in view.comparisons(view.main, STEP).items()}
    if rows:
        different = [arm for arm, row in rows.items() if row.verdict in ("slower", "faster")]
        arms = wording.few(different, 2) if different else "no step"
        title = f"At {view.at(view.main)}, {arms} differ{'s' * (len(different) < 2)}"
        band = view.table.detectable(STEP, view.main, view.backend)
        yield charts.intervals(name, f"{title} from {REFERENCE}'s", rows, band=band)


def _widths_chart(view: View, name: str) -> Iterator[Figure]:
    """Yield ratios of steps against the width of the model, of a sweep."""
    series: dict[Arm, dict[int, Estimate]] = {}
    for workload in TOGETHER["sweep"]:
        for arm, ratio in view.comparisons(workload, STEP).items():
            series.setdefault(arm, {})[WORKLOADS[workload].width] = ratio
    if any(len(row) > 1 for row in series.values()):
        limit = percent(view.margin)
        level = sum(row[max(row)].within(view.margin) for row in series.values())
        title = f"At the widest, {level} of {len(series)} steps are within ±{limit}"
        text = f"Within ±{limit} of {REFERENCE}'s step at every larger width measured: "
        text += "; ".join(f"{arm.words} {_from_width(row, view)}" for arm, row in series.items())
        axis = "width of the layers"
        yield charts.lines(name, title, series, axis, text=text, powers=True, band=view.margin)


def _from_width(row: dict[int, Estimate], view: View) -> str:
    """Return the smallest measured width from which on a step is within the margin."""
    apart = [width for width in row if not row[width].within(view.margin)]
    after = [width for width in row if width > max(apart, default=0)]
    return f"from {min(after)} on" if after else "at none"


def _startup_chart(view: View, name: str) -> Iterator[Figure]:
    """Yield what comes before the second step, stage by stage."""
    totals = {workload: view.startups(workload) for workload in view.workloads}
    main = wording.main_workload(workload for workload, known in totals.items() if known)
    if main:
        rows = {
            arm.words: {
                label(metric): stage
                for metric in STARTUP
                if (stage := view.amount(arm, main, metric))
            }
            for arm in totals[main]
        }
        order = sorted(totals[main].items(), key=lambda item: item[1].value)
        least, most = (f"{words(total)} with {arm.words}" for arm, total in (order[0], order[-1]))
        title = f"From a fresh process to the second step at {view.at(main)}: {least}, {most}"
        yield charts.bars(name, title, rows, "seconds (medians)")
