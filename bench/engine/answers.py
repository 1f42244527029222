"""What a worker may answer to what it is asked: checked before anything believes it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from bench.metrics import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bench.engine.actions import Action

LARGEST = sys.float_info.max
Finite = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Cost = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]


class Failed(msgspec.Struct):
    """One arm's own failure; the worker lives."""

    failure: str
    stderr: str = ""


class Failures(msgspec.Struct):
    """Of a command that is about several arms: why, by arm."""

    failures: dict[str, str]


class Counted(msgspec.Struct):
    """What was counted."""

    exact: dict[str, int | None]


class Proven(msgspec.Struct):
    """How far a step is from its reference, and what its program has."""

    proof: dict[str, Any]
    exact: dict[str, Finite | None]


class Seconds(msgspec.Struct):
    """Samples of a block, by metric and arm."""

    seconds: dict[str, dict[str, list[Cost]]]


class Training(msgspec.Struct):
    """Seconds and final losses of an arm's trainings."""

    seconds: list[Cost]
    same_weights: Finite
    own_initialiser: list[Finite]


class Trained(msgspec.Struct):
    """An arm was trained."""

    training: Training


class Cold(msgspec.Struct):
    """One sample of each cold metric; None where the system does not tell."""

    values: dict[str, Cost | None]
    timed_seconds: Cost
    trace_and_lower_split_by: str


ANSWERS: Mapping[str, type[msgspec.Struct]] = {
    "load": Failures,
    "count": Counted,
    "prove": Proven,
    "prepare": Failures,
    "block": Seconds,
    "train": Trained,
    "cold": Cold,
}
"""By what is asked; the others are answered by a record of anything."""
OF_ONE_ARM = ("count", "prove", "open", "train")
"""What may fail in its arm alone."""


def problem(action: Action, found: Any, loaded: Collection[str] | None = None) -> str | None:
    """Return what is wrong with an answer; None if nothing is.

    Args:
        action: What was asked.
        found: The record.
        loaded: Arms that the worker has loaded, where they are known.
    """
    try:
        if action.do in OF_ONE_ARM and "failure" in found:
            msgspec.convert(found, Failed)
            return None
        if action.do in ANSWERS:
            msgspec.convert(found, ANSWERS[action.do])
    except (msgspec.ValidationError, TypeError) as error:
        return str(error)
    if action.do in ("load", "prepare"):
        others = set(found["failures"]) - set(action.arm.split())
        return f"{min(others)!r} was not asked about" if others else None
    if action.do == "cold":
        others = set(found["values"]) - {m.name for m in METRICS.values() if m.kind is Kind.COLD}
        return f"{min(others)!r} is no cold metric" if others else None
    return of_a_block(action, found["seconds"], loaded) if action.do == "block" else None


def of_a_block(
    action: Action, seconds: Mapping[str, Mapping[str, list[float]]], loaded: Collection[str] | None
) -> str | None:
    """Return what is wrong with a block's samples; None if nothing is."""
    for metric, arms in seconds.items():
        if metric not in METRICS or METRICS[metric].turn != action.kind:
            return f"{metric!r} is not measured in a turn of {action.kind!r}"
        for arm, values in arms.items():
            if loaded is not None and arm not in loaded:
                return f"{arm!r} is not loaded"
            if not values or len(values) % action.rounds:
                return f"{arm!r} has {len(values)} samples in {action.rounds} rounds"
        if len({len(values) for values in arms.values()}) > 1:
            return f"arms have different numbers of samples of {metric!r}"
    return None
