"""Consistency of a run file: what its reader returns can be shown, compared and gone on with.

Types, lengths and most ranges are checked by the types of `bench.runfile` and `bench.estimates`.
Here, values and intervals are possible, names are known, and whatever is referred to is there.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.estimates import LARGEST
from bench.metrics import METRICS, SAMPLED
from bench.runfile import NO_ROW
from common.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.estimates import Estimate
    from bench.runfile import CellResult, Results
    from bench.samples import Proof, Sample

LARGEST_RATIO = 1e9
"""Largest ratio, and inverse of the smallest one: a year to 30 ms."""
LONGEST_NAME = 1_000
"""Characters of an entrant's, a style's or a workload's name; a file's name has 255 at most."""
UNKNOWN_METRIC = "which this version does not know: a newer one may"
TIMES = {name for name, metric in SAMPLED.items() if metric.varies and metric.compared}
"""Metrics whose numbers are above zero: logarithms are taken of them."""
UNITS = sorted({metric.unit for metric in METRICS.values()})
"""Units of estimates; empty for ratios and numbers."""


def list_contradictions(results: Results, samples: Iterable[Sample], when: str) -> Iterator[str]:
    """Yield the problems of a run file: what cannot be, or contradicts another part of it."""
    if when:
        try:
            datetime.fromisoformat(when)
        except ValueError:
            yield f"its date is {shorten(when)}, which is none"
    if results.kind == "bisect":
        yield from check_search(results)
    if results.kind in ("run", "cost") and not results.cells:
        yield "it has no cells"
    if results.kind == "history" and not results.environments:
        yield "it has no environments"
    yield from check_rows(results, samples)


def check_rows(results: Results, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the problems of both tables, of cells and of environments."""
    environments = set(results.environments)
    if results.kind in ("run", "cost"):
        environments.add("")  # the shared environment
    sides = ("base", "new") if results.kind == "ab" else ()
    for name in (*sides, *filter(None, [results.base])):
        if name not in environments:
            yield f"it has no environment {shorten(name)}"
    for row in results.estimates:
        yield from check_names(row, [row.metric], environments, row.against, row.settled_by)
        if row.unit not in UNITS:
            known = ", ".join(unit or "none" for unit in UNITS)
            yield f"an estimate has the unit {shorten(row.unit)}; known: {known}"
        yield from check_numbers(row)
    for cell in results.cells:
        yield from check_names(cell, cell.missing, environments)
        if cell.proof is not None:
            yield from check_proof(cell.proof)
    for sample in samples:
        yield from check_names(sample, [sample.metric], environments)
        numbers = [n for n in (sample.value, sample.median, sample.p95) if n is not None]
        least = 1 / LARGEST if sample.metric in TIMES else 0.0
        if not all(least <= number <= LARGEST for number in numbers):
            about = f"a sample of {shorten(sample.metric)} of {shorten(str(sample.cell))}"
            yield f"{about} is {', '.join(f'{n:g}' for n in numbers)}, which cannot be"


def check_names(
    row: CellResult | Estimate | Sample, metrics: Iterable[str], environments: set[str], *names: str
) -> Iterator[str]:
    """Yield the problems of a row's names: those that are unknown, or too long."""
    for metric in metrics:
        if metric not in METRICS:
            yield f"it has a metric {shorten(metric)}, {UNKNOWN_METRIC}"
    for name in (*row.cell, *names):
        if len(name) > LONGEST_NAME:
            yield f"a name has {len(name)} characters: {shorten(name)}"
        elif not name.isprintable():
            yield f"a name has characters that cannot be printed: {shorten(ascii(name))}"
    if row.environment not in environments:
        about = f"{shorten(str(row.cell))} is of the environment {shorten(row.environment)}"
        yield f"{about}, which it lacks"


def check_numbers(row: Estimate) -> Iterator[str]:
    """Yield the problems of an estimate's numbers."""
    about = f"{shorten(row.metric)} of {shorten(str(row.cell))}"
    lowest, highest = -LARGEST, LARGEST
    if row.form == "ratio":
        lowest, highest = 1 / LARGEST_RATIO, LARGEST_RATIO
    elif row.form == "amount" and row.metric in TIMES:
        lowest = 1 / LARGEST
    elif row.level is not None:
        highest = LARGEST_RATIO * row.level
    if not lowest <= row.value <= highest:
        yield f"{about} is {row.value:g}, which cannot be"
    if any(low > high for low, high in pairwise(row.ends)):
        yield f"{about} is {row.value:g}, outside of its interval"


def check_proof(proof: Proof) -> Iterator[str]:
    """Yield the problems of a proof's numbers and names."""
    counts, settings = proof.operations_beside_baseline, proof.settings
    names = (*counts, *settings, *settings.values(), proof.twin)
    numbers = proof.loss, proof.gradient, proof.trajectory, *map(abs, counts.values())
    if not all(0 <= n <= LARGEST for n in numbers) or not all(n >= 0 for n in proof.state or ()):
        yield "a proof has a number that cannot be"
    if not all(isinstance(value, str | int | float | None) for value in settings.values()):
        yield "a proof has a setting that is neither text nor a number"
    elif any(len(str(name)) > LONGEST_NAME for name in names):
        yield f"a proof has a name of more than {LONGEST_NAME:,} characters"


def check_search(results: Results) -> Iterator[str]:
    """Yield the problems of a bisection's record, steps and estimates."""
    record = results.search
    if not record.metric:
        yield "it has no search"
    elif record.metric not in METRICS:
        yield f"it searches a metric {shorten(record.metric)}, {UNKNOWN_METRIC}"
    rows = [step.row for step in record.steps]
    if NO_ROW in rows:
        yield "its steps have no rows: the version of commit a820d0c5 reads it"
    elif rows != results.estimates:
        yield f"its estimates are not those of its {len(rows)} steps"
    elif record.stopped is None and "whole" not in [step.phase for step in record.steps]:
        yield "it came to its end without a comparison of its ends"
    if any(row.form != "ratio" for row in rows):
        yield "a step of it has no ratio"
