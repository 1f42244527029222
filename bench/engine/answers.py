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
    "count": protocol.Counted,
    "prove": protocol.Proven,
    "open": protocol.Opened,
    "prepare": protocol.Failures,
    "block": protocol.Timed,
    "train": protocol.Trained,
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
    if action.do == "block":
        check_block(action, answer, action.arms if loaded is None else loaded)
    elif action.do == "cold":
        for name, value in answer.values.items():
            if name not in COLD or (value is not None and value <= 0):
                raise AnswerError(f"{name!r} is {value}")
    return answer


def check_block(action: Action, answer: protocol.Timed, loaded: Collection[str]) -> None:
    """Raise AnswerError unless all arms have as many samples of the turn's metrics."""
    for metric, arms in answer.seconds.items():
        if metric not in METRICS or METRICS[metric].turn != action.kind:
            raise AnswerError(f"{metric!r} is not measured in a turn of {action.kind!r}")
        if others := set(arms) - ({*action.arms} & {*loaded}):
            raise AnswerError(f"{min(others)!r} was not asked about")
        if missing := {*action.arms} - set(arms) - set(answer.failures):
            raise AnswerError(f"{min(missing)!r} was left out of a block")
        counts = {len(values) for values in arms.values()}
        if len(counts) > 1 or any(not count or count % action.rounds for count in counts):
            raise AnswerError(f"arms have {sorted(counts)} samples in {action.rounds} rounds")
        if any(value <= 0 for values in arms.values() for value in values):
            raise AnswerError(f"a sample of {metric!r} is not positive")
