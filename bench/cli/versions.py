"""Two versions on this machine: `bakeoff ab` compares them, `bisect` finds what changed between."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cells import require_known
from bench.cli import commands, parameters
from bench.cli.output import Output, finish, publish
from bench.estimates import MARGIN
from bench.metrics import METRICS
from bench.options import Options
from bench.report.table import Document
from bench.streams import clean_argument, read_arguments
from common.config import WORKLOADS
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cells import Selection
    from bench.environments.spec import Spec

EXAMPLES = """\
bakeoff ab --base flax==0.12.9 --new flax==0.12.12
bakeoff ab --base flax==0.12.9 --step mine.py --style jit_partial
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300
bakeoff ab --base "flax @ ../flax@main" --new "flax @ ../flax"
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md
bakeoff ab --base current --new current -o ab.json
bakeoff ab --base current --new current --more ab.json --budget 120
bakeoff bisect --metric compile --workload toy --good @2025-06-01 --bad @2025-12-01
bakeoff bisect --metric trace --entrant flax_nnx --style jit --good @2026-02-01 --bad @2026-06-01
bakeoff bisect --metric host_cost --good jax==0.6.1 --bad jax==0.8.1 -o why.html
bakeoff bisect --metric step --step mine.py --good "flax @ ../flax@v1" --bad "flax @ ../flax"
bakeoff bisect --metric compile --good jax==0.6.1 --bad jax==0.8.1 -o why.json
bakeoff bisect --metric compile --good jax==0.6.1 --bad jax==0.8.1 --more why.json --budget 600"""


def ab(
    base: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="A day's stack, @2025-12-01; releases, flax==0.12.8; a checkout, flax @ ../flax, "
            "or its revision, flax @ ../flax@main; a git revision of this project; or current.",
        ),
    ],
    new: Annotated[str, typer.Option(metavar="SPEC", help="As --base.")] = "current",
    step: parameters.StepFile = None,
    entrant: parameters.EntrantNames = None,
    style: parameters.StyleNames = None,
    workload: parameters.WorkloadNames = None,
    backend: parameters.BackendName = None,
    metric: parameters.MetricNames = None,
    budget: parameters.Budget = 600.0,
    margin: parameters.Margin = MARGIN,
    pairs: parameters.Pairs = None,
    blocks: parameters.Blocks = None,
    cores: parameters.Cores = "one",
    output: parameters.Output = None,
    format_: parameters.Format = None,
    details: parameters.Details = False,
    resume: parameters.Resume = False,
    more: parameters.More = None,
    wait: parameters.Wait = False,
    with_: parameters.With = None,
) -> int:
    """Measure two sides on this machine, alternating between them, and say what differs.

    Environments are built by uv, kept, and used again; your own is never touched. What a SPEC
    leaves open is as it is here, where that fits. A revision runs in the environment of its own
    lock. Without --entrant, those are measured that depend on what differs. Ctrl-C loses nothing:
    --resume goes on.

    Exit status: 0 nothing is certainly worse; 1 something is: slower by more than the margin, more
    Python calls, compilations or bytes of memory (which do not decide where --metric is given), or
    a cell fails that did not; 2 cannot say, or wrong use; 130 Ctrl-C.
    """
    from bench.environments.spec import parse
    from bench.prepare.sides import DoesNotRunError, prepare_sides
    from bench.report.documents.ab import MARKER
    from bench.track.comparison import BASE, NEW, Comparison

    shown = Output.choose(format_, output, details=details)
    extent = commands.check_options(Options(budget, margin, pairs, blocks, cores=cores))
    specs = {BASE: parse(base, "--base"), NEW: parse(new, "--new")}
    # `@-7d` is another day tomorrow
    written_out = {
        clean_argument(text): str(spec)
        for text, spec in zip((base, new), specs.values(), strict=True)
    }
    arguments = [written_out.get(word, word) for word in read_arguments()]
    selection = commands.parse_selection(entrant, style, workload, backend, metric, step)
    if not any(spec.revision for spec in specs.values()):  # which may have other styles
        selection.check_styles()
    builder = commands.make_builder(wait=wait, packages=with_, more=more)
    try:
        task = prepare_sides(specs, selection, extent, builder, arguments)
    except DoesNotRunError as error:
        if shown.file is not None and shown.form != "json":
            title = f"{new} beside {base}"
            answer = Document(title, headline=str(error), status="bad", marker=MARKER)
            publish([answer], shown)
        raise
    made = commands.measure_task(task, wait=wait, resume=resume, more=more)
    finish(made.results, shown, made.journal.path)
    return int(Comparison(made.results).status)


def bisect(
    metric: Annotated[str, typer.Option(metavar="NAME", help="What has changed.")],
    good: Annotated[
        str,
        typer.Option(
            metavar="SPEC", help="As it was: @2025-06-01, jax==0.6.1, flax @ ../flax@v0.12.0."
        ),
    ],
    bad: Annotated[str, typer.Option(metavar="SPEC", help="As it became.")],
    step: parameters.StepFile = None,
    entrant: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="pure_jax, or that of --step")
    ] = None,
    style: Annotated[str, typer.Option(metavar="NAME")] = "pure",
    workload: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="toy, or that of --step")
    ] = None,
    backend: parameters.BackendName = None,
    budget: parameters.Budget = 1200.0,
    resume: parameters.Resume = False,
    more: parameters.More = None,
    wait: parameters.Wait = False,
    with_: parameters.With = None,
    output: parameters.Output = None,
    format_: parameters.Format = None,
    details: parameters.Details = False,
) -> int:
    """Find the day, the package and the release that made a metric what it is now.

    Each step measures an intermediate stack beside the good one, until it is clear which end it is
    like: clear steps are short, and a step that cannot be decided ends the search. The search
    tries days, then packages, each alone in the good stack, then releases of the package found, or
    commits between two revisions of its repository. Ctrl-C loses one step at most: --resume goes
    on. --more continues a search that has ended, with a new budget.

    Exit status: 0 found, 1 stopped before that, 2 wrong use, 130 Ctrl-C.
    """
    from bench.prepare.stacks import Stacks
    from bench.report.terminal import Progress
    from bench.track.bisect import Earlier, steps_path
    from bench.track.search import Search
    from bench.track.steps import Steps

    commands.check_options(Options(budget))
    selection = parse_question(metric, entrant, style, workload, backend, step)
    ends = parse_ends(good, bad)
    target = Output.choose(format_, output, details=details)
    console = commands.error_console()
    kept = steps_path(good, bad, selection, with_, more and more.resolve())
    file = kept if resume else more
    earlier = Earlier() if file is None else Earlier.read(file, resume=resume)
    if kept.exists() and not resume:
        console.print("the same search was cut off: --resume goes on; without it, this one is new")
    builder = commands.make_builder(wait=wait, packages=with_)
    with (
        commands.promise_resumption(kept.exists),
        Progress(console, budget) as shown,
    ):
        stacks = Stacks(selection, builder)
        steps = Steps(stacks, selection.metrics[0], budget, shown, earlier, wait=wait)
        search = Search(*ends, steps, console.print, kept)
        try:
            results = search.run()
        except KeyboardInterrupt:
            known = shlex.join(["--good", str(search.good), "--bad", str(search.bad)])
            console.print(f"go on between what is known by now: the same command with {known}")
            raise
    results.arguments = [word for word in read_arguments() if word != "--resume"]
    is_needed = search.stopped is not None and target.form != "json" and kept.exists()
    if is_needed:  # or what it has measured would be lost
        console.print(f"what was measured is in {kept}: --more goes on with that file")
    finish(results, target, None if is_needed else kept)
    return 0 if search.stopped is None else 1


def parse_question(
    metric: str,
    entrant: str | None,
    style: str,
    workload: str | None,
    backend: str | None,
    step: Path | None,
) -> Selection:
    """Return the selection of one style at one workload.

    Raises:
        BakeoffError: there is no such name, or the metric is not measured there.
    """
    library, _, style = style.rpartition("/")
    if library and entrant not in (None, library):
        raise BakeoffError(f"--entrant is {entrant}, and --style is of {library}: give one")
    if step is None:
        entrant = library or "pure_jax" if entrant is None else entrant
        workload = "toy" if workload is None else workload
    entrants, workloads = (None if name is None else [name] for name in (entrant, workload))
    selection = commands.parse_selection(entrants, [style], workloads, backend, [metric], step)
    for option in ("entrant", "style", "workload", "metric"):
        if len(names := getattr(selection, f"{option}s")) > 1:
            several = ",".join(names)
            raise BakeoffError(f"--{option} is {several!r}; a bisection takes one: give one name")
    if step is None:
        require_known("workload", selection.workloads, WORKLOADS)  # no group of them
    [name], [at] = selection.metrics, selection.workloads
    if not METRICS[name].is_measured_at(at):
        raise BakeoffError(
            f"metric {name!r} is not measured of {style} at {at}; choose another workload"
        )
    return selection


def parse_ends(good: str, bad: str) -> tuple[Spec, Spec]:
    """Return the two ends; raise BakeoffError unless both are made of releases and they differ."""
    from bench.environments.spec import parse

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
    return ends
