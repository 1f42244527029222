"""How far a measurement is: a bar on a terminal, a line now and then in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import progress

from bench.cells import Arm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.engine.actions import Action, Spent

LINES = 10
"""Lines that a whole measurement prints in a pipe, about."""
WORDS = {
    "start": "starting a worker",
    "load": "importing the libraries",
    "count": "counting what {arm} does",
    "prove": "proving {arm} equal",
    "open": "compiling {arm}",
    "block": "{kind} at {workload}, {blocks} blocks so far",
    "train": "training {arm}",
    "cold": "a fresh process of {arm}",
    "close": "ending a worker",
}
"""By `Action.do`."""


class Progress(progress.Progress):
    """Shows actions as they begin; redrawn then only, so that nothing runs while a block is timed.

    A context manager, and what `bench.engine.session.measure` calls before each action.
    """

    def __init__(self, console: Console, budget: float) -> None:
        super().__init__(
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.percentage:3.0f} %"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]} to go  {task.description}"),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self.budget = budget
        """Seconds."""
        self.printed = 0
        """Lines that a pipe has got."""
        self.bar = self.add_task("", total=budget, left=clock(budget))

    def plan(self, parts: Sequence[str]) -> None:
        """Show what is going to be measured."""
        for part in parts:
            text = f"plan for {self.budget:g} s, {part}"
            self.console.print(text, markup=False, highlight=False)

    def __call__(self, action: Action, spent: Spent) -> None:
        """Show what begins.

        Args:
            action: The next thing that a worker does.
            spent: Where the time has gone so far.
        """
        arm = Arm.of(action.arms[0]).words if action.arms else ""
        text = WORDS[action.do].format(
            arm=arm, kind=action.kind, workload=action.workload, blocks=spent.blocks
        )
        if self.console.is_terminal:
            left = clock(max(0.0, self.budget - spent.wall))
            self.update(self.bar, completed=spent.wall, description=text, left=left)
            self.refresh()
        elif spent.wall >= self.printed * self.budget / LINES:
            self.printed = int(LINES * spent.wall / self.budget) + 1
            self.console.print(f"{spent.wall:.0f} of {self.budget:g} s: {text}", markup=False)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds: 4:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
