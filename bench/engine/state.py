"""What has been found so far, by side; failures, and whose fault they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, CONTROL, Arm, Cell
from bench.engine.actions import Action
from bench.samples import Found, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.engine.actions import Death, Do

IN_A_ROW = 2
"""Deaths at the same arm's turn of the same kind, with no success in between, that fail the arm."""
AT_NO_TURN = 4
"""The same, at no arm's turn, after which no worker of a side is started any more."""


@dataclass
class Side:
    """One environment on one backend: its cells, and deaths of its workers."""

    name: str
    backend: str
    state: State
    claimed: set[Cell] = field(default_factory=set)
    """Cells that a living worker is proving."""
    strikes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Deaths in a row by arm, what was done, and workload; the arm is empty at no arm's turn."""
    cold_deaths: Counter[Cell] = field(default_factory=Counter)
    given_up: bool = False
    """Its workers kept dying at no arm's turn."""

    @classmethod
    def of(cls, name: str, backend: str, cells: Iterable[Cell]) -> Side:
        """Return a side that has measured nothing."""
        return cls(name, backend, State({cell: Found() for cell in cells}))

    def alive(self, workload: str | None = None) -> list[Cell]:
        """Return the cells that have not failed."""
        return [
            cell
            for cell, found in self.state.cells.items()
            if found.failure is None and workload in (None, cell.workload)
        ]

    def cell(self, arm: str, workload: str) -> Cell:
        """Return an arm's cell."""
        return Arm.of(arm).at(workload, self.backend)

    def proven(self, cell: Cell) -> bool:
        """Tell whether a cell has been shown to be equal."""
        return self.state.cells[cell].proof is not None

    def action(
        self, do: Do, worker: int, workload: str = "", arms: Iterable[str] = (), **more: Any
    ) -> Action:
        """Return something for one of this side's workers to do."""
        return Action(do, worker, self.name, self.backend, workload, tuple(arms), **more)

    def fail(self, cell: Cell, failure: str, stderr: str = "") -> None:
        """A cell has failed; the first reason stays. Without a baseline there are no others."""
        found = self.state.cells[cell]
        if found.failure is None:
            found.failure, found.stderr = failure, stderr
        if cell.is_baseline:
            for each in self.alive(cell.workload):
                self.fail(each, f"there is no baseline: {failure}", stderr)

    def fail_arm(self, arm: str, failure: str, workload: str = "", stderr: str = "") -> None:
        """Fail an arm's cells, at one workload or at all."""
        for cell in self.alive(workload or None):
            if str(cell.arm) == arm:
                self.fail(cell, failure, stderr)

    def did_well(self, action: Action) -> None:
        """Forget deaths at what has now been done."""
        for arm in ("", *action.arms):
            self.strikes.pop((arm, action.do, action.workload), None)

    def died(self, death: Death, action: Action) -> None:
        """Note at whose turn a worker died; what died too often fails."""
        if death.cut:
            return
        strike = death.arm, action.do, action.workload
        self.strikes[strike] += 1
        whose = f" at the turn of {death.arm}" if death.arm else ""
        self.state.notes.append(f"a worker was started again{whose}: {death.reason}")
        if death.arm and self.strikes[strike] >= IN_A_ROW:
            failure = f"{death.reason}, twice in a row"
            self.fail_arm(death.arm, failure, action.workload, death.stderr)
        elif not death.arm and self.strikes[strike] >= AT_NO_TURN:
            self.given_up = True
            for cell in self.alive():
                if not self.state.cells[cell].blocks:
                    self.fail(cell, death.reason, death.stderr)


def with_references(cells: Iterable[Cell], *, control: bool = True) -> list[Cell]:
    """Return cells, before those of each workload its baseline, and its control if wanted."""
    cells = list(cells)
    names = (BASELINE, CONTROL) if control else (BASELINE,)
    references = [Cell(*name, cell.workload, cell.backend) for cell in cells for name in names]
    return list(dict.fromkeys([*references, *cells]))
