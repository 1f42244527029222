"""The protocol between a worker and its parent: commands, answers, and the current turn.

It imports the standard library alone, for workers of old and foreign environments. Commands
and answers are JSON lines over two pipes; the parent decodes the same types with msgspec, which
checks every field.

* At its start, and after each command, the worker says `READY` and waits. In between comes exactly
  one answer to the command.
* A command is a JSON object whose `do` names it; its other fields are the command's arguments.
* A command that fails as a whole ends the process, with a traceback on standard error. A failure of
  one arm alone is answered by `Failed`, or named in `failures`.
* An arm is named `entrant/style` everywhere.

A byte of shared memory says whose turn it is; it can still be read when a worker has died. A
record on a pipe would cost microseconds between two timed calls; a store into a mapped page costs
some ten nanoseconds.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PROTOCOL = 7
"""Version of the protocol; each change raises it, so that revisions understand each other."""
READY = {"ready": True, "protocol": PROTOCOL}
"""Message of a worker that waits for its next command."""
NOBODY = 255
"""Byte that says that it is no arm's turn."""
FINAL_STEPS = 200
"""Number of steps of a short training: at `seed`, enough for the loss to leave the level of
letter frequencies."""
OWN_SEEDS = 3
"""Trainings of the shared style from a library's own initialiser, each with another seed."""


class WorkerSample(NamedTuple):
    """Measurement by one worker of one arm, metric and block, as it passes the pipe.

    The parent adds the rest (`bench.samples.Sample`), and packs all of it into the run file.
    """

    arm: str
    metric: str
    value: float
    """Value in the metric's unit. Warm block: geometric mean of the fastest half of turns; cold
    process, count, or metric that is not compared: the one number."""
    calls: int = 1
    median: float | None = None
    """Median of the calls, in the same unit; None where the value does not come from calls."""
    p95: float | None = None
    """95 % quantile of the calls, in the same unit."""


class CallSeries(NamedTuple):
    """Timed calls in a turn."""

    calls: int
    in_a_row: bool = False
    """If true, wait for the last call alone, as a training loop does; otherwise, for each call."""


KINDS: dict[str, dict[str, CallSeries]] = {
    # They follow an untimed call. With more, turns of different arms are too far apart: busy
    # stretches of a host last a tenth of a second.
    "step": {"step": CallSeries(2)},
    # A training loop waits now and then, to print its loss.
    "pipelined": {"step_pipelined": CallSeries(50, in_a_row=True)},
    # Calls of a tiny step take next to no time. Where a library's own jit waits on every call,
    # both are the same.
    "host_cost": {
        "host_cost": CallSeries(10),
        "host_cost_pipelined": CallSeries(10, in_a_row=True),
    },
    # Each turn makes a new step: the second time, there would be nothing to do.
    "stages": dict.fromkeys(("trace", "lower", "compile"), CallSeries(1)),
}
"""Kind of turns → metric → its series of calls."""


@dataclass
class Failed:
    """Failure of one arm; the worker lives on, unless it is spoiled."""

    failure: str
    stderr: str = ""
    """Last lines of the traceback, where `failure` does not say all."""
    spoiled: bool = False
    """If true, end this process: something in it stays wrong."""


@dataclass
class Failures:
    """Answer to `load`: arm → why it failed; the other arms are ready."""

    failures: dict[str, str]
    spoiled: bool = False
    """Like `Failed.spoiled`; true also if an import has changed the baseline's program."""


@dataclass
class Sampled:
    """Answer to `count`: exact numbers of a step; to `train`: losses of short trainings."""

    samples: list[WorkerSample]


@dataclass
class Proven:
    """Answer to `prove`: an arm's distance from its reference, and counts of its program."""

    proof: dict[str, Any]
    """The fields of `bench.runfile.Proof`."""
    samples: list[WorkerSample]
    losses: list[float]
    """Losses of ten training steps, which later workers have to reproduce."""
    program: str = ""
    """Fingerprint of its lowered program; empty if that is not JAX's, or not known."""


@dataclass
class Opened:
    """Answer to `open`: the arm's step is made and has the losses that it was proven with."""


@dataclass
class Timed:
    """Answer to `block`; two workers that take turns give one each."""

    samples: list[WorkerSample]
    failures: dict[str, str] = field(default_factory=dict)
    """Arm → why its samples do not count; `samples` has none of it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Arm → seconds of wall time that its turns took."""
    making: float = 0.0
    """Seconds spent on making steps anew."""
    spoiled: bool = False
    """Like `Failed.spoiled`."""


@dataclass
class Cold:
    """Answer to `cold`: one sample of each cold metric."""

    samples: list[WorkerSample]
    timed_seconds: float = 0.0


class Recorder:
    """The parent's end of the shared byte, which it makes and reads."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- it is closed by its owner
        self.file.write(bytes([NOBODY]))
        self.path = f"/dev/fd/{self.file.fileno()}"
        """Path in a process that inherits the file, which has no name to be left behind."""

    def read_turn(self) -> int | None:
        """Return the index of the arm whose turn it is, or None."""
        [index] = os.pread(self.file.fileno(), 1, 0)
        return None if index == NOBODY else index


class TurnMarker:
    """The worker's end: it calls `turn.mark(i)` before arm `i`, less than 255, does anything."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 1)

    def mark(self, index: int = NOBODY) -> None:
        """Record whose turn it is: that of the arm with this index, or nobody's."""
        self.page[0] = index
