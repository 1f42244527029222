"""Texts that several documents have: programs, gaps, constant losses, how to go on, remedies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.estimates import Estimate, Verdict, group_by_key
from bench.metrics import METRICS, label
from bench.numbers import UNKNOWN
from bench.wording import (
    MOST_NAMED,
    join_words,
    name_few,
    name_workload,
    sentence,
    sort_workloads,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.cells import Cell
    from bench.runfile import CellResult
    from bench.samples import Proof

LARGEST_LIMIT = 1.0
"""Largest detectable difference that is reported, a fraction: above it, nothing is known."""
NOTHING_SETTLED = "nothing is settled yet"
"""Words of a headline where every comparison is open."""


def operations(counts: dict[str, int]) -> str:
    """Return the operations by which a program differs: their kinds if few, else their number."""
    if not counts:
        return "the same, reordered"
    if len(counts) > MOST_NAMED:
        return f"{sum(map(abs, counts.values()))} operations"
    return ", ".join(f"{n:+d} {kind.removeprefix('stablehlo.')}" for kind, n in counts.items())


def program(proof: Proof | None) -> str:
    """Return how a program differs from the baseline's."""
    if proof is None:
        return ""
    if proof.jax is None:
        return "unknown"
    if not proof.jax:
        return ", ".join(["not JAX", *(f"{name}: {v}" for name, v in proof.settings.items())])
    if not proof.whole_step:
        return "several"
    if proof.twin:
        return f"the same as {proof.twin}"
    if proof.same_program_as_baseline:
        return "the same"
    return operations(proof.operations_beside_baseline)


def explain_missing(rows: Sequence[CellResult]) -> Iterator[str]:
    """Yield which metrics of which arms have no number, in one sentence for each reason."""
    absent = [(why, n, r) for n in METRICS for r in rows if (why := r.missing.get(n))]
    for reason in dict.fromkeys(why for why, _, _ in absent):
        # Commas separate the names, so they may not contain one
        names = (label(name).replace(",", "") for why, name, _ in absent if why == reason)
        metrics = dict.fromkeys(names)
        arms = dict.fromkeys(str(row.cell.arm) for why, _, row in absent if why == reason)
        of = f" of {name_few(list(arms))}" if len(arms) < len(rows) else ""
        yield sentence(f"{reason}: {join_words(list(metrics))}{of}")


def name_constant_losses(rows: Iterable[CellResult]) -> Iterator[str]:
    """Yield which steps have the same loss in all ten steps of their proof, in a sentence."""
    rows = (row for row in rows if not row.cell.is_control)
    arms = [str(row.cell.arm) for row in rows if len(set(row.losses)) == 1]
    if arms:
        yield (
            f"{name_few(arms)}: the loss is the same in each of ten steps. Either the learning "
            "rate is zero, or the step trains nothing, or it returns stored results."
        )


def suggest_more(rows: Iterable[Estimate], *, goes_on: bool = True) -> Iterator[str]:
    """Yield how to go on after a measurement, if any of its comparisons is inconclusive.

    `goes_on` says whether the command takes `--resume`.
    """
    open_rows = (r for r in rows if r.verdict is Verdict.INCONCLUSIVE and not r.cell.is_control)
    marks = sorted({f"`{UNKNOWN}`" if r.is_unknown else "`?`" for r in open_rows})
    if marks:
        more = " or `--resume FILE`" * goes_on
        yield f"To settle results marked {join_words(marks)}, use a longer `--budget`{more}."


def describe_cells(cells: Iterable[Cell], most: int = MOST_NAMED) -> str:
    """Return cells as a list in a sentence: `haiku/pure at width 8 and width 128`."""
    workloads = group_by_key((cell.arm, cell.workload) for cell in cells)
    arms = group_by_key(
        (name_few([*map(name_workload, sort_workloads(at))], most), str(arm))
        for arm, at in workloads.items()
    )
    return name_few([f"{name_few(names, most)} at {where}" for where, names in arms.items()], most)


def describe_by_reason(pairs: Iterable[tuple[str, Cell]]) -> Iterator[str]:
    """Yield each reason in a sentence with its cells: `haiku/pure at toy fails: not equal`."""
    for reason, cells in group_by_key(pairs).items():
        yield f"{describe_cells(cells)} {reason}"
