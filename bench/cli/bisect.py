"""`bakeoff bisect`: which release of which package made something slower, or faster."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from bench.cells import Arm, require_known
from bench.cli import commands
from bench.metrics import METRICS
from bench.options import (
    BackendName,
    Budget,
    More,
    Options,
    Output,
    Resume,
    StepFile,
    Wait,
    With,
    parse_requirements,
)
from common.config import WORKLOADS
from common.errors import BakeoffError

EXAMPLES = """Examples:
bakeoff bisect --metric compile --workload toy --good @2025-06-01 --bad @2025-12-01
bakeoff bisect --metric trace --entrant flax_nnx --style jit --good @2026-02-01 --bad @2026-06-01
bakeoff bisect --metric host_cost --good jax==0.6.1 --bad jax==0.8.1 -o why.html
bakeoff bisect --metric step --step mine.py --good "flax @ ../flax@v1" --bad "flax @ ../flax"
bakeoff bisect --metric compile --good jax==0.6.1 --bad jax==0.8.1 -o why.json
bakeoff bisect --metric compile --good jax==0.6.1 --bad jax==0.8.1 --more why.json --budget 600"""


def bisect(
    metric: Annotated[str, typer.Option(metavar="NAME", help="What has changed.")],
    good: Annotated[
        str,
        typer.Option(
            metavar="SPEC", help="As it was: @2025-06-01, jax==0.6.1, flax @ ../flax@v0.12.0."
        ),
    ],
    bad: Annotated[str, typer.Option(metavar="SPEC", help="As it became.")],
    step: StepFile = None,
    entrant: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="pure_jax, or that of --step")
    ] = None,
    style: Annotated[str, typer.Option(metavar="NAME")] = "pure",
    workload: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="toy, or that of --step")
    ] = None,
    backend: BackendName = None,
    budget: Budget = 1200.0,
    resume: Resume = False,
    more: More = None,
    wait: Wait = False,
    with_: With = None,
    output: Output = None,
    format_: commands.Format = None,
    details: commands.Details = False,
) -> int:
    """Find the day, the package and the release that made a metric what it is now.

    Each step measures a stack in between beside the good one, until it is clear which of the two
    ends it is like: clear steps are short, and one that cannot be decided ends the search. First
    days, then packages, each put into the good stack alone, then that package's releases, or the
    commits between two revisions of its repository. Ctrl-C loses one step at most: --resume goes
    on. --more goes on with a search that has ended, with a new budget.

    Exit status: 0 found, 1 stopped before that, 2 wrong use, 130 Ctrl-C.
    """
    from bench.engine.journal import DiskError, Journal, Part
    from bench.engine.machine import machine_lock
    from bench.environments.builder import Builder
    from bench.environments.spec import parse
    from bench.report.terminal import Progress
    from bench.track import bisect as track
    from bench.track.earlier import Earlier, steps_path
    from bench.track.search import Bisection

    commands.check_options(Options(budget))
    for option, value in (("metric", metric), ("entrant", entrant), ("style", style)):
        if value is not None and (not value or "," in value):
            raise BakeoffError(f"--{option} is {value!r}; a bisection takes one: give one name")
    if "/" in style:
        library, style = Arm.parse(style)
        if entrant not in (None, library):
            raise BakeoffError(f"--entrant is {entrant}, and --style is of {library}: give one")
        entrant = None if step else library
    if step is None:
        entrant, workload = entrant or "pure_jax", workload or "toy"
    one, sizes = ([name] if name else None for name in (entrant, workload))
    selection = commands.selection(one, [style], sizes, backend, [metric], step)
    require_known("workload", filter(None, [workload]), WORKLOADS)
    arm = Arm(selection.entrants[0] if selection.entrants else "", style)
    cell = arm.make_cell(selection.workloads[0], backend or "cpu")
    if not METRICS[metric].is_measured_at(cell.workload):
        raise BakeoffError(
            f"metric {metric!r} is not measured of {style} at {cell.workload}; choose another "
            "workload"
        )
    ends = parse(good, "--good"), parse(bad, "--bad")
    for option, spec in zip(("--good", "--bad"), ends, strict=True):
        if spec.is_current or spec.revision is not None:
            raise BakeoffError(
                f"{option} {spec} is not made of releases; give a day or pins, @2025-12-01 or "
                "flax==0.12.8. For revisions of this project, docs/tracking.md has a command for "
                "`git bisect run`"
            )
    if len({(end.date, frozenset(end.pins)) for end in ends}) == 1:
        raise BakeoffError(f"--good and --bad are both {ends[0]}; give two that differ")
    chosen = commands.format_of(format_, output)
    console = commands.error_console()
    steps_file = steps_path(good, bad, selection, with_, more and more.resolve())
    file = steps_file if resume else more
    earlier = Earlier() if file is None else Earlier.read(file, resume=resume)
    if steps_file.exists() and not resume:
        console.print("the same search was cut off: --resume goes on; without it, this one is new")
    record = track.SearchRecord(cell=cell, metric=metric, good=str(ends[0]), bad=str(ends[1]))
    with machine_lock(wait=wait), Progress(console, budget) as shown:
        extras = parse_requirements(with_)
        builder = Builder(notify=lambda text: console.print(f"  {text}"), extras=extras)
        search = Bisection(
            selection,
            record,
            builder,
            console.print,
            shown,
            budget,
            steps_file=steps_file,
            earlier=earlier,
        )
        try:
            results = search.run(*ends)
        except KeyboardInterrupt:
            known = shlex.join(["--good", record.good, "--bad", record.bad])
            console.print(f"go on between what is known by now: the same command with {known}")
            if steps_file.exists():
                console.print(commands.SAFE_TEXT)
            raise
        except DiskError as error:
            hint = f"; {commands.SAFE_TEXT}" if steps_file.exists() else ""
            raise DiskError(f"{error}{hint}") from error
    results.arguments = [word for word in sys.argv[1:] if word != "--resume"]
    journal: Journal | None = Journal(steps_file, Part())
    if record.stopped is not None and chosen != "json" and steps_file.exists():
        journal = None  # or what it has measured would be lost
        console.print(f"what was measured is in {steps_file}: --more goes on with that file")
    commands.finish(results, chosen, output, details=details, journal=journal)
    return 0 if record.stopped is None else 1
