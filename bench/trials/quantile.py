"""Which quantile of an arm's calls in a block to take as its datum: evidence from run files.

    python -m bench.trials.quantile run.json ...

Prints the standard error of one worker's result, by quantile: the median over arms that compile to
the baseline's program (of host cost, over all arms), of each file and turn. Only workers from the
third on count: the first ones prove, too.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE, CONTROL, Arm
from bench.estimates import datum
from bench.metrics import HOST
from bench.runfile.reader import read
from bench.trials.tables import lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.estimates import Arms
    from bench.runfile.reader import Run
    from bench.trials.tables import Row

QUANTILES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5)
PROVING = 2
REFERENCES = (Arm(*BASELINE), Arm(*CONTROL))
FEWEST_WORKERS = 4
LEAST_ADDED = 20e-6
"""Seconds of a host cost that is looked at."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.trials.quantile", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    found = (row for path in parser.parse_args(arguments).files for row in rows(read(path)))
    header = ("file", "turn", "workers", *(f"{q:g}" for q in QUANTILES))
    print("\n".join(lines(header, found, words=2)))


def rows(run: Run) -> Iterator[Row]:
    """Yield each turn with its number of workers, and an error for each quantile."""
    same = {c.cell for c in run.section.cells if c.proof and c.proof.same_program_as_baseline}
    for group, arms in sorted(run.samples.items()):
        if group.metric not in ("step", HOST):
            continue
        host = group.metric == HOST
        kept = {c: s for c, s in arms.items() if host or c.arm in REFERENCES or c in same}
        spread = [of_workers(kept, quantile, host=host) for quantile in QUANTILES]
        workers = {one.process for samples in kept.values() for one in samples} - {
            *range(PROVING + 1)
        }
        if len(workers) >= FEWEST_WORKERS and spread[0]:
            errors = (f"{float(np.median(each)):.2%}" for each in spread)
            yield run.name, f"{group.metric} at {group.workload}", len(workers), *errors


def of_workers(arms: Arms, quantile: float, *, host: bool) -> list[float]:
    """Return by how much workers' means differ, of each arm: a standard deviation, log-scale.

    Of host cost, what is added is looked at, as a part of it.
    """
    blocks: dict[int, dict[Arm, float]] = defaultdict(dict)
    worker = {}
    for cell, samples in arms.items():
        for one in samples:
            if one.process > PROVING:
                worker[one.number] = one.process
                blocks[one.number][cell.arm] = datum(one.values, quantile)
    means: dict[Arm, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, block in blocks.items():
        if not all(name in block for name in REFERENCES):
            continue
        beside = [block.pop(name) for name in REFERENCES]
        for arm, own in block.items():
            ratio = math.log(own) - float(np.mean(np.log(beside)))
            value = own - float(np.mean(beside)) if host else ratio
            means[arm][worker[number]].append(value)
    out = []
    for by_worker in means.values():
        values = np.array([np.mean(each) for each in by_worker.values()])
        scale = float(values.mean()) if host else 1.0
        if values.size >= FEWEST_WORKERS and (not host or scale > LEAST_ADDED):
            out.append(float(values.std(ddof=1)) / scale)
    return out


if __name__ == "__main__":
    main()
