"""Bisect: from two stacks that differ to the day, to the package, to the release.

Each step is an A/B of the good side against one in between, and asks on which side of half of the
whole difference that one lies (in logarithms). It goes on until an interval says so, with looks at
the data paid for in advance; where it cannot say, the search stops there.
"""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace
from packaging.version import Version
from scipy import special

from bench.environments.releases import between
from bench.environments.spec import PACKAGES, of_day
from bench.environments.uv import UnsolvableError
from bench.estimates import MARGIN
from bench.report.table import change
from bench.stats.changes import position
from bench.track.bisect import (
    ALPHA,
    DIFFERS,
    LIKE_BAD,
    LIKE_GOOD,
    UNDECIDED,
    SearchRecord,
    SearchStep,
)
from bench.track.conditions import moved
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.environments.builder import Environment
    from bench.environments.spec import Spec
    from bench.estimates import Estimate

    type Decided = Callable[[Estimate], bool]
    """Tells, given the ratio by now, whether a step has been measured for long enough."""
    type Trial = Callable[[Environment, Environment, Decided], Estimate]
    """Measures the ratio of two sides until it is decided; raises StoppedError if there is none."""

LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are looked at: each costs its part of the odds (Bonferroni),
and one in about 1.4 times as many pairs loses little."""
WIDEST = math.log(10)
"""Half width of an interval, as a logarithm, from which on it says nothing."""
JAX = ("jax", "jaxlib")
"""They are released together."""
MOST_TRIED = 10
"""Days or releases that are tried for one whose stack can be built: each takes seconds."""


class StoppedError(BakeoffError):
    """A search goes no further, and why."""


@dataclass
class Search:
    """One bisection: between which sides it is by now, and what it came to."""

    environment: Callable[[Spec], Environment]
    """Returns a side's environment, built if need be."""
    trial: Trial
    notify: Callable[[str], None]
    """Called with a line about each step."""
    record: SearchRecord
    """Gets what is known by now."""
    good: Spec
    bad: Spec
    estimates: list[Estimate] = field(default_factory=list)
    """Of each step, with the interval that decided it."""

    def __post_init__(self) -> None:
        self.start, self.boundary = self.good, 0.0

    def run(self) -> None:
        """Search; what is known stays known when it stops.

        Raises:
            BakeoffError: one of the two ends cannot be built or measured.
        """
        try:
            if self._step("whole", self.good, self.bad) == UNDECIDED:
                raise StoppedError(self._equal_ends())
            self.boundary = position(self.estimates[0]) / 2
            self._search_days()
            self._search_packages()
            self._search_releases()
            if len(self.estimates) > 1:
                self.boundary = 0.0
                self._step("confirm", self.good, self.bad)
        except BakeoffError as error:
            if not self.estimates and not isinstance(error, StoppedError):
                raise
            self.record.stopped = str(error)
        finally:
            self.record.good, self.record.bad = str(self.good), str(self.bad)

    def _equal_ends(self) -> str:
        row = self.estimates[0]
        if row.within(MARGIN):
            return f"{self.good} and {self.bad} differ by less than 2 % ({change(row)})"
        return f"cannot tell whether {self.good} and {self.bad} differ: {self._doubt()}"

    def _doubt(self) -> str:
        row, step = self.estimates[-1], self.record.steps[-1]
        distance = max(abs(position(row) - self.boundary), math.log1p(MARGIN))
        times = LOOKS[1] / max(1, row.workers)
        if row.low is not None and row.standard_error:
            times = (critical(row.df) * row.standard_error / distance) ** 2
        seconds = float(f"{max(times, 1.5) * step.seconds:.1g}")
        return f"{change(row)} in {row.workers} pairs; it needs about {seconds:.0f} s"

    def _search_days(self) -> None:
        """Go to the last day that is like the good one, and the first that is like the bad one."""
        first, last = self.good.date, self.bad.date
        if first is None or last is None or self.good.pins or self.bad.pins:
            return
        way = 1 if last > first else -1
        steps = (datetime.timedelta(way * n) for n in range(1, abs((last - first).days)))
        self._halve("day", [[of_day(first + step)] for step in steps])

    def _search_packages(self) -> None:
        """Go to the package: the one that makes the good stack like the bad one, alone."""
        good, bad = (_releases(self.environment(side)) for side in (self.good, self.bad))
        differing = {n: (good.get(n), bad.get(n)) for n in {**good, **bad}}
        differing = {n: pair for n, pair in differing.items() if pair[0] != pair[1]}
        leaders = {_leader(name, differing) for name in differing}
        candidates = [name for name in PACKAGES if name in leaders and name in bad]
        if not candidates:
            raise StoppedError(f"no package that can be pinned differs: {', '.join(differing)}")
        if len(candidates) == 1:
            self._settle(candidates[0], differing)
            return
        for name in candidates:
            names = JAX if name == JAX[0] else (name,)
            pins = {n: bad[n] for n in names if n in differing and n in bad}
            swapped = self._buildable([self.good.with_releases(pins)])
            if swapped is not None and self._like_bad("package", swapped):
                drawn = moved(good, _releases(self.environment(swapped)))
                self.record.moved_along = {
                    n: pair for n, pair in drawn.items() if _leader(n, differing) != name
                }
                self.bad = swapped
                self._settle(name, differing)
                return
        raise StoppedError(
            f"none of {', '.join(candidates)} does it alone: it takes more than one of them, or "
            "what came with them"
        )

    def _settle(self, name: str, differing: Mapping[str, tuple[str | None, str | None]]) -> None:
        low, high = self.record.releases = differing[name]
        self.record.package = name
        self.notify(f"package: {name} {low} to {high}")

    def _search_releases(self) -> None:
        """Go to the release of that package."""
        name, (low, high) = str(self.record.package), self.record.releases
        if low is None or high is None:
            return
        self.notify(f"looking up the releases of {name} between {low} and {high}")
        older, newer = sorted((low, high), key=Version)
        known = between(name, older, newer, self.environment(self.good).python)
        known.sort(key=Version, reverse=Version(low) > Version(high))
        # Without those that are released with it named, uv would keep them as old as they may be.
        ways: list[tuple[str, ...]] = [JAX, (name,)] if name == JAX[0] else [(name,)]
        specs = [
            [self.good.with_releases(dict.fromkeys(way, release)) for way in ways]
            for release in known
        ]
        good, bad = self._halve("release", specs)
        ends = [low, *known, high]
        self.record.releases = (ends[good + 1], ends[bad + 1])

    def _halve(self, phase: str, choices: Sequence[Sequence[Spec]]) -> tuple[int, int]:
        """Move the good and the bad side to neighbours in a list of stacks between them.

        Args:
            phase: Of the steps.
            choices: Ways to ask for each stack, the first one that builds being taken. Stacks that
                cannot be built are passed over.

        Returns:
            The places of the good and the bad side: -1 and the length are those of before.
        """
        left = list(range(len(choices)))
        good, bad = -1, len(choices)
        while left:
            middle = (left[0] + left[-1]) / 2
            for place in sorted(left, key=lambda place: abs(place - middle))[:MOST_TRIED]:
                spec = self._buildable(choices[place])
                if spec is not None:
                    break
                left.remove(place)
            else:
                break
            pins = self.environment(spec).pins
            ends = [self.environment(end).pins for end in (self.good, self.bad)]
            if pins == ends[1] or (pins != ends[0] and self._like_bad(phase, spec)):
                self.bad, bad = spec, place
                left = [other for other in left if other < place]
            else:
                self.good, good = spec, place
                left = [other for other in left if other > place]
        return good, bad

    def _buildable(self, specs: Sequence[Spec]) -> Spec | None:
        for spec in specs:
            try:
                self.environment(spec)
            except UnsolvableError as error:
                self.notify(f"{spec} cannot be built: {error}")
                continue
            return spec
        return None

    def _like_bad(self, phase: str, spec: Spec) -> bool:
        """Tell by an A/B of a stack and the first good side whether it is like the bad side."""
        conclusion = self._step(phase, self.start, spec)
        if conclusion == UNDECIDED:
            raise StoppedError(f"{spec} cannot be decided: {self._doubt()}")
        return conclusion == LIKE_BAD

    def _step(self, phase: str, base: Spec, new: Spec) -> str:
        """Make one A/B, and conclude on which side of the boundary the new side lies."""
        boundary, sides = self.boundary, (self.environment(base), self.environment(new))
        start = time.monotonic()
        estimate = self.trial(*sides, Looks(boundary))
        low, high = interval(estimate)
        conclusion = UNDECIDED
        if low > boundary or high < boundary:
            beyond = (position(estimate) > boundary) == (boundary > 0)
            conclusion = (LIKE_BAD if beyond else LIKE_GOOD) if boundary else DIFFERS
        known = high - low < 2 * WIDEST
        estimate = replace(
            estimate,
            environment=str(new),
            against=str(base),
            low=math.exp(low) if known else None,
            high=math.exp(high) if known else None,
            verdict=None,
        )
        self.estimates.append(estimate)
        seconds = time.monotonic() - start
        self.record.steps.append(SearchStep(phase, str(base), str(new), conclusion, seconds))
        pairs = f"{change(estimate)} in {estimate.workers} pairs"
        self.notify(f"{phase}: {new} beside {base}: {pairs}: {conclusion}")
        return conclusion


def _releases(environment: Environment) -> dict[str, str]:
    return dict(pin.split("==", 1) for pin in sorted(environment.pins))


def _leader(name: str, differing: Mapping[str, object]) -> str:
    """Return the package that another one is released with, if that has moved too."""
    return JAX[0] if name in JAX and JAX[0] in differing else name


class Looks:
    """Tells whether it is known on which side of a boundary a log-ratio lies: at looks only.

    Pairs of workers may come several at a time, so that a look is due from its number of them on.
    """

    def __init__(self, boundary: float) -> None:
        self.boundary, self.taken = boundary, 0

    def __call__(self, estimate: Estimate) -> bool:
        """Take a look if one is due."""
        due = sum(look <= estimate.workers for look in LOOKS)
        if due <= self.taken:
            return False
        self.taken = due
        low, high = interval(estimate)
        return low > self.boundary or high < self.boundary


def interval(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of a log-ratio with a look's part of the odds outside of it."""
    if estimate.standard_error is None or not estimate.df:
        return -math.inf, math.inf
    half = critical(estimate.df) * estimate.standard_error
    return position(estimate) - half, position(estimate) + half


def critical(df: float) -> float:
    """Return the half width of an interval in standard errors, at a look's part of the odds."""
    share = ALPHA / (len(LOOKS) + 1)  # the one more is the last, when the time is over
    return float(special.stdtrit(df, 1 - share / 2))
