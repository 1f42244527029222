"""What a worker may answer to what it is asked: checked before anything believes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bench.metrics import COLD, METRICS
from bench.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from bench.engine.actions import Action

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


def typed(action: Action, record: Any, loaded: Collection[str] | None = None) -> Any:
    """Return an answer as the dataclass that belongs to the action.

    Args:
        action: What was asked.
        record: What JSON had.
        loaded: Arms that the worker has loaded, where they are known.

    Raises:
        AnswerError: it is none, or says what cannot be.
    """
    if action.do not in TYPES:
        return None
    try:
        failed = action.do in OF_ONE_ARM and "failure" in record
        answer: Any = msgspec.convert(record, protocol.Failed if failed else TYPES[action.do])
    except (msgspec.ValidationError, TypeError) as error:
        raise AnswerError(str(error)) from error
    samples: list[protocol.Sample] = getattr(answer, "samples", [])
    asked = {*action.arms} if loaded is None else {*action.arms} & {*loaded}
    for sample in samples:
        if sample.metric not in METRICS or (sample.arm not in asked and action.do != "cold"):
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
