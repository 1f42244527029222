"""`bakeoff bisect`: which release of which package made something slower, or faster."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import turns
from bench.cli.documents import format_of, give, rendered, show
from common.errors import BakeoffError, require_new, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells import Cell, Selection
    from bench.compare.bisect import Decided
    from bench.compare.bisect_result import BisectResult
    from bench.compare.experiment import Offered
    from bench.environments.builder import Builder, Environment
    from bench.environments.spec import Spec
    from bench.stats.ratios import Estimate

EXAMPLES = """Examples:\n
bakeoff bisect --metric compile --workload toy --good @2025-06-01 --bad @2025-12-01\n
bakeoff bisect --metric step --entrant flax_nnx --style jit --workload toy --good @2026-02-01
--bad @2026-06-01\n
bakeoff bisect --metric host_cost --good jax==0.6.1 --bad jax==0.8.1 -o why.json
--save-runs steps"""
FORMATS = ("html", "json", "md")
BLOCKS = 6
"""Of each turn in a pair of workers."""


def bisect(
    metric: Annotated[str, typer.Option(metavar="NAME", help="What has changed.")],
    good: Annotated[
        str,
        typer.Option(metavar="SPEC", help="As it was: a day, @2025-06-01, or pins, jax==0.6.1."),
    ],
    bad: Annotated[str, typer.Option(metavar="SPEC", help="As it became; a day, or pins.")],
    entrant: Annotated[str, typer.Option(metavar="NAME")] = "pure_jax",
    style: Annotated[str, typer.Option(metavar="NAME")] = "pure",
    workload: Annotated[str, typer.Option(metavar="NAME")] = "toy",
    backend: turns.Backend = None,
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wall time of all of it.")
    ] = 1200,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A new file: .json has all of it, .html is a page, .md a comment.",
        ),
    ] = None,
    save_runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A new folder for both sides of each step as run files."
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every step as a table.")
    ] = False,
) -> int:
    """Find the day, the package and the release that made a metric what it is now.

    Each step measures a stack in between beside the good one, until it is clear which of the two
    ends it is like: clear steps are short, and one that cannot be decided ends the search. First
    days, then packages, each put into the good stack alone, then that package's releases.

    Exit status: 0 found, 1 stopped before that, 2 wrong use, 130 Ctrl-C.
    """
    import impls
    from bench.cells import Cell, Selection
    from bench.compare.bisect_result import BisectResult, document
    from bench.compare.experiment import write_runs
    from bench.environments.builder import Builder
    from bench.metrics import METRICS
    from bench.runfile.writer import write
    from common.config import WORKLOADS

    turns.check_counts(budget)
    turns.metrics_of((metric,))
    if workload not in WORKLOADS:
        raise unknown("workload", workload, WORKLOADS)
    impls.require_here(entrant)
    selection = Selection((entrant,), (style,), (workload,), (backend,) if backend else ())
    cell = Cell(entrant, style, workload, backend or "cpu")
    if not METRICS[metric].applies(cell):
        raise BakeoffError(
            f"metric {metric!r} is not measured of {style} at {workload}; choose another workload"
        )
    ends = checked_end(good, "--good"), checked_end(bad, "--bad")
    if len({(end.date, frozenset(end.pins)) for end in ends}) == 1:
        raise BakeoffError(f"--good and --bad are both {ends[0]}; give two that differ")
    format_ = format_of(None, output, FORMATS, hint="")
    if save_runs is not None:
        require_new(save_runs, "--save-runs")
    console = turns.error_console()
    builder = Builder(notify=lambda text: console.print(f"  {text}", markup=False))
    start = time.monotonic()
    result = BisectResult(
        cell=cell.facts, metric=metric, good=good, bad=bad, arguments=sys.argv[1:]
    )
    search = Bisection(cell, selection, console, start + budget, builder, result)
    try:
        search.run(*ends)
    except KeyboardInterrupt:
        about = {"entrant": entrant, "style": style, "workload": workload, "metric": metric}
        about |= {"backend": backend} if backend else {}
        about |= {"good": result.good, "bad": result.bad}
        words = [word for name, value in about.items() for word in (f"--{name}", value)]
        search.tell(f"go on between what is known by now: bakeoff bisect {shlex.join(words)}")
        raise
    result.finish(time.monotonic() - start)
    show(document(result), details=details)
    if save_runs is not None:
        steps = enumerate(result.runs, 1)
        files = {f"{n:02d}-{name}": run for n, sides in steps for name, run in sides.items()}
        write_runs(save_runs, "--save-runs", files)
        print(save_runs)
    if output is not None and format_ == "json":
        write(output, result)
        print(output)
    elif output is not None and format_ is not None:
        give(rendered(partial(document, result), format_), output)
    return 0 if result.stopped is None else 1


def checked_end(given: str, option: str) -> Spec:
    """Return an end of the search; raise BakeoffError unless it is a stack of releases."""
    from bench.environments.spec import parse

    spec = parse(given, option)
    if spec.current or spec.revision is not None:
        raise BakeoffError(
            f"{option} {spec} is not made of releases; give a day or pins, @2025-12-01 or "
            "flax==0.12.8. For revisions of this project, docs/tracking.md has a command for "
            "`git bisect run`"
        )
    return spec


@dataclass
class Bisection:
    """Builds and measures what a search asks for."""

    cell: Cell
    selection: Selection
    """Of that cell alone; its backend, where one is asked for."""
    console: Console
    deadline: float
    builder: Builder
    result: BisectResult
    pythons: tuple[str, ...] = ()
    sides: dict[Spec, Offered] = field(default_factory=dict)

    def run(self, good: Spec, bad: Spec) -> None:
        """Search between two sides, on one backend that both have."""
        from bench.compare import experiment
        from bench.compare.bisect import Search

        ends = experiment.built((good, bad), self.builder)
        pythons = {end.python for end in ends}
        if len(pythons) > 1:
            self.tell(f"no one Python fits both ends: {', '.join(sorted(pythons))} are compared")
        elif ends[0].pins == ends[1].pins:
            raise BakeoffError(
                f"{good} and {bad} are the same stack, release by release; give two that differ"
            )
        else:
            self.pythons = tuple(pythons)
        sides = {str(spec): self.offered(spec) for spec in (good, bad)}
        self.require_style(*sides.values())
        [self.cell] = experiment.common(experiment.selected(self.selection, sides))
        self.result.cell = self.cell.facts
        Search(self.environment, self.trial, self.tell, good, bad, self.result).run()

    def tell(self, text: str) -> None:
        """Say how far the search is."""
        self.console.print(text, markup=False)

    def environment(self, spec: Spec) -> Environment:
        """Return a side's environment, which the builder keeps."""
        return self.builder.environment(spec, self.pythons)

    def offered(self, spec: Spec) -> Offered:
        """Return what a side has."""
        from bench.compare.experiment import asked

        if spec not in self.sides:
            self.sides[spec] = asked(self.environment(spec), self.selection.entrants)
        return self.sides[spec]

    def require_style(self, *sides: Offered) -> None:
        """Raise StoppedError if a side has not got the style."""
        from bench.compare.bisect import StoppedError

        entrant, style = self.cell.entrant, self.cell.style
        for side in sides:
            gap = side.gap(entrant, style)
            if gap is not None:
                spec = side.environment.spec
                raise StoppedError(f"{spec}: {entrant} has no style {style!r} there: {gap}")

    def trial(self, base: Environment, new: Environment, decided: Decided) -> Estimate:
        """Measure two sides until it is decided, or there is no time left."""
        from bench.compare import experiment
        from bench.compare.ab_result import runs_of
        from bench.compare.bisect import LOOKS, StoppedError
        from bench.compare.pairs import of_pairs
        from bench.engine.actions import Options
        from bench.engine.cores import one_core_lanes
        from bench.engine.sides_plan import AB, BASE, NEW

        metric = self.result.metric
        sides = {BASE: self.offered(base.spec), NEW: self.offered(new.spec)}
        self.require_style(*sides.values())
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise StoppedError("the budget is spent")

        def estimate(made: AB) -> Estimate | None:
            return of_pairs(made.found(BASE), made.found(NEW), self.cell, metric)

        def schedule(options: Options, before: float) -> AB:
            made = AB([self.cell], {metric}, options, before, one_core_lanes(), LOOKS[-1])
            made.decided = lambda: (
                time.monotonic() > self.deadline
                or ((found := estimate(made)) is not None and decided(found))
            )
            return made

        with turns.progress(self.console, left, resumable=False) as told:
            made, journal = experiment.measure(
                schedule,
                Options(left, blocks=BLOCKS, cold_samples=LOOKS[-1]),
                sides,
                {"metric": metric, "cell": str(self.cell)},
                kind="bisect",
                told=told,
            )
        journal.remove()
        found = estimate(made)
        if found is None:
            why = made.missing().get((self.cell, metric), "")
            raise StoppedError(f"{new.spec} cannot be measured beside {base.spec}: {why}")
        self.result.runs.append(runs_of(made, sides, turns.MARGIN, sys.argv[1:]))
        return found
