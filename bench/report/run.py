"""A run as a document, for terminal, Markdown and page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from bench.estimates import PROGRAM, Verdict, find_detectable_difference, group_by_key
from bench.metrics import STEP, WORKLOAD_GROUPS, label
from bench.report import charts, wording
from bench.report.findings import REFERENCE, list_findings, list_views
from bench.report.run_tables import list_places
from bench.report.table import Document, Section, percent, words
from bench.stats.amounts import estimate_startup, split_startup
from common.config import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.cells import Arm
    from bench.estimates import Estimate
    from bench.report.findings import View
    from bench.report.run_tables import Place
    from bench.report.table import Figure
    from bench.runfile import CellResult, Results
    from bench.runfile.reader import Run

FIRST_FINDINGS = 6
"""Number of findings that a terminal shows without `-v`; each takes a line or two."""
LAST_LINES = 5
"""Number of last lines of a failed worker's standard error that are shown."""


def document(run: Run) -> Document:
    """Return the document of a run, from its file alone."""
    results = run.results
    places, good_places = (
        list(list_places(results.table, cells)) for cells in (results.cells, results.good_cells)
    )
    sentences = list(map(wording.sentence, list_findings(results)))
    more = (*sentences[FIRST_FINDINGS:], *results.notes.values())
    left_out = (f"{n.replace('/', ' ')}: {why}." for n, why in results.left_out.items())
    proofs, method = explain_proofs(results), explain_method(run)
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=describe_origin(run) if run.when else "",
        warnings=tuple(results.warnings),
        sections=(
            Section(
                "Results",
                tuple(explain_cells(results)),
                tuple(place.main_table for place in places if place.is_timed),
            ),
            Section("What it found", tuple(sentences[:FIRST_FINDINGS])),
            Section("Failed", tuple(describe_failures(results.cells)), status="bad"),
            Section("Charts", figures=tuple(draw_figures(results))),
            Section("More that it found", more, folded=True),
            *(
                Section(f"More about {place.name}", tables=place.other_tables, folded=True)
                for place in good_places
            ),
            Section("What could not take part", tuple(left_out), folded=True),
            Section("Proven equal before they were timed", tuple(proofs), folded=True),
            Section("How it was measured, and how to repeat it", tuple(method), folded=True),
        ),
        fine_print=tuple(summarise_effort(results, good_places)),
    )


# sentences


def describe_origin(run: Run) -> str:
    """Return when and on which machine a run was made."""
    devices = dict.fromkeys(run.results.conditions.devices.values())
    return ", ".join(filter(None, [run.when.replace("T", " "), run.processor, *devices]))


def explain_cells(results: Results) -> Iterator[str]:
    """Yield how to read a cell of a table."""
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
            "Proven: the style runs the baseline's own program; only its host cost can make it "
            "differ, by at most the amount shown."
        )


def describe_failures(cells: Iterable[CellResult]) -> Iterator[str]:
    """Yield the arms that failed and why, with the last lines of their workers."""
    failed = group_by_key(
        ((str(row.cell.arm), row.failure, row.stderr), row.cell.place)
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
            "From the same weights, every style computes a float64 reference's loss to "
            f"{max(p.loss for p in proofs):.1e} (allowed: {LOSS_TOLERANCE:g}) and its gradients to "
            f"{max(p.gradient for p in proofs):.1e} (allowed: {GRADIENT_TOLERANCE:g}), and ten "
            f"training steps of plain JAX to {max(p.trajectory for p in proofs):.1e} nats "
            f"(allowed: {TRAJECTORY_TOLERANCE:g}). {sum(p.same_program for p in proofs)} of "
            f"{len(proofs)} compile to the very same program as the baseline, itself included."
        )


def explain_method(run: Run) -> Iterator[str]:
    """Yield how the run was made, how to repeat it, and its conditions."""
    results = run.results
    yield (
        "Styles of a workload take turns in one process, in a new random order every round, over "
        "buffers that are new in each block; what happens once is measured in fresh processes. "
        "Plain JAX runs under a second name as well: what differs between the two is noise. The "
        "intervals of a column hold for all of its rows together (Dunnett)."
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


def summarise_effort(results: Results, places: Iterable[Place]) -> Iterator[str]:
    """Yield the detectable differences, and the time and processes that the run took."""
    spent = results.spent
    if not spent.wall_seconds:
        return
    if untimed := [place.name for place in places if not place.is_timed]:
        yield f"Not measured within the budget: {wording.join_words(untimed)}."
    seen = [
        f"{percent(least)} (step, {view.place_words(workload)})"
        for view in list_views(results)
        for workload in view.workloads
        for least in [find_detectable_difference(view.comparisons(workload, STEP).values())]
        if math.isfinite(least)
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


def draw_figures(results: Results) -> Iterator[Figure]:
    """Yield the charts of a run, each question's for every backend."""
    for view in list_views(results):
        yield from draw_steps(view)
        yield from draw_widths(view)
        yield from draw_startup(view)


def draw_steps(view: View) -> Iterator[Figure]:
    """Yield the chart of steps at the main workload, with undetectable differences in grey."""
    ratios = view.comparisons(view.main_workload, STEP)
    if ratios:
        different = [str(arm) for arm, r in ratios.items() if r.verdict in ("slower", "faster")]
        arms = wording.name_few(different, 2) if different else "no style"
        differ = f"differ{'s' * (len(different) < 2)} from {REFERENCE}"
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


def draw_startup(view: View) -> Iterator[Figure]:
    """Yield the time before the second step, stage by stage, at the main workload."""
    totals = [total for cell in view.cells if (total := estimate_startup(view.table, cell))]
    main = wording.main_workload(total.cell.workload for total in totals)
    if totals := [total for total in totals if total.cell.workload == main]:
        ends = (least(totals, key=lambda total: total.value) for least in (min, max))
        seconds = ", ".join(f"{words(total)} with {total.cell.arm}" for total in ends)
        place = view.place_words(main)
        title = f"From a fresh process to the second step at {place}: {seconds}"
        rows = {
            str(total.cell.arm): {
                label(name): stage for name, stage in split_startup(view.table, total).items()
            }
            for total in totals
        }
        yield charts.draw_bars(title, rows)
