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
from bench.numbers import words
from bench.options import Options
from bench.prepare.stacks import require_style
from bench.runfile import (
    DIFFERS,
    DISTURBED,
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
from bench.track.bisect import QUESTION, require_same_search, was_cut_off
from bench.track.comparison import BASE, NEW
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.cells import Cell
    from bench.engine.actions import Action
    from bench.environments.spec import Spec
    from bench.prepare.stacks import Stacks
    from bench.runfile import Conclusion, SearchPhase
    from bench.samples import Sample

ALPHA = 0.01
"""Probability that a step is decided wrongly: a search takes about ten steps."""
LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are tested: each look gets an equal share of `ALPHA`
(Bonferroni), and a factor of about 1.4 between looks loses little."""


def describe_pairs(row: Estimate) -> str:
    """Return what pairs of workers have shown so far, in words."""
    answer = "no answer yet" if row.is_unknown else words(row)
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
    earlier: Results = field(default_factory=Results)
    """Earlier search, whose decided steps are not measured again."""
    earlier_path: Path | None = None
    wait: bool = False
    """Whether the first step waits for other runs on this machine; later ones always do."""

    cell: Cell = field(init=False)
    setup: dict[str, str] = field(default_factory=dict)
    """The question, and digests of the settings that have to be the same to go on."""
    spent_seconds: float = 0.0
    """Seconds of the budget that the steps so far took."""
    taken: list[SearchStep] = field(default_factory=list)
    measured: list[Results] = field(default_factory=list)
    """Results of the steps that were measured now."""
    missing_seconds: float = 0.0
    """Estimated seconds that would decide the last step; 0 if time would not help."""

    def prepare(self, good: Spec, bad: Spec) -> None:
        """Choose the cell that both ends have.

        Raises:
            BakeoffError: there is none, or the earlier search is another one.
        """
        spent = self.earlier.spent
        self.cell = self.stacks.choose_cell(good, bad)
        ends = {str(spec): spec for spec in (good, bad)}
        task = self.stacks.make_task(ends, self.cell, Options(self.budget, cores="one"))
        question = *ends, str(self.cell), self.metric
        self.setup = dict(zip(QUESTION, question, strict=True)) | digest_setup(task)
        if self.earlier_path is not None:
            require_same_search(self.earlier_path, self.earlier.setup, self.setup)
        self.spent_seconds = spent.wall_seconds - spent.earlier_seconds

    def find_or_measure(
        self, phase: SearchPhase, base: Spec, new: Spec, boundary: float
    ) -> SearchStep:
        """Return the A/B of two stacks: the earlier search's, or one that is measured now.

        One that the earlier search left undecided is measured from its beginning: its sequential
        test has used up its error probability.

        Args:
            phase: Phase of the search.
            base: Stack that the other one is compared with.
            new: The other one.
            boundary: Half of the log-ratio of the bad end to the good end; 0 before it is known.

        Raises:
            StoppedError: it cannot be measured.
        """
        earlier_steps = self.list_earlier_steps(phase, base, new)
        self.taken += earlier_steps
        was_undecided = bool(earlier_steps) and earlier_steps[-1].conclusion == UNDECIDED
        if not earlier_steps or (was_undecided and not was_cut_off(self.earlier)):
            self.taken.append(self.decide(phase, base, new, boundary))
        return self.taken[-1]

    def list_earlier_steps(self, phase: SearchPhase, base: Spec, new: Spec) -> list[SearchStep]:
        """Return the earlier search's A/Bs of two stacks, unless the new one is another by now."""
        known = self.earlier.environments.get(str(new))
        if known is None or known.pins != self.stacks.releases(new):
            return []
        wanted = phase, str(base), str(new)
        steps = self.earlier.search.steps
        return [s for s in steps if (s.phase, s.row.against, s.row.environment) == wanted]

    def decide(self, phase: SearchPhase, base: Spec, new: Spec, boundary: float) -> SearchStep:
        """Conclude from a new A/B on which side of the boundary the new stack lies."""
        before = self.spent_seconds
        row, samples = self.measure_stacks(base, new, Looks(boundary))
        low, high = find_interval(row)
        conclusion: Conclusion = UNDECIDED
        if low > boundary or high < boundary:
            beyond = (log_ratio(row) > boundary) == (boundary > 0)
            conclusion = (LIKE_BAD if beyond else LIKE_GOOD) if boundary else DIFFERS
        ends = {"low": exp(low) or None, "high": finite_or_none(exp(high))}
        about = {"environment": str(new), "against": str(base), "verdict": None}
        row = replace(row, **about, **ends)
        seconds = self.spent_seconds - before
        return SearchStep(phase, conclusion, seconds, row, pack_samples(samples))

    def measure_stacks(
        self, base: Spec, new: Spec, is_decided: Callable[[Estimate], bool]
    ) -> tuple[Estimate, list[Sample]]:
        """Measure two stacks until it is decided, or until there is no time left.

        Returns:
            Their ratio, and the samples, whose environments are SPECs.

        Raises:
            UnmeasurableError: one of them does not run, or computes something else.
            StoppedError: there is no time.
        """
        specs, left = {BASE: base, NEW: new}, self.budget - self.spent_seconds
        if left <= 0:
            self.missing_seconds = max(self.budget, self.spent_seconds)
            raise StoppedError("the budget is spent")
        for spec in specs.values():
            try:  # a stack that is new is asked for its contents first
                require_style({str(spec): self.stacks.side(spec)}, self.cell)
            except BakeoffError as error:
                raise UnmeasurableError(f"{spec} cannot be measured: {error}") from error
        # At most the pairs of the last look. A number of cold samples would be taken at once,
        # whatever the looks say: the budget sets it
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
        self.measured.append(made.results)
        self.spent_seconds += made.results.spent.wall_seconds
        row = made.results.table.comparison(self.cell, self.metric)
        if row is None:
            raise self.explain_missing(made.results, f"{new} cannot be measured beside {base}")
        samples = [s._replace(environment=str(specs[s.environment])) for s in made.samples]
        return row, samples

    def explain_missing(self, results: Results, about: str) -> StoppedError:
        """Return why there is no ratio: a failure, or want of time."""
        rows = results.cells
        if failures := [r.failure for r in rows if r.cell == self.cell and r.failure]:
            return UnmeasurableError(f"{about}: {failures[0]}")
        self.missing_seconds = self.budget if self.taken else 2 * self.budget
        why = f"there was no time for a pair of workers in a --budget of {self.budget:g}"
        if any(r.cell == self.cell and DISTURBED in r.missing.values() for r in rows):
            why = DISTURBED
        return StoppedError(f"{about}: {why}")

    def explain_doubt(self, boundary: float) -> str:
        """Return the last step's result, and how long it would take to decide it."""
        step = self.taken[-1]
        row, distance = step.row, max(abs(log_ratio(step.row) - boundary), math.log1p(MARGIN))
        known = row.half_width < math.inf
        times = (row.half_width / distance) ** 2 if known else LOOKS[1] / max(1, row.workers)
        self.missing_seconds = float(f"{max(times, 1.5) * step.seconds:.1g}")
        return f"{describe_pairs(row)}; it needs about {self.missing_seconds:.0f} s"

    def make_results(self, record: SearchRecord) -> ResultsWithSamples:
        """Return the results of all steps, with those of the earlier search."""
        parts = [self.earlier, *self.measured]
        spent = [part.spent for part in parts]
        busiest = max(spent, key=lambda of_part: of_part.others)
        usage = {text for of_part in spent for text in warn_of_processes(of_part)}
        warnings = [text for part in parts for text in part.warnings if text not in usage]
        sides = {str(spec): side.info for spec, side in self.stacks.sides.items()}
        return ResultsWithSamples(
            kind="bisect",
            environments=self.earlier.environments | sides,
            setup=self.setup,
            options=RunOptions(budget=self.budget, cores="one"),
            conditions=parts[-1].conditions,
            spent=replace(
                busiest,  # whose use by others is told
                wall_seconds=record.seconds,
                earlier_seconds=spent[0].earlier_seconds,
                sampling_seconds=sum(s.sampling_seconds for s in spent),
                processes=sum(s.processes for s in spent),
                blocks=sum(s.blocks for s in spent),
            ),
            warnings=list(dict.fromkeys([*warn_of_processes(busiest), *warnings])),
            estimates=[step.row for step in self.taken],
            search=record,
        )
