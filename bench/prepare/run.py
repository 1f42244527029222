"""Arms of the shared environment and of entrants' own environments, for `pytest bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cells import Arm
from bench.engine.task import Side, Task
from bench.environments.offers import offers
from bench.metrics import SAMPLED
from bench.prepare.sides import NothingToMeasureError
from bench.runfile import EnvironmentInfo

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
    silence: float,
    arguments: tuple[str, ...],
) -> tuple[Task, dict[Cell, list[str]]]:
    """Return the task of a run, without cells yet, and the metrics of each selected cell.

    Args:
        selection: What was asked for.
        options: How much is measured.
        spec: Of the shared environment.
        builder: Builds environments, and says what is left out.
        silence: Seconds without an answer after which a worker counts as hanging.
        arguments: The command line, to repeat it by.

    Raises:
        BakeoffError: an environment cannot be built, or no style has a metric that is asked for.
        WorkerFailedError: not even the baseline can be loaded.
    """
    place = builder.environment(spec).place
    offer, places = offers(selection.entrants, selection.files, silence, builder, place)
    left_out = {}
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
    sides = {}
    for name, there in places.items():
        info = EnvironmentInfo(versions=offer.apart.get(name, offer.versions))
        sides[name] = Side(there, offer, info, heavy=bool(name))
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
