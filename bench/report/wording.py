"""Names of what was measured, and how programs differ, in words.

Numbers are worded by `bench.report.table` alone.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.stats.verdicts import Verdict
from common.config import DEPTH, SWEEP, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cells import Arm, Cell
    from bench.runfile import CellName, Metric, Proof


type Styled = Arm | Cell | CellName
"""What says which style of which entrant it is."""
LISTED = 3
"""Kinds of operations that are named."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)?")
ASCII = str.maketrans("–−×µ±…─→▁▂▃▄▅▆▇·", "--xu~._>1234567.")
"""One character for one, so that what fitted still does."""


def name(cell: Styled) -> str:
    """Return `entrant style on 4 devices`; the style that all entrants have needs no name."""
    named = cell.style and cell.style != BASELINE[1]
    return f"{cell.entrant}{f' {cell.style}' if named else ''}{over_devices(cell)}"


def over_devices(cell: Styled) -> str:
    """Return what follows the name of a style over devices; nothing without a mesh."""
    if not cell.devices:
        return ""
    return f" on {cell.devices} device{'s' * (cell.devices > 1)}{' (weak)' * cell.weak}"


def size(workload: str) -> tuple[float, ...]:
    """Return what sorts workloads by the size of the model, then of the batch."""
    known = WORKLOADS.get(workload)
    return (math.inf,) if known is None else (known.width, known.layers, known.batch, known.chunk)


def workloads(cells: Iterable[CellName]) -> list[str]:
    """Return the workloads of cells, the smallest model's first."""
    return sorted(dict.fromkeys(cell.workload for cell in cells), key=size)


def main_workload(cells: Iterable[CellName]) -> str:
    """Return the workload that is spoken about first: the tutorial's, or else the widest."""
    names = workloads(cells)
    return "seed" if "seed" in names else names[-1]


def sized(workload: str) -> str:
    """Return a workload with its width."""
    known = WORKLOADS.get(workload)
    if known is None:
        return workload
    if known in SWEEP:
        return f"width {known.width}"
    if known in DEPTH:
        return f"{known.layers} layers"
    batch = "" if known.batch == 1 else f", batch {known.batch}"
    return f"{workload} (width {known.width}{batch})"


def within(found: Metric, margin: float) -> bool:
    """Tell whether a ratio is shown to be as good as 1: equivalent, or different by too little."""
    if found.verdict not in (Verdict.SLOWER, Verdict.FASTER) or None in (found.low, found.high):
        return found.verdict == Verdict.EQUIVALENT
    return 1 - margin <= (found.low or 0.0) and (found.high or math.inf) <= 1 + margin


def operations(counts: dict[str, int]) -> str:
    """Return by which operations a program differs: their kinds if they are few, or else a sum."""
    if not counts:
        return "another order"
    if len(counts) > LISTED:
        return f"{sum(map(abs, counts.values()))} operations differ"
    return ", ".join(f"{n:+d} {kind.removeprefix('stablehlo.')}" for kind, n in counts.items())


def program(proof: Proof | None) -> str:
    """Return in words how a program differs from the baseline's."""
    if proof is None:
        return ""
    if not proof.jax:
        settings = (f"{name}: {value}" for name, value in proof.settings.items())
        return ", ".join(["not JAX", *settings])
    if not proof.whole_step:
        return "several"
    if proof.same_program_as_baseline:
        return "the same"
    return operations(proof.operations_beside_baseline)


def joined(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def few(words: Sequence[str], most: int) -> str:
    """Return at most so many words as a list in a sentence, and how many more there are."""
    if len(words) <= most + 1:
        return joined(words)
    return joined([*words[:most], f"{len(words) - most} more"])


def printable(text: str) -> str:
    """Return a text from outside without what would steer a terminal; lines stay lines."""
    text = ESCAPE_SEQUENCE.sub("", text).expandtabs(4)
    lines = text.splitlines()
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def ascii_only(text: str) -> str:
    """Return a text for a terminal that cannot show more than ASCII, of the same length."""
    return text.translate(ASCII).encode("ascii", "replace").decode("ascii")
