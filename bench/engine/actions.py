"""Actions that a plan asks for, and their outcomes; answers are checked before they are used."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Literal

import msgspec

from bench.cells import Arm
from bench.engine.process import WorkerFailedError
from bench.metrics import COLD, METRICS
from bench.samples import Cores
from bench.worker import protocol

type LaneActions[T] = Generator[Action, Outcome, T]
"""Part of one lane's work: yields one action at a time, and is sent its outcome."""
type Actions[T] = Generator[tuple[Action, ...], Outcome, T]
"""Several lanes at the same time: yields the actions to begin, and is sent the next outcome."""
type LaneWork = Callable[[Cores], LaneActions[Any]]
"""Work for a lane, given its cores."""

type Do = Literal["load", "count", "prove", "open", "block", "train", "cold", "close"]


class Action(msgspec.Struct, frozen=True):
    """One thing for one worker to do, or for two that alternate."""

    worker: int
    """Number of the process, from 1; a cold process has one too."""
    environment: str = ""
    """Environment of the worker; empty: the shared one."""
    command: protocol.Command | None = None
    """Command to it; None ends it. A `Load` or a `MeasureCold` starts it before."""
    cores: Cores = ()
    partner: int = 0
    """Number of the worker on the other side of a block, which alternates with this one; 0:
    none."""
    partner_environment: str = ""

    @property
    def do(self) -> Do:
        """What it does, in a word."""
        return "close" if self.command is None else DOINGS[type(self.command)]

    @property
    def workload(self) -> str:
        """Workload of its command; empty if it has none."""
        return getattr(self.command, "workload", "")

    @property
    def kind(self) -> str:
        """Kind of turns; empty if it is no block."""
        return getattr(self.command, "kind", "")

    @property
    def arms(self) -> list[str]:
        """Arms as `entrant/style`: the one concerned, or all that take part, in their order."""
        if isinstance(self.command, protocol.ArmCommand):
            return [self.command.arm]
        return getattr(self.command, "arms", [])

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
    is_disturbed: bool = False
    """Whether its times are not those of a free machine, which no single one of them tells."""


DOINGS: dict[type[protocol.Command], Do] = {
    protocol.Load: "load",
    protocol.Count: "count",
    protocol.Prove: "prove",
    protocol.Open: "open",
    protocol.TimeBlock: "block",
    protocol.Train: "train",
    protocol.MeasureCold: "cold",
}
"""Command → what it does, in a word."""
ANSWERS: dict[type, Any] = {
    protocol.Load: protocol.Failures,
    protocol.Prove: protocol.Proven,
    protocol.TimeBlock: protocol.Timed,
}
"""Command → the type of its answer; of others it is `Sampled`."""
COUNTING = (protocol.Count, protocol.Prove, protocol.Train)
"""Commands that list all exact counts, whichever there are: one that only the worker's code knows
is left out. Times are of turns that are asked for by name: an unknown one answers another
question."""


def parse_answer(action: Action, record: Any) -> Any:
    """Return one worker's answer to an action, as the dataclass for that action.

    Raises:
        ValueError: it does not fit the action, or has impossible numbers.
    """
    command = action.command
    usual = ANSWERS.get(type(command), protocol.Sampled)
    # A cold process that fails has ended; of others, the failure concerns the one arm alone
    is_of_arm = isinstance(command, protocol.ArmCommand) and action.do != "cold"
    failed = is_of_arm and "failure" in record
    if usual is protocol.Sampled and not failed and action.do != "open" and "samples" not in record:
        raise ValueError("it has no samples")
    try:
        answer: Any = msgspec.convert(record, protocol.Failed if failed else usual)
    except (msgspec.ValidationError, TypeError) as error:
        raise ValueError(str(error)) from error
    samples = getattr(answer, "samples", [])
    if isinstance(command, COUNTING):
        samples[:] = [sample for sample in samples if sample.metric in METRICS]
    backend = getattr(command, "backend", "")
    cells = [Arm.parse(arm).make_cell(action.workload, backend) for arm in action.arms]
    for sample in samples:
        if sample.metric not in METRICS or sample.cell not in cells:
            raise ValueError(f"{sample.metric!r} of {sample.cell} was not asked about")
        if not sample.value >= 0:
            raise ValueError(f"{sample.metric!r} of {sample.cell} is {sample.value}")
    if isinstance(command, protocol.TimeBlock):
        check_block(command, answer)
    elif action.do == "cold" and (others := {s.metric for s in samples} - {*COLD}):
        raise ValueError(f"{min(others)!r} is not measured in a cold process")
    return answer


def check_block(block: protocol.TimeBlock, answer: protocol.Timed) -> None:
    """Raise ValueError unless all arms have as many calls of each metric of the turn."""
    calls: dict[str, set[int]] = {}
    for sample in answer.samples:
        if METRICS[sample.metric].turn != block.kind:
            raise ValueError(f"{sample.metric!r} is not measured in a turn of {block.kind!r}")
        if METRICS[sample.metric].compared:
            calls.setdefault(sample.metric, set()).add(sample.calls)
            if not sample.value > 0:
                raise ValueError(f"{sample.metric!r} of {sample.cell} is {sample.value}")
    timed = {str(sample.cell.arm) for sample in answer.samples}
    missing = set(block.arms) - timed - set(answer.failures) - set(answer.disturbed)
    if missing:
        raise ValueError(f"{min(missing)!r} was left out of a block")
    several = 1 if block.seconds else block.rounds
    if any(len(counts) > 1 or min(counts) % several for counts in calls.values()):
        raise ValueError(f"arms have other numbers of calls in {block.rounds} rounds: {calls}")
