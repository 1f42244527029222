"""Two versions on this machine: `bakeoff ab` compares them, `bisect` finds what changed between."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cells import require_known
from bench.cli.output import error_console, finish, promise_resumption, publish
from bench.cli.parameters import (
    BackendName,
    Blocks,
    Margin,
    Measuring,
    Pairs,
    Selecting,
    Showing,
    StepFile,
    StyleNames,
    check_options,
    make_option,
)
from bench.estimates import MARGIN
from bench.metrics import METRICS
from bench.options import Options
from bench.report.table import Document
from bench.streams import clean_argument, read_arguments
from common.config import WORKLOADS
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.cells import Selection
    from bench.environments.spec import Spec

EXAMPLES = """\
bakeoff ab --base flax==0.12.9 --new flax==0.12.12
bakeoff ab --base flax==0.12.9 --step mine.py --style jit_partial
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300
bakeoff ab --base "flax @ ../flax@main" --new "flax @ ../flax"
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md
bakeoff ab --base current --new current -o ab.json
bakeoff ab --base current --new current --resume ab.json --budget 120
bakeoff bisect --metric compile --workload toy --good @2025-06-01 --bad @2025-12-01
bakeoff bisect --metric trace --entrant flax_nnx --style jit --good @2026-02-01 --bad @2026-06-01
bakeoff bisect --metric host_cost --good jax==0.6.1 --bad jax==0.8.1 -o why.html
bakeoff bisect --metric step --step mine.py --good "flax @ ../flax@v1" --bad "flax @ ../flax"
bakeoff bisect --metric compile --good jax==0.6.1 --bad jax==0.8.1 -o why.json
bakeoff bisect --metric compile --good jax==0.6.1 --bad jax==0.8.1 --resume why.json --budget 600"""


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
    style: StyleNames = None,
    selecting: Selecting = Selecting(),
    measuring: Measuring = Measuring(),
    margin: Margin = MARGIN,
    pairs: Pairs = None,
    blocks: Blocks = None,
    cores: Annotated[
        Literal["one", "all"],
        make_option(
            "cores",
            help="one: each worker on one core, several at a time, which is more precise; "
            "all: each worker on all cores, as users run it.",
            metavar="one|all",
        ),
    ] = "one",
    showing: Showing = Showing(),
) -> int:
    """Measure two sides on this machine, alternating between them, and say what differs.

    uv builds environments and keeps them for later; your own is never changed. Packages that a SPEC
    does not name keep the versions of your environment, if they fit. A revision runs in the
    environment of its own lock. Without --entrant, only entrants are measured that depend on a
    package that differs. If only one library differs, calls of its usual styles come first. Ctrl-C
    loses nothing: --resume continues.

    Exit status: 0 nothing is certainly worse; 1 something is: a time is slower by more than the
    margin, a cell fails only on the new side, or, without --metric, there are more Python calls,
    compilations or bytes of memory; 2 cannot say, or wrong use; 130 Ctrl-C.
    """
    from bench.environments.spec import parse
    from bench.prepare.sides import DoesNotRunError, prepare_sides
    from bench.report.documents.ab import MARKER
    from bench.track.comparison import BASE, NEW, Comparison

    shown = showing.choose()
    extent = check_options(Options(measuring.budget, margin, pairs, blocks, cores=cores))
    specs = {BASE: parse(base, "--base"), NEW: parse(new, "--new")}
    # `@-7d` is another day tomorrow
    written_out = {
        clean_argument(text): str(spec)
        for text, spec in zip((base, new), specs.values(), strict=True)
    }
    arguments = [written_out.get(word, word) for word in read_arguments()]
    selection = selecting.parse(style)
    if not any(spec.revision for spec in specs.values()):  # which may have other styles
        selection.check_styles()
    builder = measuring.make_builder("ab")
    try:
        task = prepare_sides(specs, selection, extent, builder, arguments)
    except DoesNotRunError as error:
        if shown.file is not None and shown.form != "json":
            title = f"{new} compared with {base}"
            answer = Document(title, headline=str(error), status="bad", marker=MARKER)
            publish([answer], shown)
        raise
    made = measuring.measure(task)
    finish(made.results, shown, made.journal.path)
    return int(Comparison(made.results).status)


def bisect(
    metric: Annotated[str, typer.Option(metavar="NAME", help="The metric that changed.")],
    good: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="The good end, as in @2025-06-01, jax==0.6.1 or flax @ ../flax@v0.12.0.",
        ),
    ],
    bad: Annotated[str, typer.Option(metavar="SPEC", help="The bad end, as --good.")],
    step: StepFile = None,
    entrant: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="pure_jax, or that of --step")
    ] = None,
    style: Annotated[str, typer.Option(metavar="NAME")] = "pure",
    workload: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="toy, or that of --step")
    ] = None,
    backend: BackendName = None,
    measuring: Measuring = Measuring(budget=1200.0),
    showing: Showing = Showing(),
) -> int:
    """Find the day, the package and the release that changed a metric.

    Each step compares the good end with a stack between both ends, until it is clear which end that
    stack is like. Large differences take little time; a step that cannot be decided ends the
    search. The search tries days, then each package alone in the good stack, then the releases of
    the package that it found, or the commits between two revisions of its repository. Ctrl-C loses
    one step at most. --resume continues a search that was cut off or, with a further budget, one
    that has stopped.

    Exit status: 0 found, 1 stopped before the end, 2 wrong use, 130 Ctrl-C.
    """
    from bench.engine.progress import Progress
    from bench.prepare.stacks import Stacks
    from bench.runfile import Results
    from bench.track.bisect import read_search, steps_path
    from bench.track.search import Search
    from bench.track.steps import Steps

    check_options(Options(measuring.budget))
    selection = parse_question(metric, entrant, style, workload, backend, step)
    ends = parse_ends(good, bad)
    target = showing.choose()
    console = error_console()
    kept = steps_path(good, bad, selection, measuring.with_)
    earlier, file = Results(), None
    if measuring.resume is not None:
        file = Path(measuring.resume) if measuring.resume else kept
        earlier = read_search(file)
    if file != kept and kept.exists():
        console.print("the same search was begun: --resume goes on; without it, this one is new")
    builder = measuring.make_builder()
    without_file = bool(measuring.resume)
    with (
        promise_resumption(kept.exists, without_file=without_file),
        Progress(console, measuring.budget) as shown,
    ):
        stacks = Stacks(selection, builder)
        metric, wait = selection.metrics[0], measuring.wait
        steps = Steps(stacks, metric, measuring.budget, shown, earlier, file, wait=wait)
        search = Search(*ends, steps, console.print, kept)
        try:
            results = search.run()
        except KeyboardInterrupt:
            known = shlex.join(["--good", str(search.good), "--bad", str(search.bad)])
            console.print(f"go on between what is known by now: the same command with {known}")
            raise
    # What repeats it goes on with nothing
    results.arguments = [
        word for word in read_arguments() if measuring.resume or word != "--resume"
    ]
    is_ours = kept.exists() and (search.has_measured or file == kept)
    is_needed = is_ours and search.stopped is not None and target.form != "json"
    if is_needed:  # or what it has measured would be lost
        console.print(f"what was measured is in {kept}: --resume goes on with that file")
    finish(results, target, kept if is_ours and not is_needed else None)
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
    selection = Selecting(step, entrants, workloads, backend, [metric]).parse([style])
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
