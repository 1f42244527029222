"""Tasks: cells to measure in some environments, the groups of these, and the state of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import InitVar, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import impls
from bench.cells import BASELINE, CONTROL, REFERENCE, Arm, Cell
from bench.engine.actions import Action
from bench.estimates import group_by_key
from bench.offer import Offer
from bench.runfile import LONGEST_TEXT, CellResult
from common.errors import mask_secrets
from common.versions import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.engine.process import Interpreter, WorkerFailedError
    from bench.options import Options
    from bench.runfile import EnvironmentInfo, FileKind
    from bench.worker.protocol import Command

FATAL_ARM_DEATHS = 2
"""Deaths of workers at the same work of an arm, with no success in between, that fail the arm:
one may be the system's. In blocks, a success is a worker that lives to its end."""
FATAL_OTHER_DEATHS = 4
"""Deaths in a row with no arm at work after which no worker of an environment is started."""
COLD_DEATHS = 3
"""Cold processes of a cell that may die before no more are begun."""


@dataclass(frozen=True)
class Environment:
    """A Python with packages, built: how its workers are started, and its contents."""

    interpreter: Interpreter
    info: EnvironmentInfo
    """Its part of a run file. Until a worker was asked, `versions` has packages built from sources
    alone, named by their commits."""
    python: str = PYTHON
    """Minor version of Python, as in `3.12`."""
    offer: Offer = field(default_factory=Offer)
    """Contents, as a worker reports them; empty until one was asked."""


@dataclass(frozen=True)
class Task:
    """Cells to measure in some environments, and the environments that alternate."""

    kind: FileKind
    arguments: tuple[str, ...]
    """The command line after the program's name, to repeat it by."""
    needed: Mapping[str, Mapping[Cell, frozenset[str]]]
    """Name of an environment → cell → metrics; baselines are added."""
    sides: Mapping[str, Environment]
    """Name → environment."""
    options: Options
    groups: Sequence[tuple[str, ...]] = ()
    """Names of environments whose workers alternate; each runs alone if there are none."""
    base: str = ""
    """Environment that others are compared with; empty where arms are compared with the
    baseline."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """Entrant or training step of a user's own → its file."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Requested style that cannot take part → why."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Entrant → a remark."""
    metrics: Sequence[str] = ()
    """Metrics requested by name, empty for all: with `all_together`, no others are compared."""
    all_together: bool = False
    """Whether intervals hold for all rows together, since the rows give one answer."""
    calls_first: bool = False
    """Whether calls at a tiny size go before all else: what a library's release changes."""


@dataclass(eq=False)
class SideState:
    """State of one environment on one backend; at first, nothing is measured."""

    environment: str
    backend: str
    needed: Mapping[Cell, frozenset[str]]
    """Cell → requested metrics; baselines and controls are not among the keys."""
    control: InitVar[bool]
    """Whether a control is measured beside the baseline."""
    problems: InitVar[Mapping[str, str]]
    """Entrant that cannot be loaded → why."""
    cells: dict[Cell, CellResult] = field(init=False)
    """Cell → its result; the baseline's and the control's are included."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what went wrong on the way."""
    provers: dict[Cell, int] = field(default_factory=dict)
    """Cell → the worker that proves it, or did so last."""
    strikes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(arm, action, workload) → deaths in a row; the arm is empty where none was at work."""
    deaths: dict[tuple[str, str], str] = field(default_factory=dict)
    """(arm, workload) → why a worker died at its work, until one does well there."""
    disturbed: set[tuple[Cell, str]] = field(default_factory=set)
    """Cells and kinds of turns of which other processes have spoiled a block."""
    cold_deaths: Counter[Cell] = field(default_factory=Counter)
    given_up: bool = False
    """Whether its workers kept dying with no arm at work."""

    def __post_init__(self, control: bool, problems: Mapping[str, str]) -> None:
        references = (BASELINE, CONTROL) if control else (BASELINE,)
        added = [arm.make_cell(c.workload, self.backend) for c in self.needed for arm in references]
        self.cells = {
            cell: CellResult(cell=cell, environment=self.environment)
            for cell in [*added, *self.needed]
        }
        for cell in self.list_live_cells():
            if cell.entrant in problems:
                self.fail(cell, problems[cell.entrant])

    def list_live_cells(self, workload: str | None = None) -> list[Cell]:
        """Return the cells that have not failed."""
        return [
            cell
            for cell, result in self.cells.items()
            if result.failure is None and workload in (None, cell.workload)
        ]

    def cell(self, arm: str, workload: str) -> Cell:
        """Return an arm's cell."""
        return Arm.parse(arm).make_cell(workload, self.backend)

    def is_proven(self, cell: Cell) -> bool:
        """Tell whether a cell has been proven equal."""
        return cell in self.cells and self.cells[cell].proof is not None

    def may_begin_cold(self, cell: Cell) -> bool:
        """Tell whether more cold processes of a cell are begun, if there is time."""
        return self.cells[cell].failure is None and self.cold_deaths[cell] < COLD_DEATHS

    def make_action(self, worker: int, command: Command | None = None, **more: Any) -> Action:
        """Return an action for one of this side's workers."""
        return Action(worker, self.environment, command, **more)

    def fail(self, cell: Cell, failure: str, stderr: str = "") -> None:
        """Fail a cell; the first reason stays. Without a baseline there are no others."""
        result = self.cells[cell]
        if result.failure is None:
            result.failure = mask_secrets(failure)[:LONGEST_TEXT]
            result.stderr = mask_secrets(stderr)[-LONGEST_TEXT:]
        if cell.is_baseline:
            for other in self.list_live_cells(cell.workload):
                self.fail(other, f"there is no baseline: {failure}", stderr)

    def fail_arm(self, arm: str, failure: str, workload: str = "", stderr: str = "") -> None:
        """Fail an arm's cells, at one workload or at all."""
        for cell in self.list_live_cells(workload or None):
            if str(cell.arm) == arm:
                self.fail(cell, failure, stderr)

    def note_success(self, action: Action) -> None:
        """Forget deaths at an action that succeeded; in blocks, `note_survival` does so."""
        for arm in ("", *action.arms):
            self.deaths.pop((arm, action.workload), None)
            if action.do != "block" or not arm:
                self.strikes.pop((arm, action.do, action.workload), None)

    def note_survival(self, workload: str, arms: Iterable[str]) -> None:
        """Forget deaths in the blocks of arms whose worker has lived to its end.

        A style that dies in every sixtieth call has good blocks before.
        """
        for arm in arms:
            self.strikes.pop((arm, "block", workload), None)

    def note_death(self, death: WorkerFailedError, action: Action) -> None:
        """Note at which arm a worker died; after too many deaths, fail the arm or the side."""
        if death.is_late:  # when time is over, all lanes are ended, whatever they are at
            return
        strike = death.blamed, action.do, action.workload
        self.strikes[strike] += 1
        whose = f" at {death.blamed}" if death.blamed else ""
        self.notes.append(f"a worker was started again{whose}: {death.reason}")
        self.deaths[death.blamed, action.workload] = death.reason
        if death.blamed and self.strikes[strike] >= FATAL_ARM_DEATHS:
            failure = f"{death.reason}, twice in a row"
            self.fail_arm(death.blamed, failure, action.workload, death.stderr)
        elif not death.blamed and self.strikes[strike] >= FATAL_OTHER_DEATHS:
            self.given_up = True
            for cell in self.list_live_cells():
                if not self.is_proven(cell):
                    self.fail(cell, death.reason, death.stderr)


type Group = tuple[SideState, ...]
"""Sides whose workers alternate: one alone, or two."""
type GroupCell = tuple[Group, Cell]
"""A cell, and the sides that it is measured on."""


def find_live_cells(group: Group, workload: str) -> dict[str, Cell]:
    """Return arm → cell, for cells alive on all sides, in a fixed order."""
    sides = [{str(cell.arm): cell for cell in side.list_live_cells(workload)} for side in group]
    return {arm: sides[0][arm] for arm in sorted(set.intersection(*map(set, sides)))}


def find_group_arms(group: Group, workload: str, *, unproven: bool) -> dict[str, Cell]:
    """Return arm → cell, for cells alive on all sides; with those that a side has not proven."""
    cells = find_live_cells(group, workload)
    return {
        arm: cell
        for arm, cell in cells.items()
        if unproven or all(side.is_proven(cell) for side in group)
    }


def is_partly_proven(group: Group, workload: str) -> bool:
    """Tell whether the baseline and another style are proven on all sides, and not yet all arms."""
    proven = find_group_arms(group, workload, unproven=False)
    others = [cell for cell in proven.values() if cell.arm not in REFERENCE]
    return (
        str(BASELINE) in proven
        and bool(others)
        and len(proven) < len(find_live_cells(group, workload))
    )


def make_groups(task: Task) -> list[Group]:
    """Return the groups of sides that alternate, on each backend that all sides have."""

    @cache  # an environment that is in several groups has one state
    def state(name: str, backend: str, *, control: bool) -> SideState:
        needed = {c: metrics for c, metrics in task.needed[name].items() if c.backend == backend}
        return SideState(name, backend, needed, control, task.sides[name].offer.problems)

    groups: list[Group] = []
    for names in task.groups or [(name,) for name in task.needed]:
        cells = [cell for name in names for cell in task.needed[name]]
        for backend in dict.fromkeys(cell.backend for cell in cells):
            group = tuple(state(name, backend, control=len(names) == 1) for name in names)
            if all(side.needed for side in group):
                groups.append(group)
    return groups


def find_programs(rows: Iterable[CellResult]) -> dict[Cell, str]:
    """Return cell → fingerprint of its program; of two environments, of both programs.

    Cells with the same fingerprints share samples; one with an unknown program is left out.
    """
    programs = group_by_key((row.cell, row.program) for row in rows)
    return {cell: " ".join(dict.fromkeys(p)) for cell, p in programs.items() if all(p)}


def note_twins(rows: Sequence[CellResult]) -> None:
    """Write into the proofs which reference's program a cell has, if it is not the baseline's."""
    references = {
        (row.environment, row.cell.backend, row.cell.workload, row.program): row.cell.arm
        for row in rows
        if row.failure is None
        and row.program
        and row.cell.style in impls.find_declaration(row.cell.entrant).references
    }
    for row in rows:
        twin = references.get((row.environment, row.cell.backend, row.cell.workload, row.program))
        if row.proof:
            is_known = row.proof.same_program or not row.proof.whole_step
            row.proof.twin = "" if is_known or twin in (None, row.cell.arm) else str(twin)


def find_same_programs(rows: Iterable[CellResult]) -> set[Cell]:
    """Return the cells whose whole step is the baseline's program, without failed ones."""
    proofs = {row.cell: row.proof for row in rows if row.failure is None}
    return {cell for cell, proof in proofs.items() if proof is not None and proof.same_program}
