"""What a worker may answer to what it is asked: checked before anything believes it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from bench.metrics import METRICS, Kind
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
TRAINED = {"seconds": list, "same_weights": float, "own_initialiser": list}


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
        answer = msgspec.convert(record, protocol.Failed if failed else TYPES[action.do])
    except (msgspec.ValidationError, TypeError) as error:
        raise AnswerError(str(error)) from error
    if not failed:
        wrong = problem(action, answer, loaded)
        if wrong:
            raise AnswerError(wrong)
    return answer


def problem(action: Action, answer: Any, loaded: Collection[str] | None) -> str | None:
    """Return what is wrong with an answer of the right form; None if nothing is."""
    if action.do in ("load", "prepare"):
        return unasked(answer.failures, action.arms)
    if action.do == "block":
        return of_a_block(action, answer, loaded)
    if action.do == "cold":
        cold = {m.name for m in METRICS.values() if m.kind is Kind.COLD}
        wrong = [n for n, v in answer.values.items() if v is not None and not positive(v)]
        return unasked(answer.values, cold) or (
            f"{wrong[0]!r} is {answer.values[wrong[0]]}" if wrong else None
        )
    if action.do == "prove":
        values = [*answer.losses, *(v for v in answer.exact.values() if v is not None)]
        return None if all(map(math.isfinite, values)) else "a number in a proof is not finite"
    if action.do == "train":
        lacking = [n for n, t in TRAINED.items() if not isinstance(answer.training.get(n), t)]
        return f"the training lacks {lacking[0]!r}" if lacking else None
    return None


def unasked(given: Collection[str], asked: Collection[str]) -> str | None:
    """Return that something was not asked about; None where all was."""
    others = set(given) - set(asked)
    return f"{min(others)!r} was not asked about" if others else None


def of_a_block(
    action: Action, answer: protocol.Timed, loaded: Collection[str] | None
) -> str | None:
    """Return what is wrong with a block's samples; None if nothing is."""
    if wrong := unasked(answer.failures, action.arms):
        return wrong
    for metric, arms in answer.seconds.items():
        if metric not in METRICS or METRICS[metric].turn != action.kind:
            return f"{metric!r} is not measured in a turn of {action.kind!r}"
        for arm, values in arms.items():
            if arm not in action.arms or (loaded is not None and arm not in loaded):
                return f"{arm!r} was not asked about"
            if not values or len(values) % action.rounds:
                return f"{arm!r} has {len(values)} samples in {action.rounds} rounds"
            if not all(map(positive, values)):
                return f"{arm!r} has a sample that is no positive number"
        if len({len(values) for values in arms.values()}) > 1:
            return f"arms have different numbers of samples of {metric!r}"
        if missing := set(action.arms) - set(arms) - set(answer.failures):
            return left_out(missing)
    return None


def left_out(missing: Collection[str]) -> str:
    """Say that an arm was not measured."""
    return f"{min(missing)!r} was left out of a block"


def positive(value: float) -> bool:
    """Tell whether a cost is one."""
    return math.isfinite(value) and value > 0
