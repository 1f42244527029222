"""One run as `pytest bench` sees it: what is asked for, what was found, what is said of it."""

from __future__ import annotations

import hashlib
import secrets
import shlex
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import impls
from bench.cells import Cell, Offer, Selection
from bench.engine.actions import Options
from bench.engine.cores import one_core_lanes
from bench.engine.driver import Driver
from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.engine.processes import Place
from bench.engine.run_plan import RunPlan
from bench.estimates import Settled
from bench.report.findings import sentences
from bench.runfile import Metric, PlanOfRun, RunConditions
from bench.runfile.scaling import scaling
from bench.runfile.section import section
from bench.runfile.warnings import warnings
from bench.samples import MIN_COLD, STARVED
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.runfile import SectionWithSamples
    from bench.samples import Spent, State

CODE = (
    *("bench/engine", "bench/worker", "bench/stats", "common", "impls"),
    *("bench/cells.py", "bench/estimates.py", "bench/metrics.py", "bench/samples.py"),
)
"""Folders and files of the code that a run's numbers depend on."""

SAME = {
    "options": "other options",
    "needed": "other cells or metrics",
    "outside": "other entrants",
    "lanes": "other cores",
    "environment": "another environment",
    "code": "other code of entrants or of the engine",
}
"""What has to be the same where a run is taken up."""


class Request(NamedTuple):
    """What the command line asks for."""

    arguments: tuple[str, ...]
    selection: Selection
    metrics: tuple[str, ...]
    outside: dict[str, str]
    """Files of entrants that are not the project's, by name."""
    options: Options
    resume: str | None = None
    """A journal; empty for the newest."""
    environment: str | None = None


class Header(msgspec.Struct):
    """What a journal's first line says of its run."""

    arguments: list[str]
    options: Options
    needed: dict[str, list[str]]
    """Metrics, by cell."""
    outside: dict[str, str]
    """SHA-256 of these files, by name."""
    code: str
    offer: Offer
    before: float
    """Seconds of the budget that had gone before anything was measured."""
    lanes: list[tuple[int, ...]]
    """Cores that workers keep to."""
    environment: str | None = None
    """That was asked for; None for the one at hand."""


@dataclass
class Measurement:
    """Measures when it is first asked to."""

    request: Request
    offer: Offer
    journal: Journal | None = None
    """Of a run that is to be taken up; else one is begun."""
    needed: dict[Cell, set[str]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=lambda: {"": Place()})
    """Where workers run, by environment."""
    state: State | None = None
    interrupted: bool = False
    """Ctrl-C came; nothing more is measured."""
    broken: bool = False
    """An unforeseen error: there is no result, but a journal."""
    numbers: int = 0
    """Benchmarks that have samples."""

    def run(
        self,
        before: float,
        told: Callable[[Any, Spent], None],
        planned: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """Measure everything.

        Args:
            before: Seconds that have gone already.
            told: Told before each action.
            planned: Told the plan, before it begins.

        Raises:
            BakeoffError: the journal that is to be taken up is of another run.
        """
        if self.journal is None:
            options = replace(self.request.options, seed=secrets.randbelow(1 << 32))
            self.header = self.new_header(options, before)
            self.journal = Journal.create(new_path(), msgspec.to_builtins(self.header))
        else:
            self.header = read_header(self.journal)
            self.require_same_run()
        offer = self.offer
        plan = RunPlan(
            self.needed,
            self.header.options,
            self.header.before,
            problems=offer.problems,
            environments=offer.sides,
            lanes=self.header.lanes,
            settled=Settled(self.header.options.margin),
        )
        planned(plan.outline())
        try:
            of = {side: offer.environment(side) for side in ["", *offer.sides.values()]}
            places = {side: self.places[name] for side, name in of.items()}
            heavy = frozenset(side for side, name in of.items() if name)
            Driver(plan, self.journal, self.request.outside, places, told, heavy=heavy).run()
        except KeyboardInterrupt:
            self.interrupted = True
        except BaseException:
            self.broken = True
            raise
        finally:
            self.state = plan.state

    def new_header(self, options: Options, before: float) -> Header:
        """Return what the first line of a new journal says."""
        return Header(
            arguments=list(self.request.arguments),
            options=options,
            needed={str(cell): sorted(metrics) for cell, metrics in self.needed.items()},
            outside={
                name: hashlib.sha256(Path(path).read_bytes()).hexdigest()
                for name, path in self.request.outside.items()
            },
            code=code_digest(),
            offer=self.offer,
            before=before,
            lanes=[tuple(lane) for lane in one_core_lanes()],
            environment=self.request.environment,
        )

    def require_same_run(self) -> None:
        """Raise BakeoffError unless the journal is of a run with the same options and code."""
        assert self.journal is not None
        options = replace(self.request.options, seed=self.header.options.seed)
        now = self.new_header(options, self.header.before)
        differing = [
            what for name, what in SAME.items() if getattr(now, name) != getattr(self.header, name)
        ]
        if differing:
            raise BakeoffError(
                f"the journal {self.journal.path} is of another run ({', '.join(differing)}): go "
                f"on with it by `{self.resuming}`, or start anew without --resume"
            )

    @property
    def resuming(self) -> str:
        """The command that goes on with this run."""
        assert self.journal is not None
        return f"pytest {shlex.join(self.header.arguments)} --resume={self.journal.path}"

    def done(self) -> None:
        """Drop the journal of a run that has come to its end: nobody needs it any more."""
        assert self.journal is not None
        self.journal.remove()

    def advice(self) -> str:
        """Return how to go on where there is no run file; empty where there is one."""
        assert self.journal is not None
        if self.interrupted:
            return (
                "interrupted: no run file is written; what was measured is safe. Go on with:\n"
                f"  {self.resuming}"
            )
        if not self.numbers:
            return (
                "no benchmark has a number, so no run file is written: give a larger --budget than "
                f"{self.header.options.budget:g}, or fewer entrants, styles or workloads. What was "
                f"found is in {self.journal.path}"
            )
        return ""

    def result(self, cell: Cell, metric: str) -> Metric:
        """Return what is said of a metric of a cell that has not failed."""
        assert self.state is not None
        [row] = [each for each in self.section.cells if each.cell == cell]
        if metric == "final_loss" and row.final_loss:
            return Metric(median=row.final_loss.same_weights)
        reason = self.state.missing.get((cell, metric), STARVED)
        return row.metrics.get(metric) or Metric(missing=reason)

    @property
    def left_out(self) -> dict[str, str]:
        """Styles that were asked for and are not in the run, and why."""
        if not self.request.options.donate:
            return {}
        kept, asked = self.offer.kept_styles, self.request.selection
        return {arm: f"cannot donate: {why}" for arm, why in kept.items() if asked.has(arm)}

    @cached_property
    def section(self) -> SectionWithSamples:
        """What the run says as a whole."""
        assert self.state is not None
        options, offer = self.header.options, self.offer
        entrants = dict.fromkeys(cell.entrant for cell in self.needed)
        said = section(
            self.state,
            self.needed,
            fewest_cold=1 if options.fixed else MIN_COLD,
            plan=PlanOfRun(margin=options.margin, budget_seconds=options.budget, seed=options.seed),
            arguments=self.header.arguments,
            environment=msgspec.convert(
                offer.facts
                | {
                    "device_details": offer.details,
                    "own_environments": offer.apart,
                    "donation": options.donate,
                },
                RunConditions,
            ),
            left_out=self.left_out,
            notes={name: note for name in entrants if (note := impls.readable(name).note)},
            scaling=scaling(self.state.cells),
        )
        said.warnings = warnings(self.state, said, offer)
        said.verdict = sentences(said)
        return said


def read_header(journal: Journal) -> Header:
    """Return what a journal's first line says of its run.

    Raises:
        BakeoffError: it does not say all that a run needs.
    """
    try:
        return msgspec.convert(journal.header, Header)
    except msgspec.ValidationError as error:
        raise BakeoffError(
            f"the first line of the journal {journal.path} is damaged: {error}; start anew without "
            "--resume"
        ) from error


def code_digest(places: Iterable[str] = CODE) -> str:
    """Return the SHA-256 of the code that a run's numbers depend on."""
    found = hashlib.sha256()
    for place in map(ROOT.joinpath, places):
        for path in sorted(place.rglob("*.py")) or [place]:
            found.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()


def new_path() -> Path:
    """Return a name for a new journal."""
    return FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03d}{SUFFIX}"
