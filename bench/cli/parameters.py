"""Parameters that several commands share, each with its name, type, default and help.

Those that belong together are dataclasses, which `bench.cli.spread_options` takes apart for Typer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from packaging.requirements import InvalidRequirement, Requirement

import impls
from bench.cells import Selection, name_step
from bench.cli.output import Output, error_console, promise_resumption
from bench.options import ABOUT, BY_BUDGET, MOST_COUNT, Options
from common.config import check_size
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.engine.measurement import Measurement
    from bench.engine.task import Task
    from bench.environments.builder import Builder
    from bench.runfile import FileKind
    from bench.samples import Sample


def make_option(name: str, *flags: str, **more: Any) -> Any:
    """Return a command's option, with the name, help and metavar of a field of `Options`."""
    flags = flags or (f"--{name.replace('_', '-')}",)
    text = ABOUT[name]["help"]
    settings = {"help": f"{text[0].upper()}{text[1:]}.", "metavar": ABOUT[name]["metavar"]} | more
    return typer.Option(*flags, **settings)


StepFile = Annotated[
    Path | None,
    typer.Option(
        "--step",
        metavar="FILE",
        help="Measure your own training step, in this file, instead of the RNN; `bakeoff new mine "
        "--model equinox` writes a file to start from.",
    ),
]
StyleNames = Annotated[
    list[str] | None,
    typer.Option(
        "--style",
        metavar="NAME",
        help="Only this style, as in jit or flax_nnx/jit; for several, repeat the option or give "
        "a,b.",
    ),
]
BackendName = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="cpu, gpu, tpu, … or one device of it, as gpu:1.",
        show_default="an accelerator, else cpu",
    ),
]
Margin = Annotated[float, make_option("margin")]
Pairs = Annotated[
    int | None,
    make_option("processes", "--pairs", help="Pairs of workers.", show_default=BY_BUDGET),
]
Blocks = Annotated[int | None, make_option("blocks", show_default=BY_BUDGET)]
OutputFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="A new file.", show_default="standard output")
]
Details = Annotated[bool, typer.Option("--details", "-v", help="Show all sentences and tables.")]
RESUME_METAVAR = "[FILE]"
"""By which commands know that their `--resume` may have no value."""


@dataclass(frozen=True)
class Showing:
    """Options of what is shown, and where."""

    output: OutputFile = None
    format_: Annotated[
        Literal["text", "md", "json", "html"] | None,
        typer.Option(
            "--format",
            help="text for a terminal, md for a pull request, html for a page, json for a run "
            "file.",
            show_default="by the output's ending, else text",
        ),
    ] = None
    details: Details = False

    def choose(self) -> Output:
        """Return the form and place; raise BakeoffError if the file's ending is unknown."""
        return Output.choose(self.format_, self.output, details=self.details)


@dataclass(frozen=True)
class Selecting:
    """Options of which cells and metrics are measured, but for styles."""

    step: StepFile = None
    entrant: Annotated[
        list[str] | None,
        typer.Option(
            "--entrant",
            metavar="NAME",
            help="Only this entrant; for several, repeat the option or give a,b. For an entrant of "
            "your own, give the path of its .py file.",
        ),
    ] = None
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            metavar="NAME",
            help="Only this workload; for several, repeat the option or give a,b.",
            show_default="toy, depth12 and seed",
        ),
    ] = None
    backend: BackendName = None
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Only this metric; for several, repeat the option or give a,b.",
            show_default="step, host_cost, trace, lower, compile and cold metrics",
        ),
    ] = None

    def parse(self, styles: Iterable[str] | None) -> Selection:
        """Return the selection of cells and metrics that these options ask for.

        Raises:
            BakeoffError: there is no such entrant, workload or file, or a metric is not one that
                two sides can be compared by.
        """
        from bench.prepare.sides import require_metrics

        given = {"entrant": self.entrant, "style": styles, "workload": self.workload}
        chosen = Selection.parse(given | {"metric": self.metric, "backend": ()})
        if self.step is not None:
            for option, names in (("--entrant", chosen.entrants), ("--workload", chosen.workloads)):
                if names:
                    raise BakeoffError(
                        f"--step is measured alone, and {option} is given; leave one of the two out"
                    )
            name = name_step(self.step)
            chosen = replace(chosen, workloads=(name,), files={name: str(self.step.resolve())})
        for name in chosen.entrants:
            impls.require_shared(impls.locate(name, chosen.files))
        require_metrics(chosen.metrics)
        chosen.check_names()
        return replace(chosen, backends=(self.backend,) if self.backend else ())


@dataclass(frozen=True)
class Measuring:
    """Options of how long and in what a command measures, and how it goes on."""

    budget: Annotated[float, make_option("budget", help="Wall time of measuring, in seconds.")] = (
        600.0
    )
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar=RESUME_METAVAR,
            help="Continue an earlier run of the same command; with FILE, add a further budget to "
            "that run file; without, continue the run that was cut off last.",
        ),
    ] = None
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait until other runs on this machine have ended; without it, they are an error.",
        ),
    ] = False
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="PACKAGE",
            help="Also install this package, which your step imports, in the environments: "
            "einops or einops==0.8.1, for example. For several, repeat the option.",
        ),
    ] = None

    def make_builder(self, kind: FileKind | None = None) -> Builder:
        """Return a builder of environments, once it is known that nothing else is in the way.

        What is wrong with a file of this kind to go on with is told before anything is built.
        Another run on this machine is a BakeoffError, unless it is waited for later.
        """
        from bench.engine.journal import open_journals, require_journals_folder
        from bench.engine.machine import require_free_machine
        from bench.environments.builder import Builder

        if kind is not None and self.resume is not None:
            next(open_journals(kind, self.resume))
        require_journals_folder()
        if not self.wait:
            require_free_machine()
        return Builder(notify=error_console().print, extras=parse_requirements(self.with_))

    def measure(
        self,
        task: Task,
        is_enough: Callable[[Sequence[Sample]], bool] = lambda _samples: False,
        *,
        goes_on: bool = True,
    ) -> Measurement:
        """Measure a task, and show the progress; if it is cut off, say how to go on.

        `is_enough` gets the samples between visits, and says whether they do. `goes_on` says
        whether the command takes `--resume`.

        Raises:
            KeyboardInterrupt: it was cut off.
            DiskError: the disk is full.
        """
        from bench.engine.journal import find_journals
        from bench.engine.measurement import measure
        from bench.engine.progress import Progress

        def measure_sizes() -> dict[Path, int]:
            return {path: path.stat().st_size for path in find_journals(task.kind)}

        console, before = error_console(), measure_sizes()
        notes = dict.fromkeys(note for side in task.sides.values() for note in side.offer.notes)
        for note in notes:
            console.print(note)

        def is_kept() -> bool:  # not while another run is waited for
            return goes_on and (self.resume == "" or measure_sizes() != before)

        with (
            promise_resumption(is_kept, without_file=bool(self.resume)),
            Progress(console, task.options.budget) as shown,
        ):
            return measure(
                task, wait=self.wait, resume=self.resume, on_progress=shown, is_enough=is_enough
            )


def check_options(options: Options) -> Options:
    """Return valid options; raise BakeoffError if they are not."""
    if options.processes is not None:
        check_size("--pairs", options.processes, most=MOST_COUNT)
    options.check()
    return options


def parse_requirements(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return packages as pip writes them.

    Raises:
        BakeoffError: one is no requirement.
    """
    try:
        if odd := next((value for value in values or () if not value.isprintable()), None):
            raise InvalidRequirement(f"{odd!r} has characters that are not printable")
        return tuple(str(Requirement(value)) for value in values or ())
    except InvalidRequirement as error:
        raise BakeoffError(
            f"--with: {' '.join(str(error).split())}; give a package, as in einops or einops==0.8.1"
        ) from error
