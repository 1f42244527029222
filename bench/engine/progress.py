"""The progress of a measurement, on a terminal or in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import progress

from bench.numbers import percent
from bench.wording import name_workload

if TYPE_CHECKING:
    from rich.console import Console

    from bench.engine.actions import Action
    from bench.runfile import TimeSpent

LINE_SECONDS = 30
"""Seconds between lines of progress in a pipe or a log."""
WORDS = {
    "load": "starting a worker, importing the libraries",
    "count": "counting what {arm} does",
    "prove": "proving {arm} equal",
    "open": "compiling {arm}",
    "block": "{kind} at {workload}; {blocks} blocks so far",
    "train": "training {arm}",
    "cold": "a fresh process of {arm}",
    "close": "ending a worker",
}
"""`Action.do` → the worker's work in words."""


class Progress(progress.Progress):
    """A display of actions, redrawn only when one begins: nothing runs while a block is timed.

    It is a context manager; `bench.engine.measurement.measure` calls it before each action.
    """

    def __init__(self, console: Console, budget: float) -> None:
        super().__init__(
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.percentage:3.0f} %"),
            progress.TextColumn("{task.completed:.0f} of {task.total:.0f} s: {task.description}"),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self.budget = budget
        """Budget in seconds."""
        self.next_line = 0.0
        """Seconds of the measurement at which a pipe gets its next line."""
        self.bar = self.add_task("", total=budget)

    def __call__(self, action: Action, spent: TimeSpent) -> None:
        """Show the action that begins."""
        arm = action.arms[0] if action.arms else ""
        workload = name_workload(action.workload) if action.workload else ""
        text = WORDS[action.do].format(
            arm=arm, kind=action.kind, workload=workload, blocks=spent.blocks
        )
        if spent.precision:
            text += f"; steps to ±{percent(spent.precision)}"
        seconds = spent.wall_seconds
        if self.console.is_terminal:
            self.update(self.bar, completed=seconds, description=text, refresh=True)
        elif seconds >= self.next_line:
            self.next_line = seconds + LINE_SECONDS
            self.console.print(f"{seconds:.0f} of {self.budget:g} s: {text}", markup=False)
