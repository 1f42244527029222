"""Commands about entrants: `bakeoff new` begins one, `check` judges it, `entrants` lists all."""

from __future__ import annotations

import keyword
import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import impls
from bench.cells import parse_names, require_known
from bench.cli.output import publish
from bench.cli.parameters import StyleNames  # noqa: TC001 -- Typer reads the annotations
from bench.files import atomic_write, require_new
from bench.report.table import Column, Document, Row, Section, Table
from bench.streams import say
from common.config import WORKLOADS, check_rate
from common.errors import BakeoffError
from impls.starters import ENTRANT, WHOLE_STEP, list_models, read_starter

if TYPE_CHECKING:
    from bench.environments.builder import Builder

COLUMNS = ("entrant", "library", "version", "environment", "code lines", "styles")
EXAMPLES = """\
bakeoff new mine --model equinox
bakeoff new mylib --into impls
bakeoff check mine.py
bakeoff check haiku
bakeoff check mine.py --style pure --only equality,retrace
bakeoff entrants
bakeoff entrants --build keras --build penzai"""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the file: a Python name.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="LIBRARY",
            help="Write a training step of your own, with a model of this library: equinox, "
            "flax_nnx, flax_linen, haiku or pure_jax; make_step: a whole step without a model.",
            show_default="write an entrant",
        ),
    ] = None,
    into: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
) -> None:
    """Write NAME.py, the beginning of a training step of your own, or of an entrant.

    `bakeoff cost NAME.py` measures a step. `bakeoff check NAME.py` says what to write next in an
    entrant.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BakeoffError(
            f"{name!r} is not a Python identifier; give a name of letters, digits and _"
        )
    taken = {
        "a workload": WORKLOADS,
        "an entrant": impls.names(),
        "a reserved name": impls.RESERVED,
    }
    for kind, known in taken.items():
        if name in known:
            raise BakeoffError(f"there is {kind} {name!r} already; give another name")
    path = into / f"{name}.py"
    require_new(path, "file")
    if name in ("conftest", "__main__") or find_spec(name):
        raise BakeoffError(f"a file {name}.py would hide the module {name}; give another name")
    next_commands = {ENTRANT: "check", WHOLE_STEP: "ab --base @-30d --step"}
    if model:
        require_known("model", [model], [*list_models(), WHOLE_STEP])
    starter = model or ENTRANT
    next_command = next_commands.get(starter, "cost")
    atomic_write(path, read_starter(starter, name))
    print(f"wrote {path}; next: bakeoff {next_command} {shlex.quote(str(path))}")


def check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A Python file, or an entrant of this project.")
    ],
    style: StyleNames = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Checks to run, as a,b; contract is always run.",
            show_default="all",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that each check may take.")] = 60.0,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Backend to run on: cpu, gpu, tpu, …")
    ] = "cpu",
) -> int:
    """Check an entrant: contract, numbers, and whether warm calls compile anything.

    This executes the file, with your rights: read it first if it is not yours.

    Exit status: 0 no findings, 1 findings, 2 wrong use.

    It finds mistakes. It does not find a file that is written to deceive it.
    """
    from rich.console import Console

    from bench.check.judge import CHECKS
    from bench.check.runner import CheckOptions, Runner, find_entrant
    from bench.report.documents.check import describe_checks

    check_rate("--time-limit", time_limit)
    checks = parse_names(only) or tuple(CHECKS)
    require_known("check", checks, CHECKS)
    whole = f"{impls.source(find_entrant(path)).stem}/"
    styles = tuple(name.removeprefix(whole) for name in parse_names(style))
    options = CheckOptions(styles, checks, time_limit, backend)
    print(f"bakeoff: {path} will be executed now, with your rights", file=sys.stderr)
    with Console(stderr=True, highlight=False).status(f"{path}: starting", spinner="line") as line:

        def on_progress(style: str, check: str) -> None:
            line.update(f"{path} {style}: {check}, {CHECKS[check].about}")

        results = Runner(path, options, on_progress).run()
    publish([describe_checks(path, options, results)])
    return int(any(result.outcome == "finding" for result in results))


def entrants(
    build: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Build this entrant's own environment; all: of each."),
    ] = None,
) -> None:
    """List entrants, their styles, versions, environments and lines of code.

    Heavy and unmaintained libraries have environments of their own, which uv builds when they are
    first measured, or with --build.
    """
    from bench.environments.builder import Builder

    isolated = [name for name in impls.names() if impls.find_declaration(name).own_environment]
    to_build = parse_names(build)
    require_known("entrant with an environment of its own", to_build, [*isolated, "all"])
    builder = Builder(notify=say)
    for name in isolated if "all" in to_build else to_build:
        builder.build_entrant(name)
    rows, problems = [], []
    for name in impls.names():
        try:
            rows.append(Row((name, *describe_entrant(name, builder))))
        except BakeoffError as error:
            rows.append(Row((name, *[""] * (len(COLUMNS) - 1))))
            problems.append(str(error))
    columns = tuple(Column(title, number=title == "code lines") for title in COLUMNS)
    sections = (Section("Entrants", tables=(Table(columns, tuple(rows)),)),)
    publish([Document("Entrants", sections=sections, warnings=tuple(problems))])


def describe_entrant(name: str, builder: Builder) -> tuple[str, ...]:
    """Return an entrant's cells of the table, but for its name.

    One with an environment of its own is not imported: its file and its pins are read.

    Raises:
        BakeoffError: it cannot be loaded.
    """
    from bench.worker.counts import count_code_lines

    about = impls.read_declaration(name)
    if about.own_environment:
        pins = dict(text.split("==") for text in about.requirements if text.count("==") == 1)
        version, styles = pins.get(about.distribution, ""), impls.list_styles(name)
        built = builder.find_folder(name) is not None
        environment = "own, built" if built else f"{about.installed} to build".lstrip()
    else:
        styles = list(impls.load(name).styles)
        version, environment = metadata.version(about.distribution), "shared"
    lines = count_code_lines(impls.source(name))
    return about.distribution, version, environment, str(lines), ", ".join(styles)
