"""What commands that measure sides in turns have in common: progress, and what Ctrl-C leaves."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console

    from bench.engine.actions import Action, Options
    from bench.engine.driver import Plan
    from bench.engine.journal import Journal
    from bench.environments.builder import Environment
    from bench.samples import Spent


class Cores(StrEnum):
    """What `--cores` takes where sides are compared."""

    ONE = "one"
    ALL = "all"


def measured[P: Plan](
    console: Console,
    schedule: Callable[[Options, float], P],
    options: Options,
    sides: Mapping[str, Environment],
    header: Mapping[str, Any],
    *,
    kind: str,
    before: float = 0.0,
    resume: bool = False,
) -> tuple[P, Journal]:
    """Measure what a schedule asks for, as `experiment.measure` does, and show the progress."""
    from bench.compare.experiment import RESUMED, measure
    from bench.report.progress import Shown

    begun = False

    try:
        with Shown(console, options.budget) as shown:

            def told(action: Action, spent: Spent) -> None:
                nonlocal begun
                begun = True
                shown(action, spent)

            return measure(
                schedule,
                options,
                sides,
                header,
                kind=kind,
                before=before,
                resume=resume,
                told=told,
            )
    except KeyboardInterrupt:
        if begun and kind in RESUMED:
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
