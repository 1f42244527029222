"""The days of a history: from one to another, every so often."""

from __future__ import annotations

import datetime
import re

from common.errors import BakeoffError

EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
MOST_DAYS = 400


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
    days, number = [since], 1
    while len(days) <= MOST_DAYS:
        after = later(since, number * count, unit)
        if after >= until:
            break
        days.append(after)
        number += 1
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return [*days, until] if until > days[-1] else days


def later(day: datetime.date, count: int, unit: str) -> datetime.date:
    """Return a day so many units later; the last of a month where it has no such day."""
    if unit in ("d", "w"):
        return day + datetime.timedelta(count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "y" else 1)
    first = datetime.date(months // 12, months % 12 + 1, 1)
    following = (first + datetime.timedelta(32)).replace(day=1)
    return first.replace(day=min(day.day, (following - first).days))
