"""Bisect: from two stacks that differ to the day, to the package, to the release.

Each step is an A/B of the good side against one in between, and asks on which side of half of the
whole difference that one lies (in logarithms). It goes on until an interval says so, with looks at
the data paid for in advance; where it cannot say, the search stops there.
"""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version
from scipy import special

from bench.compare.bisect_result import (
    ALPHA,
    DIFFERS,
    LIKE_BAD,
    LIKE_GOOD,
    UNDECIDED,
    BisectResult,
    SearchStep,
)
from bench.compare.conditions import moved
from bench.compare.releases import between
from bench.environments.spec import PACKAGES, of_day, parse
from bench.environments.uv import UnsolvableError
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.compare.bisect_result import Moved
    from bench.environments.builder import Environment
    from bench.environments.spec import Spec
    from bench.stats.ratios import Estimate

    type Decided = Callable[[Estimate], bool]
    """Tells, given the ratio by now, whether a step has been measured for long enough."""
    type Trial = Callable[[Environment, Environment, Decided], Estimate]
    """Measures the ratio of two sides until it is decided; raises StoppedError if there is none."""

LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are looked at; each has its part of the odds (Bonferroni)."""
MOST_LOG = 700.0
"""Of an end of an interval, as a logarithm, that a file can hold: beyond it nothing is known."""
JAX = ("jax", "jaxlib")
"""They are released together."""
MOST_TRIED = 10
"""Days or releases that are tried for one whose stack can be built."""


class StoppedError(BakeoffError):
    """A search goes no further, and why."""


@dataclass
class Search:
    """One bisection: between which sides it is by now, and what it has found."""

    environment: Callable[[Spec], Environment]
    trial: Trial
    tell: Callable[[str], None]
    good: Spec
    bad: Spec
    found: BisectResult

    def run(self) -> None:
        """Search; what is known stays known when it stops.

        Raises:
            BakeoffError: one of the two ends cannot be built or measured.
        """
        self.start, self.boundary = self.good, 0.0
        try:
            whole = self.step("whole", self.good, self.bad)
            if whole.conclusion == UNDECIDED:
                raise StoppedError(
                    f"{self.good} and {self.bad} do not differ ({whole}): there is nothing to "
                    "search for"
                )
            self.boundary = math.log(whole.ratio) / 2
            self.search_days()
            self.search_packages()
            self.search_releases()
            if len(self.found.steps) > 1:
                self.boundary = 0.0
                self.step("confirm", self.good, self.bad)
        except BakeoffError as error:
            if not self.found.steps and not isinstance(error, StoppedError):
                raise
            self.found.stopped = str(error)
        finally:
            self.found.good, self.found.bad = str(self.good), str(self.bad)

    def search_days(self) -> None:
        """Go to the last day that is like the good one, and the first that is like the bad one."""
        first, last = self.good.date, self.bad.date
        if first is None or last is None or self.good.pins or self.bad.pins:
            return
        way = 1 if last > first else -1
        steps = (datetime.timedelta(way * n) for n in range(1, abs((last - first).days)))
        self.halve("day", [[of_day(first + step)] for step in steps])

    def search_packages(self) -> None:
        """Go to the package: the one that makes the good stack like the bad one, alone."""
        good, bad = (releases(self.environment(side)) for side in (self.good, self.bad))
        differing = moved(good, bad)
        leaders = {leader(name, differing) for name in differing}
        candidates = [name for name in PACKAGES if name in leaders and name in bad]
        if not candidates:
            raise StoppedError(f"no package that can be pinned differs: {', '.join(differing)}")
        if len(candidates) == 1:
            self.settle(candidates[0], differing)
            return
        for name in candidates:
            names = JAX if name == JAX[0] else (name,)
            pins = {n: bad[n] for n in names if n in differing and n in bad}
            swapped = self.buildable([with_pins(self.good, pins)])
            if swapped is not None and self.like_bad("package", swapped):
                drawn = moved(good, releases(self.environment(swapped)))
                self.found.moved_along = {
                    n: v for n, v in drawn.items() if leader(n, differing) != name
                }
                self.bad = swapped
                self.settle(name, differing)
                return
        raise StoppedError(
            f"none of {', '.join(candidates)} does it alone: it takes more than one of them, or "
            "what came with them"
        )

    def settle(self, name: str, differing: Moved) -> None:
        """It is this package."""
        self.found.package, self.found.releases = name, differing[name]
        low, high = differing[name]
        self.tell(f"package: {name} {low} to {high}")

    def search_releases(self) -> None:
        """Go to the release of that package."""
        name, (low, high) = str(self.found.package), self.found.releases
        if low is None or high is None:
            return
        self.tell(f"looking up the releases of {name} between {low} and {high}")
        python = self.environment(self.good).python
        older, newer = sorted((low, high), key=Version)
        known = between(name, older, newer, python)
        known.sort(key=Version, reverse=Version(low) > Version(high))
        # Without those that are released with it named, uv would keep them as old as they may be.
        ways: list[tuple[str, ...]] = [JAX, (name,)] if name == JAX[0] else [(name,)]
        specs = [
            [with_pins(self.good, dict.fromkeys(way, release)) for way in ways] for release in known
        ]
        good, bad = self.halve("release", specs)
        ends = [low, *known, high]
        self.found.releases = (ends[good + 1], ends[bad + 1])

    def halve(self, phase: str, choices: Sequence[Sequence[Spec]]) -> tuple[int, int]:
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
                spec = self.buildable(choices[place])
                if spec is not None:
                    break
                left.remove(place)
            else:
                break
            pins = self.environment(spec).pins
            ends = [self.environment(end).pins for end in (self.good, self.bad)]
            if pins == ends[1] or (pins != ends[0] and self.like_bad(phase, spec)):
                self.bad, bad = spec, place
                left = [each for each in left if each < place]
            else:
                self.good, good = spec, place
                left = [each for each in left if each > place]
        return good, bad

    def buildable(self, specs: Sequence[Spec]) -> Spec | None:
        """Return the first of some stacks that can be built."""
        for spec in specs:
            try:
                self.environment(spec)
            except UnsolvableError as error:
                self.tell(f"{spec} cannot be built: {error}")
                continue
            return spec
        return None

    def like_bad(self, phase: str, spec: Spec) -> bool:
        """Tell by an A/B of a stack and the first good side whether it is like the bad side."""
        step = self.step(phase, self.start, spec)
        if step.conclusion == UNDECIDED:
            raise StoppedError(f"{spec} cannot be decided: {step}")
        return step.conclusion == LIKE_BAD

    def step(self, phase: str, base: Spec, new: Spec) -> SearchStep:
        """Make one A/B, which asks on which side of the boundary the new side lies."""
        boundary, sides = self.boundary, (self.environment(base), self.environment(new))
        start = time.monotonic()
        estimate = self.trial(*sides, Looks(boundary))
        seconds = time.monotonic() - start
        low, high = interval(estimate)
        conclusion = UNDECIDED
        if low > boundary or high < boundary:
            beyond = (estimate.log_ratio > boundary) == (boundary > 0)
            conclusion = (LIKE_BAD if beyond else LIKE_GOOD) if boundary else DIFFERS
        ends = math.exp(max(-MOST_LOG, low)), math.exp(min(MOST_LOG, high))
        found = estimate.ratio, *ends, estimate.workers, conclusion, seconds
        step = SearchStep(phase, str(base), str(new), *found)
        self.found.steps.append(step)
        self.tell(f"{phase}: {new} beside {base}: {step}: {conclusion}")
        return step


def releases(environment: Environment) -> dict[str, str]:
    """Return the releases of an environment, by package."""
    return dict(pin.split("==", 1) for pin in sorted(environment.pins))


def leader(name: str, differing: Moved) -> str:
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
    if math.isinf(estimate.standard_error) or not estimate.df:
        return -math.inf, math.inf
    share = ALPHA / (len(LOOKS) + 1)  # the one more is the last, when the time is over
    half = float(special.stdtrit(estimate.df, 1 - share / 2)) * estimate.standard_error
    return estimate.log_ratio - half, estimate.log_ratio + half


def with_pins(spec: Spec, releases: Mapping[str, str]) -> Spec:
    """Return a side with further releases pinned, in place of its pins of the same packages."""
    kept = [f"{name}{value}" for name, value in spec.pins if name not in releases]
    date = [f"@{spec.date}"] if spec.date else []
    return parse(",".join([*date, *kept, *(f"{n}=={release}" for n, release in releases.items())]))
