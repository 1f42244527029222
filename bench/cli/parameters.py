"""Parameters that several commands share, as Typer reads them from annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from packaging.requirements import InvalidRequirement, Requirement

from bench.options import ABOUT, BY_BUDGET
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable


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
        help="Your own training step in place of the RNN: a file that `bakeoff new mine --model "
        "equinox` begins.",
    ),
]
EntrantNames = Annotated[
    list[str] | None,
    typer.Option(
        "--entrant",
        metavar="NAME",
        help="These only; again, or as a,b. One of your own by the path of its .py file.",
    ),
]
StyleNames = Annotated[
    list[str] | None,
    typer.Option(
        "--style",
        metavar="NAME",
        help="These only, as in jit or flax_nnx/jit; again, or as a,b.",
    ),
]
WorkloadNames = Annotated[
    list[str] | None,
    typer.Option("--workload", metavar="NAME", show_default="toy, depth12 and seed"),
]
MetricNames = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", show_default="step, host_cost and what happens once"),
]
BackendName = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", show_default="an accelerator, else cpu"),
]
Budget = Annotated[float, make_option("budget", help="Wall time of measuring, in seconds.")]
Margin = Annotated[float, make_option("margin")]
Pairs = Annotated[
    int | None,
    make_option("processes", "--pairs", help="Pairs of workers.", show_default=BY_BUDGET),
]
Blocks = Annotated[int | None, make_option("blocks", show_default=BY_BUDGET)]
Cores = Annotated[
    Literal["one", "all"],
    make_option(
        "cores",
        help="one: each worker on one core, several at a time, which is the more precise; all: as "
        "users run it.",
        metavar="one|all",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what was cut off, given the same options.")
]
More = Annotated[
    Path | None,
    typer.Option(
        "--more",
        metavar="RUN.json",
        help="Go on with what the same command has written by -o RUN.json: its samples count, too.",
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="PACKAGE",
        help="Install this, too, in the environments that are measured: what your step imports, as "
        "in einops or einops==0.8.1. Again for more.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait in line for other runs on this machine; without it, a running one is an error.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A new file.", show_default="standard output")
]
Format = Annotated[
    Literal["text", "md", "json", "html"] | None,
    typer.Option(
        "--format",
        help="text for a terminal, md for a pull request, html for a page, json for a run file.",
        show_default="by the output's ending, else text",
    ),
]
Details = Annotated[bool, typer.Option("--details", "-v", help="All sentences and tables.")]


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
