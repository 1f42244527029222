"""Names and lists in words, and texts from outside made safe to print."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from bench.estimates import Estimate, Verdict
from bench.metrics import METRICS, label
from bench.report.table import UNITS, UNKNOWN
from bench.streams import one_line
from common.config import DEEP, SWEEP, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.runfile import CellResult
    from bench.samples import Proof

MOST_NAMED = 3
"""Most arms, releases or operations that a sentence names; it counts the others."""
NOTHING_SETTLED = "nothing is settled yet"
"""Words of a headline where every comparison is open."""
NO_BREAK = "\u00a0"
UNIT_SPACE = re.compile(rf"(?<=\d) (?=%|→|(?:{'|'.join(UNITS['s'] | UNITS['B'])})\b)")
"""Space between a number and its unit, or an arrow: no line ends there."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)?")


def sort_workloads(workloads: Iterable[str]) -> list[str]:
    """Return the names of workloads, the smallest model's first, then by the size of the batch."""

    def size(name: str) -> tuple[float, ...]:
        known = WORKLOADS.get(name)
        return (known.width, known.layers, known.batch, known.chunk) if known else (math.inf,)

    return sorted(dict.fromkeys(workloads), key=size)


def main_workload(workloads: Iterable[str]) -> str:
    """Return the workload that sentences name first: the tutorial's, or else the widest."""
    names = sort_workloads(workloads)
    return "seed" if "seed" in names else names[-1] if names else ""


def place(workload: str) -> str:
    """Return a workload as sentences name it: `seed`, `width 64`, `12 layers`."""
    known = WORKLOADS.get(workload)
    if known in SWEEP:
        return f"width {known.width}"
    return f"{known.layers} layers" if known is DEEP else workload


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
    if proof.same_program_as_baseline:
        return "the same"
    return operations(proof.operations_beside_baseline)


def join_words(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def name_few(words: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return words as a list in a sentence; beyond `most` + 1, only `most` and how many more."""
    if len(words) <= most + 1:
        return join_words(words)
    return join_words([*words[:most], f"{len(words) - most} more"])


def pluralise(count: int, what: str) -> str:
    """Return a number of things: `1 step`, `2 steps`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop; a name like `haiku/pure` keeps its letters."""
    start = text[:1] if "/" in text.partition(" ")[0] else text[:1].upper()
    return f"{start}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


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
            "rate is zero there, or the step trains nothing, or it keeps its results."
        )


def suggest_more(rows: Iterable[Estimate], *, goes_on: bool = True) -> Iterator[str]:
    """Yield how to go on after a measurement, if any of its comparisons is inconclusive.

    `goes_on` says whether the command takes `--more`.
    """
    open_rows = (r for r in rows if r.verdict is Verdict.INCONCLUSIVE and not r.cell.is_control)
    marks = sorted({f"`{UNKNOWN}`" if r.is_unknown else "`?`" for r in open_rows})
    if marks:
        more = ", or `--more FILE`" * goes_on
        yield f"To settle {join_words(marks)}: a longer `--budget`{more}."


def keep_units(text: str) -> str:
    """Return a text in which each number stands on one line with its unit."""
    return UNIT_SPACE.sub(NO_BREAK, text)


def make_printable(text: str) -> str:
    """Return a text from outside without a terminal's control sequences; line breaks stay."""
    text = ESCAPE_SEQUENCE.sub("", text).expandtabs(4)
    return "\n".join(map(one_line, text.splitlines()))
