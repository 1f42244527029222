"""A bisection measured: each step is an A/B of its own, with a journal of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from bench.engine.journal import journals
from bench.engine.session import estimates_of, measure
from bench.options import Options
from bench.runfile import ResultsWithSamples, packed
from bench.track.comparison import BASE, NEW
from bench.track.search import LOOKS, Search, StoppedError
from bench.track.sides import asked, built, cells_of, gap, require_common, task
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.cells import Cell, Selection
    from bench.engine.actions import Action, Spent
    from bench.engine.session import Side
    from bench.environments.builder import Builder, Environment
    from bench.environments.spec import Spec
    from bench.estimates import Estimate
    from bench.samples import Sample
    from bench.track.bisect import SearchRecord
    from bench.track.search import Decided


@dataclass
class Bisection:
    """Builds and measures what a search asks for."""

    selection: Selection
    """Of one style at one workload; its backend, where one is asked for."""
    record: SearchRecord
    builder: Builder
    notify: Callable[[str], None]
    on_progress: Callable[[Action, Spent], None]
    """Called before each action of a step."""
    deadline: float
    """Time of `time.monotonic` at which the budget is spent."""
    arguments: Sequence[str] = ()
    pythons: tuple[str, ...] = ()
    sides: dict[Spec, Side] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    """Of all steps, by SPEC."""

    def run(self, good: Spec, bad: Spec) -> ResultsWithSamples:
        """Search between two sides, on one backend that both have, and return the results.

        Raises:
            BakeoffError: one of the two ends cannot be built or measured.
            KeyboardInterrupt: it was cut off; the record says what is known.
        """
        start = time.monotonic()
        ends = built((good, bad), self.builder)
        pythons = {end.python for end in ends}
        if len(pythons) > 1:
            versions = ", ".join(sorted(pythons))
            self.notify(f"no one Python fits both ends: {versions} are compared")
        elif ends[0].pins == ends[1].pins:
            raise BakeoffError(
                f"{good} and {bad} are the same stack, release by release; give two that differ"
            )
        else:
            self.pythons = tuple(pythons)
        sides = {str(spec): self.side(spec) for spec in (good, bad)}
        self.require_style(*sides.values())
        [self.record.cell] = require_common(cells_of(self.selection, sides))
        search = Search(self.environment, self.trial, self.notify, self.record, good=good, bad=bad)
        search.run()
        self.record.seconds = time.monotonic() - start
        return ResultsWithSamples(
            kind="bisect",
            arguments=list(self.arguments),
            environments={str(spec): side.info for spec, side in self.sides.items()},
            estimates=search.estimates,
            search=msgspec.to_builtins(self.record),
            samples=packed(self.samples),
        )

    def environment(self, spec: Spec) -> Environment:
        """Return a side's environment, which the builder keeps."""
        return self.builder.environment(spec, self.pythons)

    def side(self, spec: Spec) -> Side:
        """Return a side, with what it has."""
        if spec not in self.sides:
            self.sides[spec] = asked(self.environment(spec), self.selection.entrants)
        return self.sides[spec]

    def require_style(self, *sides: Side) -> None:
        """Raise StoppedError if a side has not got the style."""
        cell: Cell = self.record.cell
        for side in sides:
            if why := gap(side, cell):
                raise StoppedError(
                    f"{side.info.spec}: {cell.entrant} has no style {cell.style!r} there: {why}"
                )

    def trial(self, base: Environment, new: Environment, decided: Decided) -> Estimate:
        """Measure two sides until it is decided, or there is no time left."""
        cell, metric = self.record.cell, self.record.metric
        sides = {BASE: self.side(base.spec), NEW: self.side(new.spec)}
        self.require_style(*sides.values())
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise StoppedError("the budget is spent")
        options = Options(left, processes=LOOKS[-1], cold_samples=LOOKS[-1], cores="one")

        def estimate(samples: Sequence[Sample]) -> Estimate | None:
            rows = estimates_of(samples, [], options, BASE)
            return next(
                (r for r in rows if r.against and (r.cell, r.metric) == (cell, metric)), None
            )

        def enough(samples: Sequence[Sample]) -> bool:
            spent = time.monotonic() > self.deadline
            return spent or ((row := estimate(samples)) is not None and decided(row))

        of_step = task(
            "bisect",
            self.selection,
            sides,
            {name: [cell] for name in sides},
            [(BASE, NEW)],
            options,
            base=BASE,
            arguments=self.arguments,
        )
        try:
            measured = measure(of_step, on_progress=self.on_progress, enough=enough)
        except BaseException:  # half a step is of no use to another search
            for path in journals("bisect")[:1]:
                path.unlink()
            raise
        measured.journal.remove()
        row = estimate(measured.samples)
        if row is None:
            why = [
                result.failure or result.missing.get(metric, "")
                for result in measured.results.cells
                if result.cell == cell
            ]
            reason = next(filter(None, why), "there was no time for a pair of workers")
            raise StoppedError(f"{new.spec} cannot be measured beside {base.spec}: {reason}")
        names, step = {BASE: str(base.spec), NEW: str(new.spec)}, len(self.record.steps)
        self.samples += [
            sample._replace(
                environment=names[sample.environment],
                worker=sample.worker + 1000 * step,
                block=sample.block + 1_000_000 * step,
            )
            for sample in measured.samples
        ]
        return row
