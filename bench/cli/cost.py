"""`bakeoff cost`: what does each way to write a training step cost, yours or one of that size?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

import impls
from bench.cells import name_step, parse_names, require_known
from bench.cli.output import UTF8_FORMATS, Output, finish
from bench.cli.parameters import (
    BackendName,
    Measuring,
    Showing,
    StyleNames,
    check_options,
    make_option,
)
from bench.metrics import HOST
from bench.numbers import words
from bench.options import Options
from bench.streams import read_arguments, say
from bench.workloads import is_skeleton
from common.config import check_size
from common.errors import BakeoffError
from impls.starters import list_models, make_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.samples import Sample

EXAMPLES = """\
bakeoff cost mine.py
bakeoff cost mine.py --style jit,jit_partial --budget 180 -o mine.html
bakeoff cost --arrays 147
bakeoff cost --arrays 300 --model equinox"""
STEP_BUDGET, STACK_BUDGET = 60.0, 20.0
"""Default budgets in seconds: what a step's styles add to a call is known after some ten of them,
and a stack has nothing else to measure."""
MOST_ARRAYS = 10_000
"""Most arrays of a stack: making one of them takes milliseconds in some libraries."""


def cost(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A file with your model, batch and loss; `bakeoff new mine --model equinox` "
            "writes one to start from.",
            show_default=False,
        ),
    ] = None,
    style: StyleNames = None,
    backend: BackendName = None,
    budget: Annotated[
        float | None,
        make_option(
            "budget",
            help="Wall time of measuring, in seconds; with --arrays, for each library.",
            show_default=f"{STEP_BUDGET:g}, with --arrays {STACK_BUDGET:g}",
        ),
    ] = None,
    arrays: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Instead of a file, measure a stack of linear layers with N parameter arrays.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIBRARY",
            help="With --arrays, only this library; for several, repeat the option or give a,b.",
            show_default="all",
        ),
    ] = None,
    showing: Showing = Showing(),
    measuring: Measuring = Measuring(),
) -> int:
    """Show what each style adds to your training step, and what to write instead.

    The time that Python takes in a call is measured on your model's skeleton: the same trees, with
    arrays of one element. This takes seconds. Its result is printed while the real step is being
    compiled, proven equal and timed. With --arrays, a stack of linear layers replaces the model.

    Exit status: 0 done; 1 a style failed; 2 no time to compare a style, or wrong use; 130 Ctrl-C.
    """
    shown = showing.choose()
    styles, libraries = parse_names(style), parse_names(model)
    if (file is None) == (arrays is None):
        raise BakeoffError(
            "give either the file of your step, as in `bakeoff cost mine.py`, or --arrays, the "
            "number of your model's parameter arrays"
        )
    usual = STEP_BUDGET if arrays is None else STACK_BUDGET
    extent = check_options(Options(usual if budget is None else budget))
    if file is not None:
        if libraries:
            raise BakeoffError("--model is for --arrays: a file has its own model; leave it out")
        name_step(file)  # what is wrong with it is told before anything is built
    else:
        if backend is not None or measuring.resume is not None:
            raise BakeoffError("--backend and --resume are for a file: name one")
        chosen = choose_libraries(libraries, styles, shown)
        check_size("--arrays", arrays or 0, most=MOST_ARRAYS)

    from bench.engine.machine import make_folder
    from bench.prepare.run import prepare_step
    from bench.track.own_cost import find_status

    builder = measuring.make_builder("cost")
    statuses = []
    with make_folder("stack") as folder:
        files = {file: styles} if file else write_stacks(chosen, arrays or 0, folder)
        for path, named in files.items():
            task = prepare_step(
                path, extent, named, backend, builder, read_arguments(), is_generated=file is None
            )
            first = FirstAnswer(extent.margin, say)
            made = measuring.measure(task, first, goes_on=file is not None)
            if file is None:  # no --resume goes on with a stack
                made.journal.remove()
            finish(made.results, shown, None if file is None else made.journal.path)
            statuses.append(find_status(made.results))
    return 1 if 1 in statuses else max(statuses)


class FirstAnswer:
    """Tells once what styles add to a call, as soon as that has an interval; the rest goes on."""

    def __init__(self, margin: float, tell: Callable[[str], None]) -> None:
        self.margin, self.tell = margin, tell
        self.is_told = False

    def __call__(self, samples: Sequence[Sample]) -> bool:
        """Look at the samples so far; return False: there is more to measure."""
        light = [s for s in samples if s.metric == HOST and is_skeleton(s.cell.workload)]
        if not self.is_told and light:
            from bench.stats.estimate import estimate  # takes half a second

            rows = estimate(light, margin=self.margin)
            added = [row for row in rows if row.form == "added" and not row.cell.is_control]
            self.is_told = any(row.high is not None and not row.is_unknown for row in added)
            if self.is_told:
                added.sort(key=lambda row: row.value)
                named = ", ".join(f"{row.cell.arm} {words(row)}" for row in added)
                self.tell(f"added to a call, so far: {named}")
        return False


def choose_libraries(
    names: Sequence[str], styles: Sequence[str], output: Output
) -> dict[str, tuple[str, ...]]:
    """Return library → its styles that are named, for the stacks that are measured.

    These are all that there are, unless libraries or styles are named.

    Raises:
        BakeoffError: a name is unknown, or several are to be written to one file.
    """
    known = list_models()
    require_known("model", names, known)
    of_library = {
        name: [n for s in impls.list_styles(name) for n in (s, f"{name}/{s}")]
        for name in names or known
    }
    require_known("style", styles, [name for several in of_library.values() for name in several])
    chosen = {
        library: tuple(name for name in styles if name in own)
        for library, own in of_library.items()
        if not styles or {*own} & {*styles}
    }
    if (output.file is not None or output.form in UTF8_FORMATS) and len(chosen) != 1:
        what = "a file" if output.file is not None else output.form
        raise BakeoffError(f"{what} has one library's stack: name it, as in --model equinox")
    return chosen


def write_stacks(
    libraries: Mapping[str, tuple[str, ...]], arrays: int, folder: Path
) -> dict[Path, tuple[str, ...]]:
    """Write a stack with so many parameter arrays of each library; return file → styles."""
    files = {}
    for library, styles in libraries.items():
        path = folder / f"{library}_{arrays}.py"
        path.write_text(make_stack(library, arrays), "utf-8")
        files[path] = styles
    return files
