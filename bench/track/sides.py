"""The sides of an A/B, a bisection or a history: built, asked what they have, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.engine.process import WorkerFailedError
from bench.engine.session import Side, Task
from bench.environments.builder import failure
from bench.environments.offers import offer
from bench.environments.uv import PYTHONS, UnsolvableError, minor
from bench.metrics import HOST, METRICS, SAMPLED, STEP, Kind
from bench.runfile import EnvironmentInfo
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.cells import Cell, Selection
    from bench.environments.builder import Builder, Environment
    from bench.environments.spec import Spec
    from bench.options import Options
    from bench.runfile import FileKind

WORKLOADS = ("toy", "seed")
"""Measured unless others are asked for: host costs, and the tutorial's size."""
IN_TURNS = [
    name
    for name, metric in SAMPLED.items()
    if metric.kind is Kind.COLD or metric.turn in (STEP, HOST)
]
"""Metrics that are measured side by side."""


def require_metrics(names: Iterable[str]) -> None:
    """Raise BakeoffError unless each metric is measured side by side."""
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, IN_TURNS)
        if name not in IN_TURNS:
            raise BakeoffError(
                f"metric {name!r} is not measured side by side; give one of {', '.join(IN_TURNS)}. "
                "Exact counts are always compared; `pytest bench` measures the others"
            )


def built(specs: Sequence[Spec], builder: Builder) -> list[Environment]:
    """Return the environments of sides: of the same Python, if there is one that fits them all.

    Raises:
        BakeoffError: one of them cannot be built; which, and why.
    """
    # The oldest Python that fits is the one for which most releases of that time have wheels.
    pythons: tuple[str, ...] = PYTHONS
    if any(spec.current for spec in specs):
        pythons = (minor(),)
    elif any(spec.revision for spec in specs):  # one with this lock runs on the Python at hand
        pythons = tuple(dict.fromkeys([minor(), *PYTHONS]))
    for python in pythons:
        try:
            return [builder.environment(spec, (python,)) for spec in specs]
        except UnsolvableError:
            continue
    return [builder.environment(spec) for spec in specs]


def asked(environment: Environment, entrants: Iterable[str] = ()) -> Side:
    """Return a side, whose worker was asked what it has.

    Raises:
        BakeoffError: no worker of it can even load the baseline.
    """
    spec = str(environment.spec)
    try:
        offered = offer(tuple(entrants), {}, place=environment.place)
    except WorkerFailedError as error:
        raise BakeoffError(f"{spec} cannot be measured: {failure(error)}") from error
    except (TypeError, OSError) as error:  # another revision's answer, or no such interpreter
        raise BakeoffError(f"{spec} cannot be measured: {error}") from error
    missing = {
        f"{entrant}/{style}": why
        for entrant, styles in offered.missing.items()
        for style, why in styles.items()
    }
    info = EnvironmentInfo(
        spec=spec,
        versions=offered.versions,
        pins=dict(pin.split("==", 1) for pin in environment.pins if "==" in pin),
        commit=environment.commit or "",
        gaps={**environment.gaps, **offered.problems, **missing},
    )
    return Side(environment.place, offered, info)


def gap(side: Side, cell: Cell) -> str:
    """Return why a side has not got a cell's style; empty if it has."""
    if cell.style in side.offer.styles.get(cell.entrant, ()):
        return ""
    gaps = side.info.gaps
    return gaps.get(str(cell.arm)) or gaps.get(cell.entrant) or "there is no such style"


def cells_of(selection: Selection, sides: Mapping[str, Side]) -> dict[str, list[Cell]]:
    """Return the cells that are asked for and that each side has, on one backend.

    Without a backend asked for, that is an accelerator, where all sides have one.

    Raises:
        BakeoffError: a name that no side knows.
    """
    cells: dict[str, list[Cell]] = {}
    errors: list[BakeoffError] = []
    for name, side in sides.items():
        try:
            of_side = selection.cells(side.offer)
        except BakeoffError as error:
            errors.append(error)
            of_side = []
        known = selection.workloads or WORKLOADS
        cells[name] = [c for c in of_side if selection.workloads or c.workload in known]
    if not any(cells.values()):
        raise errors[0]
    backends = [{cell.backend for cell in of_side} for of_side in cells.values()]
    shared = sorted(set.intersection(*backends) or set.union(*backends))
    one = next((backend for backend in shared if backend != "cpu"), shared[0])
    return {name: [c for c in of_side if c.backend == one] for name, of_side in cells.items()}


def require_common(cells: Mapping[str, Sequence[Cell]]) -> list[Cell]:
    """Return the cells that all sides have.

    Raises:
        BakeoffError: there are none.
    """
    first, *others = cells.values()
    common = [cell for cell in first if all(cell in of_side for of_side in others)]
    if not common:
        raise BakeoffError(
            f"{' and '.join(cells)} have nothing in common that is asked for; choose other sides, "
            "entrants or styles"
        )
    return common


def task(
    kind: FileKind,
    selection: Selection,
    sides: Mapping[str, Side],
    cells: Mapping[str, Sequence[Cell]],
    groups: Sequence[tuple[str, ...]],
    options: Options,
    *,
    base: str,
    arguments: Sequence[str],
) -> Task:
    """Return what is to be measured of some sides.

    Args:
        kind: Of the file that it becomes.
        selection: What was asked for.
        sides: By the name of their environments.
        cells: Of each side.
        groups: Sides whose workers take turns.
        options: How much is measured.
        base: Environment that the others are compared with.
        arguments: Of the command line, to repeat it.

    Raises:
        BakeoffError: no cell has a metric that is asked for.
    """
    needed = {
        name: {
            cell: metrics
            for cell in of_side
            if (metrics := frozenset(m for m in IN_TURNS if selection.measures(m, cell)))
        }
        for name, of_side in cells.items()
    }
    if not any(needed.values()):
        raise BakeoffError(
            "nothing to measure: no selected style and workload has the metric "
            f"{', '.join(selection.metrics)}; choose others, or leave --metric out"
        )
    return Task(
        kind=kind,
        arguments=tuple(arguments),
        needed=needed,
        groups=groups,
        base=base,
        sides=sides,
        options=options,
    )
