"""How values are put into words, in the terminal, in Markdown and in sentences alike.

What is worded are parts of a run file's `bakeoff` section: its cells, and their metrics.
"""

from __future__ import annotations

import math
import re
from statistics import mean
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE
from bench.stats.verdicts import PROGRAM
from common.config import SWEEP, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

type Facts = dict[str, Any]
"""A section, one of its cells, or one metric of a cell."""

MARKS = {"equivalent": "=", "inconclusive": "?"}
"""What stands beside a ratio that is no finding; slower and faster have no mark."""
LISTED = 3
"""Kinds of operations that are named."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)?")
ASCII = str.maketrans("–−×µ±…─→▁▂▃▄▅▆▇", "--xu~._>1234567")
"""One character for one, so that what fitted still does."""


def is_baseline(cell: Facts) -> bool:
    """Tell whether ratios refer to this cell."""
    return (cell["entrant"], cell["style"]) == BASELINE


def measured(cell: Facts, metric: str) -> Facts | None:
    """Return a metric of a cell, or None where there is no number."""
    found = cell["metrics"].get(metric)
    if cell["failure"] is not None or found is None or found.get("median") is None:
        return None
    return found


def name(cell: Facts) -> str:
    """Return `entrant style`; the style that all entrants have needs no name."""
    style = cell["style"]
    return f"{cell['entrant']} {style}" if style and style != BASELINE[1] else str(cell["entrant"])


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


def ratio(metric: Facts) -> str:
    """Return a ratio and its interval, with the digits that the interval is worth.

    Examples are 1.003 (0.999–1.007), 1.21 (1.19–1.24) and 9.0 (8.7–9.4); an interval that has no
    upper end is written 1.2 (>1.1), and nothing is in brackets where there is no interval. What a
    proof has settled is ±0.2 %, proven.
    """
    if metric.get("settled_by") == PROGRAM and metric.get("bound") is not None:
        return f"±{percent(metric['bound'])}, proven"
    middle, low, high = metric["ratio"], metric.get("low"), metric.get("high")
    most = 3 if middle < 2 else 2 if middle < 10 else 1 if middle < 100 else 0
    if low is None and high is None:
        return f"{middle:.{min(2, most)}f}"
    low = 0.0 if low is None else low
    digits = _digits(low, middle + (middle - low) if high is None else high, most)
    if high is None:
        return f"{middle:.{digits}f} (>{low:.{digits}f})"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def added(metric: Facts) -> str:
    """Return the time that is added to a call, with its interval: +57 µs (55–59)."""
    found = metric["added"]
    middle, low, high = found["seconds"], found.get("low"), found.get("high")
    scale, unit = (1e3, "ms") if abs(middle) >= 1e-3 else (1e6, "µs")
    digits = 2 if unit == "ms" else 0 if abs(middle) >= 1e-5 else 1
    text = f"{middle * scale:+.{digits}f} {unit}"
    if low is None or high is None:
        return text
    return f"{text} ({low * scale:.{digits}f} to {high * scale:.{digits}f})"


def _digits(low: float, high: float, most: int) -> int:
    """Return how many digits show an interval, and on which side of 1 its ends are."""
    half = (high - low) / 2
    digits = min(most, max(0, math.ceil(-math.log10(half)))) if half > 0 else min(2, most)
    # Comparing with 1 itself would ask for digits that are not there.
    while digits < most and any(round(end, digits) == 1 != round(end, 3) for end in (low, high)):
        digits += 1
    return digits


def mark(metric: Facts) -> str:
    """Return the sign of a ratio that is no finding, or nothing; without a verdict, none is."""
    return MARKS.get(metric.get("verdict") or "inconclusive", "")


def within(metric: Facts, margin: float) -> bool:
    """Tell whether a ratio is shown to be as good as 1: equivalent, or different by too little."""
    low, high = metric.get("low"), metric.get("high")
    inside = low is not None and high is not None and 1 - margin <= low <= high <= 1 + margin
    verdict = metric.get("verdict")
    return verdict == "equivalent" or (verdict in ("slower", "faster") and inside)


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def seconds(value: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(value) * scale >= 1:
            return f"{_three_digits(value * scale)} {unit}"
    return f"{_three_digits(value * 1e9)} ns"


def size_bytes(value: float) -> str:
    """Return a number of bytes with three digits and its unit, in powers of a thousand."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{value:.0f} B"


def amount(value: float, unit: str) -> str:
    """Return a value of a metric with its unit."""
    return {"s": seconds, "B": size_bytes}.get(unit, lambda v: f"{_three_digits(v)} {unit}")(value)


def percent(fraction: float) -> str:
    """Return a fraction in per cent: 0.8 %, 2 %, 12 %."""
    value = 100 * fraction
    if value == 0 or value >= 0.1:
        return f"{value:.{1 if value < 10 else 0}f}".removesuffix(".0") + " %"
    return f"{value:.1g} %"


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


def loss(value: float) -> str:
    """Return a loss, in nats per character."""
    return f"{value:.3f}"


def own_loss(final: Facts) -> float | None:
    """Return the mean of the losses from a library's own initialisers, if there are any."""
    return mean(final["own_initialiser"]) if final["own_initialiser"] else None


def joined(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def printable(text: str) -> str:
    """Return a text from outside without what would steer a terminal; lines stay lines."""
    text = ESCAPE_SEQUENCE.sub("", text).expandtabs(4)
    lines = text.splitlines()
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def ascii_only(text: str) -> str:
    """Return a text for a terminal that cannot show more than ASCII, of the same length."""
    return text.translate(ASCII).encode("ascii", "replace").decode("ascii")
