"""Actions that a plan asks for, and their outcomes; answers are checked before they are used."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import fields
from typing import Any, Literal

import msgspec

from bench.cells import Arm
from bench.engine.process import WorkerFailedError
from bench.metrics import COLD, METRICS
from bench.samples import Cores
from bench.worker import protocol

type Steps[T] = Generator[Action, Outcome, T]
"""Part of one lane's work: yields one action at a time, and is sent its outcome."""
type Phases[T] = Generator[tuple[Action, ...], Outcome, T]
"""Several lanes at the same time: yields the actions to begin, and is sent the next outcome."""
type Lanes = Phases[None]
type LaneWork = Callable[[Cores], Steps[Any]]
"""Work for a lane, given its cores."""

type Do = Literal["start", "load", "count", "prove", "open", "block", "train", "close", "cold"]


class Action(msgspec.Struct, frozen=True):
    """One thing for one worker to do."""

    do: Do
    worker: int
    """Number of the process, from 1; a cold process has one too."""
    environment: str = ""
    """Environment of the worker; empty: the shared one."""
    backend: str = ""
    workload: str = ""
    arms: tuple[str, ...] = ()
    """Arms as `entrant/style`: the one concerned, or all that take part, in their order."""
    kind: str = ""
    """Kind of turns."""
    rounds: int = 0
    """Rounds of a `block`; the most, if its `seconds` are limited."""
    seconds: float = 0.0
    """Seconds after which a `block` ends; 0: all rounds."""
    seed: int = 0
    cores: Cores = ()
    check_programs: bool = False
    """Whether a `load` checks that no import changes the baseline's program."""
    losses: tuple[float, ...] = ()
    """Ten losses of the baseline, which an `open` compares the arm's with."""
    anew: bool = False
    """Whether the steps are made anew before a `block`."""
    programs: dict[str, str] = {}
    """Arm → its program, for a `block`: of arms with one program, one compiles it in a round."""
    partner: int = 0
    """Number of the worker on the other side of a `block`, which alternates with this one; 0:
    none."""
    partner_environment: str = ""

    @property
    def workers(self) -> tuple[int, ...]:
        """Numbers of the workers that do it."""
        return (self.worker, self.partner) if self.partner else (self.worker,)


class Outcome(msgspec.Struct, frozen=True):
    """Outcome of an action: how long it took, and the answers or the death."""

    worker: int
    took: float
    """Seconds that the action took."""
    at: float
    """Seconds of the budget that were spent when it ended."""
    answers: list[Any] = []
    """Answer of each worker, as the dataclass of `bench.worker.protocol` for the action; None
    where it has none."""
    death: WorkerFailedError | None = None


EXCHANGES: dict[str, tuple[type[protocol.Command], Any]] = {
    "load": (protocol.Load, protocol.Failures),
    "count": (protocol.Count, protocol.Sampled),
    "prove": (protocol.Prove, protocol.Proven),
    "open": (protocol.Open, protocol.Opened),
    "block": (protocol.TimeBlock, protocol.Timed),
    "train": (protocol.Train, protocol.Sampled),
    "cold": (protocol.MeasureCold, protocol.Cold),
}
"""Action → the command to a worker, and the type of its answer; `start` and `close` have none."""
COUNTING = ("count", "prove", "train")
"""Actions that list all exact counts, whichever there are: one that only the worker's code knows is
left out. Times are of turns that are asked for by name: an unknown one answers another question."""
OF_ONE_ARM = ("count", "prove", "open", "train")
"""Actions on one arm, whose failure concerns that arm alone."""


class AnswerError(ValueError):
    """An answer does not fit its question."""


def make_command(action: Action, **more: Any) -> protocol.Command:
    """Return the command for an action, with the fields that an action has, and `more`."""
    given = msgspec.structs.asdict(action) | {"arm": next(iter(action.arms), "")} | more
    command, _ = EXCHANGES[action.do]
    return command(**{field.name: given[field.name] for field in fields(command)})


def parse_answer(action: Action, record: Any) -> Any:
    """Return one worker's answer to an action, as the dataclass for that action.

    Raises:
        AnswerError: it does not fit the action, or has impossible numbers.
    """
    _, usual = EXCHANGES[action.do]
    try:
        failed = action.do in OF_ONE_ARM and "failure" in record
        answer: Any = msgspec.convert(record, protocol.Failed if failed else usual)
    except (msgspec.ValidationError, TypeError) as error:
        raise AnswerError(str(error)) from error
    samples = getattr(answer, "samples", [])
    if action.do in COUNTING:
        samples[:] = [sample for sample in samples if sample.metric in METRICS]
    cells = [Arm.parse(arm).make_cell(action.workload, action.backend) for arm in action.arms]
    for sample in samples:
        if sample.metric not in METRICS or sample.cell not in cells:
            raise AnswerError(f"{sample.metric!r} of {sample.cell} was not asked about")
        if not sample.value >= 0:
            raise AnswerError(f"{sample.metric!r} of {sample.cell} is {sample.value}")
    if action.do == "block":
        check_block(action, answer)
    elif action.do == "cold" and (others := {s.metric for s in samples} - {*COLD}):
        raise AnswerError(f"{min(others)!r} is not measured in a cold process")
    return answer


def check_block(action: Action, answer: protocol.Timed) -> None:
    """Raise AnswerError unless all arms have as many calls of each metric of the turn."""
    calls: dict[str, set[int]] = {}
    for sample in answer.samples:
        if METRICS[sample.metric].turn != action.kind:
            raise AnswerError(f"{sample.metric!r} is not measured in a turn of {action.kind!r}")
        if METRICS[sample.metric].compared:
            calls.setdefault(sample.metric, set()).add(sample.calls)
            if not sample.value > 0:
                raise AnswerError(f"{sample.metric!r} of {sample.cell} is {sample.value}")
    timed = {str(sample.cell.arm) for sample in answer.samples}
    missing = set(action.arms) - timed - set(answer.failures)
    if missing:
        raise AnswerError(f"{min(missing)!r} was left out of a block")
    several = 1 if action.seconds else action.rounds
    if any(len(counts) > 1 or min(counts) % several for counts in calls.values()):
        raise AnswerError(f"arms have other numbers of calls in {action.rounds} rounds: {calls}")
