"""What is known so far of each environment: its cells, failures, and whose fault they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, CONTROL, Arm, Cell
from bench.engine.actions import Action
from bench.estimates import grouped
from bench.runfile import CellResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.engine.actions import Do
    from bench.engine.process import WorkerFailedError

IN_A_ROW = 2
"""Deaths at the same arm's turn of the same kind, with no success in between, that fail the arm:
one may be the system's. In blocks, that is a worker that lives to its end."""
AT_NO_TURN = 4
"""Deaths in a row at no arm's turn after which no worker of an environment is started any more."""
COLD_DEATHS = 3
"""Cold processes of a cell that may die before no more are begun."""


@dataclass(eq=False)
class SideState:
    """What shares workers: an environment on one backend, of which nothing is measured at first."""

    environment: str
    backend: str
    needed: Mapping[Cell, frozenset[str]]
    """Metrics that were asked for, by cell; baselines and controls are not among the keys."""
    control: InitVar[bool]
    """Whether a control is measured beside the baseline."""
    problems: InitVar[Mapping[str, str]]
    """Entrants that cannot be loaded, and why."""
    cells: dict[Cell, CellResult] = field(init=False)
    """All cells, the baseline's and the control's included."""
    notes: list[str] = field(default_factory=list)
    """What went wrong on the way, in sentences."""
    claimed: dict[Cell, int] = field(default_factory=dict)
    """By cell: the worker that proves it, or did so last."""
    strikes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Deaths in a row by arm, what was done, and workload; the arm is empty at no arm's turn."""
    deaths: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a worker died at an arm's turn at a workload, until one does well there."""
    cold_deaths: Counter[Cell] = field(default_factory=Counter)
    given_up: bool = False
    """Whether its workers kept dying at no arm's turn."""

    def __post_init__(self, control: bool, problems: Mapping[str, str]) -> None:
        references = (BASELINE, CONTROL) if control else (BASELINE,)
        added = [arm.at(c.workload, self.backend) for c in self.needed for arm in references]
        self.cells = {
            cell: CellResult(cell=cell, environment=self.environment)
            for cell in [*added, *self.needed]
        }
        for cell in self.alive():
            if cell.entrant in problems:
                self.fail(cell, problems[cell.entrant])

    def alive(self, workload: str | None = None) -> list[Cell]:
        """Return the cells that have not failed."""
        return [
            cell
            for cell, result in self.cells.items()
            if result.failure is None and workload in (None, cell.workload)
        ]

    def cell(self, arm: str, workload: str) -> Cell:
        """Return an arm's cell."""
        return Arm.of(arm).at(workload, self.backend)

    def proven(self, cell: Cell) -> bool:
        """Tell whether a cell has been shown to be equal."""
        return cell in self.cells and self.cells[cell].proof is not None

    def begins_cold(self, cell: Cell) -> bool:
        """Tell whether more cold processes of a cell are begun, if there is time."""
        return self.cells[cell].failure is None and self.cold_deaths[cell] < COLD_DEATHS

    def action(
        self, do: Do, worker: int, workload: str = "", arms: Iterable[str] = (), **more: Any
    ) -> Action:
        """Return something for one of this side's workers to do."""
        return Action(do, worker, self.environment, self.backend, workload, tuple(arms), **more)

    def fail(self, cell: Cell, failure: str, stderr: str = "") -> None:
        """Fail a cell; the first reason stays. Without a baseline there are no others."""
        result = self.cells[cell]
        if result.failure is None:
            result.failure, result.stderr = failure, stderr
        if cell.is_baseline:
            for other in self.alive(cell.workload):
                self.fail(other, f"there is no baseline: {failure}", stderr)

    def fail_arm(self, arm: str, failure: str, workload: str = "", stderr: str = "") -> None:
        """Fail an arm's cells, at one workload or at all."""
        for cell in self.alive(workload or None):
            if str(cell.arm) == arm:
                self.fail(cell, failure, stderr)

    def did_well(self, action: Action) -> None:
        """Forget deaths at what has now been done; those in blocks, when a worker has lived."""
        for arm in ("", *action.arms):
            self.deaths.pop((arm, action.workload), None)
            if action.do != "block" or not arm:
                self.strikes.pop((arm, action.do, action.workload), None)

    def lived(self, workload: str, arms: Iterable[str]) -> None:
        """Forget deaths in the blocks of arms that a worker has lived with to its end.

        A style that dies in each of its sixtieth calls has good blocks before.
        """
        for arm in arms:
            self.strikes.pop((arm, "block", workload), None)

    def died(self, death: WorkerFailedError, action: Action) -> None:
        """Note at whose turn a worker died; what died too often fails."""
        strike = death.blamed, action.do, action.workload
        self.strikes[strike] += 1
        whose = f" at the turn of {death.blamed}" if death.blamed else ""
        self.notes.append(f"a worker was started again{whose}: {death.reason}")
        self.deaths[death.blamed, action.workload] = death.reason
        if death.blamed and self.strikes[strike] >= IN_A_ROW:
            failure = f"{death.reason}, twice in a row"
            self.fail_arm(death.blamed, failure, action.workload, death.stderr)
        elif not death.blamed and self.strikes[strike] >= AT_NO_TURN:
            self.given_up = True
            for cell in self.alive():
                if not self.proven(cell):
                    self.fail(cell, death.reason, death.stderr)


type Group = tuple[SideState, ...]
"""Sides whose workers take turns: one alone, or two."""


def programs_of(rows: Iterable[CellResult]) -> dict[Cell, str]:
    """Return what each cell compiles: of two environments both, for cells share what is the same.

    Where one is not known, the cell is left out.
    """
    programs = grouped((row.cell, row.program) for row in rows)
    return {cell: " ".join(dict.fromkeys(p)) for cell, p in programs.items() if all(p)}
