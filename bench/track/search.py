"""Search for the change between two stacks: the day, then the package, then its release or commit.

Each step compares a stack in between with the good end: whether the difference is above or below
half of the whole one, in logarithms. A step that cannot be decided ends the search.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec
from packaging.version import Version

from bench.engine.journal import DiskError, make_journals_folder
from bench.environments.sources import list_commits
from bench.environments.spec import PACKAGES, Spec, make_day_spec
from bench.environments.uv import UnsolvableError, list_releases
from bench.estimates import MARGIN
from bench.files import atomic_write
from bench.numbers import percent, words
from bench.runfile import LIKE_BAD, UNDECIDED, SearchRecord, find_differing_releases
from bench.stats.changes import log_ratio
from bench.track.bisect import CUT_OFF
from bench.track.steps import StoppedError, UnmeasurableError, describe_pairs
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.runfile import ResultsWithSamples, SearchPhase, SearchStep
    from bench.track.steps import Steps

JAX = ("jax", "jaxlib")
"""Packages that are released together."""
MOST_TRIED = 10
"""Largest number of stacks that are tried in a row for one that can be built and measured: each
takes seconds."""


@dataclass
class Search:
    """A search between two stacks, which move towards each other."""

    good: Spec
    """Last stack that is like the good end."""
    bad: Spec
    """First stack that is like the bad end."""
    steps: Steps
    notify: Callable[[str], None]
    """Called with a line about each step."""
    file: Path
    """Run file of the steps so far, written after each of them."""

    package: str | None = None
    releases: tuple[str | None, str | None] = (None, None)
    moved_along: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    stopped: str | None = None
    boundary: float = 0.0
    """Half of the log-ratio of the bad end to the good end; 0 before it is known."""
    has_measured: bool = False
    """Whether a step was measured now, and the file is this search's."""

    def __post_init__(self) -> None:
        self.stacks = self.steps.stacks
        self.first = self.good
        """The good end, which all steps but the last compare with."""
        self.unmeasurable: list[dict[str, str]] = []
        """Releases of the stacks that cannot be measured."""

    def run(self) -> ResultsWithSamples:
        """Search, and return the results, also where the search stops early.

        Raises:
            BakeoffError: an end cannot be built or measured, or the earlier search is another one.
            KeyboardInterrupt: the search was cut off; `good` and `bad` are as near as they came.
        """
        self.stacks.build_ends(self.good, self.bad)
        if len(self.stacks.pythons) > 1:
            versions = ", ".join(self.stacks.pythons)
            self.notify(f"no one Python fits both ends: {versions} are compared")
        self.steps.prepare(self.good, self.bad)
        try:
            self.compare_ends()
            self.search_days()
            self.search_packages()
            self.search_releases()
            if self.steps.taken[-1].phase != "whole":
                self.boundary = 0.0
                self.compare("confirm", self.good, self.bad)
        except DiskError:
            raise
        except BakeoffError as error:
            if not self.steps.taken and not isinstance(error, StoppedError):
                raise
            self.stopped = str(error)
            if self.has_measured:
                self.keep_results(self.stopped)
        return self.make_results(self.stopped)

    def make_results(self, stopped: str | None) -> ResultsWithSamples:
        """Return the results so far, and why there are no more."""
        steps = self.steps
        record = SearchRecord(
            cell=steps.cell,
            metric=steps.metric,
            good=str(self.good),
            bad=str(self.bad),
            package=self.package,
            releases=self.releases,
            moved_along=self.moved_along,
            stopped=stopped,
            seconds=steps.earlier.spent.earlier_seconds + steps.spent_seconds,
            missing_seconds=steps.missing_seconds,
            steps=steps.taken,
        )
        return steps.make_results(record)

    def compare(self, phase: SearchPhase, base: Spec, new: Spec) -> SearchStep:
        """Return the A/B of two stacks; keep the results if it was measured now."""
        before = len(self.steps.measured)
        step = self.steps.find_or_measure(phase, base, new, self.boundary)
        if len(self.steps.measured) > before:
            self.has_measured = True
            self.keep_results(CUT_OFF)
        self.notify(f"{phase}: {new} beside {base}: {describe_pairs(step.row)}: {step.conclusion}")
        return step

    def keep_results(self, stopped: str) -> None:
        """Write the results so far, for another search to go on with."""
        data = msgspec.json.encode({"bakeoff": self.make_results(stopped)}, enc_hook=float)
        make_journals_folder(self.file.parent)
        atomic_write(self.file, data)

    def is_like_bad(self, phase: SearchPhase, spec: Spec) -> bool:
        """Tell whether a stack is like the bad end, by an A/B with the good end."""
        step = self.compare(phase, self.first, spec)
        if step.conclusion == UNDECIDED:
            doubt = self.steps.explain_doubt(self.boundary)
            raise StoppedError(f"{spec} cannot be decided: {doubt}")
        return step.conclusion == LIKE_BAD

    def find_end(self, phase: SearchPhase, spec: Spec) -> bool | None:
        """Tell whether a stack is like the bad end; None if that cannot be measured."""
        pins = self.stacks.releases(spec)
        if pins in (ends := [*map(self.stacks.releases, (self.bad, self.good))]):
            return pins == ends[0]
        if pins in self.unmeasurable:
            return None
        try:
            return self.is_like_bad(phase, spec)
        except UnmeasurableError as error:
            self.unmeasurable.append(pins)
            self.notify(f"{spec} is passed over: {error}")
            return None

    def compare_ends(self) -> None:
        """Measure the whole difference; half of it is the boundary of all further steps."""
        step = self.compare("whole", self.good, self.bad)
        row, ends = step.row, f"{self.good} and {self.bad} differ"
        if step.conclusion == UNDECIDED:
            if (row.low or 0.0) >= 1 / (1 + MARGIN) and (row.high or math.inf) <= 1 + MARGIN:
                raise StoppedError(f"{ends} by less than {percent(MARGIN)} ({words(row)})")
            raise StoppedError(f"cannot tell whether {ends}: {self.steps.explain_doubt(0.0)}")
        self.boundary = log_ratio(row) / 2

    def search_days(self) -> None:
        """Move both stacks to neighbouring days, if both are the whole stack of a day."""
        first, last = self.good.date, self.bad.date
        if first is None or last is None or self.good.pins or self.bad.pins:
            return
        way = 1 if last > first else -1
        days = (datetime.timedelta(way * n) for n in range(1, abs((last - first).days)))
        self.halve("day", [[make_day_spec(first + day)] for day in days])

    def search_packages(self) -> None:
        """Find the package that alone makes the good stack like the bad one."""
        good, bad = self.stacks.releases(self.good), self.stacks.releases(self.bad)
        differing = find_differing_releases(good, bad)
        led = JAX[1:] if JAX[0] in differing else ()  # jaxlib follows jax
        candidates = [n for n in PACKAGES if n in differing and n in bad and n not in led]
        if not candidates:
            raise StoppedError(f"no package that can be pinned differs: {', '.join(differing)}")
        untried = []
        for name in candidates:
            like_bad = len(candidates) == 1 or self.adopt_if_alone(name)
            if like_bad:
                self.package, self.releases = name, differing[name]
                return
            untried += [name] if like_bad is None else []
        raise StoppedError(
            f"none of {', '.join(candidates)} does it alone: the change takes several of them, or "
            "what came with them"
            + (f"; alone, {', '.join(untried)} cannot be measured" if untried else "")
        )

    def adopt_if_alone(self, name: str) -> bool | None:
        """Move the bad stack to the good one with a package of its own, if that is as bad.

        Returns:
            Whether it is; None if that cannot be built or measured.
        """
        good, bad = self.stacks.releases(self.good), self.stacks.releases(self.bad)
        released_together = JAX if name == JAX[0] else (name,)
        pins = {n: f"=={bad[n]}" for n in released_together if n in bad and bad[n] != good.get(n)}
        checkout = {n: source for n, source in self.bad.sources.items() if n == name}
        swapped = self.find_buildable([self.good.replace_pins(checkout or pins)])
        like_bad = None if swapped is None else self.find_end("package", swapped)
        if swapped is not None and like_bad:
            differing = find_differing_releases(good, self.stacks.releases(swapped))
            self.moved_along = {n: differing[n] for n in differing if n not in released_together}
            self.bad = swapped
        return like_bad

    def search_releases(self) -> None:
        """Move both stacks to neighbouring releases, or commits, of the package."""
        name, (low, high) = str(self.package), self.releases
        self.notify(f"package: {name} {low} to {high}")
        if low is None or high is None:
            return
        sources = [end.sources[name] for end in (self.good, self.bad) if name in end.sources]
        if len(sources) == 2:
            commits = list_commits(*map(self.stacks.builder.freeze, sources))
            states = [replace(sources[0], revision=commit) for commit in commits]
            self.halve("commit", [[self.good.replace_pins({name: state})] for state in states])
        else:
            older, newer = sorted((low, high), key=Version)
            python = self.stacks.environment(self.good).python
            known = list_releases(name, older, newer, python)
            known.sort(key=Version, reverse=older != low)
            # Without jaxlib named beside jax, uv would keep it as old as it may be
            ways = [JAX, (name,)] if name == JAX[0] else [(name,)]
            pins = [[dict.fromkeys(way, f"=={release}") for way in ways] for release in known]
            self.halve("release", [list(map(self.good.replace_pins, either)) for either in pins])
        good, bad = self.stacks.releases(self.good), self.stacks.releases(self.bad)
        self.releases = good[name], bad[name]

    def halve(self, phase: SearchPhase, choices: Sequence[Sequence[Spec]]) -> None:
        """Move both stacks to neighbours in a list of stacks between them.

        Args:
            phase: Phase of the steps.
            choices: Ways to ask for each stack, of which the first that can be built is taken.
                Stacks that cannot be built or measured are passed over.
        """
        left = list(range(len(choices)))
        while left:
            middle = (left[0] + left[-1]) / 2
            for i in sorted(left, key=lambda i: abs(i - middle))[:MOST_TRIED]:
                spec = self.find_buildable(choices[i])
                is_like_bad = None if spec is None else self.find_end(phase, spec)
                if spec is not None and is_like_bad is not None:
                    break
                left.remove(i)
            else:
                return
            if is_like_bad:
                self.bad, left = spec, [other for other in left if other < i]
            else:
                self.good, left = spec, [other for other in left if other > i]

    def find_buildable(self, specs: Sequence[Spec]) -> Spec | None:
        """Return the first stack that can be built."""
        for spec in specs:
            try:
                self.stacks.environment(spec)
            except UnsolvableError as error:
                self.notify(f"{spec} cannot be built: {error}")
            else:
                return spec
        return None
