"""Consistency of a run file: what its reader returns can be shown, compared and gone on with.

Types and lengths are checked by `bench.runfile`. Here, numbers are possible, names are known, and
whatever is referred to is there; nothing behind the reader checks that again.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.metrics import METRICS, Kind
from common.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.cells import Cell
    from bench.estimates import Estimate
    from bench.runfile import FileKind, Results
    from bench.samples import Proof, Sample

LARGEST = 1e18
"""Largest number in a run file, in any unit: bytes and operations of the largest models are below,
and nothing that is computed of it overflows."""
FARTHEST_END = 1e290
"""Largest end of an interval: one of three workers may be as good as infinite. What is made of it
does not overflow."""
LARGEST_RATIO = 1e9
"""Largest ratio, and inverse of the smallest one: a year to 30 ms."""
LONGEST_NAME = 1_000
"""Characters of an entrant's, a style's or a workload's name; a file's name has 255 at most."""
ALONE: tuple[FileKind, ...] = ("run", "cost")
"""Kinds whose environment has no name."""
SIDES: dict[FileKind, tuple[str, ...]] = {"ab": ("base", "new")}
"""Kind of comparison → environments that it has."""


def list_contradictions(
    results: Results, samples: Iterable[Sample], when: str = ""
) -> Iterator[str]:
    """Yield in words what of a run file cannot be, or contradicts another part of it."""
    if when:
        try:
            datetime.fromisoformat(when)
        except ValueError:
            yield f"its date is {shorten(when)}"
    if results.kind == "bisect":
        yield from check_search(results)
    if results.kind == "cost" and not results.cells:
        yield "it has no cells"
    yield from check_rows(results, samples)


def check_rows(results: Results, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield what of the tables cannot be, or refers to something that is not there."""
    places = set(results.environments) | ({""} if results.kind in ALONE else set())
    for name in (*SIDES.get(results.kind, ()), *filter(None, [results.base])):
        if name not in places:
            yield f"it has no environment {shorten(name)}"
    for row in results.estimates:
        yield from check_estimate(row, places)
    for cell in results.cells:
        yield from check_names(cell.cell, cell.missing, cell.environment, places)
        if cell.proof is not None:
            yield from check_proof(cell.proof)
    for sample in samples:
        yield from check_names(sample.cell, (sample.metric,), sample.environment, places)
        about = METRICS.get(sample.metric)
        is_time = about is not None and about.kind in (Kind.WARM, Kind.COLD) and about.compared
        if not (0 if is_time else -LARGEST) < sample.value <= LARGEST:
            yield f"a sample of {shorten(sample.metric)} of {sample.cell} is {sample.value:g}"


def check_names(
    cell: Cell, metrics: Iterable[str], environment: str, places: set[str]
) -> Iterator[str]:
    """Yield which names of a row are unknown, or too long."""
    for metric in metrics:
        if metric not in METRICS:
            yield f"it has a metric {shorten(metric)}, which this version does not know"
    for name in cell:
        if len(name) > LONGEST_NAME:
            yield f"a name has {len(name)} characters: {shorten(name)}"
    if environment not in places:
        yield f"{shorten(str(cell))} is of the environment {shorten(environment)}, which it lacks"


def check_estimate(row: Estimate, places: set[str]) -> Iterator[str]:
    """Yield what of an estimate cannot be."""
    yield from check_names(row.cell, (row.metric,), row.environment, places)
    about = f"{shorten(row.metric)} of {shorten(str(row.cell))}"
    least, most = (1 / LARGEST_RATIO, LARGEST_RATIO) if row.form == "ratio" else (-LARGEST, LARGEST)
    ends = [end for end in (row.low, row.value, row.high) if end is not None]
    if not least <= row.value <= most or not all(abs(end) <= FARTHEST_END for end in ends):
        yield f"{about} is {row.value:g}"
    if any(low > high for low, high in pairwise(ends)):
        yield f"{about} is {row.value:g}, outside of its interval"
    if row.standard_error is not None and not 0 <= row.standard_error <= LARGEST:
        yield f"{about} has a standard error of {row.standard_error:g}"
    if not 0 <= row.df <= LARGEST or not 0 <= (row.p or 0) <= 1:
        yield f"{about} has {row.df:g} degrees of freedom and p = {row.p}"
    if row.level is not None and not 0 < row.level <= LARGEST:
        yield f"{about} is added to {row.level:g} seconds"
    if not (0 <= row.workers <= LARGEST and 0 <= row.blocks <= LARGEST):
        yield f"{about} is of {row.workers} workers and {row.blocks} blocks"


def check_proof(proof: Proof) -> Iterator[str]:
    """Yield what of a proof cannot be."""
    numbers = proof.loss, proof.gradient, proof.trajectory, *(proof.state or ())
    counts = proof.operations_beside_baseline
    if not all(0 <= number <= LARGEST for number in (*numbers, *map(abs, counts.values()))):
        yield "a proof has a number that cannot be"
    if any(len(name) > LONGEST_NAME for name in (*counts, *map(str, proof.settings.values()))):
        yield "a proof has a name of more than {LONGEST_NAME} characters"


def check_search(results: Results) -> Iterator[str]:
    """Yield what of a bisection contradicts its steps."""
    record, rows = results.search, results.estimates
    if not record.metric:
        yield "it has no search"
    elif record.metric not in METRICS:
        yield f"it searches a metric {shorten(record.metric)}, which this version does not know"
    if len(record.steps) != len(rows):
        yield f"it has {len(record.steps)} steps and {len(rows)} estimates"
    elif record.stopped is None and "whole" not in [step.phase for step in record.steps]:
        yield "it came to its end without a comparison of its ends"
    if any(row.form != "ratio" for row in rows):
        yield "a step of it has no ratio"
