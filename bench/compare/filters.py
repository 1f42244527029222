"""Filters of a time line: which runs, and which of their series, it shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from bench.compare.series import FAILURE, SeriesKey
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = "all"
"""Asks for every metric."""
MOMENT = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?", re.ASCII)
EARLIEST = "0001-01-01T00:00:00"


@dataclass(frozen=True)
class Filters:
    """Which runs and series are shown; empty stands for everything."""

    entrants: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """`all` stands for every metric; empty for those that the format usually shows."""
    machines: tuple[str, ...] = ()
    """Parts of their names, in any case."""
    since: str = ""
    """A year, month, day or time of day (UTC): `2026`, `2026-01`, `2026-01-31`."""
    until: str = ""
    """The same; all of it is included."""
    last: int | None = None
    """Number of runs of each machine, the newest ones."""

    def check(self) -> None:
        """Raise BakeoffError if a time or a number is not valid."""
        for option, given in (("--since", self.since), ("--until", self.until)):
            if given and not is_moment(given):
                raise BakeoffError(
                    f"{option} {given!r} is no time; give a year, a month, a day or a time of day "
                    "(UTC), as in 2026, 2026-01, 2026-01-31 or 2026-01-31T12:00"
                )
        if self.last is not None and self.last < 1:
            raise BakeoffError(f"--last is {self.last}; it must be at least 1")
        if self.until and self.since[: len(self.until)] > self.until:
            raise BakeoffError(
                f"--since {self.since} is after --until {self.until}: give them the other way round"
            )

    def during(self, at: str) -> bool:
        """Tell whether a run of this time is shown."""
        return self.since <= at and (not self.until or at[: len(self.until)] <= self.until)

    def on(self, machine: str) -> bool:
        """Tell whether a machine is shown."""
        name = machine.casefold()
        return not self.machines or any(part.casefold() in name for part in self.machines)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the names that are asked for, by part of a key."""
        return {
            "entrant": self.entrants,
            "style": self.styles,
            "workload": self.workloads,
            "metric": () if ALL in self.metrics else self.metrics,
        }

    def takes(self, key: SeriesKey, usual: Sequence[str] = ()) -> bool:
        """Tell whether a series is shown; `usual` are the metrics where none is given."""
        asked = self.names()
        if key.metric == FAILURE:
            del asked["metric"]
        elif not self.metrics:
            asked["metric"] = tuple(usual)
        known = key._asdict() | {"style": key.cell.arm.full_style}
        return all(not given or known[part] in given for part, given in asked.items())


def is_moment(text: str) -> bool:
    """Tell whether a text is the beginning of a time."""
    if not MOMENT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text + EARLIEST[len(text) :])
    except ValueError:
        return False
    return True
