"""Stacks of many days, for `bakeoff history`."""

from __future__ import annotations

import calendar
import datetime
import re
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.environments.spec import make_day_spec
from bench.environments.uv import PYTHONS
from bench.prepare.sides import ask_side, choose_cells, find_gap, make_task
from bench.runfile import EnvironmentInfo, Results
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Selection
    from bench.engine.task import Environment, Task
    from bench.environments.builder import Builder
    from bench.options import Options

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
) -> tuple[Task, float, dict[str, EnvironmentInfo]]:
    """Return the task of a history, and what `ask_days` returns beside the sides.

    Days have the reference's cells, as far as their libraries have them.

    Raises:
        BakeoffError: the last day cannot be built or asked, or has no cell that is asked for.
    """
    sides, seconds, others = ask_days(days, selection, builder)
    chosen = choose_cells(selection, {REFERENCE: sides[REFERENCE]})[REFERENCE]
    cells = {
        name: [cell for cell in chosen if name == REFERENCE or not find_gap(side, cell)]
        for name, side in sides.items()
    }
    task = make_task("history", selection, sides, cells, options, REFERENCE, arguments)
    return task, seconds, others


def ask_days(
    days: Sequence[datetime.date], selection: Selection, builder: Builder
) -> tuple[dict[str, Environment], float, dict[str, EnvironmentInfo]]:
    """Build each day's stack and ask for its offer; the last day's is the reference, too.

    Returns:
        The reference, and the first day of each stack, with the reference's Python if possible;
        the seconds of the budget spent on asking; and the days without a side: those that cannot
        be built or asked, and those with an earlier day's stack.
    """
    environment = builder.build(make_day_spec(days[-1]))
    pythons = list(dict.fromkeys([environment.python, *PYTHONS]))
    start = time.monotonic()
    sides = {REFERENCE: ask_side(environment, selection)}
    seconds = time.monotonic() - start
    stacks: dict[object, EnvironmentInfo] = {}
    others: dict[str, EnvironmentInfo] = {}
    for day in days:
        name = str(day)
        builder.notify(f"the environment of {name}")
        try:
            environment = builder.build(make_day_spec(day), pythons)
            stack = environment.python, *environment.info.pins.items()
            if stack in stacks:
                others[name] = replace(stacks[stack], spec=f"@{name}", gaps={})
                continue
            start = time.monotonic()
            sides[name] = ask_side(environment, selection)
            seconds += time.monotonic() - start
            stacks[stack] = sides[name].info
        except BakeoffError as error:
            others[name] = EnvironmentInfo(spec=f"@{name}", gaps={"": str(error)})
            builder.notify(f"{name}: {error}")
    return sides, seconds, others


def add_days(results: Results, others: Mapping[str, EnvironmentInfo]) -> None:
    """Add days that were not measured to results, by date, and warn of those not built."""
    results.environments = dict(sorted({**results.environments, **others}.items()))
    results.warnings += [
        f"{day} could not be built: {info.gaps['']}"
        for day, info in sorted(others.items())
        if info.gaps
    ]
