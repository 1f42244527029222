"""Names of what was measured, and how programs differ, in words.

What is worded are parts of a run file's `bakeoff` section: its cells, and their metrics. Numbers
are worded by `bench.report.table` alone.
"""

from __future__ import annotations

import math
import re
from statistics import mean
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE
from bench.report.table import RATIO, Value, amount, percent
from bench.stats.verdicts import PROGRAM
from common.config import SWEEP, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["amount", "percent"]  # for those who do not make a table

type Facts = dict[str, Any]
"""A section, one of its cells, or one metric of a cell."""

LISTED = 3
"""Kinds of operations that are named."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)?")
ASCII = str.maketrans("–−×µ±…─→▁▂▃▄▅▆▇·", "--xu~._>1234567.")
"""One character for one, so that what fitted still does."""


def is_baseline(cell: Facts) -> bool:
    """Tell whether ratios refer to this cell."""
    return (cell["entrant"], cell["style"]) == BASELINE and not cell.get("devices")


def measured(cell: Facts, metric: str) -> Facts | None:
    """Return a metric of a cell, or None where there is no number."""
    found = cell["metrics"].get(metric)
    if cell["failure"] is not None or found is None or found.get("median") is None:
        return None
    return found


def name(cell: Facts) -> str:
    """Return `entrant style on 4 devices`; the style that all entrants have needs no name."""
    style = cell["style"]
    named = f"{cell['entrant']} {style}" if style and style != BASELINE[1] else cell["entrant"]
    return f"{named}{over_devices(cell)}"


def over_devices(cell: Facts) -> str:
    """Return what follows the name of a style over devices; nothing without a mesh."""
    number = cell.get("devices")
    if not number:
        return ""
    return f" on {number} device{'s' * (number > 1)}{' (weak)' * cell.get('weak', False)}"


def size(workload: str) -> tuple[float, ...]:
    """Return what sorts workloads by the size of the model, then of the batch."""
    known = WORKLOADS.get(workload)
    return (math.inf,) if known is None else (known.width, known.batch, known.chunk)


def workloads(cells: Iterable[Facts]) -> list[str]:
    """Return the workloads of cells, the smallest model's first."""
    return sorted(dict.fromkeys(cell["workload"] for cell in cells), key=size)


def main_workload(cells: Iterable[Facts]) -> str:
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
    batch = "" if known.batch == 1 else f", batch {known.batch}"
    return f"{workload} (width {known.width}{batch})"


def mark(metric: Facts) -> str:
    """Return the sign of a ratio that is no finding, or nothing; without a verdict, none is."""
    return Value(1.0, verdict=metric.get("verdict") or "inconclusive").mark


def within(metric: Facts, margin: float) -> bool:
    """Tell whether a ratio is shown to be as good as 1: equivalent, or different by too little."""
    low, high = metric.get("low"), metric.get("high")
    inside = low is not None and high is not None and 1 - margin <= low <= high <= 1 + margin
    verdict = metric.get("verdict")
    return verdict == "equivalent" or (verdict in ("slower", "faster") and inside)


def ratio(metric: Facts) -> str:
    """Return a ratio and its interval; also where people read the time that is added."""
    bound = metric.get("bound") if metric.get("settled_by") == PROGRAM else None
    return str(Value(metric["ratio"], RATIO, metric.get("low"), metric.get("high"), bound=bound))


def seconds(value: float) -> str:
    """Return a time with three digits and its unit."""
    return amount(value, "s")


def loss(value: float) -> str:
    """Return a loss, in nats per character."""
    return amount(value, "nats")


def operations(counts: dict[str, int]) -> str:
    """Return by which operations a program differs: their kinds if they are few, or else a sum."""
    if not counts:
        return "another order"
    if len(counts) > LISTED:
        return f"{sum(map(abs, counts.values()))} operations differ"
    return ", ".join(f"{n:+d} {kind.removeprefix('stablehlo.')}" for kind, n in counts.items())


def written_in_jax(proof: Facts) -> bool:
    """Tell whether a style is one of a JAX library, and no outside reference."""
    return bool(proof.get("jax", True))


def program(proof: Facts | None) -> str:
    """Return in words how a program differs from the baseline's."""
    if proof is None:
        return ""
    if not written_in_jax(proof):
        settings = (f"{name}: {value}" for name, value in proof.get("settings", {}).items())
        return ", ".join(["not JAX", *settings])
    if not proof["whole_step"]:
        return "several"
    if proof["same_program_as_baseline"]:
        return "the same"
    return operations(proof["operations_beside_baseline"])


def own_loss(final: Facts) -> float | None:
    """Return the mean of the losses from a library's own initialisers, if there are any."""
    return mean(final["own_initialiser"]) if final["own_initialiser"] else None


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
