"""Which library for me: what to take in each situation, by a rule that the reader can check.

Considered are libraries that are maintained and that their authors recommend to new users. Those
that are not shown to be relevantly worse than the best are alike: none is named for noise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bench.metrics import COLD, STARTUP
from bench.report import wording
from bench.report.findings import Finding, StyleCells, Topic, View, ratio_of, view
from bench.report.table import Value, percent
from bench.report.wording import measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.report.wording import Facts

LIBRARIES = Path(__file__).with_name("libraries.json")
MAINTAINED = 4
"""Releases in a year from which on a library is called maintained."""
CHEAP = 1e-5
"""Seconds a call within which host costs are alike."""
MOST = 4
"""Situations that are told, the first of those that were measured."""


def choices(section: Facts, backend: str, *, several: bool = False) -> list[Finding]:
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
    cells = list(style.cells.values())
    known = json.loads(LIBRARIES.read_text("utf-8"))["libraries"].get(cells[0]["entrant"])
    return (
        known is not None
        and known["recommended"]
        and known["releases_in_a_year"] >= MAINTAINED
        and all(cell["proof"] is None or wording.written_in_jax(cell["proof"]) for cell in cells)
        and not cells[0].get("devices")
    )


def situations(found: View, styles: Sequence[StyleCells]) -> Iterator[Finding | None]:
    """Yield the choice for each situation, the most important first; None where there is none."""
    costs = {s.name: Value.of(host) for s in styles if (host := s.host()) is not None}
    yield choice(found, "call", "", costs)
    with_step = [style.cells[w] for style in styles for w in style.steps()]
    if with_step:
        main, widest = wording.main_workload(with_step), wording.workloads(with_step)[-1]
        for workload in dict.fromkeys((main, widest)):
            steps = {s.name: ratio_of(f) for s in styles if (f := s.step(workload)) is not None}
            yield choice(found, "step", workload, steps, costs)
    every = [cell for style in styles for cell in style.cells.values()]
    for workload in wording.workloads(c for c in every if any(measured(c, m) for m in COLD))[-1:]:
        sums = {s.name: v for s in styles if (v := startup(found, s, workload)) is not None}
        yield choice(found, "startup", workload, sums)
        cells = {s.name: s.cells[workload] for s in styles if workload in s.cells}
        sizes = {name: ratio_of(f) for name, c in cells.items() if (f := measured(c, "peak_rss"))}
        yield choice(found, "memory", workload, sizes)


def startup(found: View, style: StyleCells, workload: str) -> Value | None:
    """Return the seconds before the second step: sums of medians, and of the intervals' ends."""
    base, cell = found.baseline.cells.get(workload), style.cells.get(workload)
    if base is None or cell is None:
        return None
    sums = [0.0, 0.0, 0.0]
    for metric in STARTUP:
        reference, stage = measured(base, metric), measured(cell, metric)
        ends = [stage.get(end) for end in ("ratio", "low", "high")] if stage else [None]
        if reference is None or None in ends:
            return None
        sums = [s + reference["median"] * end for s, end in zip(sums, ends, strict=True)]
    return Value(sums[0], "s", sums[1], sums[2])


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
        situation: One of the sentences' situations.
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
    if situation == "step" and 1 - found.margin <= lows and highs <= 1 + found.margin:
        how = "within"
    else:
        how = "certain" if highs <= limit else "open"
    cheap = sorted(
        (name for name in alike if costs and name in costs),
        key=lambda name: (costs or {})[name].number or 0.0,
    )
    return found.finding(
        Topic.CHOICE,
        alike,
        situation=situation,
        workload=workload,
        alike=how,
        limit=f"{1e6 * CHEAP:.0f} µs" if situation == "call" else percent(found.margin),
        best=given[alike[0]],
        next=(behind[0], given[behind[0]]) if behind else None,
        cheapest=(cheap[0], (costs or {})[cheap[0]]) if cheap else None,
    )


def considered(entrants: Sequence[str]) -> list[str]:
    """Return the rule in a sentence, and who is left out by it and why."""
    known = json.loads(LIBRARIES.read_text("utf-8"))
    libraries = {name: known["libraries"][name] for name in entrants if name in known["libraries"]}
    left_out = [
        f"{name} ({one['says'] or 'last released on ' + one['latest_on']})"
        for name, one in libraries.items()
        if not one["recommended"] or one["releases_in_a_year"] < MAINTAINED
    ]
    return [
        f"Considered: libraries with {MAINTAINED} releases or more in the year before "
        f"{known['as_of']} whose authors do not send new users elsewhere. Alike: not shown to be "
        "worse than the best by more than the margin.",
        *([f"Left out: {'; '.join(left_out)}."] if left_out else []),
    ]
