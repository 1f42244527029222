"""What a plan asks for, and what comes of it; answers are checked before anything believes them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Literal

import msgspec

from bench.engine.process import WorkerFailedError
from bench.metrics import COLD, METRICS
from bench.runfile import Proof
from bench.samples import Cores
from bench.worker import protocol

type Steps[T] = Generator[Action, Outcome, T]
"""Part of one lane's work: it asks for one thing at a time."""
type Phases[T] = Generator[tuple[Action, ...], Outcome, T]
"""Several lanes at the same time: yields what is to begin, and is sent what ends next."""
type Lanes = Phases[None]
type LaneWork = Callable[[Cores], Steps[Any]]
"""Something to do on a lane's cores."""

type Do = Literal["start", "load", "count", "prove", "open", "block", "train", "close", "cold"]


class Action(msgspec.Struct, frozen=True):
    """One thing for one worker to do."""

    do: Do
    worker: int
    """Number of the process, from 1; a cold process has one too."""
    environment: str = ""
    """In which the worker runs; empty for the shared one."""
    backend: str = ""
    workload: str = ""
    arms: tuple[str, ...] = ()
    """`entrant/style`: the one that it is about, or those that take part, in their order."""
    kind: str = ""
    """Kind of turns."""
    rounds: int = 0
    seed: int = 0
    cores: Cores = ()
    check: bool = False
    """In `load`: whether to look if an import changes the baseline's program."""
    losses: tuple[float, ...] = ()
    """In `open`: the ten losses that the arm was proven with."""
    anew: bool = False
    """In `block`: whether steps are made anew before."""
    programs: dict[str, str] = {}
    """In `block`, by arm: of arms with one program, one compiles it in a round."""
    partner: int = 0
    """In `block`: number of the worker of another side that takes turns with this one, if any."""
    partner_environment: str = ""

    @property
    def workers(self) -> tuple[int, ...]:
        """Numbers of the workers that do it."""
        return (self.worker, self.partner) if self.partner else (self.worker,)

    def __str__(self) -> str:
        parts = (self.do, self.workload, " ".join(self.arms[:1]), self.kind)
        where = f"({self.environment})" if self.environment else ""
        return " ".join(filter(None, (*parts, where)))


class Outcome(msgspec.Struct, frozen=True):
    """What came of an action."""

    worker: int
    took: float
    """Seconds that the action took."""
    at: float
    """Seconds of the budget that were spent when it ended."""
    answer: Any = None
    """The dataclass of `bench.worker.protocol` that belongs to the action, of a block a list of
    them, one for each worker; None after a death."""
    death: WorkerFailedError | None = None


TYPES: dict[str, Any] = {
    "load": protocol.Failures,
    "count": protocol.Sampled,
    "prove": protocol.Proven,
    "open": protocol.Opened,
    "block": protocol.Timed,
    "train": protocol.Sampled,
    "cold": protocol.Cold,
}
"""By what is asked; starting and closing have no answer."""
OF_ONE_ARM = ("count", "prove", "open", "train")
"""What may fail in its arm alone."""


class AnswerError(ValueError):
    """An answer does not fit its question."""


def typed(action: Action, record: Any) -> Any:
    """Return what one worker said of an action as the dataclass that belongs to it.

    Raises:
        AnswerError: it is no answer to that, or says what cannot be.
    """
    if action.do not in TYPES:
        return None
    try:
        failed = action.do in OF_ONE_ARM and "failure" in record
        answer: Any = msgspec.convert(record, protocol.Failed if failed else TYPES[action.do])
        if isinstance(answer, protocol.Proven):
            msgspec.convert(answer.proof, Proof)
    except (msgspec.ValidationError, TypeError) as error:
        raise AnswerError(str(error)) from error
    samples = getattr(answer, "samples", [])
    for sample in samples:
        asked = sample.arm in action.arms or action.do == "cold"  # of the control, the baseline's
        if sample.metric not in METRICS or not asked:
            raise AnswerError(f"{sample.metric!r} of {sample.arm!r} was not asked about")
        if not sample.value >= 0:
            raise AnswerError(f"{sample.metric!r} of {sample.arm!r} is {sample.value}")
    if action.do == "block":
        check_block(action, answer)
    elif action.do == "cold" and (others := {s.metric for s in samples} - {*COLD}):
        raise AnswerError(f"{min(others)!r} is not measured in a cold process")
    return answer


def check_block(action: Action, answer: protocol.Timed) -> None:
    """Raise AnswerError unless all arms have as many calls of the turn's metrics."""
    calls: dict[str, set[int]] = {}
    for sample in answer.samples:
        if METRICS[sample.metric].turn != action.kind:
            raise AnswerError(f"{sample.metric!r} is not measured in a turn of {action.kind!r}")
        if METRICS[sample.metric].compared:
            calls.setdefault(sample.metric, set()).add(sample.calls)
            if not sample.value > 0:
                raise AnswerError(f"{sample.metric!r} of {sample.arm!r} is {sample.value}")
    timed = {sample.arm for sample in answer.samples}
    missing = set(action.arms) - timed - set(answer.failures)
    if missing:
        raise AnswerError(f"{min(missing)!r} was left out of a block")
    if any(len(counts) > 1 or min(counts) % action.rounds for counts in calls.values()):
        raise AnswerError(f"arms have other numbers of calls in {action.rounds} rounds: {calls}")
