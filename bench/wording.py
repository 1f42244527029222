"""Names and lists in words, and texts from outside made safe to print."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from bench.metrics import TINY
from bench.numbers import UNITS
from bench.streams import one_line
from common.config import DEEP, SWEEP, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.cells import Cell

MOST_NAMED = 3
"""Most arms, releases or operations that a sentence names; it counts the others."""
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
    """Return the workload that sentences name first: the tutorial's, else the widest.

    Of those that show what a call costs, it is the one with the fewest layers.
    """
    names = sort_workloads(workloads)
    if "seed" in names:
        return "seed"
    return names[0 if {*names} <= {*TINY} else -1] if names else ""


def name_workload(workload: str) -> str:
    """Return a workload as people read it: `width 128`, `width 128, batch 8`, `12 layers`."""
    known = WORKLOADS.get(workload)
    if known is None:  # a user's own step
        return workload
    if known is DEEP:
        return f"{known.layers} layers"
    layers = f", {known.layers} layers" if known.layers != WORKLOADS["seed"].layers else ""
    batch = f", batch {known.batch}" if known.batch > 1 else ""
    return f"width {known.width}{batch}{layers}{' of the sweep' if known in SWEEP else ''}"


def name_place(cell: Cell) -> str:
    """Return a cell's workload and backend, as people read them."""
    return f"{name_workload(cell.workload)} on {cell.backend}"


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


def describe_releases(pairs: Mapping[str, tuple[str | None, str | None]]) -> list[str]:
    """Return releases that differ in words: `flax 0.12.8 → 0.12.9`."""
    return [f"{name} {a or 'none'} → {b or 'none'}" for name, (a, b) in pairs.items()]


def keep_units(text: str) -> str:
    """Return a text in which each number stands on one line with its unit."""
    return UNIT_SPACE.sub(NO_BREAK, text)


def make_printable(text: str) -> str:
    """Return a text from outside without a terminal's control sequences; line breaks stay."""
    text = ESCAPE_SEQUENCE.sub("", text).expandtabs(4)
    return "\n".join(map(one_line, text.splitlines()))
