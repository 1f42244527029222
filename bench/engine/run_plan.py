"""The plan of a run: one environment and backend after the other, each with a share of the time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.engine.environment_plan import EnvironmentPlan, Settled
from bench.engine.scheduler import Scheduler
from bench.engine.state import Side, with_references
from bench.metrics import METRICS, Kind
from bench.samples import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Lanes, Options
    from bench.samples import Cores

APART = 6
"""Cells whose time it takes to start an environment's own workers."""


@dataclass
class RunPlan:
    """All environments and backends of a run."""

    needed: Mapping[Cell, set[str]]
    """Metrics to measure, by cell; the baseline and its control are added."""
    options: Options
    before: float = 0.0
    """Seconds that had been spent when the first action was asked for."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Entrants that cannot be loaded, and why."""
    environments: Mapping[str, str] = field(default_factory=dict)
    """What has workers of its own, by entrant or by arm; see `Offer.sides`."""
    lanes: Sequence[Cores] = ((),)
    """A core for each worker that may run at the same time as others."""
    settled: Settled = lambda _state, _turn: frozenset()
    """Says which arms need no more time."""

    def __post_init__(self) -> None:
        self.groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.needed:
            self.groups.setdefault((self.side_of(cell), cell.backend), []).append(cell)
        self.sides = {
            key: Side.of(*key, with_references(cells)) for key, cells in self.groups.items()
        }
        for side in self.sides.values():
            for cell in side.alive():
                if cell.entrant in self.problems:
                    side.fail(cell, self.problems[cell.entrant])
        self.scheduler = Scheduler({}, self.options, self.before)
        self.spent, self.end = self.scheduler.spent, self.scheduler.end

    def side_of(self, cell: Cell) -> str:
        """Return the environment that a cell is measured in; empty for the shared one."""
        own = self.environments.get(cell.entrant, "")
        return self.environments.get(f"{cell.entrant}/{cell.style}", own)

    def actions(self) -> Lanes:
        """Yield what to do, one environment and backend after the other."""
        for part in self.parts():
            yield from part.actions()

    def outline(self) -> list[str]:
        """Return what is going to be done, a line for each environment and backend."""
        return [part.outline() for part in self.parts()]

    def parts(self) -> Iterator[EnvironmentPlan]:
        """Yield the parts; the time that is left is shared out by numbers of cells."""
        shares = Counter(
            {key: len(cells) + 2 + (APART if key[0] else 0) for key, cells in self.groups.items()}
        )
        keys = sorted(self.groups)  # the shared environment first: it has the baseline's cold ones
        backends: set[str] = set()
        for i, key in enumerate(keys):
            left = self.end - self.spent.wall
            total = sum(shares[k] for k in keys[i:])
            side = self.sides[key]
            self.scheduler.sides = {side.name: side}
            side.state.spent = self.spent
            yield EnvironmentPlan(
                self.scheduler,
                side,
                {cell: self.needed[cell] for cell in self.groups[key]},
                self.lanes,
                self.spent.wall + left * shares[key] / total,
                self.settled,
                side.backend not in backends,
            )
            backends.add(side.backend)

    @property
    def state(self) -> State:
        """All that was found; of a baseline, what the shared environment says first.

        Ratios are formed within a worker, so all of its blocks count; cold samples of another
        environment count where there are no others.
        """
        whole = State({}, spent=self.spent)
        for side in self.sides.values():
            found = side.state
            whole.blocks.extend(found.blocks)
            whole.notes.extend(note for note in found.notes if note not in whole.notes)
            whole.missing |= found.missing
            whole.plan |= found.plan
            for cell, own in found.cells.items():
                if cell not in whole.cells:
                    blocks = {metric: list(each) for metric, each in own.blocks.items()}
                    whole.cells[cell] = replace(own, blocks=blocks)
                    continue
                first = whole.cells[cell]
                had = set(first.blocks)
                for metric, each in own.blocks.items():
                    if METRICS[metric].kind is Kind.WARM or metric not in had:
                        first.blocks.setdefault(metric, []).extend(each)
                if first.proof is None:
                    first.proof, first.exact = own.proof, own.exact
                    first.facts = first.facts or own.facts
                if not first.blocks and first.failure is None:
                    first.failure, first.stderr = own.failure, own.stderr
        return whole
