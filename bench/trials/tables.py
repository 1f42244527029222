"""Tables of the trials of the engine, in Markdown."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.trials.runs import Record


def markdown(records: Sequence[Record], source: str) -> str:
    """Return tables of all records.

    Args:
        records: As `bench.trials.engine` keeps them.
        source: The name of their file, which the page links to.
    """
    cpus = sorted({record["cpu"] for record in records})
    days = sorted({record["at"][:10] for record in records})
    parts = [
        "# Trials of the engine",
        f"Made by `python -m bench.trials.engine`; every record is in [{source}]({source}). "
        "Called: the interval leaves out 1. Lost: the run file lacks a sample of the journal.",
        f"{', '.join(days)}, on {', '.join(cpus)}, {os.cpu_count()} cores.",
    ]
    ended = [record for record in records if "failed" not in record]
    for rows in (planted_rows, whole_rows, plant_rows, kill_rows):
        header, *body = rows(ended)
        if body:
            parts.append("\n".join([header, "|---|" + "--:|" * (header.count("|") - 2), *body]))
    failed = [f"* {record['part']}: {record['failed']}" for record in records if "failed" in record]
    return "\n\n".join([*parts, *(["\n".join(["Failed:", "", *failed])] if failed else [])]) + "\n"


def planted_rows(records: Sequence[Record]) -> Iterator[str]:
    """Yield how often planted slowdowns were called, by trial, budget and size.

    Where something is planted, calling it faster is a miss; where nothing is, any call is false.
    """
    yield "| trial | budget | planted | runs | called | median half width | median ratio |"
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record["part"] in ("two_arms", "all_cores", "ab", "plain"):
            cores = "cores" if record.get("cores") == "all" else "core"
            two_arms = f"two arms, {record['cores']} {cores}" if "cores" in record else ""
            where = record.get("way") or two_arms or "A/B, one core"
            where += ", loaded" if record["loaded"] else ""
            groups[where, record["budget"], record["percent"]].append(record)
    for (where, budget, percent), some in sorted(groups.items()):
        hits = sum(r["called"] == "slower" if percent else bool(r["called"]) for r in some)
        estimates = "– | –"
        if "ratio" in some[0]:
            half = float(np.median([half_width(r) for r in some]))
            middle = float(np.median([r["ratio"] for r in some]))
            estimates = f"±{100 * half:.2f} % | {middle:.4f}"
        yield (f"| {where} | {budget:g} s | {percent:g} % | {len(some)} | {hits} | {estimates} |")


def half_width(record: Record) -> float:
    """Return half the width of an interval; infinite where a run file has no end of it."""
    low, high = record["low"], record["high"]
    return math.inf if low is None or high is None else (high - low) / 2


def whole_rows(records: Sequence[Record]) -> Iterator[str]:
    """Yield a row for each run of all entrants."""
    yield (
        "| all entrants | wall | detectable at `seed` | settled | host costs to ±3 µs or 2 % | "
        "sampling | cold samples |"
    )
    for record in records:
        if record["part"] in ("default", "budgets"):
            known = record["host_costs"] - len(record["host_costs_wide"])
            loaded = ", loaded" if record["loaded"] else ""
            least = record["detectable"]
            yield (
                f"| {record['budget']:g} s{loaded} | {record['took']:.0f} s | "
                f"{'–' if least is None else f'{100 * least:.1f} %'} | "
                f"{record['settled']} of {record['steps']} | {known} of {record['host_costs']} | "
                f"{100 * record['sampling_share']:.0f} % | {record['cold_samples']} |"
            )


def plant_rows(records: Sequence[Record]) -> Iterator[str]:
    """Yield how often each plant was caught by exact metrics, or refused; `same()` never is."""
    yield "| plant | runs | caught |"
    caught: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        if record["part"] == "exact":
            caught[record["plant"]].append(record["caught"])
    for plant, each in caught.items():
        yield f"| `{plant}` | {len(each)} | {sum(each)} |"


def kill_rows(records: Sequence[Record]) -> Iterator[str]:
    """Yield a row for each run that was killed, or whose workers were."""
    yield "| killed | kills | samples in the journal | lost | cells without a number |"
    for record in records:
        if record["part"] == "kills":
            without = record["cells_without_a_number"]
            number = len(without) if isinstance(without, list) else without
            journalled, lost = (record.get(name, "–") for name in ("journalled", "lost"))
            kind = {"run": "run, then resumed", "workers": "workers"}[record["kind"]]
            yield f"| {kind} | {record['kills']} | {journalled} | {lost} | {number} |"
