"""How far a run is: a bar with a time to go on a terminal, a line now and then in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.samples import Spent

LINES = 10
"""In a pipe, about so many lines for a whole run."""
WORDS = {
    "start": "starting a worker",
    "load": "importing the libraries",
    "count": "counting what {0} does",
    "prove": "proving {0} equal",
    "open": "compiling {0}",
    "prepare": "compiling programs for {1}",
    "block": "{1} at {2}, {3} blocks so far",
    "train": "training {0}",
    "cold": "a fresh process of {0}",
    "close": "ending a worker",
}


class Doing(Protocol):
    """What a worker is about to do."""

    @property
    def do(self) -> str: ...  # noqa: D102 -- a key of WORDS
    @property
    def workload(self) -> str: ...  # noqa: D102
    @property
    def arms(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102


class Shown(Progress):
    """Shows actions; redrawn between them only, so that nothing runs while a block is timed."""

    def __init__(self, console: Console, budget: float) -> None:
        super().__init__(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} to go  {task.description}"),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self.budget, self.blocks, self.lines = budget, 0, 0
        self.task = self.add_task("", total=budget, left=clock_words(budget))

    def plan(self, parts: Sequence[str]) -> None:
        """Show what is going to be done."""
        for part in parts:
            self.console.print(f"plan for {self.budget:g} s, {part}", markup=False, highlight=False)

    def __call__(self, action: Doing, spent: Spent) -> None:
        """Show what comes next."""
        self.blocks += action.do == "block"
        what = WORDS[action.do].format(
            " ".join(action.arms[:1]).replace("/", " "), action.kind, action.workload, self.blocks
        )
        now = spent.wall
        left = clock_words(max(0.0, self.budget - now))
        if self.console.is_terminal:
            self.update(self.task, completed=now, description=what, left=left)
            self.refresh()
        elif now >= self.lines * self.budget / LINES:
            self.lines = int(LINES * now / self.budget) + 1
            self.console.print(f"{now:.0f} of {self.budget:g} s: {what}", markup=False)


def clock_words(seconds: float) -> str:
    """Return a duration as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
