"""The styles of a user's own training step, for `bakeoff cost`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.cells import Selection, name_step
from bench.engine.process import WorkerFailedError
from bench.engine.task import Task
from bench.environments import ask_environment
from bench.environments.spec import CURRENT, Spec
from bench.metrics import HOST, STEP
from common.errors import BakeoffError
from impls import steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.environments.builder import Builder
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
    builder: Builder,
    arguments: Sequence[str],
) -> tuple[Task, float]:
    """Return the task of a step, and the seconds of its budget that asking a worker took.

    All styles of its library are measured if none are given; on an accelerator, or else the CPU,
    if no backend is.

    Raises:
        BakeoffError: the file is no step, cannot be measured at all, or has no such style.
    """
    name = name_step(file)
    files, environment = {name: str(file.resolve())}, builder.build(Spec(CURRENT))
    start = time.monotonic()
    try:
        environment = ask_environment(environment, (), files)
    except WorkerFailedError as error:
        raise BakeoffError(f"{file.name} cannot be measured: {error}") from error
    offer = environment.offer
    if name in offer.problems:
        raise BakeoffError(offer.problems[name])
    if not steps.has_model(file):
        raise BakeoffError(
            f"{file.name} has only make_step, so there is nothing to compare: compare releases by "
            f"`bakeoff ab --step {file.name}`, or add make_model and loss"
        )
    usual = next((b for b in offer.backends if b != "cpu"), "cpu")
    entrants = tuple(offer.styles)  # named, so that unusual styles take part, too
    selection = Selection(entrants, styles, (name,), (backend or usual,), ASKED, files)
    task = Task(
        kind="cost",
        arguments=tuple(arguments),
        needed={"": {cell: frozenset(ASKED) for cell in selection.cells(offer)}},
        sides={"": environment},
        options=options,
        outside=files,
    )
    return task, time.monotonic() - start
