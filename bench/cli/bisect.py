"""`bakeoff bisect`: which release of which package made something slower, or faster."""

from __future__ import annotations

import shlex
import sys
import time
from functools import partial
from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.documents import rendered, show
from bench.cli.turns import measured
from common.errors import BakeoffError, require_new, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells import Cell
    from bench.compare.bisect import Decided, Search
    from bench.compare.experiment import Offered
    from bench.engine.actions import Options
    from bench.engine.sides_plan import AB
    from bench.environments.builder import Environment
    from bench.environments.spec import Spec
    from bench.stats.ratios import Estimate

EXAMPLES = """Examples:\n
bakeoff bisect --metric compile --workload toy --good @2025-06-01 --bad @2025-12-01\n
bakeoff bisect --metric step --entrant flax_nnx --style jit --workload toy --good @2026-02-01
--bad @2026-06-01\n
bakeoff bisect --metric host_cost --good jax==0.6.1 --bad jax==0.8.1 -o why.json --runs steps"""
ENDINGS = (".html", ".json", ".md")
BLOCKS = 6
"""Of each turn in a pair of workers."""
MARGIN = 0.02


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
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="an accelerator, else cpu")
    ] = None,
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
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A new folder for both sides of each step as run files."
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every step as a table.")
    ] = False,
) -> None:
    """Find the day, the package and the release that made a metric what it is now.

    Each step measures a stack in between beside the good one, until it is clear which of the two
    ends it is like: clear steps are short, and one that cannot be decided ends the search. First
    days, then packages, each put into the good stack alone, then that package's releases.

    Exit status: 0 found, 1 stopped before that, 2 wrong use, 130 Ctrl-C.
    """
    from rich.console import Console

    from bench.compare.bisect_result import bisect_data, document
    from common.config import check_rate

    check_rate("--budget", budget)
    cell = checked_cell(entrant, style, workload, backend, metric)
    ends = checked_ends(good, bad)
    if output is not None and output.suffix.lower() not in ENDINGS:
        raise BakeoffError(
            f"output {output} ends in {output.suffix or 'nothing'}; {', '.join(ENDINGS)} are known"
        )
    for path, option in ((output, "output"), (runs, "--runs")):
        if path is not None:
            require_new(path, option)
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    start = time.monotonic()
    search = Bisection(cell, backend, metric, console, start + budget)
    try:
        found = search.run(*ends)
    except KeyboardInterrupt:
        console.print(search.how_to_go_on(), markup=False)
        raise
    seconds = time.monotonic() - start
    data = bisect_data(found, search.cell, metric, seconds, sys.argv[1:])
    show(document(data), details=details)
    if runs is not None:
        search.write_runs(runs)
        print(runs)
    if output is not None:
        write_output(output, data | {"runs": search.evidence})
        print(output)
    if found.stopped is not None:
        raise typer.Exit(1)


def checked_cell(entrant: str, style: str, workload: str, backend: str | None, metric: str) -> Cell:
    """Return the cell that is asked for; raise BakeoffError if it cannot have the metric."""
    import impls
    from bench.cells import Cell
    from bench.cli.history import metrics_of
    from bench.metrics import METRICS
    from common.config import WORKLOADS

    metrics_of((metric,))
    if workload not in WORKLOADS:
        raise unknown("workload", workload, WORKLOADS)
    impls.require_here(entrant)
    cell = Cell(entrant, style, workload, backend or "cpu")
    if not METRICS[metric].applies(cell):
        raise BakeoffError(
            f"metric {metric!r} is not measured of {style} at {workload}; choose another workload"
        )
    return cell


def checked_ends(good: str, bad: str) -> tuple[Spec, Spec]:
    """Return the ends of the search; raise BakeoffError unless both are of releases, and differ."""
    from bench.environments.spec import parse

    ends = parse(good, "--good"), parse(bad, "--bad")
    for option, spec in zip(("--good", "--bad"), ends, strict=True):
        if spec.revision is not None:
            raise BakeoffError(
                f"{option} {spec} is a revision of this project; bisect is for releases and days: "
                "give @2025-12-01 or flax==0.12.8. For revisions, docs/tracking.md has a command "
                "for `git bisect run`"
            )
        if spec.current:
            raise BakeoffError(
                f"{option} is current, whose packages need not be releases; give a day or pins, "
                "@2025-12-01 or flax==0.12.8"
            )
    if len({(end.date, frozenset(end.pins)) for end in ends}) == 1:
        raise BakeoffError(f"--good and --bad are both {ends[0]}; give two that differ")
    return ends


def write_output(path: Path, data: dict[str, Any]) -> None:
    """Write steps and result; as JSON, both sides of each step too."""
    from bench.cli.report import put
    from bench.compare.bisect_result import document
    from bench.runfile.writer import write

    format_ = path.suffix.lower().removeprefix(".")
    if format_ == "json":
        write(path, data)
    else:
        put(path, rendered(partial(document, data), format_))


class Bisection:
    """Builds and measures what a search asks for."""

    def __init__(
        self, cell: Cell, backend: str | None, metric: str, console: Console, deadline: float
    ) -> None:
        from bench.environments.builder import Builder
        from bench.environments.uv import PYTHONS

        self.cell, self.backend, self.metric, self.console = cell, backend, metric, console
        self.builder = Builder(notify=lambda text: self.tell(f"  {text}"))
        self.pythons: tuple[str, ...] = PYTHONS
        self.deadline = deadline
        self.environments: dict[str, Environment] = {}
        self.sides: dict[str, Offered] = {}
        self.search: Search | None = None
        self.evidence: list[dict[str, Any]] = []
        """Both sides of each step, as run files have them."""

    def run(self, good: Spec, bad: Spec) -> Search:
        """Search between two sides, on one backend that both have."""
        from bench.cells import Arm, Selection
        from bench.compare import experiment
        from bench.compare.bisect import Search

        entrant, style, workload = self.cell.entrant, self.cell.style, self.cell.workload
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
        self.environments |= {end.spec.text: end for end in ends}
        sides = {str(end.spec): self.offered(end) for end in ends}
        for name, side in sides.items():
            gap = side.gap(entrant, style)
            if gap is not None:
                raise BakeoffError(f"{name}: {entrant} has no style {style!r} there: {gap}")
        backends = (self.backend,) if self.backend else ()
        selection = Selection((entrant,), (style,), (workload,), backends)
        cells = experiment.common(experiment.selected(selection, sides))
        self.cell = next(cell for cell in cells if cell.arm == Arm(entrant, style))
        self.search = Search(self.environment, self.trial, self.tell, good, bad)
        self.search.run()
        return self.search

    def tell(self, text: str) -> None:
        """Say how far the search is."""
        self.console.print(text, markup=False)

    def environment(self, spec: Spec) -> Environment:
        """Return a side's environment."""
        if spec.text not in self.environments:
            self.environments[spec.text] = self.builder.environment(spec, self.pythons)
        return self.environments[spec.text]

    def offered(self, environment: Environment) -> Offered:
        """Return what an environment has."""
        from bench.compare import experiment

        if environment.spec.text not in self.sides:
            self.sides[environment.spec.text] = experiment.asked(environment, (self.cell.entrant,))
        return self.sides[environment.spec.text]

    def trial(
        self, base: Environment, new: Environment, decided: Decided
    ) -> tuple[Estimate | None, float, str]:
        """Measure two sides until it is decided, or there is no time left."""
        from bench.compare.ab_result import run_of
        from bench.compare.bisect import LOOKS
        from bench.engine.actions import Options
        from bench.engine.sides_plan import BASE, NEW

        start = time.monotonic()
        sides = {BASE: self.offered(base), NEW: self.offered(new)}
        for side in sides.values():
            gap = side.gap(self.cell.entrant, self.cell.style)
            if gap is not None:
                return None, 0.0, f"{side.environment.spec}: {gap}"
        left = self.deadline - start
        if left <= 0:
            return None, 0.0, "the budget is spent"
        made, journal = measured(
            self.console,
            partial(self.schedule, decided=decided),
            Options(left, blocks=BLOCKS, cold_samples=LOOKS[-1]),
            {name: side.environment for name, side in sides.items()},
            {"metric": self.metric, "cell": str(self.cell)},
            kind="bisect",
        )
        journal.remove()
        estimate = self.estimate(made)
        if estimate is not None:
            self.evidence.append(
                {
                    name: run_of(
                        *(made, name, side, MARGIN),
                        arguments=sys.argv[1:],
                        spec=str(side.environment.spec),
                    )
                    for name, side in sides.items()
                }
            )
        why = made.missing().get((self.cell, self.metric), "")
        return estimate, time.monotonic() - start, why

    def schedule(self, options: Options, before: float, *, decided: Decided) -> AB:
        """Return the schedule of one A/B, which ends when it is decided or the time is over."""
        from bench.compare.bisect import LOOKS
        from bench.engine.cores import one_core_lanes
        from bench.engine.sides_plan import AB

        made = AB([self.cell], {self.metric}, options, before, one_core_lanes(), LOOKS[-1])

        def enough() -> bool:
            estimate = self.estimate(made)
            late = time.monotonic() > self.deadline
            return late or (estimate is not None and decided(estimate))

        made.decided = enough
        return made

    def estimate(self, made: AB) -> Estimate | None:
        """Return the ratio of the new side to the base, by now."""
        from bench.compare.pairs import of_pairs
        from bench.engine.sides_plan import BASE, NEW

        return of_pairs(made.found(BASE), made.found(NEW), self.cell, self.metric)

    def how_to_go_on(self) -> str:
        """Say how an interrupted search is taken up: between what is known by now."""
        found = self.search
        if found is None:
            return "interrupted; nothing is known yet"
        options = {"metric": self.metric, **self.cell.facts}
        del options["backend"]
        options |= {"backend": self.backend} if self.backend else {}
        options |= {"good": str(found.good), "bad": str(found.bad)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return (
            "interrupted; what is known by now is in these ends. Go on with:\n"
            f"  bakeoff bisect {shlex.join(words)}"
        )

    def write_runs(self, folder: Path) -> None:
        """Write both sides of each step as run files, which other commands read."""
        from bench.runfile.writer import new_folder, write

        new_folder(folder, "--runs")
        for number, sides in enumerate(self.evidence, 1):
            for name, data in sides.items():
                write(folder / f"{number:02d}-{name}.json", data)
