"""Sides of a history: the stacks of many days."""

from __future__ import annotations

import calendar
import datetime
import re
import time
from typing import TYPE_CHECKING

import msgspec

from bench.environments.spec import make_day_spec
from bench.environments.uv import PYTHONS
from bench.prepare.sides import ask_side, choose_cells, find_gap
from bench.runfile import EnvironmentInfo, Results
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cells import Cell, Selection
    from bench.engine.task import Side
    from bench.environments.builder import Builder, Environment

REFERENCE = "reference"
"""Environment that days are compared with: the stack of the last one."""
EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
MOST_DAYS = 400
"""Maximum number of days of a history: more than a year of daily ones is a typing error."""


def list_days(since: datetime.date, until: datetime.date, every: str) -> list[datetime.date]:
    """Return the days from `since` to `until`, one `every` so often; `until` is the last.

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
        days.append(min(add_to_day(since, len(days) * count, unit), until))
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return days


def add_to_day(day: datetime.date, count: int, unit: str) -> datetime.date:
    """Return a day so many units later; the last of the month if that has no such day."""
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
        """Seconds of the budget that asking the sides for their contents took."""
        self.others: dict[str, EnvironmentInfo] = {}
        """Days without a side: those that cannot be built, and those whose stack has one."""
        reference = builder.environment(make_day_spec(days[-1]), PYTHONS)
        self.sides = {REFERENCE: self.ask(reference, selection)}
        pythons = list(dict.fromkeys([reference.python, *PYTHONS]))
        stacks: dict[object, Side] = {}
        for day in days:
            name = str(day)
            builder.notify(f"the environment of {name}")
            try:
                environment = builder.environment(make_day_spec(day), pythons)
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
        """Ask a side for its contents, and count the time."""
        start = time.monotonic()
        side = ask_side(environment, selection)
        self.asking += time.monotonic() - start
        return side

    def cells(self, selection: Selection) -> dict[str, list[Cell]]:
        """Return side → cells: those of the reference, as far as the side has them."""
        whole = choose_cells(selection, {REFERENCE: self.sides[REFERENCE]})[REFERENCE]
        return {
            name: [c for c in whole if name == REFERENCE or not find_gap(side, c)]
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
