"""Stacks as sides: those of many days, for `bakeoff history`, and those between two ends.

A bisection builds and asks a stack when its search reaches it.
"""

from __future__ import annotations

import calendar
import datetime
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.cells import Arm
from bench.environments.spec import make_day_spec
from bench.environments.uv import PYTHONS
from bench.prepare.sides import (
    IN_TURNS,
    ask_side,
    build_environments,
    choose_cells,
    find_gap,
    make_task,
    run_at_once,
)
from bench.runfile import EnvironmentInfo
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell, Selection
    from bench.engine.task import Environment, Task
    from bench.environments.builder import Builder
    from bench.environments.spec import Spec
    from bench.options import Options
    from bench.runfile import Results

REFERENCE = "reference"
"""Environment that days are compared with: the stack of the last day."""
EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
"""Pattern of the time between two days: a number of days, weeks, months or years."""
MOST_DAYS = 400
"""Maximum number of days of a history: more than a year of daily ones is a typing error."""


def list_days(since: datetime.date, until: datetime.date, every: str) -> list[datetime.date]:
    """Return the days from `since` to `until`, with a step of `every`; `until` is the last.

    Raises:
        BakeoffError: `every` is no step, or it gives no days or too many.
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
        days.append(min(add_to_day(since, len(days) * count, unit), until))
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return days


def add_to_day(day: datetime.date, count: int, unit: str) -> datetime.date:
    """Return a day `count` units later; the last of the month if that has no such day."""
    if unit in ("d", "w"):
        return day + datetime.timedelta(count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "y" else 1)
    year, month = months // 12, months % 12 + 1
    return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def prepare_days(
    days: Sequence[datetime.date],
    selection: Selection,
    options: Options,
    builder: Builder,
    arguments: Sequence[str],
) -> tuple[Task, dict[str, EnvironmentInfo]]:
    """Return the task of a history, and the days that are not measured.

    Days have the reference's cells, as far as their libraries have them.

    Raises:
        BakeoffError: the last day cannot be built or asked, or has no cell that is asked for.
    """
    sides, unmeasured = ask_days(days, selection, builder)
    chosen = choose_cells(selection, {REFERENCE: sides[REFERENCE]})[REFERENCE]
    cells = {
        name: [cell for cell in chosen if name == REFERENCE or not find_gap(side, cell)]
        for name, side in sides.items()
    }
    return make_task("history", selection, sides, cells, options, arguments), unmeasured


def ask_days(
    days: Sequence[datetime.date], selection: Selection, builder: Builder
) -> tuple[dict[str, Environment], dict[str, EnvironmentInfo]]:
    """Build each day's stack and ask for its offer; the last day's is the reference, too.

    Returns:
        The reference, and the first day of each stack, with the reference's Python if possible;
        and the days that are not measured: those that cannot be built or asked, and those with an
        earlier day's stack.
    """
    environment = builder.build(make_day_spec(days[-1]))
    pythons = list(dict.fromkeys([environment.python, *PYTHONS]))
    sides = {REFERENCE: ask_side(environment, selection)}
    unmeasured: dict[str, EnvironmentInfo] = {}

    def build(day: datetime.date) -> Environment:
        builder.notify(f"the environment of {day}")
        return builder.build(make_day_spec(day), pythons)

    def ask(environment: Environment) -> Environment:
        return ask_side(environment, selection)

    def drop(name: str, error: BakeoffError) -> None:
        unmeasured[name] = EnvironmentInfo(spec=f"@{name}", gaps={"": str(error)})
        builder.notify(f"{name}: {error}")

    first: dict[object, str] = {}
    built: dict[str, Environment] = {}
    same: dict[str, str] = {}
    for name, made in run_at_once(build, {str(day): day for day in days}):
        if isinstance(made, BakeoffError):
            drop(name, made)
        elif (known := first.setdefault((made.python, *made.info.pins.items()), name)) == name:
            built[name] = made
        else:
            same[name] = known
    for name, asked in run_at_once(ask, built):
        if isinstance(asked, BakeoffError):
            drop(name, asked)
        else:
            sides[name] = asked
    for name, known in same.items():
        info = replace(sides[known].info, gaps={}) if known in sides else unmeasured[known]
        unmeasured[name] = replace(info, spec=f"@{name}")
    return sides, unmeasured


def add_days(results: Results, unmeasured: Mapping[str, EnvironmentInfo]) -> None:
    """Add days that were not measured to results, by date, and warn of those not built."""
    results.environments = dict(sorted({**results.environments, **unmeasured}.items()))
    results.warnings += [
        f"{day} could not be built: {info.gaps['']}"
        for day, info in sorted(unmeasured.items())
        if info.gaps
    ]


class Stacks:
    """Stacks of a bisection of one style at one workload; each is built and asked once."""

    def __init__(self, selection: Selection, builder: Builder) -> None:
        self.selection, self.builder = selection, builder
        self.pythons: tuple[str, ...] = ()
        """Versions of Python that stacks may have: those of the two ends."""
        self.sides: dict[Spec, Environment] = {}

    def build_ends(self, good: Spec, bad: Spec) -> None:
        """Build both ends.

        Raises:
            BakeoffError: one cannot be built, or both are the same stack.
        """
        first, last = build_environments((good, bad), self.builder)
        if (first.info.pins, first.python) == (last.info.pins, last.python):
            raise BakeoffError(
                f"{good} and {bad} are the same stack, release by release; give two that differ"
            )
        self.pythons = tuple(sorted({first.python, last.python}))

    def environment(self, spec: Spec) -> Environment:
        """Return a stack's environment; raise UnsolvableError if its releases do not fit."""
        return self.builder.build(spec, self.pythons)

    def releases(self, spec: Spec) -> dict[str, str]:
        """Return package → release of a stack."""
        return self.environment(spec).info.pins

    def side(self, spec: Spec) -> Environment:
        """Return a stack's environment with its offer, for which a worker is asked once."""
        if spec not in self.sides:
            self.sides[spec] = ask_side(self.environment(spec), self.selection)
        return self.sides[spec]

    def choose_cell(self, good: Spec, bad: Spec) -> Cell:
        """Return the cell that both ends have; raise BakeoffError if there is none."""
        chosen, sides = self.selection, {str(spec): self.side(spec) for spec in (good, bad)}
        if not chosen.step:
            arm = Arm(chosen.entrants[0], chosen.styles[0])
            require_style(sides, arm.make_cell(chosen.workloads[0], ""))
        of_good, of_bad = choose_cells(chosen, sides).values()
        # Of a user's step, plain JAX's `pure` may be there beside that of its library, and the
        # skeleton beside the real step
        both = [cell for cell in of_good if cell in of_bad]
        asked = chosen.metrics or IN_TURNS
        measured = [c for c in both if any(chosen.is_measured(name, c) for name in asked)]
        return min(measured or both, key=lambda cell: cell.is_baseline)

    def make_task(self, specs: Mapping[str, Spec], cell: Cell, options: Options) -> Task:
        """Return the task of an A/B of one cell; the first of `specs`, by their names, is the base.

        Raises:
            BakeoffError: a stack cannot be built or asked, or has not got the style.
        """
        sides = {name: self.side(spec) for name, spec in specs.items()}
        require_style(sides, cell)
        cells = {name: [cell] for name in sides}
        return make_task("bisect", self.selection, sides, cells, options)


def require_style(sides: Mapping[str, Environment], cell: Cell) -> None:
    """Raise BakeoffError unless all sides have a cell's style."""
    for side in sides.values():
        if why := find_gap(side, cell):
            raise BakeoffError(
                f"{side.info.spec}: {cell.entrant} has no style {cell.style!r} there: {why}"
            )
