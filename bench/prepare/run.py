"""Arms of the shared environment and of entrants' own environments, for `pytest bench`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench.cells import Arm
from bench.engine.process import HEAVY_SILENCE, WorkerFailedError, choose_silence
from bench.engine.task import Environment, Task
from bench.environments import ask_environment
from bench.metrics import SAMPLED
from bench.prepare.sides import NothingToMeasureError
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.cells import Cell, Selection
    from bench.environments.builder import Builder
    from bench.environments.spec import Spec
    from bench.options import Options

NO_KEYWORD = "cannot donate: its factory has no keyword `donate`"
"""Reason why `--donate` leaves a style out."""


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
    sides = ask_environments(selection, spec, builder, choose_silence(options.budget))
    offer, left_out = sides[""].offer, {}
    if options.donate:
        kept = [Arm(name, s) for name, styles in offer.not_donating.items() for s in styles]
        left_out = {str(arm): NO_KEYWORD for arm in kept if selection.is_selected(arm)}
        offer = offer.donating
    for arm, why in left_out.items():
        builder.notify(f"--donate leaves out {arm}: it {why}")
    cells = selection.cells(offer)
    metrics = {c: [name for name in SAMPLED if selection.is_measured(name, c)] for c in cells}
    if not any(metrics.values()):
        raise NothingToMeasureError(selection)
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


def ask_environments(
    selection: Selection, spec: Spec, builder: Builder, silence: float
) -> dict[str, Environment]:
    """Return the shared environment, named "", and those of entrants that have their own.

    All have one offer, of all entrants; an environment that cannot be built or asked is a problem
    in it.
    """
    entrants = {name: impls.locate(name, selection.files) for name in selection.entrants}
    isolated = [n for n, e in entrants.items() if impls.find_declaration(e).own_environment]
    names = tuple(name for name in entrants if name not in isolated)
    names = names or (impls.BASELINE,) * bool(isolated)
    sides = {"": ask_environment(builder.build(spec), names, selection.files, silence)}
    offer = sides[""].offer
    for name in isolated:
        try:
            environment = builder.build_entrant(entrants[name])
            builder.notify(f"importing {name} in its environment")
            patience = max(silence, HEAVY_SILENCE)
            side = ask_environment(environment, (name,), selection.files, patience)
        except (BakeoffError, WorkerFailedError) as error:
            why = f"import failed: {error}" if isinstance(error, WorkerFailedError) else str(error)
            offer = replace(offer, problems=offer.problems | {name: why})
        else:
            sides[name], offer = side, offer.add_entrant(name, side.offer)
    return {name: replace(side, offer=offer) for name, side in sides.items()}
