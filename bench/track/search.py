"""Bisect: from two stacks that differ to the day, to the package, to the release or commit.

Each step is an A/B of the good side against one in between, and asks on which side of half of the
whole difference that one lies (in logarithms). It goes on until an interval says so, with looks at
the data paid for in advance; where it cannot say, the search stops there.
"""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec
from packaging.version import Version
from scipy import special

from bench.engine.journal import FOLDER, SUFFIX
from bench.engine.session import estimates_of, measure, setup_of
from bench.environments.sources import commits_between
from bench.environments.spec import PACKAGES, Spec, of_day
from bench.environments.uv import UnsolvableError, releases_between
from bench.estimates import MARGIN, Estimate, EstimateTable
from bench.options import Options
from bench.prepare.sides import (
    ask_side,
    build_environments,
    choose_cells,
    find_gap,
    make_task,
    require_common,
)
from bench.report.table import change, percent
from bench.runfile import Results, ResultsWithSamples, RunOptions, TimeSpent, packed
from bench.runfile.releases import differing_releases
from bench.runfile.warnings import other_processes
from bench.stats.changes import position
from bench.track.bisect import ALPHA, UNDECIDED, SearchRecord, SearchStep
from bench.track.comparison import BASE, NEW
from bench.track.earlier import QUESTION, Earlier
from common.errors import BakeoffError
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from bench.cells import Selection
    from bench.engine.actions import Action
    from bench.engine.task import Side
    from bench.environments.builder import Builder, Environment
    from bench.samples import Sample

LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are looked at: each costs its part of the odds (Bonferroni),
and one in about 1.4 times as many pairs loses little."""
DIFFERS, LIKE_GOOD, LIKE_BAD = "differs", "like good", "like bad"
"""Conclusions from a step, beside `UNDECIDED`."""
WIDEST = math.log(10)
"""Half width of an interval, as a logarithm, from which on it says nothing."""
JAX = ("jax", "jaxlib")
"""They are released together."""
MOST_TRIED = 10
"""Days or releases that are tried for one whose stack can be built: each takes seconds."""


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
    share = ALPHA / (len(LOOKS) + 1)  # the one more is the last, when the time is over
    half = float(special.stdtrit(estimate.df, 1 - share / 2)) * estimate.standard_error
    return position(estimate) - half, position(estimate) + half


class StoppedError(BakeoffError):
    """A search goes no further, and why."""


@dataclass
class Bisection:
    """A search between two sides: builds and measures what it asks for."""

    selection: Selection
    """Of one style at one workload; its backend, where one is asked for."""
    record: SearchRecord
    """Gets what is known by now."""
    builder: Builder
    notify: Callable[[str], None]
    """Called with a line about each step."""
    on_progress: Callable[[Action, TimeSpent], None]
    """Called before each action of a step."""
    budget: float
    """Seconds for measuring: those that it takes to build environments are not counted."""
    kept: Path | None = None
    """File that is given all results after each step."""
    earlier: Earlier = field(default_factory=Earlier)
    """Its decided steps are not measured again."""

    pythons: tuple[str, ...] = ()
    """Versions that sides may have: those of the two ends."""
    sides: dict[Spec, Side] = field(default_factory=dict)
    estimates: list[Estimate] = field(default_factory=list)
    """Of each step, with the interval that decided it."""
    outcomes: list[Results] = field(default_factory=list)
    """Results of the steps, in their order."""
    setup: dict[str, str] = field(default_factory=dict)
    """The question, and digests of what has to be the same to go on."""
    samples: list[Sample] = field(default_factory=list)
    """Of all steps, by SPEC."""
    start: float = field(default_factory=time.monotonic)
    building: float = 0.0
    """Seconds that it took to build environments."""
    boundary: float = 0.0
    """Logarithm of the ratio to the good end at which half of the difference lies."""

    def run(self, good: Spec, bad: Spec) -> ResultsWithSamples:
        """Search between two sides, on one backend that both have, and return the results.

        Raises:
            BakeoffError: one of the two ends cannot be built or measured, or the earlier search
                is another one.
            KeyboardInterrupt: it was cut off; the record says what is known.
        """
        self.setup = self.prepare(good, bad)
        if self.earlier.path.name:
            self.earlier.require_same(self.setup)
        spent = self.earlier.results.spent
        self.start -= spent.wall_seconds - spent.earlier_seconds
        self.samples = [*self.earlier.samples]
        self.search(good, bad)
        return self.results()

    def prepare(self, good: Spec, bad: Spec) -> dict[str, str]:
        """Build both ends, choose the cell, and return the setup of the search."""
        ends = build_environments((good, bad), self.builder)
        self.start = time.monotonic()
        if ends[0].info.pins == ends[1].info.pins and ends[0].python == ends[1].python:
            raise BakeoffError(
                f"{good} and {bad} are the same stack, release by release; give two that differ"
            )
        self.pythons = tuple(sorted({end.python for end in ends}))
        if len(self.pythons) > 1:
            versions = ", ".join(self.pythons)
            self.notify(f"no one Python fits both ends: {versions} are compared")
        sides = {str(spec): self.side(spec) for spec in (good, bad)}
        if not self.selection.step:
            self.require_style(sides.values())
        cells = choose_cells(self.selection, sides)
        common = require_common(cells, sides)
        # Of a user's step, plain JAX's `pure` may be there beside that of its library
        cell = self.record.cell = min(common, key=lambda cell: cell.is_baseline)
        options = Options(self.budget, cores="one")
        task = make_task("bisect", self.selection, sides, cells, options, str(good))
        question = str(good), str(bad), str(cell), self.record.metric
        return dict(zip(QUESTION, question, strict=True)) | setup_of(task)

    def results(self) -> ResultsWithSamples:
        """Return all that is known, with what the earlier search knew."""
        earlier = self.earlier.results
        outcomes = [earlier, *self.outcomes]
        self.record.seconds = earlier.spent.earlier_seconds + self.spent
        environments = {str(spec): side.info for spec, side in self.sides.items()}
        spent = [step.spent for step in outcomes]
        worst = max(spent, key=lambda step: step.others)
        usage = {text for step in spent for text in other_processes(step)}
        return ResultsWithSamples(
            kind="bisect",
            environments={**earlier.environments, **environments},
            setup=self.setup,
            options=RunOptions(budget_seconds=self.budget, cores="one"),
            conditions=outcomes[-1].conditions,
            spent=msgspec.structs.replace(
                worst,
                wall_seconds=self.record.seconds,
                earlier_seconds=earlier.spent.earlier_seconds,
                sampling_seconds=sum(step.sampling_seconds for step in spent),
                processes=sum(step.processes for step in spent),
                blocks=sum(step.blocks for step in spent),
            ),
            warnings=[
                *other_processes(worst),
                *dict.fromkeys(w for s in outcomes for w in s.warnings if w not in usage),
            ],
            estimates=self.estimates,
            search=msgspec.to_builtins(self.record),
            samples=packed(self.samples),
        )

    def search(self, good: Spec, bad: Spec) -> None:
        """Search; what is known stays known when it stops.

        Raises:
            BakeoffError: one of the two ends cannot be built or measured.
        """
        self.first, self.good, self.bad = good, good, bad
        try:
            if self.step("whole", self.good, self.bad) == UNDECIDED:
                row, ends = self.estimates[-1], f"{self.good} and {self.bad} differ"
                if (row.low or 0.0) >= 1 / (1 + MARGIN) and (row.high or math.inf) <= 1 + MARGIN:
                    raise StoppedError(f"{ends} by less than {percent(MARGIN)} ({change(row)})")
                raise StoppedError(f"cannot tell whether {ends}: {self.doubt()}")
            self.boundary = position(self.estimates[-1]) / 2
            self.search_days()
            self.search_packages()
            self.search_releases()
            if self.record.steps[-1].phase != "whole":
                self.boundary = 0.0
                self.step("confirm", self.good, self.bad)
        except BakeoffError as error:
            if not self.estimates and not isinstance(error, StoppedError):
                raise
            self.record.stopped = str(error)
        finally:
            self.record.good, self.record.bad = str(self.good), str(self.bad)

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
        good, bad = self.releases(self.good), self.releases(self.bad)
        differing = differing_releases(good, bad)
        candidates = [
            name
            for name in PACKAGES
            if name in differing and name in bad and (name != JAX[1] or JAX[0] not in differing)
        ]
        if not candidates:
            raise StoppedError(f"no package that can be pinned differs: {', '.join(differing)}")
        for name in candidates:
            together = JAX if name == JAX[0] else (name,)
            if len(candidates) > 1:
                pins = {n: f"=={bad[n]}" for n in together if n in bad and bad[n] != good.get(n)}
                source = {n: source for n, source in self.bad.sources.items() if n == name}
                swapped = self.buildable([self.good.with_pins(source or pins)])
                if swapped is None or not self.like_bad("package", swapped):
                    continue
                pairs = differing_releases(good, self.releases(swapped)).items()
                self.record.moved_along = {n: pair for n, pair in pairs if n not in together}
                self.bad = swapped
            self.record.package, self.record.releases = name, differing[name]
            return
        raise StoppedError(
            f"none of {', '.join(candidates)} does it alone: it takes more than one of them, or "
            "what came with them"
        )

    def search_releases(self) -> None:
        """Go to the release of that package."""
        name, (low, high) = str(self.record.package), self.record.releases
        self.notify(f"package: {name} {low} to {high}")
        if low is None or high is None:
            return
        sources = [end.sources[name] for end in (self.good, self.bad) if name in end.sources]
        if len(sources) == 2:
            commits = commits_between(*map(self.builder.state, sources))
            states = [replace(sources[0], revision=commit) for commit in commits]
            self.halve("commit", [[self.good.with_pins({name: state})] for state in states])
        else:
            older, newer = sorted((low, high), key=Version)
            known = releases_between(name, older, newer, self.environment(self.good).python)
            known.sort(key=Version, reverse=older != low)
            # Without jaxlib named beside jax, uv would keep it as old as it may be
            ways = [JAX, (name,)] if name == JAX[0] else [(name,)]
            pins = [[dict.fromkeys(way, f"=={release}") for way in ways] for release in known]
            self.halve("release", [list(map(self.good.with_pins, either)) for either in pins])
        self.record.releases = self.releases(self.good)[name], self.releases(self.bad)[name]

    def halve(self, phase: str, choices: Sequence[Sequence[Spec]]) -> None:
        """Move the good and the bad side to neighbours in a list of stacks between them.

        Args:
            phase: Of the steps.
            choices: Ways to ask for each stack, the first one that builds being taken. Stacks that
                cannot be built are passed over.
        """
        left = list(range(len(choices)))
        while left:
            middle = (left[0] + left[-1]) / 2
            for place in sorted(left, key=lambda place: abs(place - middle))[:MOST_TRIED]:
                if spec := self.buildable(choices[place]):
                    break
                left.remove(place)
            else:
                return
            pins, good, bad = (self.releases(s) for s in (spec, self.good, self.bad))
            if pins == bad or (pins != good and self.like_bad(phase, spec)):
                self.bad, left = spec, [other for other in left if other < place]
            else:
                self.good, left = spec, [other for other in left if other > place]

    def buildable(self, specs: Sequence[Spec]) -> Spec | None:
        """Return the first stack that can be built."""
        for spec in specs:
            try:
                self.environment(spec)
            except UnsolvableError as error:
                self.notify(f"{spec} cannot be built: {error}")
            else:
                return spec
        return None

    def releases(self, spec: Spec) -> dict[str, str]:
        """Return the releases of a stack, by package."""
        return self.environment(spec).info.pins

    def like_bad(self, phase: str, spec: Spec) -> bool:
        """Tell by an A/B of a stack and the first good side whether it is like the bad side."""
        conclusion = self.step(phase, self.first, spec)
        if conclusion == UNDECIDED:
            raise StoppedError(f"{spec} cannot be decided: {self.doubt()}")
        return conclusion == LIKE_BAD

    def step(self, phase: str, base: Spec, new: Spec) -> str:
        """Conclude on which side of the boundary the new side lies, by one A/B.

        One that the earlier search decided is taken from there. One that it left undecided is made
        anew: the looks have paid for one series of pairs, which ended with the last of them.
        """
        if not self.take_over(phase, base, new):
            self.decide(phase, base, new)
            if self.kept is not None:
                data = msgspec.json.encode({"bakeoff": self.results()}, enc_hook=float)
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.kept, data)
        row, conclusion = self.estimates[-1], self.record.steps[-1].conclusion
        pairs = f"{change(row)} in {row.workers} pairs"
        self.notify(f"{phase}: {new} beside {base}: {pairs}: {conclusion}")
        return conclusion

    def take_over(self, phase: str, base: Spec, new: Spec) -> bool:
        """Take the earlier search's attempts at a step; tell whether no other one is needed."""
        attempts = self.earlier.attempts.get((phase, str(base), str(new)))
        known = self.earlier.results.environments.get(str(new))
        if not attempts or known is None or known.pins != self.releases(new):
            return False
        self.estimates += [row for row, _ in attempts]
        self.record.steps += [step for _, step in attempts]
        return self.earlier.resume or attempts[-1][1].conclusion != UNDECIDED

    def decide(self, phase: str, base: Spec, new: Spec) -> None:
        """Make one A/B, and record what it came to."""
        boundary, start = self.boundary, time.monotonic()
        row = self.measured(base, new, Looks(boundary))
        low, high = interval(row)
        conclusion = UNDECIDED
        if low > boundary or high < boundary:
            beyond = (position(row) > boundary) == (boundary > 0)
            conclusion = (LIKE_BAD if beyond else LIKE_GOOD) if boundary else DIFFERS
        known = high - low < 2 * WIDEST
        row = msgspec.structs.replace(
            row,
            environment=str(new),
            against=str(base),
            low=math.exp(low) if known else None,
            high=math.exp(high) if known else None,
            verdict=None,
        )
        self.estimates.append(row)
        self.record.steps.append(SearchStep(phase, conclusion, time.monotonic() - start))

    def doubt(self) -> str:
        """Return what the last step came to, and how long it would take to decide it."""
        row, step = self.estimates[-1], self.record.steps[-1]
        distance = max(abs(position(row) - self.boundary), math.log1p(MARGIN))
        known = row.half_width < math.inf
        times = (row.half_width / distance) ** 2 if known else LOOKS[1] / max(1, row.workers)
        seconds = self.record.missing_seconds = float(f"{max(times, 1.5) * step.seconds:.1g}")
        return f"{change(row)} in {row.workers} pairs; it needs about {seconds:.0f} s"

    def environment(self, spec: Spec) -> Environment:
        """Return a side's environment, which the builder keeps."""
        start = time.monotonic()
        try:
            return self.builder.environment(spec, self.pythons)
        finally:
            self.building += time.monotonic() - start

    @property
    def spent(self) -> float:
        """Seconds of the budget that are spent."""
        return time.monotonic() - self.start - self.building

    def side(self, spec: Spec) -> Side:
        """Return a side, with what it has."""
        if spec not in self.sides:
            self.sides[spec] = ask_side(self.environment(spec), self.selection)
        return self.sides[spec]

    def require_style(self, sides: Iterable[Side]) -> None:
        """Raise StoppedError if a side has not got the style."""
        cell = self.record.cell
        for side in sides:
            if why := find_gap(side, cell):
                raise StoppedError(
                    f"{side.info.spec}: {cell.entrant} has no style {cell.style!r} there: {why}"
                )

    def measured(self, base: Spec, new: Spec, decided: Callable[[Estimate], bool]) -> Estimate:
        """Measure two sides until it is decided, or there is no time left."""
        cell, metric, specs = self.record.cell, self.record.metric, {BASE: base, NEW: new}
        sides = {name: self.side(spec) for name, spec in specs.items()}
        self.require_style(sides.values())
        left = self.budget - self.spent
        if left <= 0:
            self.record.missing_seconds = self.budget
            raise StoppedError("the budget is spent")
        # A number of cold samples is taken at once, whatever the looks say: the budget sets it
        options = Options(left, processes=LOOKS[-1], cores="one")

        def enough(samples: Sequence[Sample]) -> bool:
            table = EstimateTable(estimates_of(samples, [], options, BASE))
            row = table.comparison(cell, metric)
            return self.spent > self.budget or (row is not None and decided(row))

        def on_progress(action: Action, spent: TimeSpent) -> None:
            spent = msgspec.structs.replace(spent, wall_seconds=self.spent, forecast=0.0)
            self.on_progress(action, spent)

        cells = {name: [cell] for name in sides}
        step = make_task("bisect", self.selection, sides, cells, options, BASE)
        try:
            outcome = measure(step, on_progress=on_progress, enough=enough)
        finally:  # a step is of no use to another search, nor is what one left that was killed
            for path in FOLDER.glob(f"*-bisect{SUFFIX}"):
                path.unlink(missing_ok=True)
        if outcome.interrupted:
            raise KeyboardInterrupt
        self.outcomes.append(outcome.results)
        row = outcome.results.table.comparison(cell, metric)
        if row is None:
            failures = [r.failure for r in outcome.results.cells if r.cell == cell and r.failure]
            lacking = f"there was no time for a pair of workers in a --budget of {self.budget:g}"
            reason = next(iter(failures), f"{lacking}; give a larger one")
            raise StoppedError(f"{new} cannot be measured beside {base}: {reason}")
        # Workers and blocks of a step have numbers of their own, beside those of the earlier search
        number = max((sample.worker // 1000 for sample in self.samples), default=-1) + 1
        self.samples += [
            sample._replace(
                environment=str(specs[sample.environment]),
                worker=sample.worker + 1000 * number,
                block=sample.block + 1_000_000 * number,
            )
            for sample in outcome.samples
        ]
        return row
