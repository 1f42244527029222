"""The document of a comparison: differences first, then all rows, then missing numbers."""

from __future__ import annotations

import math
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from msgspec.structs import replace

import impls
from bench.environments.spec import PACKAGES
from bench.estimates import Estimate, find_detectable_difference, group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY, METRICS, label
from bench.numbers import UNKNOWN, amount, percent, signed_amount, words
from bench.offer import NOT_IMPORTING
from bench.prepare.sides import IN_TURNS
from bench.report.sentences import (
    LARGEST_LIMIT,
    NOTHING_SETTLED,
    describe_by_reason,
    describe_cells,
    name_constant_losses,
    suggest_more,
)
from bench.report.table import Column, Document, Row, Section, Table
from bench.runfile import find_differing_releases, find_needed_seconds
from bench.track.comparison import (
    BASE,
    CHANGED_SUFFIX,
    NEW,
    ORDER,
    SLACK,
    Comparison,
    Status,
)
from bench.wording import (
    MOST_NAMED,
    describe_releases,
    join_words,
    main_workload,
    name_few,
    name_workload,
    pluralise,
    sentence,
)
from bench.workloads import is_real_step
from common.config import TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.cells import Cell
    from bench.runfile import CellResult, Results

MARKER = "<!-- bakeoff comparison -->"
"""First line of a pull request's comment, by which a later run can replace it."""
COLOURS = {Status.NOT_WORSE: "good", Status.WORSE: "bad", Status.CANNOT_SAY: "open"}
MEASURED_NOTE = (
    "Both sides were measured in this run; their workers alternated. In brackets: 95 % intervals "
    "over pairs of processes, corrected for all rows together; steps and calls are corrected "
    "least."
)
JOINED_NOTE = (
    "Rows compare ratios to plain JAX in the same run, since absolute times drift between runs. In "
    "brackets: 95 % intervals, corrected for all rows together; they allow for the variation of "
    "the same code from run to run."
)
SAME_STATE = 1e-3
"""Largest difference of two arrays of a user's state that count as equal, as a fraction of their
norm: training makes rounding errors larger."""


def describe_comparison(results: Results) -> Document:
    """Return the document of a comparison."""
    it = Comparison(results)
    base, new = it.sides
    is_known = it.status is not Status.CANNOT_SAY
    return Document(
        title=f"{new.spec} compared with {base.spec}",
        subtitle="\n".join(
            f"{name}: {side.spec}{f' (commit {side.commit[:10]})' if side.commit else ''}"
            for name, side in ((BASE, base), (NEW, new))
        ),
        headline=_make_headline(it),
        status=COLOURS[it.status],
        warnings=tuple(results.warnings),
        sections=(
            Section(
                "Differences",
                tables=(*_make_times(it, it.differing_times), *_make_counts(it)),
            ),
            Section("What is computed", tuple(_compare_computation(it))),
            Section(
                "Failures",
                tuple(describe_by_reason(_find_failures(it))),
                status="bad" if it.failures else "",
            ),
            Section(
                "No difference found",
                tables=_make_times(it, it.other_times),
                folded=is_known,
            ),
            Section("Not compared", tuple(_explain_gaps(it))),
        ),
        fine_print=tuple(_explain_method(it)),
        marker=MARKER,
    )


def _make_headline(it: Comparison) -> str:
    """Return a comparison in a few sentences: the releases that changed, then the differences."""
    base, new = it.sides
    problems = [why for side in (base, new) for why in side.gaps.values() if NOT_IMPORTING in why]
    broken = [*dict.fromkeys(why.partition(":")[0] for why in problems)]
    subject = ""
    if base.versions and new.versions:
        pairs = find_differing_releases(base.versions, new.versions).items()
        known = {name: pair for name, pair in pairs if all(pair) or not broken}
        subject = ", ".join(describe_releases(known))
    rows = it.differing_times
    worse = [_describe_row(row, it) for row in rows if it.is_worse(row)]
    if it.failures:
        worse.append(f"{describe_cells(row.cell for row in it.failures)} fails")
    worse += [_describe_row(row, it) for row in it.costlier_counts]
    within = [_describe_row(r, it) for r in rows if not it.is_worse(r) and not it.is_faster(r)]
    faster = [
        _describe_row(row, it)
        for row in sorted(rows, key=lambda row: (-METRICS[row.metric].weight, row.value))
        if it.is_faster(row)
    ]
    within_title = f"Differs by less than the margin of {percent(it.margin)}"
    parts = [
        f"{title}: {name_few(changes)}."
        for title, changes in (("Worse", worse), (within_title, within), ("Faster", faster))
        if changes
    ]
    nothing = sentence(NOTHING_SETTLED)
    if not parts:
        is_known = it.status is not Status.CANNOT_SAY
        parts = ["No change found." if is_known else nothing]
    if parts != [nothing]:
        parts += _count_rows(it)
    first = f"{join_words(broken)}." if broken else ""
    return " ".join(filter(None, [first, f"{subject}:" if subject else "", *parts]))


def _count_rows(it: Comparison) -> Iterator[str]:
    """Yield how many rows are settled, how many are open and how wide, and what is missing."""
    rows = [*it.rows]
    settled = sum(map(it.is_settled, rows))
    gaps = Counter(it.find_gap(row) or UNKNOWN for row in rows if row.is_unknown)
    widths = [r.half_width for r in rows if not it.is_settled(r) and not r.is_unknown]
    parts = [f"{settled} settled"]
    if widths:
        parts.append(f"{len(widths)} open (the widest: ±{percent(math.expm1(max(widths)))})")
    parts += [f"{count} {why}" for why, count in gaps.items()]
    if rows:
        yield f"{pluralise(len(rows), 'row')}: {'; '.join(parts)}."
    if names := _name_missing(it):
        yield f"Not measured: {names}."
    if same := len(it.exact_pairs) - len(it.counts):
        yield f"Identical: {pluralise(same, 'exact count')}."


def _name_missing(it: Comparison) -> str:
    """Return the metrics that some cell lacks, and the seconds that they need."""
    missing = [(why, cell.workload, metric) for (why, cell), metric in _find_missing(it)]
    metrics = sorted({metric for *_, metric in missing}, key=ORDER.index)
    names = name_few([label(metric) for metric in metrics])
    # What one job would have measured has one reason, which names its seconds
    jobs = {(why, workload) for why, workload, _ in missing}
    seconds = sum(find_needed_seconds(why) for why, _ in jobs)
    return f"{names} (needs about {seconds:.0f} s more)" if seconds else names


def _describe_row(row: Estimate, it: Comparison) -> str:
    """Return a difference in a few words: `haiku/pure step at seed +1.2 % (0.8 to 1.7)`."""
    change = _describe_difference(it, row)
    return f"{row.cell.arm} {label(row.metric)} at {name_workload(row.cell.workload)} {change}"


def _describe_amount(it: Comparison, side: str, row: Estimate) -> str:
    """Return a side's amount of a row's cell and metric; empty if it is not known."""
    known = it.amounts.get((side, row.cell, row.metric))
    return amount(known.value, known.unit) if known else ""


def _describe_difference(it: Comparison, row: Estimate) -> str:
    """Return by how much a row differs; an exact number by both of its values, `4 → 5`."""
    if row.form == "added":
        sides = [it.amounts[side, row.cell, row.metric] for side in (BASE, NEW)]
        amounts = [amount(side.value, side.unit) for side in sides]
        if amounts[0] == amounts[1]:  # too few digits to see it
            amounts = [amount(side.value, "") for side in sides]
        return " → ".join(amounts)
    base = it.amounts.get((BASE, row.cell, row.metric))
    if row.metric == HOST_PER_ARRAY and base:  # microseconds are what people can add up
        ends = {name: getattr(row, name) for name in ("value", "low", "high")}
        seconds = {n: end and base.value * (end - 1) for n, end in ends.items()}
        return words(replace(row, form="added", unit="s", **seconds))
    if row.metric == HOST and base and it.is_measured:
        return f"{signed_amount(base.value * (row.value - 1), 's')}, {words(row)}"
    return words(row)


def _make_times(it: Comparison, rows: Iterable[Estimate]) -> tuple[Table, ...]:
    """Return the table of some times, on both sides and as ratios; none without rows."""
    lines = []
    for row in rows:
        name = f"{row.cell.arm} at {name_workload(row.cell.workload)}"
        sides = (_describe_amount(it, side, row) for side in (BASE, NEW))
        content = it.find_gap(row) or row
        lines.append(Row((name, label(row.metric), *sides, content), it.is_worse(row)))
    amounts = (Column(name, number=True, needed=False) for name in (BASE, NEW))
    columns = Column("cell"), Column("metric"), *amounts, Column("new / base", wraps=True)
    return (Table(columns, tuple(lines)),) if lines else ()


def _make_counts(it: Comparison) -> Iterator[Table]:
    """Yield the table of exact numbers that changed, with equal changes in one row."""
    alike = group_by_key(
        ((label(row.metric), _describe_difference(it, row)), row) for row in it.counts
    )
    if alike:
        lines = [
            Row(
                (f"{name} of {describe_cells((row.cell for row in rows), 1)}", change),
                rows[0] in it.costlier_counts,
            )
            for (name, change), rows in alike.items()
        ]
        yield Table((Column("count"), Column("change")), tuple(lines), "Exact counts that changed")


def _compare_computation(it: Comparison) -> Iterator[str]:
    """Yield whether both sides of a user's own step compute the same in ten steps."""
    same, changed, rounding = [], [], 0.0
    asked = {row.cell for row in it.results.estimates}
    for base, new in it.common_cells:
        if not is_real_step(base.cell.workload) or new.cell not in asked:
            continue
        pairs = list(zip(base.losses, new.losses, strict=False))
        away = [abs(a - b) / max(abs(a), abs(b), SLACK) for a, b in pairs]
        if first := next((i for i, d in enumerate(away, 1) if d > TRAJECTORY_TOLERANCE), 0):
            changed.append(
                f"losses of {new.cell.arm} differ from step {first} on, by up to "
                f"{max(away):.1g} (relative) in ten steps; in the last step, they are "
                f"{pairs[-1][0]:.6g} and {pairs[-1][1]:.6g}"
            )
        elif how := _describe_state_change(base, new):
            changed.append(f"the state of {new.cell.arm} differs after ten steps: {how}")
        elif away:
            same.append(str(new.cell.arm))
            rounding = max(rounding, *away)
    if same:
        to = f" (relative difference: {rounding:.1g})" if rounding else ""
        yield f"Both sides have the same losses in ten steps{to}: {name_few(same)}."
    yield from map(sentence, changed)
    yield from name_constant_losses(new for _, new in it.common_cells if new.cell in asked)


def _describe_state_change(base: CellResult, new: CellResult) -> str:
    """Return in words how the state of a user's own step differs; empty if it does not."""
    ours, theirs = (row.proof.state if row.proof else None for row in (base, new))
    if ours is None or theirs is None:  # an older run's, or a step that keeps its state to itself
        return ""
    if len(ours) != len(theirs):
        return f"it has {len(ours)} and {len(theirs)} arrays"
    away = [abs(a - b) / max(a, b, SLACK) for a, b in zip(ours, theirs, strict=True)]
    differing = [part for part in away if part > SAME_STATE]
    if not differing:
        return ""
    return f"{len(differing)} of {len(away)} arrays, by up to {percent(max(away))} of their norm"


def _find_failures(it: Comparison) -> Iterator[tuple[str, Cell]]:
    """Yield how cells fail, on one side or both, each with its cell."""
    for base, new in it.common_cells:
        if new.failure is not None:
            on_both = "" if base.failure is None else " on both sides"
            yield f"fails{on_both}: {new.failure}", new.cell
        elif base.failure is not None:
            yield f"no longer fails (base side: {base.failure})", new.cell


def _explain_gaps(it: Comparison) -> Iterator[str]:
    """Yield the metrics and cells that are not compared, and why."""
    lacking = group_by_key(_find_missing(it))
    alike = group_by_key(
        ((join_words([label(n) for n in ORDER if n in metrics]), why), cell)
        for (why, cell), metrics in lacking.items()
    )
    for (names, why), cells in alike.items():
        yield f"{names} of {describe_cells(cells)}: {why}"
    base, new = it.sides
    for name, other, info in ((BASE, NEW, new), (NEW, BASE, base)):
        if alone := [c for side, c in it.cells if side == name and (other, c) not in it.cells]:
            gaps = {info.gaps.get(str(cell.arm)) or info.gaps.get(cell.entrant) for cell in alone}
            why = "; ".join(filter(None, gaps))
            yield f"Only on the {name} side: {describe_cells(alone)}{f' ({why})' if why else ''}"


def _find_missing(it: Comparison) -> Iterator[tuple[tuple[str, Cell], str]]:
    """Yield why metrics of cells are not compared: reason and cell, then the metric."""
    compared, other = {(row.cell, row.metric) for row in it.times}, {BASE: NEW, NEW: BASE}
    for (name, cell), row in it.cells.items():
        opposite = it.cells.get((other[name], cell))
        for metric, why in row.missing.items():
            if (cell, metric) not in compared:
                on_both = opposite is not None and opposite.missing.get(metric) == why
                yield (why if on_both else f"{why}, on the {name} side", cell), metric


def _find_limits(it: Comparison) -> dict[str, str]:
    """Return metric → the difference that a row of a workload would detect in four cases of five.

    The workload is the one that sentences name first. Metrics without a limit are left out.
    """
    limits = {}
    for metric in sorted({row.metric for row in it.times}, key=ORDER.index):
        rows = [row for row in it.times if row.metric == metric]
        workload = main_workload(row.cell.workload for row in rows)
        limit = max(
            (
                find_detectable_difference([row])
                for row in rows
                if row.cell.workload == workload and not row.is_noiseless
            ),
            default=math.inf,
        )
        if limit > LARGEST_LIMIT:
            continue
        limits[metric] = f"{percent(limit)} ({label(metric)} at {name_workload(workload)})"
        sides = [it.amounts.get((BASE, row.cell, metric)) for row in rows]
        times = [side.value for side in sides if side]
        if metric == HOST_PER_ARRAY and times:
            limits[metric] = f"{amount(limit * median(times), 's')} ({label(metric)})"
    return limits


def _find_specs(it: Comparison) -> Sequence[str]:
    """Return the SPECs of both sides: the releases that differ, or else the commits; or empty ones.

    Commits are revisions of this project, each with a lock of its own.
    """
    base, new = it.sides
    pairs = find_differing_releases(base.versions, new.versions).items()
    pins = {name: pair for name, pair in pairs if name in PACKAGES and all(pair)}
    if not pins and base.commit != new.commit:
        return base.commit, new.commit
    return [",".join(f"{name}=={pair[i]}" for name, pair in pins.items()) for i in (0, 1)]


def _suggest_ab(it: Comparison) -> Iterator[str]:
    """Yield the command that settles the open rows of two files, if both sides can be built."""
    open_rows = [row for row in it.rows if not it.is_settled(row) and row.metric in IN_TURNS]
    specs = _find_specs(it)
    if not open_rows or not all(specs) or any(CHANGED_SUFFIX in spec for spec in specs):
        return
    names = {
        "entrant": {row.cell.entrant for row in open_rows} & {*impls.names()},
        "workload": {row.cell.workload for row in open_rows},
        "metric": {row.metric for row in open_rows},
    }
    given = [
        f" --{what} {','.join(sorted(s))}" for what, s in names.items() if 0 < len(s) <= MOST_NAMED
    ]
    command = f"bakeoff ab --base {specs[0]} --new {specs[1]}{''.join(given)}"
    yield f"To settle the open rows: `{command}`"


def _explain_method(it: Comparison) -> Iterator[str]:
    """Yield the method, the smallest changes that would show, and equal and differing releases."""
    yield MEASURED_NOTE if it.is_measured else JOINED_NOTE
    if limits := _find_limits(it):
        yield f"Smallest change that would be detected in each row: {', '.join(limits.values())}."
    yield from suggest_more(it.times) if it.is_measured else _suggest_ab(it)
    base, new = it.sides
    same = [f"{n} {v}" for n, v in new.versions.items() if base.versions.get(n) == v]
    if same:
        yield f"The same on both sides: {', '.join(same)}."
    pinned = all(side.pins for side in it.sides)
    pairs = find_differing_releases(*(side.pins if pinned else side.versions for side in it.sides))
    differing = [f"{name} {a or 'none'}, then {b or 'none'}" for name, (a, b) in pairs.items()]
    if differing:
        yield f"Differs: {'; '.join(differing)}."
