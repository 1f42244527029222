"""Tasks whose arms are compared with each other: those of `pytest bench` and `bakeoff cost`.

A run has arms of the shared environment and of entrants' own environments, a measurement of the
costs of a user's own step the styles of its library.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench import own_steps
from bench.cells import WHOLE, Arm, Selection, name_step
from bench.engine.process import WorkerFailedError
from bench.engine.task import Environment, Task
from bench.environments import ask_environment
from bench.environments.spec import CURRENT, Spec
from bench.metrics import HOST, OF_SKELETON, SAMPLED, STEP
from bench.prepare.sides import require_cells
from bench.workloads import is_skeleton
from common.config import Device
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.cells import Cell
    from bench.environments.builder import Builder
    from bench.options import Options

NO_KEYWORD = "cannot donate: its factory has no keyword `donate`"
"""Reason why `--donate` leaves a style out."""
ASKED = (STEP, "step_pipelined", "compile", "peak_rss")
"""Metrics of a user's real step, beside those of its skeleton: its time on all cores or on the
accelerator, waited for, and in a row of 50; what its start takes."""


def prepare_run(
    selection: Selection,
    options: Options,
    spec: Spec,
    builder: Builder,
    arguments: tuple[str, ...],
) -> tuple[Task, dict[Cell, list[str]]]:
    """Return the task of a run, without cells yet, and the metrics of each selected cell.

    `spec` is the shared environment, `arguments` the command line.

    Raises:
        BakeoffError: an environment cannot be built, or no style has a metric that is asked for.
        WorkerFailedError: not even the baseline can be loaded.
    """
    sides = ask_environments(selection, spec, builder)
    offer, left_out = sides[""].offer, {}
    if options.donate:
        kept = [Arm(name, s) for name, styles in offer.not_donating.items() for s in styles]
        left_out = {str(arm): NO_KEYWORD for arm in kept if selection.is_selected(arm)}
        offer = offer.donating
    for arm, why in left_out.items():
        builder.notify(f"--donate leaves out {arm}: it {why}")
    cells = selection.cells(offer)
    metrics = {c: [name for name in SAMPLED if selection.is_measured(name, c)] for c in cells}
    require_cells(metrics.values(), selection)
    task = Task(
        kind="run",
        arguments=arguments,
        needed={},
        sides=sides,
        options=options,
        outside=selection.files,
        left_out=left_out,
    )
    return task, metrics


def ask_environments(selection: Selection, spec: Spec, builder: Builder) -> dict[str, Environment]:
    """Return the shared environment, named "", and those of entrants that have their own.

    All have one offer, of all entrants; an environment that cannot be built or asked is a problem
    in it.
    """
    entrants = {name: impls.locate(name, selection.files) for name in selection.entrants}
    isolated = [n for n, e in entrants.items() if impls.find_declaration(e).own_environment]
    names = tuple(name for name in entrants if name not in isolated)
    names = names or (impls.BASELINE,) * bool(isolated)
    sides = {"": ask_environment(builder.build(spec), names, selection.files)}
    offer = sides[""].offer
    for name in isolated:
        try:
            environment = builder.build_entrant(entrants[name])
            builder.notify(f"importing {name} in its environment")
            side = ask_environment(environment, (name,), selection.files)
        except (BakeoffError, WorkerFailedError) as error:
            why = f"import failed: {error}" if isinstance(error, WorkerFailedError) else str(error)
            offer = replace(offer, problems=offer.problems | {name: why})
        else:
            sides[name], offer = side, offer.add_entrant(name, side.offer)
    return {name: replace(side, offer=offer) for name, side in sides.items()}


def list_metrics(cell: Cell) -> frozenset[str]:
    """Return the metrics of a cell of a user's own step."""
    if is_skeleton(cell.workload):
        return frozenset(OF_SKELETON)
    return frozenset(ASKED + (HOST,) * (cell.style == WHOLE))


def prepare_step(
    file: Path,
    options: Options,
    styles: tuple[str, ...],
    backend: str | None,
    builder: Builder,
    arguments: Sequence[str],
    *,
    is_generated: bool = False,
) -> Task:
    """Return the task of a step; of generated layers, only the time added to a call is measured.

    All styles of its library are measured if none are given; on an accelerator, or else the CPU,
    if no backend is.

    Raises:
        BakeoffError: the file is no step, cannot be measured at all, or has no such style.
    """
    name = name_step(file)
    files, environment = {name: str(file.resolve())}, builder.build(Spec(CURRENT))
    try:
        environment = ask_environment(environment, (), files)
    except WorkerFailedError as error:
        raise BakeoffError(f"{file.name} cannot be measured: {error}") from error
    offer = environment.offer
    if name in offer.problems:
        raise BakeoffError(offer.problems[name])
    if not own_steps.has_model(file):
        raise BakeoffError(
            f"{file.name} has only make_step, so there is nothing to compare: compare releases by "
            f"`bakeoff ab --step {file.name}`, or add make_model and loss"
        )
    backend = backend or next((b for b in offer.backends if b != "cpu"), "cpu")
    is_real = not is_generated and Device.parse(backend).backend not in offer.too_large
    entrants = tuple(offer.styles)  # named, so that unusual styles take part, too
    selection = Selection(entrants, styles, (name,), (backend,), (), files)
    cells = [c for c in selection.cells(offer) if is_real or is_skeleton(c.workload)]
    return Task(
        kind="cost",
        arguments=tuple(arguments),
        needed={"": {c: frozenset([HOST]) if is_generated else list_metrics(c) for c in cells}},
        sides={"": environment},
        options=options,
        outside=files,
    )
