"""What a scheduler asks for, and what it is told: one pair of structs from pipe to journal."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from bench.samples import Cores, Turn
from common.config import WORKLOADS

type Steps[T] = Generator[Action, Outcome, T]
"""Part of one lane's work: it asks for one thing at a time."""
type Phases[T] = Generator[tuple[Action, ...], Outcome, T]
"""Several lanes at the same time: yields what is to begin, and is sent what ends next."""
type Lanes = Phases[None]

ALL, ONE, AUTO = "all", "one", "auto"
"""Settings of `--cores`: as users run it; one core each; what fits each metric."""

type Do = Literal[
    "start", "load", "count", "prove", "open", "prepare", "block", "train", "close", "cold"
]


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing for one worker to do."""

    do: Do
    worker: int
    """Number of the process, from 1; a cold process has one too."""
    side: str = ""
    """Environment in which the worker runs; empty is the shared one."""
    backend: str = ""
    workload: str = ""
    arms: tuple[str, ...] = ()
    """`entrant/style`: the one that it is about, or those that take part, in their order."""
    kind: str = ""
    """Of turns."""
    rounds: int = 0
    seed: int = 0
    cores: Cores = ()
    check: bool = False
    """Of `load`: whether to look if an import changes the baseline's program."""
    losses: tuple[float, ...] = ()
    """Of `open`: the ten losses that the arm was proven with."""

    def __str__(self) -> str:
        parts = (self.do, self.workload, " ".join(self.arms[:1]), self.kind)
        side = f"({self.side})" if self.side else ""
        return " ".join(filter(None, (*parts, side)))


class Death(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker that did not come to its end."""

    reason: str
    stderr: str = ""
    arm: str = ""
    """Whose turn it was; empty where no arm's."""
    cut: bool = False
    """The run as a whole was cut off: no arm is to blame."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an action."""

    worker: int
    took: float
    """Seconds that the action took."""
    at: float
    """Seconds of the budget that were spent when it ended."""
    answer: Any = None
    """The dataclass of `bench.worker.protocol` that belongs to the action; None after a death."""
    death: Death | None = None


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    budget: float
    """Seconds of wall time, from the program's start to its end."""
    seed: int = 0
    processes: int | None = None
    """Workers for warm metrics; None lets the planner choose, as below."""
    blocks: int | None = None
    """Blocks of each turn in each worker."""
    rounds: int | None = None
    """Rounds in a block."""
    cold_samples: int | None = None
    """Cold processes for each cell."""
    cores: str = AUTO
    """`all`, `one` or `auto`."""
    donate: bool = False
    """Whether every style donates its state; those that cannot are left out."""
    margin: float = 0.02
    """Inside of which two times are equivalent: what is settled gets fewer turns."""

    @property
    def fixed(self) -> bool:
        """Whether a number of blocks was given, which the budget does not change."""
        return self.blocks is not None


STEPS = ("step", "pipelined")
"""Kinds of turns that are steps as users run them, on all cores."""
ROUNDS = {"step": 8, "pipelined": 2, "host_cost": 6, "sample": 5, "epoch": 2}
"""Rounds in a block. Of a step at `seed`, from eight on a block is worth what it costs."""
FEW_ROUNDS = 3
"""Of a step that does more than `seed`'s: there a round takes seconds."""


def rounds_of(turn: Turn) -> int:
    """Return the rounds in a block."""
    long = WORKLOADS[turn.workload].work > WORKLOADS["seed"].work
    return FEW_ROUNDS if long and turn.kind == "step" else ROUNDS[turn.kind]


def calls_of(turn: Turn) -> int:
    """Return about how many calls a turn takes."""
    return 50 if turn.kind == "pipelined" else 6
