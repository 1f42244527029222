"""Bisection of two stacks that differ: to the day, then the package, then the release or commit.

Each step is an A/B of the good side against one in between. It decides whether that one lies above
or below half of the whole difference (in logarithms), and ends when an interval says so; looks at
the data are paid for in advance. If it cannot decide, the search stops there.
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

from bench.engine.journal import FOLDER, SUFFIX, DiskError
from bench.engine.session import digest_setup, make_estimates, measure
from bench.environments.sources import list_commits
from bench.environments.spec import PACKAGES, Spec, make_day_spec
from bench.environments.uv import UnsolvableError, list_releases
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
from bench.runfile import Results, ResultsWithSamples, RunOptions, TimeSpent, pack_samples
from bench.runfile.releases import find_differing_releases
from bench.runfile.warnings import warn_of_processes
from bench.stats.changes import log_ratio
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
    from bench.engine.task import Environment
    from bench.environments.builder import Builder
    from bench.samples import Sample

LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are looked at: each look costs its share of the odds
(Bonferroni), and a factor of about 1.4 between them loses little."""
DIFFERS, LIKE_GOOD, LIKE_BAD = "differs", "like good", "like bad"
"""Conclusions from a step, besides `UNDECIDED`."""
WIDEST_HALF = math.log(10)
"""Half width of an interval, as a logarithm, from which on it says nothing."""
JAX = ("jax", "jaxlib")
"""Packages that are released together."""
MOST_TRIED = 10
"""Most days or releases that are tried for one whose stack can be built: each takes seconds."""


class Looks:
    """Test whether a log-ratio certainly lies on one side of a boundary: at looks only.

    Pairs of workers may come several at a time, so that a look is due from its number of pairs on.
    """

    def __init__(self, boundary: float) -> None:
        self.boundary, self.looks_taken = boundary, 0

    def __call__(self, estimate: Estimate) -> bool:
        """Take a look if one is due; tell whether the side is certain."""
        due = sum(look <= estimate.workers for look in LOOKS)
        if due <= self.looks_taken:
            return False
        self.looks_taken = due
        low, high = interval(estimate)
        return low > self.boundary or high < self.boundary


def interval(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of a log-ratio that leaves out a look's share of the odds."""
    if estimate.standard_error is None or not estimate.df:
        return -math.inf, math.inf
    share = ALPHA / (len(LOOKS) + 1)  # one more look is taken when the time is over
    half = float(special.stdtrit(estimate.df, 1 - share / 2)) * estimate.standard_error
    return log_ratio(estimate) - half, log_ratio(estimate) + half


class StoppedError(BakeoffError):
    """Reason why a search goes no further."""


@dataclass
class Bisection:
    """A search between two sides, which builds and measures the stacks that it needs."""

    selection: Selection
    """Selection of one style at one workload; with a backend, if one is asked for."""
    record: SearchRecord
    """Record that is kept up to date."""
    builder: Builder
    notify: Callable[[str], None]
    """Called with a line about each step."""
    on_progress: Callable[[Action, TimeSpent], None]
    """Called before each action of a step."""
    budget: float
    """Seconds for measuring; the time to build environments does not count."""
    steps_file: Path | None = None
    """File to which all results are written after each step."""
    earlier: Earlier = field(default_factory=Earlier)
    """Earlier search, whose decided steps are not measured again."""

    pythons: tuple[str, ...] = ()
    """Versions that sides may have: those of the two ends."""
    sides: dict[Spec, Environment] = field(default_factory=dict)
    estimates: list[Estimate] = field(default_factory=list)
    """Estimate of each step, with the interval that decided it."""
    outcomes: list[Results] = field(default_factory=list)
    """Results of the steps, in their order."""
    setup: dict[str, str] = field(default_factory=dict)
    """The question, and digests of the settings that have to be the same to go on."""
    samples: list[Sample] = field(default_factory=list)
    """Samples of all steps, whose environments are SPECs."""
    start: float = field(default_factory=time.monotonic)
    building_seconds: float = 0.0
    """Seconds that it took to build environments."""
    boundary: float = 0.0
    """Logarithm of the ratio to the good end at which half of the difference lies."""

    def run(self, good: Spec, bad: Spec) -> ResultsWithSamples:
        """Search between two sides, on one backend that both have, and return the results.

        Raises:
            BakeoffError: one of the two ends cannot be built or measured, or the earlier search
                is another one.
            KeyboardInterrupt: it was cut off; the record has the state of the search.
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
        return dict(zip(QUESTION, question, strict=True)) | digest_setup(task)

    def results(self) -> ResultsWithSamples:
        """Return all results so far, with those of the earlier search."""
        earlier = self.earlier.results
        outcomes = [earlier, *self.outcomes]
        self.record.seconds = earlier.spent.earlier_seconds + self.spent_seconds
        environments = {str(spec): side.info for spec, side in self.sides.items()}
        spent = [step.spent for step in outcomes]
        worst = max(spent, key=lambda step: step.others)
        usage = {text for step in spent for text in warn_of_processes(step)}
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
                *warn_of_processes(worst),
                *dict.fromkeys(w for s in outcomes for w in s.warnings if w not in usage),
            ],
            estimates=self.estimates,
            search=msgspec.to_builtins(self.record),
            samples=pack_samples(self.samples),
        )

    def search(self, good: Spec, bad: Spec) -> None:
        """Search; results stay when it stops.

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
            self.boundary = log_ratio(self.estimates[-1]) / 2
            self.search_days()
            self.search_packages()
            self.search_releases()
            if self.record.steps[-1].phase != "whole":
                self.boundary = 0.0
                self.step("confirm", self.good, self.bad)
        except DiskError:
            raise
        except BakeoffError as error:
            if not self.estimates and not isinstance(error, StoppedError):
                raise
            self.record.stopped = str(error)
        finally:
            self.record.good, self.record.bad = str(self.good), str(self.bad)

    def search_days(self) -> None:
        """Narrow the search to neighbouring days: the last like the good one, and the next."""
        first, last = self.good.date, self.bad.date
        if first is None or last is None or self.good.pins or self.bad.pins:
            return
        way = 1 if last > first else -1
        steps = (datetime.timedelta(way * n) for n in range(1, abs((last - first).days)))
        self.halve("day", [[make_day_spec(first + step)] for step in steps])

    def search_packages(self) -> None:
        """Narrow the search to the package that alone makes the good stack like the bad one."""
        good, bad = self.releases(self.good), self.releases(self.bad)
        differing = find_differing_releases(good, bad)
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
                swapped = self.find_buildable([self.good.replace_pins(source or pins)])
                if swapped is None or not self.is_like_bad("package", swapped):
                    continue
                pairs = find_differing_releases(good, self.releases(swapped)).items()
                self.record.moved_along = {n: pair for n, pair in pairs if n not in together}
                self.bad = swapped
            self.record.package, self.record.releases = name, differing[name]
            return
        raise StoppedError(
            f"none of {', '.join(candidates)} does it alone: it takes more than one of them, or "
            "what came with them"
        )

    def search_releases(self) -> None:
        """Narrow the search to the release of that package."""
        name, (low, high) = str(self.record.package), self.record.releases
        self.notify(f"package: {name} {low} to {high}")
        if low is None or high is None:
            return
        sources = [end.sources[name] for end in (self.good, self.bad) if name in end.sources]
        if len(sources) == 2:
            commits = list_commits(*map(self.builder.freeze, sources))
            states = [replace(sources[0], revision=commit) for commit in commits]
            self.halve("commit", [[self.good.replace_pins({name: state})] for state in states])
        else:
            older, newer = sorted((low, high), key=Version)
            known = list_releases(name, older, newer, self.environment(self.good).python)
            known.sort(key=Version, reverse=older != low)
            # Without jaxlib named beside jax, uv would keep it as old as it may be
            ways = [JAX, (name,)] if name == JAX[0] else [(name,)]
            pins = [[dict.fromkeys(way, f"=={release}") for way in ways] for release in known]
            self.halve("release", [list(map(self.good.replace_pins, either)) for either in pins])
        self.record.releases = self.releases(self.good)[name], self.releases(self.bad)[name]

    def halve(self, phase: str, choices: Sequence[Sequence[Spec]]) -> None:
        """Move the good and the bad side to neighbours in a list of stacks between them.

        Args:
            phase: Phase of the steps.
            choices: Ways to ask for each stack, the first one that builds being taken. Stacks that
                cannot be built are passed over.
        """
        left = list(range(len(choices)))
        while left:
            middle = (left[0] + left[-1]) / 2
            for place in sorted(left, key=lambda place: abs(place - middle))[:MOST_TRIED]:
                if spec := self.find_buildable(choices[place]):
                    break
                left.remove(place)
            else:
                return
            pins, good, bad = (self.releases(s) for s in (spec, self.good, self.bad))
            if pins == bad or (pins != good and self.is_like_bad(phase, spec)):
                self.bad, left = spec, [other for other in left if other < place]
            else:
                self.good, left = spec, [other for other in left if other > place]

    def find_buildable(self, specs: Sequence[Spec]) -> Spec | None:
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

    def is_like_bad(self, phase: str, spec: Spec) -> bool:
        """Tell whether a stack is like the bad side, by an A/B with the first good side."""
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
            if self.steps_file is not None:
                data = msgspec.json.encode({"bakeoff": self.results()}, enc_hook=float)
                self.steps_file.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.steps_file, data)
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
        """Make one A/B, and record its conclusion."""
        boundary, start = self.boundary, time.monotonic()
        row = self.measure_sides(base, new, Looks(boundary))
        low, high = interval(row)
        conclusion = UNDECIDED
        if low > boundary or high < boundary:
            beyond = (log_ratio(row) > boundary) == (boundary > 0)
            conclusion = (LIKE_BAD if beyond else LIKE_GOOD) if boundary else DIFFERS
        known = high - low < 2 * WIDEST_HALF
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
        """Return the last step's result, and how long it would take to decide it."""
        row, step = self.estimates[-1], self.record.steps[-1]
        distance = max(abs(log_ratio(row) - self.boundary), math.log1p(MARGIN))
        known = row.half_width < math.inf
        times = (row.half_width / distance) ** 2 if known else LOOKS[1] / max(1, row.workers)
        seconds = self.record.missing_seconds = float(f"{max(times, 1.5) * step.seconds:.1g}")
        return f"{change(row)} in {row.workers} pairs; it needs about {seconds:.0f} s"

    def environment(self, spec: Spec) -> Environment:
        """Return a side's environment, which the builder keeps."""
        start = time.monotonic()
        try:
            return self.builder.build(spec, self.pythons)
        finally:
            self.building_seconds += time.monotonic() - start

    @property
    def spent_seconds(self) -> float:
        """Seconds of the budget that are spent."""
        return time.monotonic() - self.start - self.building_seconds

    def side(self, spec: Spec) -> Environment:
        """Return a side, with its environment's offer."""
        if spec not in self.sides:
            self.sides[spec] = ask_side(self.environment(spec), self.selection)
        return self.sides[spec]

    def require_style(self, sides: Iterable[Environment]) -> None:
        """Raise StoppedError if a side has not got the style."""
        cell = self.record.cell
        for side in sides:
            if why := find_gap(side, cell):
                raise StoppedError(
                    f"{side.info.spec}: {cell.entrant} has no style {cell.style!r} there: {why}"
                )

    def measure_sides(
        self, base: Spec, new: Spec, is_decided: Callable[[Estimate], bool]
    ) -> Estimate:
        """Measure two sides until it is decided, or there is no time left."""
        cell, metric, specs = self.record.cell, self.record.metric, {BASE: base, NEW: new}
        sides = {name: self.side(spec) for name, spec in specs.items()}
        self.require_style(sides.values())
        left = self.budget - self.spent_seconds
        if left <= 0:
            self.record.missing_seconds = self.budget
            raise StoppedError("the budget is spent")
        # A number of cold samples is taken at once, whatever the looks say: the budget sets it
        options = Options(left, processes=LOOKS[-1], cores="one")

        def enough(samples: Sequence[Sample]) -> bool:
            table = EstimateTable(make_estimates(samples, [], options, BASE))
            row = table.comparison(cell, metric)
            return self.spent_seconds > self.budget or (row is not None and is_decided(row))

        def on_progress(action: Action, spent: TimeSpent) -> None:
            spent = msgspec.structs.replace(spent, wall_seconds=self.spent_seconds, forecast=0.0)
            self.on_progress(action, spent)

        cells = {name: [cell] for name in sides}
        step = make_task("bisect", self.selection, sides, cells, options, BASE)
        try:
            outcome = measure(step, on_progress=on_progress, is_enough=enough)
        finally:  # no other search can use a step's journal, nor one that a killed step left
            for path in FOLDER.glob(f"*-bisect{SUFFIX}"):
                path.unlink(missing_ok=True)
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
