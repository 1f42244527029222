"""What passes between a worker and its parent: commands, answers, and whose turn it is.

It imports the standard library alone, for workers of old and foreign environments. Commands
and answers are JSON lines over two pipes; the parent decodes the same types with msgspec, which
checks every field.

* At its start, and after each command, the worker says `READY` and waits. In between comes exactly
  one answer to the command.
* A command is a JSON object whose `do` names it; its other fields are the command's arguments.
* A command that fails as a whole ends the process, with a traceback on standard error. A failure of
  one arm alone is answered by `Failed`, or named in `failures`.
* An arm is named `entrant/style` everywhere.

Whose turn it is stands in a byte of shared memory, which can still be read when a worker has died.
A record on a pipe would cost microseconds between two timed calls; a store into a mapped page costs
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
"""Raised whenever the protocol changes, so that two revisions do not misunderstand each other."""
READY = {"ready": True, "protocol": PROTOCOL}
"""What a worker says when it waits for its next command."""
NOBODY = 255
"""Byte that stands for no arm's turn."""
FINAL_STEPS = 200
"""Steps of a short training: at `seed`, enough for the loss to leave the level of letter
frequencies."""
OWN_SEEDS = 3
"""Trainings of the shared style from a library's own initialiser, each with another seed."""


class WorkerSample(NamedTuple):
    """What one worker measured of one arm, metric and block, as it goes through the pipe.

    The parent adds the rest (`bench.samples.Sample`), and packs all of it into the run file.
    """

    arm: str
    metric: str
    value: float
    """In the metric's unit: of a warm block the geometric mean of its fastest half of turns; of a
    cold process, a count, or a metric that is not compared, the one number."""
    calls: int = 1
    median: float | None = None
    """Median of the calls, in the same unit; None where the number is of no single calls."""
    p95: float | None = None
    """Their 95 % quantile."""


class CallSeries(NamedTuple):
    """Timed calls in a turn."""

    calls: int
    in_a_row: bool = False
    """Whether only the last call is waited for, as in a training loop; each one is otherwise."""


KINDS: dict[str, dict[str, CallSeries]] = {
    # After an untimed one. With more, turns of different arms are too far from each other: busy
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
    # Of a step that is made for it: a second time, there would be nothing to do.
    "stages": dict.fromkeys(("trace", "lower", "compile"), CallSeries(1)),
}
"""The series of each kind of turns, by metric."""


@dataclass
class Failed:
    """One arm's own failure; the worker lives on, unless it is spoiled."""

    failure: str
    stderr: str = ""
    """Last lines of the traceback, where the words do not say all."""
    spoiled: bool = False
    """Whether this process is to be ended, since something in it stays wrong."""


@dataclass
class Failures:
    """Answer to `load`: why arms failed, by arm; the others are ready."""

    failures: dict[str, str]
    spoiled: bool = False
    """As in `Failed`; or the baseline is no longer what it was."""


@dataclass
class Sampled:
    """Answer to `count`, exact numbers of a step; and to `train`, losses of short trainings."""

    samples: list[WorkerSample]


@dataclass
class Proven:
    """Answer to `prove`: how far an arm is from its reference, and counts of its program."""

    proof: dict[str, Any]
    """The fields of `bench.runfile.Proof`."""
    samples: list[WorkerSample]
    losses: list[float]
    """Losses of ten training steps: those of a later worker have to be the same."""
    program: str = ""
    """Fingerprint of its lowered program; empty where it is not JAX's, or not known."""


@dataclass
class Opened:
    """Answer to `open`: the arm's step is made and has the losses that it was proven with."""


@dataclass
class Timed:
    """Answer to `block`; of two workers that take turns, each has its own."""

    samples: list[WorkerSample]
    failures: dict[str, str] = field(default_factory=dict)
    """Arms whose samples do not count, and why: they are not in `samples`."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By arm: wall time that its turns took."""
    making: float = 0.0
    """Seconds in which steps were made anew."""
    spoiled: bool = False
    """As in `Failed`."""


@dataclass
class Cold:
    """Answer to `cold`: one sample of each cold metric."""

    samples: list[WorkerSample]
    timed_seconds: float = 0.0


class Recorder:
    """The parent's end of the shared byte: makes it, and reads it."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- it is closed by its owner
        self.file.write(bytes([NOBODY]))
        self.path = f"/dev/fd/{self.file.fileno()}"
        """Path in a process that has inherited the file, which has no name to be left behind."""

    def who(self) -> int | None:
        """Return the index of the arm whose turn it is, or None."""
        [index] = os.pread(self.file.fileno(), 1, 0)
        return None if index == NOBODY else index


class TurnMarker:
    """The worker's end: `turn.at(i)` before arm `i`, less than 255, does anything."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 1)

    def at(self, index: int = NOBODY) -> None:
        """Say whose turn it is; nobody's unless an arm is given."""
        self.page[0] = index
