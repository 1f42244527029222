"""The sides of an A/B, a bisection or a history: built, asked what they have, and measured."""

from __future__ import annotations

import calendar
import datetime
import re
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import impls
from bench.cells import WHOLE
from bench.engine.process import WorkerFailedError
from bench.engine.session import Side, Task
from bench.environments.offers import offer
from bench.environments.spec import Spec, of_day
from bench.environments.uv import PYTHONS, UnsolvableError, minor, of_its_day
from bench.metrics import HOST, SAMPLED, STAGES, STEP, Kind
from bench.runfile import EnvironmentInfo, FileKind, Results
from bench.runfile.warnings import BENEATH
from bench.track.comparison import moved
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.cells import Cell, Selection
    from bench.environments.builder import Builder, Environment
    from bench.options import Options

DEEP = "depth12"
"""Measured beside `toy` for host cost alone: what each of its 18 more arrays costs."""
DEEP_SECONDS = 300.0
"""Budget from which on it is measured unless host cost is asked for by name: in less time, it would
take what steps need."""
WORKLOADS = ("toy", DEEP, "seed")
"""Measured unless others are asked for: host costs, and the tutorial's size."""
IN_TURNS = [
    name
    for name, metric in SAMPLED.items()
    if metric.kind is Kind.COLD or metric.turn in (STEP, HOST, STAGES)
]
"""Metrics that are measured side by side."""
REFERENCE = "reference"
"""Environment that days are compared with: the stack of the last one."""
EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
MOST_DAYS = 400
"""Days of a history: more than a year of daily ones is a typing error."""


class DoesNotRunError(BakeoffError):
    """A side of a comparison cannot run a user's own step: the new one is worse for it."""

    def __init__(self, side: str, spec: str, step: str, problem: str) -> None:
        super().__init__(f"{side} ({spec}) does not run {step}.py: {problem}")
        self.exit_status = 1 if side == "new" else 2


def require_metrics(names: Iterable[str]) -> None:
    """Raise BakeoffError unless each metric is measured side by side."""
    for name in names:
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
        with suppress(UnsolvableError):
            return [builder.environment(spec, (python,)) for spec in specs]
    return [builder.environment(spec) for spec in specs]


def asked(environment: Environment, selection: Selection) -> Side:
    """Return a side, whose worker was asked what it has of a selection.

    Raises:
        BakeoffError: no worker of it can even load the baseline.
    """
    about, place = environment.info, environment.place
    place = place.for_users_step() if selection.step else place
    try:
        offered = offer(selection.entrants, selection.files, place=place)
    except (WorkerFailedError, msgspec.ValidationError, OSError) as error:
        # Its answer may be another revision's, or its interpreter missing
        raise BakeoffError(f"{about.spec} cannot be measured: {error}") from error
    for name, (package, release) in offered.unfit.items():
        with suppress(BakeoffError):
            offered.problems[name] += f"; {of_its_day(package, release, environment.python)}"
    missing = {
        f"{entrant}/{style}": why
        for entrant, styles in offered.missing.items()
        for style, why in styles.items()
    }
    info = msgspec.structs.replace(
        about,
        versions=offered.versions | about.versions,
        gaps=about.gaps | offered.problems | missing,
    )
    return Side(place, offered, info)


def gap(side: Side, cell: Cell) -> str:
    """Return why a side has not got a cell's style; empty if it has."""
    if cell.style in side.offer.styles.get(cell.entrant, ()):
        return ""
    gaps = side.info.gaps
    names = str(cell.arm), cell.entrant, cell.workload
    return next(filter(None, map(gaps.get, names)), "there is no such style")


def depending(sides: Mapping[str, Side]) -> tuple[str, ...]:
    """Return the entrants that depend on what differs between two sides; none if all may.

    Python, JAX, optax and NumPy are part of every entrant, as this project's own code is.
    """
    base, new = (side.info for side in sides.values())
    names = {*moved(base.versions, new.versions)}
    if base.pins and new.pins:
        names |= {*moved(base.pins, new.pins)}
    if base.commit != new.commit or names & {*BENEATH}:
        return ()
    return tuple(
        name
        for name in impls.usual()
        if names & {impls.declared(name).distribution, *impls.declared(name).packages}
    )


def cells_of(selection: Selection, sides: Mapping[str, Side]) -> dict[str, list[Cell]]:
    """Return the cells that are asked for and that each side has, on one backend.

    Without a backend asked for, that is an accelerator, where all sides have one.

    Raises:
        BakeoffError: a name that no side knows.
        DoesNotRunError: a side cannot run a user's own step.
    """
    selection = replace(selection, workloads=selection.workloads or WORKLOADS)
    cells: dict[str, list[Cell]] = {}
    errors: list[BakeoffError] = []
    for name, side in sides.items():
        if problem := side.offer.problems.get(selection.step):
            raise DoesNotRunError(name, side.info.spec, selection.step, problem)
        try:
            cells[name] = selection.cells(side.offer)
        except BakeoffError as error:
            cells[name] = []
            errors.append(error)
    if not any(cells.values()):
        raise errors[0]
    if (step := selection.step) and "make_model" not in impls.bound(Path(selection.files[step])):
        # the baseline of such a file is its own step, too, and stands for `--style pure`
        for name, of_side in cells.items():
            own = [cell._replace(entrant=step, style=WHOLE) for cell in of_side]
            cells[name] = list(dict.fromkeys(own))
    backends = [{cell.backend for cell in of_side} for of_side in cells.values()]
    shared = sorted(set.intersection(*backends) or set.union(*backends))
    one = next((backend for backend in shared if backend != "cpu"), shared[0])
    return {name: [c for c in of_side if c.backend == one] for name, of_side in cells.items()}


def require_common(cells: Mapping[str, Sequence[Cell]], sides: Mapping[str, Side]) -> list[Cell]:
    """Return the cells that all sides have.

    Raises:
        BakeoffError: there are none.
    """
    first, *others = cells.values()
    common = [cell for cell in first if all(cell in of_side for of_side in others)]
    if not common:
        for name, side in sides.items():
            for entrant, problem in side.offer.problems.items():
                spec, stack = side.info.spec, [f"{n} {v}" for n, v in side.info.versions.items()]
                raise BakeoffError(
                    f"{name} ({spec}) does not run {entrant} with {', '.join(stack)}: {problem}; "
                    "give releases that go together: the stack of another day, as in "
                    "`@2026-06-01`, or a pin of jax as well"
                )
        raise BakeoffError(
            f"{' and '.join(cells)} have nothing in common that is asked for; choose other sides, "
            "entrants or styles"
        )
    return common


def task_of(
    kind: FileKind,
    selection: Selection,
    sides: Mapping[str, Side],
    cells: Mapping[str, Sequence[Cell]],
    options: Options,
    base: str,
    arguments: Sequence[str] = (),
) -> Task:
    """Return the task of measuring cells of sides, each of which takes turns with the base.

    Raises:
        BakeoffError: no cell has a metric that is asked for.
    """

    def metrics_of(cell: Cell) -> frozenset[str]:
        names = IN_TURNS
        if cell.workload == DEEP and not selection.workloads:
            names = [HOST] if HOST in selection.metrics or options.budget >= DEEP_SECONDS else []
        return frozenset(name for name in names if selection.measures(name, cell))

    needed = {
        side: {cell: metrics for cell in of_side if (metrics := metrics_of(cell))}
        for side, of_side in cells.items()
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
        sides=sides,
        options=options,
        groups=[(base, name) for name in sides if name != base],
        base=base,
        outside=selection.files,
        metrics=selection.metrics,
    )


def days_of(since: datetime.date, until: datetime.date, every: str) -> list[datetime.date]:
    """Return the days from `since` to `until`, which is one of them, `every` so often.

    Raises:
        BakeoffError: there is no such step, or it gives none or too many.
    """
    match = EVERY.fullmatch(every)
    if match is None or not int(match[1]):
        raise BakeoffError(
            f"--every {every!r} is no step; give days, weeks, months or years, as in 10d, 2w, 1mo"
        )
    if since > until:
        raise BakeoffError(f"--since {since} is after --until {until}; turn them around")
    count, unit = int(match[1]), match[2]
    days = [since]
    while days[-1] < until:
        days.append(min(later(since, len(days) * count, unit), until))
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return days


def later(day: datetime.date, count: int, unit: str) -> datetime.date:
    """Return a day so many units later; the last of a month where it has no such day."""
    if unit in ("d", "w"):
        return day + datetime.timedelta(count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "y" else 1)
    year, month = months // 12, months % 12 + 1
    return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


class Days:
    """The sides of a history, built: the reference, and the first day of each stack.

    The last day is the reference; the others have its Python if they can.
    """

    def __init__(
        self, days: Sequence[datetime.date], selection: Selection, builder: Builder
    ) -> None:
        self.asking = 0.0
        """Seconds of the budget that it took to ask the sides what they have."""
        self.others: dict[str, EnvironmentInfo] = {}
        """Days without a side: those that cannot be built, and those whose stack has one."""
        reference = builder.environment(of_day(days[-1]), PYTHONS)
        self.sides = {REFERENCE: self.ask(reference, selection)}
        pythons = list(dict.fromkeys([reference.python, *PYTHONS]))
        stacks: dict[object, Side] = {}
        for day in days:
            name = str(day)
            builder.notify(f"the environment of {name}")
            try:
                environment = builder.environment(of_day(day), pythons)
                stack = environment.python, *environment.info.pins.items()
                if stack in stacks:
                    same = msgspec.structs.replace(stacks[stack].info, spec=f"@{name}", gaps={})
                    self.others[name] = same
                else:
                    stacks[stack] = self.sides[name] = self.ask(environment, selection)
            except BakeoffError as error:
                self.others[name] = EnvironmentInfo(spec=f"@{name}", gaps={"": str(error)})
                builder.notify(f"{name}: {error}")

    def ask(self, environment: Environment, selection: Selection) -> Side:
        """Ask a side what it has."""
        start = time.monotonic()
        side = asked(environment, selection)
        self.asking += time.monotonic() - start
        return side

    def cells(self, selection: Selection) -> dict[str, list[Cell]]:
        """Return the cells that the reference has, and each other side of these."""
        whole = cells_of(selection, {REFERENCE: self.sides[REFERENCE]})[REFERENCE]
        return {
            name: [c for c in whole if name == REFERENCE or not gap(side, c)]
            for name, side in self.sides.items()
        }

    def complete(self, results: Results) -> None:
        """Add the days without a side to results, in the order of time, and warn of gaps."""
        results.environments = dict(sorted((results.environments | self.others).items()))
        results.warnings += [
            f"{day} could not be built: {info.gaps['']}"
            for day, info in sorted(self.others.items())
            if info.gaps
        ]
