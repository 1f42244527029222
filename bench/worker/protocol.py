"""The protocol between a worker and its parent: commands, answers, and the current turn.

It imports nothing but the standard library and the types of samples, for workers of old and foreign
environments. Commands and answers are dataclasses that pass two pipes as lines of JSON; the parent
decodes answers with msgspec, which checks every field.

* At its start, and after each command, the worker says `READY` and waits. In between comes exactly
  one answer to the command.
* A command that fails as a whole ends the process, with a traceback on standard error. A failure of
  one arm alone is answered by `Failed`, or named in `failures`.
* An arm is named `entrant/style` everywhere.

A byte of shared memory says which arm is at work; it can still be read when a worker has died. A
record on a pipe would cost microseconds between two timed calls; a store into a mapped page costs
some ten nanoseconds.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from bench.samples import Proof, Sample

PROTOCOL = 8
"""Version of the protocol; each change raises it, but for a new field that has a default."""
READY = {"ready": True, "protocol": PROTOCOL}
"""Message of a worker that waits for its next command."""
NOBODY = 255
"""Byte that says that no arm is at work."""
LOST_STATUS = 75
"""Exit status of a worker to which the token does not come back (EX_TEMPFAIL of sysexits.h)."""
TOKEN = b"."
"""Byte that two workers pass on who measure a block together; its holder takes turns."""
FINAL_STEPS = 200
"""Number of steps of a short training: at `seed`, enough for the loss to leave the level of
letter frequencies."""
OWN_SEEDS = 3
"""Trainings of the shared style from a library's own initialiser, each with another seed."""


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
LEAST_CALL_ROUNDS = 8
"""Rounds of a block of single calls, whatever they take: fewer hardly tell how much calls vary."""


# commands


def default_of(field: Field[Any]) -> object:
    """Return the default of a command's field; `MISSING` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


@dataclass(frozen=True)
class Command:
    """Something for a worker to do; its class names it."""

    def encode(self) -> bytes:
        """Return the command as a line of JSON, without the fields that have their default.

        So a worker of another revision, which does not know a new field, does what it did.
        """
        values = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != default_of(field)
        }
        return json.dumps({"do": type(self).__name__} | values).encode() + b"\n"


@dataclass(frozen=True)
class Describe(Command):
    """Say what this environment offers; the answer has the fields of `bench.offer.Offer`."""

    entrants: list[str]
    """Names of entrants; the usual ones if none."""
    outside: dict[str, str] = field(default_factory=dict)
    """Entrant or training step of a user's own → its file."""


@dataclass(frozen=True)
class Load(Command):
    """Import the entrants of all arms in random order; one that changes something fails."""

    arms: list[str]
    """Names of the arms; their order gives them their indices."""
    seed: int
    """Seed of the order of imports."""
    cache: str = ""
    """Folder of the compilation cache."""
    outside: dict[str, str] = field(default_factory=dict)
    """Entrant or training step of a user's own → its file."""
    check_programs: bool = False
    """If true, fail an entrant whose import changes the baseline's program."""
    donate: bool = False
    """Whether steps donate their state."""


@dataclass(frozen=True)
class ArmCommand(Command):
    """A command about one arm; the answer is `Failed` where the arm fails."""

    workload: str
    backend: str
    arm: str


@dataclass(frozen=True)
class Count(ArmCommand):
    """Count what an arm's step has Python and JAX do, in a worker that does nothing else."""


@dataclass(frozen=True)
class Prove(ArmCommand):
    """Make an arm's step, and show that it is equal."""


@dataclass(frozen=True)
class Open(ArmCommand):
    """Make the step of an arm that another process has proven: its losses must be the same."""

    losses: list[float] = field(default_factory=list)
    """The baseline's ten; if empty, this process computes them."""


@dataclass(frozen=True)
class Train(ArmCommand):
    """Train an arm, from the same weights and from its library's own initialisers."""


@dataclass(frozen=True)
class TimeBlock(Command):
    """Measure a block of turns of a row of `KINDS`: fresh buffers, then rounds in random order."""

    workload: str
    backend: str
    kind: str
    arms: list[str]
    rounds: int
    seed: int
    seconds: float = 0.0
    """Seconds after which no pair of rounds begins but the first ones; 0: all rounds."""
    anew: bool = False
    """Whether steps are made anew before."""
    programs: dict[str, str] = field(default_factory=dict)
    """Arm → fingerprint of its program; in a round of stages, one arm compiles each program."""
    place: int | None = None
    """0 or 1 of two workers that alternate, or None. Older revisions know it by this name."""
    patience: float = 0.0
    """Seconds after which that other worker is taken to hang."""


@dataclass(frozen=True)
class MeasureCold(ArmCommand):
    """Measure the start of this process, of which this is the first command."""

    outside: dict[str, str] = field(default_factory=dict)
    """Entrant or training step of a user's own → its file."""
    donate: bool = False
    """Whether steps donate their state."""


COMMANDS: dict[str, type[Command]] = {
    command.__name__: command
    for command in (Describe, Load, Count, Prove, Open, Train, TimeBlock, MeasureCold)
}
"""Name → command of the workers that measure; those of `bench.check` have one of their own."""


# answers


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
    """Answer to `Load`: arm → why it failed; the other arms are ready."""

    failures: dict[str, str]
    spoiled: bool = False
    """Like `Failed.spoiled`; true also if an import has changed the baseline's program."""


@dataclass
class Sampled:
    """Answer to `Count`: exact numbers of a step; to `Train`: losses of short trainings.

    To `MeasureCold`: one sample of each cold metric; to `Open`: none, the step is made.
    """

    samples: list[Sample] = field(default_factory=list)
    timed_seconds: float = 0.0
    """Seconds of what a cold process timed."""


@dataclass
class Proven:
    """Answer to `Prove`: an arm's distance from its reference, and counts of its program."""

    proof: Proof
    samples: list[Sample]
    losses: list[float]
    """Losses of ten training steps, which later workers have to reproduce."""
    program: str = ""
    """Fingerprint of its lowered program; empty if that is not JAX's, or not known."""


@dataclass
class Timed:
    """Answer to `TimeBlock`; two workers that alternate give one each."""

    samples: list[Sample]
    failures: dict[str, str] = field(default_factory=dict)
    """Arm → why its samples do not count; `samples` has none of it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Arm → seconds of wall time that its turns took."""
    making: float = 0.0
    """Seconds spent on making steps anew."""
    disturbed: list[str] = field(default_factory=list)
    """Arms that lack a sample, since in most calls the process did not have its core."""
    spoiled: bool = False
    """Like `Failed.spoiled`."""


class Recorder:
    """The parent's end of the shared byte, which it makes and reads."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- it is closed by its owner
        self.file.write(bytes([NOBODY]))
        self.path = f"/dev/fd/{self.file.fileno()}"
        """Path in a process that inherits the file, which has no name to be left behind."""

    def read_arm(self) -> int | None:
        """Return the index of the arm that is at work, or None."""
        [index] = os.pread(self.file.fileno(), 1, 0)
        return None if index == NOBODY else index


class ArmMarker:
    """The worker's end: it calls `marker.mark(i)` before arm `i`, less than 255, does anything."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 1)

    def mark(self, index: int = NOBODY) -> None:
        """Record which arm is at work, by its index, or that none is."""
        self.page[0] = index
