"""Which library for me: what to take in each situation, by a rule that the reader can check.

Considered are libraries that are maintained and that their authors recommend to new users. Those
that are not shown to be relevantly worse than the best are alike: none is named for noise.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.metrics import COLD, STARTUP
from bench.report import wording
from bench.report.findings import NAMED, REFERENCE, Finding, StyleCells, Topic, View, view
from bench.report.table import Value, percent
from bench.report.wording import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.runfile import BakeoffSection

LIBRARIES = Path(__file__).with_name("libraries.json")
MAINTAINED = 4
"""Releases in a year from which on a library is called maintained."""
CHEAP = 1e-5
"""Seconds a call within which host costs are alike."""
MOST = 4
"""Situations that are told, the first of those that were measured."""
SITUATIONS = {
    "call": "small models, many short calls",
    "step": "training at {}",
    "startup": "short runs and recompilations, from a fresh process to the second step at {}",
    "memory": "memory at {}",
}
"""What a choice can be for."""


class Library(msgspec.Struct):
    """What is known of a library, beside what is measured."""

    releases_in_a_year: int
    latest_on: str
    recommended: bool
    """Its authors do not send new users elsewhere."""
    says: str = ""
    """What they say of it."""

    @property
    def considered(self) -> bool:
        """Whether it is maintained and recommended."""
        return self.recommended and self.releases_in_a_year >= MAINTAINED


class Libraries(msgspec.Struct):
    """The content of `LIBRARIES`."""

    as_of: str
    libraries: dict[str, Library]


@cache
def known_libraries() -> Libraries:
    """Return what is known of libraries."""
    return msgspec.json.decode(LIBRARIES.read_bytes(), type=Libraries)


def choices(section: BakeoffSection, backend: str, *, several: bool = False) -> list[Finding]:
    """Return what to take in each situation, from what was measured on one backend.

    Args:
        section: The `bakeoff` section of a run file.
        backend: Whose cells are looked at.
        several: Whether the backend has to be named.
    """
    found = view(section, backend, several=several)
    styles = [style for style in found.styles if is_candidate(style)]
    return [one for one in situations(found, styles) if one is not None][:MOST]


def is_candidate(style: StyleCells) -> bool:
    """Tell whether a style is one of a maintained library, written in JAX, on one device."""
    first, *_ = cells = list(style.cells.values())
    library = known_libraries().libraries.get(first.entrant)
    in_jax = all(cell.proof is None or cell.proof.jax for cell in cells)
    return bool(library and library.considered and in_jax and not first.devices)


def situations(found: View, styles: Sequence[StyleCells]) -> Iterator[Finding | None]:
    """Yield the choice for each situation, the most important first; None where there is none."""
    costs = {s.name: Value.of(host) for s in styles if (host := s.host()) is not None}
    yield choice(found, "call", "", costs)
    with_step = [style.cells[w] for style in styles for w in style.steps()]
    if with_step:
        main, widest = wording.main_workload(with_step), wording.workloads(with_step)[-1]
        for workload in dict.fromkeys((main, widest)):
            steps = {s.name: Value.of_ratio(f) for s in styles if (f := s.step(workload))}
            yield choice(found, "step", workload, steps, costs)
    every = [cell for style in styles for cell in style.cells.values()]
    for workload in wording.workloads(c for c in every if any(map(c.measured, COLD)))[-1:]:
        sums = {s.name: v for s in styles if (v := startup(found, s, workload)) is not None}
        yield choice(found, "startup", workload, sums)
        sizes = {s.name: f for s in styles if (f := s.measured(workload, "peak_rss"))}
        ratios = {name: Value.of_ratio(size) for name, size in sizes.items()}
        yield choice(found, "memory", workload, ratios)


def startup(found: View, style: StyleCells, workload: str) -> Value | None:
    """Return the seconds before the second step: sums of medians, and of the intervals' ends."""
    middle = low = high = 0.0
    for metric in STARTUP:
        reference = found.baseline.measured(workload, metric)
        stage = style.measured(workload, metric)
        if reference is None or stage is None:
            return None
        if stage.ratio is None or stage.low is None or stage.high is None:
            return None
        middle += reference.median * stage.ratio
        low += reference.median * stage.low
        high += reference.median * stage.high
    return Value(middle, "s", low, high)


def choice(
    found: View,
    situation: str,
    workload: str,
    given: Mapping[str, Value],
    costs: Mapping[str, Value] | None = None,
) -> Finding | None:
    """Return who is best, with all that are not shown to be relevantly worse.

    Args:
        found: What was measured.
        situation: One of `SITUATIONS`.
        workload: Where.
        given: What is compared, by style; less is better.
        costs: What each adds to a call, where the cheapest of those that are alike is told.
    """
    known = {
        name: (value.number, value.low, value.high)
        for name, value in given.items()
        if value.number is not None and value.low is not None and value.high is not None
    }
    if len(known) < 2:
        return None
    order = sorted(known, key=lambda name: known[name][0])
    best = known[order[0]][0]
    limit = best + CHEAP if situation == "call" else best * (1 + found.margin)
    alike = [name for name in order if known[name][1] <= limit]
    behind = [name for name in order if name not in alike]
    lows, highs = min(known[n][1] for n in alike), max(known[n][2] for n in alike)
    near = f"{1e6 * CHEAP:.0f} µs" if situation == "call" else percent(found.margin)
    if situation == "step" and 1 - found.margin <= lows and highs <= 1 + found.margin:
        how, why = "within", f"all within ±{near} of {REFERENCE}"
    elif highs <= limit:
        how, why = "certain", f"they do not differ by more than {near}"
    else:
        how, why = "open", f"none is shown to be worse by more than {near}"
    if len(alike) == 1:
        who = f"{alike[0]}, {given[alike[0]]}"
    else:
        who = f"any of {few(alike, NAMED)}; {why}"
        if cheap := {name: (costs or {})[name] for name in alike if name in (costs or {})}:
            cheapest = min(cheap, key=lambda name: cheap[name].number or 0.0)
            who += f"; cheapest per call: {cheapest} {cheap[cheapest]}"
    after = f"; next: {behind[0]} {given[behind[0]]}" if behind else ""
    text = f"{SITUATIONS[situation].format(found.at(workload))}: {who}{after}"
    values = {"situation": situation, "alike": how, "next": behind[0] if behind else None}
    return Finding(Topic.CHOICE, tuple(alike), text, values)


def considered(entrants: Sequence[str]) -> list[str]:
    """Return the rule in a sentence, and who is left out by it and why."""
    known = known_libraries()
    left_out = [
        f"{name} ({one.says or 'last released on ' + one.latest_on})"
        for name in entrants
        if (one := known.libraries.get(name)) and not one.considered
    ]
    return [
        f"Considered: libraries with {MAINTAINED} releases or more in the year before "
        f"{known.as_of} whose authors do not send new users elsewhere. Alike: not shown to be "
        "worse than the best by more than the margin.",
        *([f"Left out: {'; '.join(left_out)}."] if left_out else []),
    ]
