"""Steps of a search: A/Bs of two stacks, each measured until its conclusion is certain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace
from scipy import special

from bench.engine.journal import FOLDER, SUFFIX
from bench.engine.measurement import digest_setup, make_estimates, measure
from bench.estimates import MARGIN, Estimate, EstimateTable
from bench.numbers import change
from bench.options import Options
from bench.prepare.stacks import require_style
from bench.runfile import (
    DIFFERS,
    LIKE_BAD,
    LIKE_GOOD,
    UNDECIDED,
    Results,
    ResultsWithSamples,
    RunOptions,
    SearchRecord,
    SearchStep,
    TimeSpent,
    pack_samples,
)
from bench.runfile.warnings import warn_of_processes
from bench.stats.changes import log_ratio
from bench.stats.verdicts import exp, finite_or_none
from bench.track.bisect import ALPHA, QUESTION, Earlier
from bench.track.comparison import BASE, NEW
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Action
    from bench.environments.spec import Spec
    from bench.prepare.stacks import Stacks
    from bench.runfile import Conclusion, SearchPhase
    from bench.samples import Sample

LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are tested: each look gets an equal share of `ALPHA`
(Bonferroni), and a factor of about 1.4 between looks loses little."""


def describe_pairs(row: Estimate) -> str:
    """Return what pairs of workers have shown so far, in words."""
    answer = "no answer yet" if row.is_unknown else change(row)
    return f"{answer} after {row.workers} pairs"


class StoppedError(BakeoffError):
    """Reason why a search goes no further."""


class UnmeasurableError(StoppedError):
    """Reason why a stack cannot be measured, whatever the budget."""


class Looks:
    """Sequential test whether a log-ratio is certainly above or below a boundary.

    Pairs of workers may come several at a time: a look is due from its number of pairs on.
    """

    def __init__(self, boundary: float) -> None:
        self.boundary, self.looks_taken = boundary, 0

    def __call__(self, estimate: Estimate) -> bool:
        """If a look is due, tell whether the interval excludes the boundary."""
        due = sum(look <= estimate.workers for look in LOOKS)
        if due <= self.looks_taken:
            return False
        self.looks_taken = due
        low, high = find_interval(estimate)
        return low > self.boundary or high < self.boundary


def find_interval(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of a log-ratio at the level of one look: its share of `ALPHA`."""
    if estimate.standard_error is None or not estimate.df:
        return -math.inf, math.inf
    share = ALPHA / (len(LOOKS) + 1)  # one more look is taken when the time is over
    half = float(special.stdtrit(estimate.df, 1 - share / 2)) * estimate.standard_error
    return log_ratio(estimate) - half, log_ratio(estimate) + half


@dataclass
class Steps:
    """Steps of a search so far; each one measures two stacks, which have been built."""

    stacks: Stacks
    metric: str
    budget: float
    """Seconds for all steps."""
    on_progress: Callable[[Action, TimeSpent], None]
    """Called before each action of a step."""
    earlier: Earlier = field(default_factory=Earlier)
    """Earlier search, whose decided steps are not measured again."""
    wait: bool = False
    """Whether the first step waits for other runs on this machine; later ones always do."""

    cell: Cell = field(init=False)
    setup: dict[str, str] = field(default_factory=dict)
    """The question, and digests of the settings that have to be the same to go on."""
    spent_seconds: float = 0.0
    """Seconds of the budget that the steps so far took."""
    boundary: float = 0.0
    """Half of the log-ratio of the bad end to the good end; 0 before it is known."""
    taken: list[SearchStep] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    """Estimate of each step, with the interval that decided it."""
    outcomes: list[Results] = field(default_factory=list)
    """Results of the earlier search, and of the steps that were measured now."""
    samples: list[Sample] = field(default_factory=list)
    """Samples of all steps, whose environments are SPECs."""
    missing_seconds: float = 0.0
    """Estimated seconds that would decide the last step; 0 if time would not help."""

    def prepare(self, good: Spec, bad: Spec) -> None:
        """Choose the cell that both ends have, and take over the samples of the earlier search.

        Raises:
            BakeoffError: there is none, or the earlier search is another one.
        """
        spent = self.earlier.results.spent
        self.outcomes, self.samples = [self.earlier.results], [*self.earlier.samples]
        self.cell = self.stacks.choose_cell(good, bad)
        ends = {str(spec): spec for spec in (good, bad)}
        task = self.stacks.make_task(ends, self.cell, Options(self.budget, cores="one"))
        question = *ends, str(self.cell), self.metric
        self.setup = dict(zip(QUESTION, question, strict=True)) | digest_setup(task)
        self.earlier.require_same(self.setup)
        self.spent_seconds = spent.wall_seconds - spent.earlier_seconds

    def take(self, phase: SearchPhase, base: Spec, new: Spec) -> str:
        """Take a step, and return its conclusion.

        A step that the earlier search decided is taken from there. One that it left undecided is
        measured anew: the looks have paid for one series of pairs, which ended with the last look.

        Raises:
            StoppedError: it cannot be measured.
        """
        attempts = self.earlier.list_attempts(phase, str(base), str(new))
        known = self.earlier.results.environments.get(str(new))
        if known is None or known.pins != self.stacks.releases(new):
            attempts = []
        self.estimates += [row for row, _ in attempts]
        self.taken += [step for _, step in attempts]
        is_open = bool(attempts) and self.taken[-1].conclusion == UNDECIDED
        if not attempts or (is_open and not self.earlier.was_cut_off):
            self.decide(phase, base, new)
        return self.taken[-1].conclusion

    def decide(self, phase: SearchPhase, base: Spec, new: Spec) -> None:
        """Conclude from a new A/B on which side of the boundary the new stack lies."""
        before, boundary = self.spent_seconds, self.boundary
        row = self.measure(base, new, Looks(boundary))
        low, high = find_interval(row)
        conclusion: Conclusion = UNDECIDED
        if low > boundary or high < boundary:
            beyond = (log_ratio(row) > boundary) == (boundary > 0)
            conclusion = (LIKE_BAD if beyond else LIKE_GOOD) if boundary else DIFFERS
        ends = {"low": exp(low) or None, "high": finite_or_none(exp(high))}
        about = {"environment": str(new), "against": str(base), "verdict": None}
        row = replace(row, **about, **ends)
        self.estimates.append(row)
        self.taken.append(SearchStep(phase, conclusion, self.spent_seconds - before))

    def measure(self, base: Spec, new: Spec, is_decided: Callable[[Estimate], bool]) -> Estimate:
        """Measure two stacks until it is decided, or until there is no time left.

        Raises:
            UnmeasurableError: one of them does not run, or computes something else.
            StoppedError: there is no time.
        """
        specs, left = {BASE: base, NEW: new}, self.budget - self.spent_seconds
        if left <= 0:
            self.missing_seconds = self.budget
            raise StoppedError("the budget is spent")
        for spec in specs.values():
            try:  # a stack that is new is asked for its contents first
                require_style({str(spec): self.stacks.side(spec)}, self.cell)
            except BakeoffError as error:
                raise UnmeasurableError(f"{spec} cannot be measured: {error}") from error
        # A number of cold samples is taken at once, whatever the looks say: the budget sets it
        options = Options(left, processes=LOOKS[-1], cores="one")

        def is_enough(samples: Sequence[Sample]) -> bool:
            table = EstimateTable(make_estimates(samples, [], options, BASE))
            row = table.comparison(self.cell, self.metric)
            return row is not None and is_decided(row)

        def on_progress(action: Action, spent: TimeSpent) -> None:
            seconds = self.spent_seconds + spent.wall_seconds
            self.on_progress(action, replace(spent, wall_seconds=seconds))

        task = self.stacks.make_task(specs, self.cell, options)
        try:
            wait = self.wait or bool(self.taken)
            made = measure(task, wait=wait, on_progress=on_progress, is_enough=is_enough)
        finally:  # no other search can use a step's journal, nor one that a killed step left
            for path in FOLDER.glob(f"*-{task.kind}{SUFFIX}"):
                path.unlink(missing_ok=True)
        self.outcomes.append(made.results)
        self.spent_seconds += made.results.spent.wall_seconds
        row = made.results.table.comparison(self.cell, self.metric)
        if row is None:
            failures = [r.failure for r in made.results.cells if r.cell == self.cell and r.failure]
            about = f"{new} cannot be measured beside {base}"
            if failures:
                raise UnmeasurableError(f"{about}: {failures[0]}")
            self.missing_seconds = self.budget if self.taken else 2 * self.budget
            raise StoppedError(
                f"{about}: there was no time for a pair of workers in a --budget of {self.budget:g}"
            )
        self.add_samples(
            sample._replace(environment=str(specs[sample.environment])) for sample in made.samples
        )
        return row

    def add_samples(self, samples: Iterable[Sample]) -> None:
        """Keep the samples of a step, whose workers and blocks get numbers of their own."""
        number = max((sample.worker // 1000 for sample in self.samples), default=-1) + 1
        worker, block = 1000 * number, 1_000_000 * number
        self.samples += [
            s._replace(worker=s.worker + worker, block=s.block + block) for s in samples
        ]

    def explain_doubt(self) -> str:
        """Return the last step's result, and how long it would take to decide it."""
        row, step = self.estimates[-1], self.taken[-1]
        distance = max(abs(log_ratio(row) - self.boundary), math.log1p(MARGIN))
        known = row.half_width < math.inf
        times = (row.half_width / distance) ** 2 if known else LOOKS[1] / max(1, row.workers)
        self.missing_seconds = float(f"{max(times, 1.5) * step.seconds:.1g}")
        return f"{describe_pairs(row)}; it needs about {self.missing_seconds:.0f} s"

    def make_results(self, record: SearchRecord) -> ResultsWithSamples:
        """Return the results of all steps, with those of the earlier search."""
        spent = [step.spent for step in self.outcomes]
        worst = max(spent, key=lambda step: step.others)
        usage = {text for step in spent for text in warn_of_processes(step)}
        warnings = [text for step in self.outcomes for text in step.warnings if text not in usage]
        sides = {str(spec): side.info for spec, side in self.stacks.sides.items()}
        return ResultsWithSamples(
            kind="bisect",
            environments=self.earlier.results.environments | sides,
            setup=self.setup,
            options=RunOptions(budget=self.budget, cores="one"),
            conditions=self.outcomes[-1].conditions,
            spent=replace(
                worst,
                wall_seconds=record.seconds,
                earlier_seconds=spent[0].earlier_seconds,
                sampling_seconds=sum(step.sampling_seconds for step in spent),
                processes=sum(step.processes for step in spent),
                blocks=sum(step.blocks for step in spent),
            ),
            warnings=list(dict.fromkeys([*warn_of_processes(worst), *warnings])),
            estimates=self.estimates,
            search=record,
            samples=pack_samples(self.samples),
        )
