"""One run: jobs for worker processes, one at a time, and what they found by cell."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.measure.cells import BASELINE, COLD, WARM, Cell, Found, Offer
from bench.measure.settings import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WORKER = (sys.executable, "-m", "bench.measure.worker")
STDERR_LINES = 8
"""Lines of a failed worker's stderr that are shown."""


class WorkerFailedError(Exception):
    """A worker ended without saying that it was done."""


def work(
    job: dict[str, Any], seconds: float = 600, command: Sequence[str] = WORKER
) -> list[dict[str, Any]]:
    """Run one job in a fresh interpreter; return its records.

    Raises:
        WorkerFailedError: it crashed, took longer than `seconds`, or wrote something else than
            JSON; `args[1]` holds the records before that.
    """
    try:
        done = subprocess.run(  # noqa: S603 -- our own module, no shell
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
            timeout=seconds,
            check=False,
        )
        output, error, status = done.stdout, done.stderr, f"exit status {done.returncode}"
    except subprocess.TimeoutExpired as expired:
        output, error = (
            part.decode(errors="replace") if isinstance(part, bytes) else part or ""
            for part in (expired.stdout, expired.stderr)
        )
        status = f"no end after {seconds:.0f} s"
    records = []
    for line in output.splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            status = f"wrote {line[:80]!r}, which is not JSON"
            break
    if not records or records[-1] != {"done": True}:
        tail = " | ".join(error.strip().splitlines()[-STDERR_LINES:])
        raise WorkerFailedError(f"worker failed ({status}): {tail}", records)
    return records[:-1]


def offer() -> Offer:
    """Ask a worker what this environment has."""
    return Offer(**work({"job": "describe"})[0])


@dataclass
class Run:
    """Measures what is needed when it is first asked for, workload by workload."""

    needed: dict[Cell, set[str]]
    """Metrics to measure, by cell."""
    offer: Offer
    blocks: int
    rounds: int
    cold_samples: int
    say: Callable[[str], None] = print
    seed: int = 0
    found: dict[Cell, Found] = field(default_factory=dict)
    done: set[tuple[str, str]] = field(default_factory=set)

    def result(self, cell: Cell) -> Found:
        """Return what is found in `cell`, after measuring its whole workload if need be."""
        setting = (cell.workload, cell.backend)
        if setting not in self.done:
            self.done.add(setting)
            together = [c for c in self.needed if (c.workload, c.backend) == setting]
            self.measure(together, *setting)
        return self.found[cell]

    def baseline(self, cell: Cell) -> Found:
        """Return what was found for the baseline in the same blocks as `cell`."""
        return self.found[Cell(*BASELINE, cell.workload, cell.backend)]

    def measure(self, cells: list[Cell], workload: str, backend: str) -> None:
        """Measure the cells of a workload and backend: equality, warm metrics, then cold ones."""
        self.found |= {cell: Found() for cell in cells}
        ready = []
        for cell in cells:
            problem = self.offer.problems.get(cell.entrant)
            self.found[cell].failure = problem
            if problem is None:
                ready.append(cell)
        # Ratios need the baseline in the same rounds, selected or not.
        baseline = Cell(*BASELINE, workload, backend)
        together = ready if baseline in ready else [baseline, *ready]
        self.found.setdefault(baseline, Found())
        metrics = sorted({m for cell in ready for m in self.needed[cell]}.intersection(WARM))
        self.say(f"{workload} on {backend}: proving {len(ready)} cells equal, then timing them")
        self.collect(
            together,
            {
                "job": "warm",
                "cells": [cell[:2] for cell in together],
                "workload": workload,
                "backend": backend,
                "metrics": metrics,
                "blocks": self.blocks,
                "rounds": self.rounds,
                "seed": self.seed,
            },
        )
        order = [
            cell
            for cell in ready
            if self.found[cell].failure is None and self.needed[cell].intersection(COLD)
            for _ in range(self.cold_samples)
        ]
        random.Random(self.seed).shuffle(order)  # noqa: S311 -- an order is no secret
        for i, cell in enumerate(order, 1):
            if i % len(ready) == 1 or len(ready) == 1:
                self.say(f"{workload} on {backend}: cold process {i} of {len(order)}")
            if self.found[cell].failure is None:
                self.collect([cell], {"job": "cold", **cell._asdict()})

    def collect(self, cells: Iterable[Cell], job: dict[str, Any]) -> None:
        """Run a job and keep what it finds; if its worker fails, that is its cells' failure."""
        try:
            records = work(job)
        except WorkerFailedError as error:
            failure, records = error.args
            for cell in cells:
                self.found[cell].failure = failure
        for record in records:
            found = self.found[Cell(*record["cell"])]
            if "failure" in record:
                found.failure = record["failure"]
                continue
            metric = record["metric"]
            if "seconds" in record:
                found.seconds.setdefault(metric, []).append(record["seconds"])
            if "facts" in record:
                found.facts[metric] = record["facts"]
