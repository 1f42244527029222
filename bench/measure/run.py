"""One run: jobs for worker processes, one at a time, and what they found by cell."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.measure.cells import BASELINE, COLD, WARM, Cell, Found, Offer
from bench.measure.settings import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WORKER = (sys.executable, "-m", "bench.measure.worker")
SILENCE_SECONDS = 300
"""After so long without a record, a worker is taken to hang."""
STDERR_LINES = 8
"""Lines of a failed worker's stderr that are shown."""


class WorkerFailedError(Exception):
    """A worker ended without saying that it was done."""


def records(
    job: dict[str, Any], silence: float = SILENCE_SECONDS, command: Sequence[str] = WORKER
) -> Iterator[dict[str, Any]]:
    """Run one job in a fresh interpreter; yield its records as they come.

    Raises:
        WorkerFailedError: it crashed, wrote nothing for `silence` seconds, or wrote something else
            than JSON.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as stderr:
        process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        try:
            yield from _read(process, json.dumps(job), silence)
        except WorkerFailedError as error:
            process.kill()
            process.wait()
            stderr.seek(0)
            tail = " | ".join(stderr.read().strip().splitlines()[-STDERR_LINES:])
            raise WorkerFailedError(f"{error}: {tail or 'nothing on stderr'}") from error
        finally:  # also where the caller was interrupted
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _read(process: subprocess.Popen[str], job: str, silence: float) -> Iterator[dict[str, Any]]:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError), process.stdin:  # it may have died already; then it says nothing
        process.stdin.write(job)
    silent = threading.Event()

    def give_up() -> None:
        silent.set()
        process.kill()

    while True:
        timer = threading.Timer(silence, give_up)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            process.wait()
            status = f"exit status {process.returncode}"
            status = f"silent for {silence:g} s" if silent.is_set() else status
            raise WorkerFailedError(f"worker failed ({status})")
        try:
            record = json.loads(line)
        except ValueError:
            message = f"worker failed (wrote {line.rstrip()[:80]!r}, which is not JSON)"
            raise WorkerFailedError(message) from None
        if record == {"done": True}:
            return
        yield record


def offer() -> Offer:
    """Ask a worker what this environment has."""
    [found] = records({"job": "describe"})
    return Offer(**found)


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
    interrupted: bool = False
    """Ctrl-C came; nothing more is measured."""
    at: Cell | None = None
    """The cell whose own part a worker is at: if the worker dies, that cell is to blame."""

    def result(self, cell: Cell) -> Found:
        """Return what is found in `cell`, after measuring its whole workload if need be."""
        setting = (cell.workload, cell.backend)
        if setting not in self.done:
            self.done.add(setting)
            together = [c for c in self.needed if (c.workload, c.backend) == setting]
            try:
                if not self.interrupted:
                    self.measure(together, *setting)
            except KeyboardInterrupt:
                self.interrupted = True
                self.say("interrupted: what was measured is reported, the rest counts as failed")
        found = self.found.setdefault(cell, Found())
        if self.interrupted and self.needed[cell] - set(found.seconds):
            found.failure = found.failure or "interrupted before all was measured"
        return found

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
        self.warm(ready if baseline in ready else [baseline, *ready], workload, backend)
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
                try:
                    self.collect({"job": "cold", **cell._asdict()})
                except WorkerFailedError as error:
                    self.found[cell].failure = str(error)

    def warm(self, cells: list[Cell], workload: str, backend: str) -> None:
        """Prove and time `cells` in one worker; without the one that kills it, if one does."""
        metrics = {metric for cell in cells for metric in self.needed.get(cell, ())}
        while cells:
            self.found |= {cell: Found() for cell in cells}
            job = {
                "job": "warm",
                "cells": [cell[:2] for cell in cells],
                "workload": workload,
                "backend": backend,
                "metrics": sorted(metrics.intersection(WARM)),
                "blocks": self.blocks,
                "rounds": self.rounds,
                "seed": self.seed,
            }
            try:
                return self.collect(job)
            except WorkerFailedError as error:
                failure = str(error)
            if self.at is None:  # nobody's own part: those that were done with keep what they have
                for cell in cells:
                    found = self.found[cell]
                    wanted = self.needed.get(cell, set()).intersection(WARM)
                    if "proof" not in found.facts or wanted - set(found.seconds):
                        found.failure = found.failure or failure
                return None
            self.found[self.at].failure = failure
            cells = [cell for cell in cells if cell != self.at]
        return None

    def collect(self, job: dict[str, Any]) -> None:
        """Run a job and keep what it finds as it comes; `at` is the cell that has its own part."""
        self.at = None
        for record in records(job):
            if "phase" in record:
                self.at = None
                self.say(f"{job['workload']} on {job['backend']}: {record['phase']}")
                continue
            cell = Cell(*record["cell"])
            found = self.found[cell]
            if record.get("starts"):
                self.at = cell
            elif "failure" in record:
                found.failure = record["failure"]
            else:
                metric = record["metric"]
                if "seconds" in record:
                    found.seconds.setdefault(metric, []).append(record["seconds"])
                if "facts" in record:
                    found.facts[metric] = record["facts"]
