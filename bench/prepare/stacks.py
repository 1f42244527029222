"""Sides of a bisection: stacks, each built when the search reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cells import Arm
from bench.prepare.sides import (
    ask_side,
    build_environments,
    choose_cells,
    find_gap,
    make_task,
    require_common,
)
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cells import Cell, Selection
    from bench.engine.task import Environment, Task
    from bench.environments.builder import Builder
    from bench.environments.spec import Spec
    from bench.options import Options


class Stacks:
    """Stacks of a bisection of one style at one workload; each is built once."""

    def __init__(self, selection: Selection, builder: Builder) -> None:
        self.selection, self.builder = selection, builder
        self.pythons: tuple[str, ...] = ()
        """Versions of Python that stacks may have: those of the two ends."""
        self.sides: dict[Spec, Environment] = {}

    def build_ends(self, good: Spec, bad: Spec) -> None:
        """Build both ends.

        Raises:
            BakeoffError: one cannot be built, or both are the same stack.
        """
        ends = build_environments((good, bad), self.builder)
        if ends[0].info.pins == ends[1].info.pins and ends[0].python == ends[1].python:
            raise BakeoffError(
                f"{good} and {bad} are the same stack, release by release; give two that differ"
            )
        self.pythons = tuple(sorted({end.python for end in ends}))

    def environment(self, spec: Spec) -> Environment:
        """Return a stack's environment; raise UnsolvableError if its releases do not fit."""
        return self.builder.build(spec, self.pythons)

    def releases(self, spec: Spec) -> dict[str, str]:
        """Return package → release of a stack."""
        return self.environment(spec).info.pins

    def side(self, spec: Spec) -> Environment:
        """Return a stack's environment with its offer, for which a worker is asked once."""
        if spec not in self.sides:
            self.sides[spec] = ask_side(self.environment(spec), self.selection)
        return self.sides[spec]

    def choose_cell(self, good: Spec, bad: Spec) -> Cell:
        """Return the cell that both ends have, on one backend.

        Raises:
            BakeoffError: there is none.
        """
        chosen, sides = self.selection, {str(spec): self.side(spec) for spec in (good, bad)}
        if not chosen.step:
            arm = Arm(chosen.entrants[0], chosen.styles[0])
            require_style(sides, arm.make_cell(chosen.workloads[0], ""))
        common = require_common(choose_cells(chosen, sides), sides)
        # Of a user's step, plain JAX's `pure` may be there beside that of its library
        return min(common, key=lambda cell: cell.is_baseline)

    def make_task(self, specs: Mapping[str, Spec], cell: Cell, options: Options) -> Task:
        """Return the task of an A/B of one cell.

        Args:
            specs: Name → stack; the first one is the base.
            cell: What is measured.
            options: How much is measured.

        Raises:
            BakeoffError: a stack cannot be built or asked, or has not got the style.
        """
        sides = {name: self.side(spec) for name, spec in specs.items()}
        require_style(sides, cell)
        cells = {name: [cell] for name in sides}
        return make_task("bisect", self.selection, sides, cells, options, next(iter(sides)))


def require_style(sides: Mapping[str, Environment], cell: Cell) -> None:
    """Raise BakeoffError unless all sides have a cell's style."""
    for side in sides.values():
        if why := find_gap(side, cell):
            raise BakeoffError(
                f"{side.info.spec}: {cell.entrant} has no style {cell.style!r} there: {why}"
            )
