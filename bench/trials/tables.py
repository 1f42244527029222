"""Tables of trials, in Markdown."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    type Record = dict[str, Any]
    type Row = Sequence[object]

EARLIER = "before 74fe176"
"""Code of records that do not say of which they are."""


def lines(header: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a table, each when its row comes; only the first column holds words."""
    yield f"| {' | '.join(header)} |"
    yield "|---|" + "--:|" * (len(header) - 1)
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def markdown(records: Sequence[Record], source: str) -> str:
    """Return tables of all records of the engine's trials, with a link to their file."""
    parts = [
        "# Trials of the engine",
        f"Made by `python -m bench.trials.engine`; every record is in [{source}]({source}). "
        "Called: the interval leaves out 1. Lost: the run file lacks a sample of the journal.",
    ]
    for cpu, code in dict.fromkeys((r["cpu"], r.get("code", EARLIER)) for r in records):
        own = [r for r in records if (r["cpu"], r.get("code", EARLIER)) == (cpu, code)]
        days = sorted({record["at"][:10] for record in own})
        parts.append(f"## {cpu}, {os.cpu_count()} cores, {', '.join(days)}, commit {code}")
        by_part: dict[str, list[Record]] = defaultdict(list)
        for record in own:
            by_part["failed" if "failed" in record else record["part"]].append(record)
        for header, make, names in TABLES:
            if rows := list(make([r for name in names for r in by_part[name]])):
                parts.append("\n".join(lines(header, rows)))
        if failed := [f"* {record['part']}: {record['failed']}" for record in by_part["failed"]]:
            parts.append("\n".join(["Failed:", "", *failed]))
    return "\n\n".join(parts) + "\n"


def planted(records: Sequence[Record]) -> Iterator[Row]:
    """Yield how often planted slowdowns were called, by trial, budget and size.

    Where something is planted, calling it faster is a miss; where nothing is, any call is false.
    """
    groups: dict[tuple[str, float, float], list[Record]] = defaultdict(list)
    for record in records:
        cores = {"one": "two arms, one core", "all": "two arms, all cores"}
        where = record.get("way") or cores.get(record.get("cores", ""), "A/B, one core")
        where += ", loaded" if record["loaded"] else ""
        groups[where, record["budget"], record["percent"]].append(record)
    for (where, budget, percent), some in sorted(groups.items()):
        hits = sum(r["called"] == "slower" if percent else bool(r["called"]) for r in some)
        estimates = ["–", "–"]
        if "ratio" in some[0]:
            half = np.median([half_width(r) for r in some])
            middle = np.median([r["ratio"] for r in some])
            estimates = [f"±{100 * half:.2f} %", f"{middle:.4f}"]
        yield where, f"{budget:g} s", f"{percent:g} %", len(some), hits, *estimates


def half_width(record: Record) -> float:
    """Return half the width of an interval; infinite where a run file has no end of it."""
    low, high = record["low"], record["high"]
    return math.inf if low is None or high is None else (high - low) / 2


def whole(records: Sequence[Record]) -> Iterator[Row]:
    """Yield a row for each run of all entrants."""
    for r in records:
        known, least = r["host_costs"] - len(r["host_costs_wide"]), r["detectable"]
        yield (
            f"{r['budget']:g} s{', loaded' if r['loaded'] else ''}",
            f"{r['took']:.0f} s",
            "–" if least is None else f"{100 * least:.1f} %",
            f"{r['settled']} of {r['steps']}",
            f"{known} of {r['host_costs']}",
            f"{100 * r['sampling_share']:.0f} %",
            r["cold_samples"],
        )


def plants(records: Sequence[Record]) -> Iterator[Row]:
    """Yield how often each plant was caught by exact metrics, or refused; `same()` never is."""
    caught: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        caught[record["plant"]].append(record["caught"])
    for plant, each in caught.items():
        yield f"`{plant}`", len(each), sum(each)


def kills(records: Sequence[Record]) -> Iterator[Row]:
    """Yield a row for each run that was killed, or whose workers were."""
    kinds = {"run": "run, then resumed", "workers": "workers"}
    for r in records:
        without = r["cells_without_a_number"]
        number = len(without) if isinstance(without, list) else without
        yield kinds[r["kind"]], r["kills"], r.get("journalled", "–"), r.get("lost", "–"), number


ALL_ENTRANTS = (
    *("all entrants", "wall", "detectable at `seed`", "settled"),
    *("host costs to ±3 µs or 2 %", "sampling", "cold samples"),
)
TABLES = (
    (
        ("trial", "budget", "planted", "runs", "called", "median half width", "median ratio"),
        planted,
        ("two_arms", "all_cores", "ab", "plain"),
    ),
    (ALL_ENTRANTS, whole, ("default", "budgets")),
    (("plant", "runs", "caught"), plants, ("exact",)),
    (
        ("killed", "kills", "samples in the journal", "lost", "cells without a number"),
        kills,
        ("kills",),
    ),
)
"""Header, rows and the parts whose records they are of."""
