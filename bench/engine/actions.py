"""What a schedule asks for, and what it is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Generator

    from bench.engine.planner import Turn
    from common.config import Workload

    type Steps[T] = Generator[Action, Outcome, T]
    """A part of a schedule."""


class Action(NamedTuple):
    """One thing to do; the schedule waits until it is done."""

    do: str
    """`start`, `load`, `count`, `prove`, `open`, `prepare`, `block`, `train`, `close` or `cold`."""
    process: int
    """Number of the worker, from 1; each cold process has one too."""
    backend: str
    workload: str = ""
    arm: str = ""
    """`entrant/style` of what is one arm's own; of `load` and `prepare`, several, with spaces."""
    kind: str = ""
    """Of turns."""
    rounds: int = 0
    seed: int = 0
    side: str = ""
    """Whose worker it is, where several environments take turns."""

    def __str__(self) -> str:
        parts = (self.do, self.workload, self.arm, self.kind, self.side and f"({self.side})")
        return " ".join(part for part in parts if part)


class Death(NamedTuple):
    """A worker that did not come to its end."""

    reason: str
    stderr: str = ""
    arm: str = ""
    """Whose turn it was; empty where nobody's."""
    cut: bool = False
    """The run as a whole was cut off: nobody is to blame."""


class Outcome(NamedTuple):
    """What came of an action."""

    took: float
    """Seconds of wall time since the outcome before."""
    found: dict[str, Any]
    death: Death | None = None
    busy: tuple[float, float, float] | None = None
    """Wall seconds, and processor seconds stolen and used by others, where they are known."""


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


ROUNDS = {"step": 8, "dispatch": 6, "sample": 5, "epoch": 2}
"""Rounds in a block. Of a step at `seed`, from eight on a block is worth what it costs; at `toy`,
more than eight tell little, for there blocks and processes differ by themselves."""
FEW_ROUNDS = 3
"""Of a step that does more than `seed`'s: there a round takes seconds."""


def rounds_of(turn: Turn) -> int:
    """Return the rounds in a block."""
    long = work(WORKLOADS[turn.workload]) > work(WORKLOADS["seed"])
    return FEW_ROUNDS if long and turn.kind == "step" else ROUNDS[turn.kind]


def work(workload: Workload) -> int:
    """Return what a step's time is about proportional to, where it is not all dispatch."""
    return workload.width**2 * workload.chunk * workload.batch
