"""What commands that measure sides in turns have in common: options, progress, and Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from bench.cells import Selection
    from bench.engine.actions import Action
    from bench.samples import Spent

MARGIN = 0.02
"""Inside of which, as a fraction, two times are equivalent."""
MOST = 1000
"""Of what is counted: pairs, blocks, visits."""
AS_BUDGETED = "as the budget goes"

Entrants = Annotated[
    list[str] | None,
    typer.Option("--entrant", metavar="NAME", help="These only; again, or as a,b."),
]
Workloads = Annotated[
    list[str] | None, typer.Option("--workload", metavar="NAME", show_default="toy and seed")
]
Backend = Annotated[
    str | None, typer.Option(metavar="NAME", show_default="an accelerator, else cpu")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", show_default="step, host_cost and all cold ones"),
]
Blocks = Annotated[
    int | None,
    typer.Option(help="Blocks of each turn in a pair of workers.", show_default=AS_BUDGETED),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what was cut off, given the same options.")
]
Details = Annotated[bool, typer.Option("--verbose", "-v", help="All sentences and tables.")]


def names(given: list[str] | None) -> tuple[str, ...]:
    """Return names that were given again, or with commas in between."""
    parts = (part.strip() for value in given or () for part in value.split(","))
    return tuple(filter(None, parts))


def selection(
    entrant: list[str] | None,
    styles: tuple[str, ...],
    workload: list[str] | None,
    backend: str | None,
) -> Selection:
    """Return the cells that are asked for; raise BakeoffError where there is no such entrant."""
    import impls
    from bench.cells import Selection

    entrants = names(entrant)
    for name in entrants:
        impls.require_here(name)
    return Selection(entrants, styles, names(workload), (backend,) if backend else ())


def metrics_of(given: tuple[str, ...]) -> frozenset[str]:
    """Return the metrics to measure; raise BakeoffError unless each is measured side by side."""
    from bench.engine.sides_plan import DEFAULT_METRICS
    from bench.metrics import EXACT, METRICS

    for name in given:
        if name not in METRICS | EXACT:
            raise unknown("metric", name, [name for name in METRICS if name in DEFAULT_METRICS])
        if name not in DEFAULT_METRICS:
            known = ", ".join(name for name in METRICS if name in DEFAULT_METRICS)
            raise BakeoffError(
                f"metric {name!r} is not measured side by side; give one of {known}. Exact counts "
                "are compared always; `pytest bench` measures the others"
            )
    return frozenset(given) or DEFAULT_METRICS


def check_counts(budget: float, **counts: int | None) -> None:
    """Raise BakeoffError unless a budget and the counts that are given can be measured."""
    from common.config import check_rate, check_size

    check_rate("--budget", budget)
    for option, count in counts.items():
        if count is not None:
            check_size(f"--{option.replace('_', '-')}", count, most=MOST)


def error_console() -> Console:
    """Return where progress and remarks are shown."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    console: Console, budget: float, *, resumable: bool = True
) -> Iterator[Callable[[Action, Spent], None]]:
    """Show how far a measurement is; after Ctrl-C, say how to go on where something is kept."""
    from bench.report.progress import Shown

    begun = False
    try:
        with Shown(console, budget) as shown:

            def told(action: Action, spent: Spent) -> None:
                nonlocal begun
                begun = True
                shown(action, spent)

            yield told
    except KeyboardInterrupt:
        if begun and resumable:
            console.print(
                "what was measured is safe: go on with the same command and --resume", markup=False
            )
        raise


@contextmanager
def announced(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Show what is done at the moment: in one line of a terminal, line by line elsewhere."""
    if not console.is_terminal:
        yield lambda now: console.print(now, markup=False)
        return
    with console.status(text) as status:
        yield status.update
