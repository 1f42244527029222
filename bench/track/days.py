"""The days of a history: their stacks built, and measured in turns with that of the last one."""

from __future__ import annotations

import calendar
import datetime
import re
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.environments.spec import of_day
from bench.environments.uv import PYTHONS
from bench.runfile import EnvironmentInfo
from bench.track.sides import asked, cells_of, gap
from bench.track.timeline import REFERENCE
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.cells import Cell, Selection
    from bench.engine.session import Side
    from bench.environments.builder import Builder, Environment
    from bench.runfile import Results

EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
MOST_DAYS = 400
"""Days of a history: more than a year of daily ones is a typing error."""


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
    """The sides of a history: the reference, and the first day of each stack."""

    def __init__(self) -> None:
        self.sides: dict[str, Side] = {}
        self.others: dict[str, EnvironmentInfo] = {}
        """Days without a side: those that cannot be built, and those whose stack has one."""
        self.asking = 0.0
        """Seconds of the budget that it took to ask the sides what they have."""

    def build(
        self,
        days: Sequence[datetime.date],
        entrants: Sequence[str],
        builder: Builder,
        notify: Callable[[str], None],
    ) -> None:
        """Build all environments, the reference's first, and ask each what it has.

        Args:
            days: The last one is the reference; the others have its Python if they can.
            entrants: That are asked for.
            builder: Of environments.
            notify: Called with a line about each day that cannot be built.
        """
        reference = builder.environment(of_day(days[-1]), PYTHONS)
        sides = {REFERENCE: self.ask(reference, entrants)}
        pythons = list(dict.fromkeys([reference.python, *PYTHONS]))
        stacks: dict[object, Side] = {}
        for day in days:
            name = str(day)
            builder.notify(f"the environment of {name}")
            try:
                environment = builder.environment(of_day(day), pythons)
                stack = environment.pins, environment.python
                if stack in stacks:
                    self.others[name] = replace(stacks[stack].info, spec=f"@{name}", gaps={})
                else:
                    stacks[stack] = sides[name] = self.ask(environment, entrants)
            except BakeoffError as error:
                self.others[name] = EnvironmentInfo(spec=f"@{name}", gaps={"": str(error)})
                notify(f"{name}: {error}")
        self.sides = sides

    def ask(self, environment: Environment, entrants: Sequence[str]) -> Side:
        """Ask a side what it has."""
        start = time.monotonic()
        side = asked(environment, entrants)
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
        known = {**results.environments, **self.others}
        results.environments = dict(sorted(known.items()))
        results.warnings += [
            f"{day} could not be built: {info.gaps['']}"
            for day, info in sorted(self.others.items())
            if info.gaps
        ]
