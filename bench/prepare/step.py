"""The styles of a user's own training step, as `bakeoff cost` measures them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cells import Selection, name_step
from bench.engine.process import WorkerFailedError
from bench.engine.task import Side, Task
from bench.environments.offers import offer
from bench.metrics import HOST, STEP
from bench.runfile import EnvironmentInfo
from common.errors import BakeoffError
from impls import steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.environments.builder import Environment
    from bench.options import Options

IN_A_ROW = "step_pipelined"
ASKED = (HOST, STEP, IN_A_ROW)
"""Metrics of a step: host cost, on one core; and the time of a step, on all cores or on the
accelerator, waited for, and in a row of 50."""


def prepare_step(
    file: Path,
    options: Options,
    styles: tuple[str, ...],
    backend: str | None,
    environment: Environment,
    *,
    arguments: Sequence[str],
) -> Task:
    """Return the task of measuring `ASKED` of a step, in its library's styles, on one backend.

    Raises:
        BakeoffError: the file is no step, cannot be measured at all, or has no such style.
    """
    name = name_step(file)
    outside = {name: str(file.resolve())}
    place = environment.place.apply_step_settings()
    try:
        offered = offer((), outside, place=place)
    except WorkerFailedError as error:
        raise BakeoffError(f"{file.name} cannot be measured: {error}") from error
    if name in offered.problems:
        raise BakeoffError(offered.problems[name])
    if not steps.has_model(file):
        raise BakeoffError(
            f"{file.name} has a make_step alone, and nothing to compare it with: compare releases "
            f"by `bakeoff ab --step {file.name}`, or add make_model and loss"
        )
    usual = next((b for b in offered.backends if b != "cpu"), "cpu")
    entrants = tuple(offered.styles)  # named, so that unusual styles take part, too
    selection = Selection(entrants, styles, (name,), (backend or usual,), ASKED)
    cells = selection.cells(offered)
    side = Side(
        place, offered, EnvironmentInfo(versions=offered.versions, pins=environment.info.pins)
    )
    return Task(
        kind="cost",
        arguments=tuple(arguments),
        needed={"": {cell: frozenset(ASKED) for cell in cells}},
        sides={"": side},
        options=options,
        outside=outside,
    )
