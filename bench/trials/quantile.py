"""Which quantile of an arm's calls in a block to take as its datum: evidence from run files.

    python -m bench.trials.quantile run.json ...

Prints the standard error of one worker's result, by quantile: the median over arms that compile to
the baseline's program (of host cost, over all arms), of each file and turn. Only workers from the
third on count: the first ones prove, too.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE, CONTROL
from bench.estimates import datum
from bench.runfile import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUANTILES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5)
PROVING = 2
REFERENCES = tuple("/".join(names) for names in (BASELINE, CONTROL))
FEWEST_WORKERS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.trials.quantile", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    print("| file | turn | workers | " + " | ".join(f"{q:g}" for q in QUANTILES) + " |")
    print("|---|---|--:|" + "--:|" * len(QUANTILES))
    for path in given.files:
        for turn, workers, errors in rows(json.loads(path.read_text("utf-8"))["bakeoff"]):
            cells = " | ".join(f"{error:.2%}" for error in errors)
            print(f"| {path.stem} | {turn} | {workers} | {cells} |")


def rows(run: dict[str, Any]) -> Iterator[tuple[str, int, list[float]]]:
    """Yield each turn with its number of workers, and an error for each quantile."""
    same = {
        (f"{c['entrant']}/{c['style']}", c["workload"])
        for c in run["cells"]
        if (c["proof"] or {}).get("same_program_as_baseline")
    }
    turns: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for block in run["samples"]["blocks"]:
        if block["process"] > PROVING:
            turns[block["workload"], block["kind"]].append(block)
    for (workload, kind), blocks in sorted(turns.items()):
        arms = {
            arm
            for block in blocks
            for arm in block["nanoseconds"].get(kind, ())
            if arm not in REFERENCES and (kind == "host_cost" or (arm, workload) in same)
        }
        spread = [of_workers(blocks, kind, sorted(arms), q) for q in QUANTILES]
        workers = len({block["process"] for block in blocks})
        if workers >= FEWEST_WORKERS and spread[0]:
            yield f"{kind} at {workload}", workers, [float(np.median(each)) for each in spread]


def of_workers(
    blocks: Sequence[dict[str, Any]], kind: str, arms: Sequence[str], quantile: float
) -> list[float]:
    """Return by how much workers' means differ, of each arm: a standard deviation, log-scale.

    Of host cost, what is added is looked at, as a part of it where it is above 20 us.
    """
    out = []
    for arm in arms:
        means: dict[int, list[float]] = defaultdict(list)
        for block in blocks:
            calls = block["nanoseconds"][kind]
            if arm in calls and all(name in calls for name in REFERENCES):
                own = datum(calls[arm], quantile) / NANOSECONDS
                beside = [datum(calls[name], quantile) / NANOSECONDS for name in REFERENCES]
                added = own - float(np.mean(beside))
                means[block["process"]].append(
                    added if kind == "host_cost" else math.log(own) - float(np.mean(np.log(beside)))
                )
        values = np.array([np.mean(each) for each in means.values()])
        if values.size >= FEWEST_WORKERS:
            scale = float(values.mean()) if kind == "host_cost" else 1.0
            if kind != "host_cost" or scale > 20e-6:
                out.append(float(values.std(ddof=1)) / scale)
    return out


if __name__ == "__main__":
    main()
