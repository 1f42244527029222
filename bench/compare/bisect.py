"""Bisect: from two stacks that differ to the day, to the package, to the release.

Each step is an A/B of the good side against one in between, and asks on which side of half of the
whole difference that one lies (in logarithms). It goes on until an interval says so, with looks at
the data paid for in advance; where it cannot say, the search stops there.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from packaging.version import Version
from scipy import special

from bench.compare.releases import between, moved
from bench.compare.spec import PACKAGES, of_day, parse
from bench.environments.uv import UnsolvableError
from bench.report.table import RATIO, Value
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.compare.environments import Environment
    from bench.compare.spec import Spec
    from bench.stats.ratios import Estimate

    type Moved = dict[str, tuple[str | None, str | None]]
    type Decided = Callable[[Estimate], bool]
    """Tells, given the ratio by now, whether a step has been measured for long enough."""
    type Trial = Callable[[Environment, Environment, Decided], tuple[Estimate | None, float, str]]
    """Measures two sides until it is decided: the ratio, the seconds it took, why there is none."""

ALPHA = 0.01
"""Odds that a step is decided wrongly."""
LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are looked at; each has its part of the odds (Bonferroni)."""
TOGETHER = {"jaxlib": "jax"}
"""Packages that are released together with another."""
MOST_DAYS = 10
"""That are tried for one whose stack can be built."""
LIKE_GOOD, LIKE_BAD, UNDECIDED = "like good", "like bad", "undecided"


class SearchStep(NamedTuple):
    """One A/B, and what was concluded."""

    phase: str
    """`whole`, `day`, `package`, `release` or `confirm`."""
    base: str
    new: str
    ratio: float
    low: float
    """Ends of the interval at the last look: that of its part of the odds."""
    high: float
    pairs: int
    conclusion: str
    """`differs`, `like good`, `like bad` or `undecided`."""
    seconds: float

    def __str__(self) -> str:
        """Return the ratio with its interval: `1.58 (1.37–1.83) in 3 pairs`."""
        return f"{Value(self.ratio, RATIO, self.low, self.high)} in {self.pairs} pairs"


@dataclass
class SearchResult:
    """Where a search has come to."""

    good: Spec
    bad: Spec
    steps: list[SearchStep]
    log_ratio: float = 0.0
    """Of the whole difference."""
    package: str | None = None
    releases: tuple[str | None, str | None] = (None, None)
    along: dict[str, tuple[str | None, str | None]] | None = None
    """What had to move together with the package."""
    stopped: str | None = None
    """Why it went no further."""

    @property
    def over(self) -> bool:
        """Whether it has stopped before its end."""
        return self.stopped is not None

    @property
    def sure(self) -> float:
        """Odds that every step was decided rightly, at least."""
        decided = [step for step in self.steps if step.conclusion != UNDECIDED]
        return max(0.0, 1 - ALPHA * len(decided))


@dataclass
class Search:
    """One bisection."""

    environment: Callable[[Spec], Environment]
    trial: Trial
    tell: Callable[[str], None]
    found: SearchResult | None = None
    """Where it is by now."""

    def run(self, good: Spec, bad: Spec) -> SearchResult:
        """Search between two sides.

        Raises:
            BakeoffError: one of the two cannot be built or measured.
        """
        self.found = found = SearchResult(good, bad, [])
        self.start = good
        if self.whole(found):
            try:
                if good.date and bad.date and not good.pins and not bad.pins:
                    self.days(found)
                self.packages(found)
                self.releases(found)
                self.confirm(found)
            except BakeoffError as error:  # what is known by now is worth having
                found.stopped = str(error)
        return found

    def whole(self, found: SearchResult) -> bool:
        """Tell whether there is something to search for."""
        step = self.step(found, "whole", found.good, found.bad, 0.0)
        if step is not None and step.conclusion == UNDECIDED:
            found.stopped = (
                f"{found.good} and {found.bad} do not differ ({step}): there is nothing "
                "to search for"
            )
        if step is None or found.over:
            return False
        found.log_ratio = math.log(step.ratio)
        return True

    def days(self, found: SearchResult) -> None:
        """Go to the last day that is like the good one, and the first that is like the bad one."""
        while not found.over and found.good.date and found.bad.date:
            first, last = found.good.date, found.bad.date
            if abs((last - first).days) <= 1:
                return
            middle = self.between(first, last)
            if middle is None:
                found.stopped = f"no stack between {found.good} and {found.bad} can be built"
                return
            pins = self.environment(middle).pins
            if pins == self.environment(found.good).pins:
                found.good = middle
            elif pins == self.environment(found.bad).pins:
                found.bad = middle
            else:
                self.narrow(found, "day", middle)

    def between(self, first: datetime.date, last: datetime.date) -> Spec | None:
        """Return a day between two, in their middle or as near to it as a stack can be built."""
        low, high = sorted((first, last))
        middle = low + (high - low) // 2
        days = [low + datetime.timedelta(n) for n in range(1, (high - low).days)]
        for day in sorted(days, key=lambda day: abs(day - middle))[:MOST_DAYS]:
            try:
                self.environment(of_day(day))
            except UnsolvableError as error:
                self.tell(f"the stack of {day} cannot be built: {error}")
                continue
            return of_day(day)
        return None

    def packages(self, found: SearchResult) -> None:
        """Go to the package: the one that makes the good stack like the bad one, alone."""
        if found.over:
            return
        good, bad = (self.environment(side).pins for side in (found.good, found.bad))
        differing = moved(good, bad)
        candidates = list(dict.fromkeys(leader(name, differing) for name in differing))
        candidates = [n for n in PACKAGES if n in candidates and differing.get(n, (0, None))[1]]
        if not candidates:
            found.stopped = f"no package that can be pinned differs: {', '.join(differing)}"
            return
        if len(candidates) == 1:
            self.settle(found, candidates[0], differing)
            return
        for name in candidates:
            swapped = self.swapped(found.good, name, differing)
            try:
                here = self.environment(swapped).pins
            except UnsolvableError as error:
                self.tell(f"{swapped} cannot be built: {error}")
                continue
            step = self.step(found, "package", self.start, swapped, found.log_ratio / 2)
            if step is None:
                return
            if step.conclusion == UNDECIDED:
                found.stopped = f"{swapped} cannot be decided: {step}"
                return
            if step.conclusion == LIKE_BAD:
                drawn = moved(good, here)
                along = {n: v for n, v in drawn.items() if leader(n, differing) != name}
                found.bad = swapped
                self.settle(found, name, differing, along)
                return
        found.stopped = (
            f"none of {', '.join(candidates)} does it alone: it takes more than one of them, or "
            "what came with them"
        )

    def settle(
        self, found: SearchResult, name: str, differing: Moved, along: Moved | None = None
    ) -> None:
        """It is this package; `along` moved with it."""
        found.package, found.releases = name, differing.get(name, (None, None))
        found.along = along or {}
        self.tell(f"package: {name} {found.releases[0]} to {found.releases[1]}")

    def swapped(self, good: Spec, name: str, differing: Moved) -> Spec:
        """Return the good stack with one package, and those released with it, of the bad one."""
        names = [name, *(n for n, first in TOGETHER.items() if first == name)]
        pins = [f"{n}=={differing[n][1]}" for n in names if n in differing and differing[n][1]]
        return with_pins(good, pins)

    def releases(self, found: SearchResult) -> None:
        """Go to the release of that package."""
        if found.over or found.package is None:
            return
        name, (low, high) = found.package, found.releases
        if low is None or high is None:
            return
        self.tell(f"looking up the releases of {name} between {low} and {high}")
        python = self.environment(found.good).place.command[0]
        older, newer = sorted((low, high), key=Version)
        known = between(name, older, newer, python)
        if Version(low) > Version(high):
            known = known[::-1]
        first, last = -1, len(known)
        origin = found.good
        while last - first > 1 and not found.over:
            middle = (first + last) // 2
            spec = self.released(origin, name, known[middle])
            if spec is None:
                self.tell(f"{name} {known[middle]} cannot be built: passed over")
                del known[middle]
                last -= 1
                continue
            if self.narrow(found, "release", spec) == LIKE_BAD:
                last = middle
            else:
                first = middle
        ends = [low, *known, high]
        found.releases = (ends[first + 1], ends[last + 1])

    def released(self, origin: Spec, name: str, release: str) -> Spec | None:
        """Return the good stack with one release, those that belong to it included, if it builds.

        Without the others named, uv would keep them as old as they may be.
        """
        others = [each for each, first in TOGETHER.items() if first == name]
        for names in ([name, *others], [name]):
            spec = with_pins(origin, [f"{each}=={release}" for each in names])
            try:
                self.environment(spec)
            except UnsolvableError:
                continue
            return spec
        return None

    def confirm(self, found: SearchResult) -> None:
        """Measure the two that were found beside each other: what of the difference is theirs."""
        if not found.over and len(found.steps) > 1:
            self.step(found, "confirm", found.good, found.bad, 0.0)

    def narrow(self, found: SearchResult, phase: str, middle: Spec) -> str:
        """Put one of the sides in the middle, by an A/B of it and the first good side."""
        step = self.step(found, phase, self.start, middle, found.log_ratio / 2)
        if step is None:
            return UNDECIDED
        if step.conclusion == UNDECIDED:
            found.stopped = f"{middle} cannot be decided: {step}"
        elif step.conclusion == LIKE_BAD:
            found.bad = middle
        else:
            found.good = middle
        return step.conclusion

    def step(
        self, found: SearchResult, phase: str, base: Spec, new: Spec, boundary: float
    ) -> SearchStep | None:
        """Make one A/B, which asks on which side of a log-ratio the new side lies."""
        estimate, seconds, why = self.trial(
            self.environment(base), self.environment(new), Looks(boundary)
        )
        if estimate is None:
            found.stopped = f"{new} cannot be measured beside {base}: {why}"
            return None
        low, high = interval(estimate)
        conclusion = UNDECIDED
        if low > boundary or high < boundary:
            conclusion = "differs"
            if boundary:
                beyond = (estimate.log_ratio > boundary) == (boundary > 0)
                conclusion = LIKE_BAD if beyond else LIKE_GOOD
        step = SearchStep(
            phase,
            str(base),
            str(new),
            estimate.ratio,
            math.exp(low),
            math.exp(high),
            estimate.workers,
            conclusion,
            seconds,
        )
        found.steps.append(step)
        self.tell(f"{phase}: {new} beside {base}: {step}: {conclusion}")
        return step


def leader(name: str, differing: Moved) -> str:
    """Return the package that another one is released with, if that has moved too."""
    first = TOGETHER.get(name, name)
    return first if first in differing else name


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
    if math.isinf(estimate.standard_error) or not estimate.df:
        return -math.inf, math.inf
    share = ALPHA / (len(LOOKS) + 1)  # the one more is the last, when the time is over
    half = float(special.stdtrit(estimate.df, 1 - share / 2)) * estimate.standard_error
    return estimate.log_ratio - half, estimate.log_ratio + half


def with_pins(spec: Spec, pins: Sequence[str]) -> Spec:
    """Return a side with further pins, in place of those of the same packages."""
    names = {pin.split("==")[0] for pin in pins}
    kept = [f"{name}{value}" for name, value in spec.pins if name not in names]
    date = [f"@{spec.date}"] if spec.date else []
    return parse(",".join([*date, *kept, *pins]))
