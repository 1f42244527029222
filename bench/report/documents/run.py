"""A run as a document, for terminal, Markdown and page."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import asdict

import impls
from bench import wording
from bench.cells import BASELINE, Arm
from bench.estimates import MIN_WORKERS, Verdict, find_detectable_difference, group_by_key
from bench.metrics import HOST, STEP, WORKLOAD_GROUPS, label
from bench.numbers import amount, percent, words
from bench.report import charts, sentences
from bench.report.code import write_change, write_code
from bench.report.run_tables import group_by_place, is_timed, make_tables
from bench.report.summary import (
    find_causes,
    find_surprises,
    list_views,
    make_headline,
    make_summary_table,
)
from bench.report.table import Document, Section
from bench.track.own_cost import find_cheaper
from common.config import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bench.estimates import Estimate, EstimateTable
    from bench.report.summary import View
    from bench.report.table import Figure
    from bench.runfile import CellResult, Results
    from bench.runfile.reader import Run

WORTH_SECONDS = 5e-5
"""Seconds of a call that another style has to save to be worth an edit: 1 % of a step of 5 ms."""
MOST_SURPRISES = 3
"""Largest number of surprises on the first screen; the others are listed with the causes."""
LAST_LINES = 5
"""Number of last lines of a failed worker's standard error that are shown."""


def describe_run(run: Run) -> Document:
    """Return the document of a run, from its file alone."""
    results, views = run.results, list_views(run.results)
    places = group_by_place(results.good_cells)

    def ask[T](question: Callable[[View], Iterable[T]]) -> tuple[T, ...]:
        return tuple(answer for view in views for answer in question(view))

    tables = map(make_summary_table, views)
    surprises, fold = ask(find_surprises), partial(Section, folded=True)
    reading = (*explain_marks(results), *explain_state(results))
    causes = (*surprises[MOST_SURPRISES:], *ask(find_causes), *results.notes.values())
    gaps = tuple(explain_gaps(results.table, places))
    left_out = tuple(f"{name}: {why}." for name, why in results.left_out.items())
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=describe_origin(run) if run.when else "",
        headline=make_headline(results),
        warnings=tuple(results.warnings),
        sections=(
            Section("What it costs", reading, tuple(t for t in tables if len(t.columns) > 1)),
            Section("Surprises", tuple(map(wording.sentence, surprises[:MOST_SURPRISES]))),
            Section("Failed", tuple(describe_failures(results.cells)), status="bad"),
            Section("Write this instead", ask(list_remedies), for_page=True),
            Section("What a call costs", figures=ask(draw_calls)),
            fold("Steps", figures=(*ask(draw_steps), *ask(draw_widths))),
            fold("Causes", tuple(map(wording.sentence, causes))),
            *(
                fold(f"All numbers, {place}", tables=tuple(make_tables(results.table, rows)))
                for place, rows in places.items()
                if is_timed(results.table, rows)
            ),
            fold("Not measured", gaps),
            fold("Left out", left_out),
            fold("Proven equal before they were timed", tuple(explain_proofs(results))),
            fold("How it was measured, and how to repeat it", tuple(explain_method(run))),
        ),
        fine_print=tuple(summarise_effort(results)),
    )


# sentences


def describe_origin(run: Run) -> str:
    """Return when, on which machine and with which releases a run was made."""
    devices = dict.fromkeys(run.results.conditions.devices.values())
    libraries = ("jax", *impls.list_shared_libraries())
    versions = (f"{n} {v}" for n, v in run.results.versions.items() if n in libraries)
    processor = run.processor.partition(" (")[0]
    about = filter(None, [run.when[:16].replace("T", " "), processor, *devices])
    return "; ".join(filter(None, [", ".join(about), ", ".join(versions)]))


def explain_marks(results: Results) -> Iterator[str]:
    """Yield how to read a cell of the table, in a sentence or two."""
    compared = [row for row in results.estimates if row.verdict and not row.cell.is_control]
    if not compared:
        return
    margin = percent(results.options.margin)
    marks = f"▲ slower, ▼ faster, = within ±{margin}, ? undecided"
    proven = "; proven: same program" * any(r.proven_bound is not None for r in compared)
    places = wording.sort_workloads(r.cell.workload for r in compared if r.form == "added")
    added = "".join(f"; added time: at {wording.name_workload(place)}" for place in places[:1])
    yield f"Relative to {BASELINE}, with 95 % intervals: {marks}{proven}{added}."


def explain_state(results: Results) -> Iterator[str]:
    """Yield what is preliminary or missing, and how to go on."""
    table = results.table
    compared = (row for row in results.estimates if row.verdict and not row.cell.is_control)
    if thin := dict.fromkeys(label(row.metric) for row in compared if is_thin(row)):
        yield f"Preliminary, from fewer than {MIN_WORKERS} workers: {', '.join(thin)}."
    places = [*group_by_place(results.good_cells).values()]
    untimed = [rows for rows in places if not is_timed(table, rows)]
    rest = sum(len(row.missing) for rows in places if rows not in untimed for row in rows)
    several = len({rows[0].cell.backend for rows in places}) > 1
    name = wording.name_place if several else lambda cell: wording.name_workload(cell.workload)
    gaps = [name(rows[0].cell) for rows in untimed]
    gaps += [wording.pluralise(rest, "number")] if rest else []
    missing = [f"Not measured: {wording.join_words(gaps)}."] if gaps else []
    if state := [*missing, *sentences.suggest_more(results.estimates)]:
        yield " ".join(state)


def explain_gaps(table: EstimateTable, places: Mapping[str, Sequence[CellResult]]) -> Iterator[str]:
    """Yield which numbers are missing at each place where others are there, and why."""
    for place, rows in places.items():
        if is_timed(table, rows):
            yield from (f"At {place}. {text}" for text in sentences.explain_missing(rows))


def is_thin(row: Estimate) -> bool:
    """Tell whether one of the numbers that people ask for first is preliminary."""
    return row.metric in (STEP, HOST) and row.is_preliminary


def list_remedies(view: View) -> Iterator[str]:
    """Yield which style saves how much in place of others, and the lines for the dearest."""
    rows = group_by_key((arm.entrant, (arm.style, row)) for arm, row in view.host_costs.items())
    savings: dict[Arm, list[tuple[Arm, str]]] = {}
    for arm, cost in sorted(view.host_costs.items(), key=lambda item: -item[1].value):
        costs = dict(rows[arm.entrant])
        other = find_cheaper(arm.entrant, arm.style, costs)
        if (
            other
            and all(write_code(arm.entrant, s) for s in (other, arm.style))
            and cost.value - costs[other].value >= WORTH_SECONDS
        ):
            saved = amount(cost.value - costs[other].value, "s")
            savings.setdefault(Arm(arm.entrant, other), []).append((arm, saved))
    for better, ((dearest, saved), *others) in savings.items():
        rest = "".join(f"; in place of {arm}, {less}" for arm, less in others)
        where = f"a call at {view.place_words(view.call_workload)}"
        first = f"{better} in place of {dearest} saves {saved} {where}{rest}:"
        yield "\n".join([first, *write_change(dearest.entrant, dearest.style, better.style)])


def describe_failures(cells: Iterable[CellResult]) -> Iterator[str]:
    """Yield the arms that failed and why, with the last lines of their workers."""
    failed = group_by_key(
        ((str(row.cell.arm), row.failure, row.stderr), wording.name_place(row.cell))
        for row in cells
        if row.failure is not None
    )
    for (name, reason, stderr), places in failed.items():
        last = [line for line in stderr.splitlines() if line.strip()][-LAST_LINES:]
        text = f"FAILED {name} ({', '.join(places)}): {reason}"
        yield "\n".join([text, *(f"    {line}" for line in last)])


def explain_proofs(results: Results) -> Iterator[str]:
    """Yield the result of the proofs, with the largest deviations."""
    proofs = [result.proof for result in results.good_cells if result.proof]
    if proofs:
        yield (
            "From the same weights, every style reproduces a float64 reference's loss to "
            f"{max(p.loss for p in proofs):.1e} (allowed: {LOSS_TOLERANCE:g}) and gradients to "
            f"{max(p.gradient for p in proofs):.1e} (allowed: {GRADIENT_TOLERANCE:g}), and plain "
            f"JAX's losses in ten training steps to {max(p.trajectory for p in proofs):.1e} nats "
            f"(allowed: {TRAJECTORY_TOLERANCE:g}). {sum(p.same_program for p in proofs)} of "
            f"{len(proofs)} compile to the baseline's program, counting the baseline itself."
        )


def explain_method(run: Run) -> Iterator[str]:
    """Yield how the run was made, how to repeat it, and its conditions."""
    results = run.results
    yield (
        "Styles of a workload take turns in one process, in a new random order every round, with "
        "new buffers in each block. What happens once, such as imports, is measured in fresh "
        "processes. Plain JAX also runs under a second name: differences between its two copies "
        "are noise. The intervals of a column hold for all of its rows together (Dunnett)."
    )
    if (spent := results.spent).wall_seconds:
        sampling = percent(round(spent.sampling_seconds / spent.wall_seconds, 2))
        yield (
            f"{sampling} of the run's {spent.wall_seconds:.0f} s was spent taking samples, in "
            f"{spent.processes} processes."
        )
    if commit := run.commit.id:
        dirty = ", with uncommitted changes" if run.commit.dirty else ""
        yield f"Measured at commit {commit[:12]}{dirty}."
    if results.arguments:
        yield f"To repeat it: `{results.make_command()}`"
    conditions: dict[str, object] = {
        name or "versions": info.versions for name, info in results.environments.items()
    }
    conditions |= asdict(results.conditions)
    conditions |= {n: getattr(run.machine, n) for n in ("node", "system", "release")}
    for name, value in conditions.items():
        if text := flatten_value(value):
            yield f"{name.replace('_', ' ')}: {text}"


def flatten_value(value: object) -> str:
    """Return a value of a condition in words; nothing where it is empty."""
    if isinstance(value, dict):
        items = ((str(key).replace("_", " "), flatten_value(item)) for key, item in value.items())
        return ", ".join(f"{key} {text}" for key, text in items if text)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value in (None, "") else str(value)


def summarise_effort(results: Results) -> Iterator[str]:
    """Yield the detectable differences, and the time that the run took."""
    seconds = results.spent.wall_seconds
    if not seconds:
        return
    seen = [
        f"{percent(least)} at {view.place_words(workload)}"
        for view in list_views(results)
        for workload in view.workloads
        for least in [find_detectable_difference(view.comparisons(workload, STEP).values())]
        if math.isfinite(least)
    ]
    detectable = f"; it could detect differences of {wording.join_words(seen)}" if seen else ""
    yield f"Run of {seconds:.0f} s{detectable}."


# charts


def draw_calls(view: View) -> Iterator[Figure]:
    """Yield the chart of what each style adds to a call."""
    if costs := view.host_costs:
        dearest = max(costs, key=lambda arm: costs[arm].value)
        title = f"{dearest} adds most to a call: {words(costs[dearest]).removeprefix('+')}"
        rows = {str(arm): costs[arm] for arm in sorted(costs, key=lambda arm: costs[arm].value)}
        yield charts.draw_intervals(f"{title}{view.backend_suffix}", rows, band=math.inf)


def draw_steps(view: View) -> Iterator[Figure]:
    """Yield the chart of steps at the main workload, with undetectable differences in grey."""
    if ratios := view.steps:
        different = [str(arm) for arm, r in ratios.items() if r.verdict in ("slower", "faster")]
        arms = wording.name_few(different, 2) if different else "no style"
        differ = f"differ{'s' * (len(different) < 2)} from {BASELINE}"
        title = f"At {view.place_words(view.main_workload)}, {arms} {differ}"
        rows = {str(arm): ratio for arm, ratio in ratios.items()}
        yield charts.draw_intervals(title, rows, band=find_detectable_difference(rows.values()))


def draw_widths(view: View) -> Iterator[Figure]:
    """Yield the chart of a sweep: ratios of steps against the model's width."""
    series: dict[Arm, dict[int, Estimate]] = {}
    for workload in WORKLOAD_GROUPS["sweep"]:
        for arm, ratio in view.comparisons(workload, STEP).items():
            series.setdefault(arm, {})[WORKLOADS[workload].width] = ratio
    if any(len(row) > 1 for row in series.values()):
        ends = [row[max(row)].verdict for row in series.values()]
        level = f"{ends.count(Verdict.EQUIVALENT)} of {len(ends)} steps"
        title = f"At the widest, {level} are within ±{percent(view.margin)}"
        yield charts.draw_lines(title, series, "width of the layers", band=view.margin)
