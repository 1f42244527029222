"""History: the stacks of many days, measured in random order beside a stack of reference.

A sweep visits each day once, in random order, while one worker of the reference lives on: what a
day's worker measures is measured by the reference's in turns with it, so that a busy hour is in
both and cancels out.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Cell
from bench.metrics import METRICS, Kind
from bench.track.sides import Sides, living, turns_of
from common.errors import BakeoffError

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence, Set

    from bench.engine.actions import Steps
    from bench.engine.planner import Turn

REFERENCE = "reference"
LEAST_SWEEPS, MOST_SWEEPS = 2, 8
"""With one visit of each day, nobody could tell a change from noise."""
LEAST_CYCLES, MOST_CYCLES = 1, 8
"""Blocks of each turn in a visit."""
COLD_TWICE = 2
"""Cold processes of the reference's baseline in a visit, at each workload; of the day's own
baseline too, where no other cell has any."""
COLD_GUESS = 2.2
EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
MOST_DAYS = 400


@dataclass
class History:
    """The schedule; `sides` holds what was found on each day, and on the reference."""

    sides: Sides
    days: Sequence[str]
    """Names of sides, in the order of time; each is another stack."""
    cells: Mapping[str, Sequence[Cell]]
    """What each side has."""
    metrics: Set[str]
    rng: random.Random
    sweeps: int | None = None
    """Fixed number of sweeps; None lets the budget decide."""
    visits: list[tuple[int, str]] = field(default_factory=list)
    """Sweep and day of each visit that came to its end."""

    def __post_init__(self) -> None:
        self.state, self.options, self.end = self.sides.state, self.sides.options, self.sides.end
        self.turns = turns_of(self.metrics, self.cells[REFERENCE])
        self.is_cold = any(METRICS[name].kind is Kind.COLD for name in self.metrics)
        self.numbers = 0
        self.cycle = self.up = self.proof = 0.0
        """Seconds of a block of each turn, of a worker's start, and of its proofs in sweep one."""
        self.cold_cost = COLD_GUESS
        self.cycles = LEAST_CYCLES
        self.chosen = self.levels()[0]
        """Cells of cold processes; of a day, those that it has."""
        self.plan: dict[str, Any] = {}
        self.visit_of: dict[int, tuple[int, str]] = {}
        """Sweep and day, by number of a cold process of a day or of the reference beside it."""

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self.sides.spent

    def levels(self) -> list[list[Cell]]:
        """Return what cold processes are measured of, from all there is to nothing."""
        every = list(self.cells[REFERENCE]) if self.is_cold else []
        first = [cell for cell in every if cell.workload == every[0].workload]
        return [every, first, [cell for cell in first if cell[:2] == BASELINE], []]

    def actions(self) -> Steps[None]:
        """Yield what to do; expects the outcome of each."""
        sweep = 0
        while sweep < (self.sweeps or MOST_SWEEPS):
            enough = sweep >= LEAST_SWEEPS
            whole = len(self.days) * self.visit_cost()
            if self.sweeps is None and enough and self.spent + whole > self.end:
                return
            sweep += 1
            yield from self.sweep(sweep)

    def sweep(self, number: int) -> Steps[None]:
        """Visit each day once."""
        reference: int | None = None
        order = self.rng.sample(list(self.days), len(self.days))
        for position, day in enumerate(order):
            if self.sweeps is None and self.spent + self.visit_cost() / 2 > self.end:
                break
            if reference is None and self.turns:
                reference = yield from self.sides.up(REFERENCE, self.cells[REFERENCE])
                if reference is None:
                    return
            reference = yield from self.visit(number, day, reference)
            first = not self.plan and (self.cycle > 0 or not self.turns)
            to_come = len(order) - position - 1
            self.share(first, self.left(number, to_come), to_come if number == 1 else 0)
        yield from self.sides.close(reference, REFERENCE)

    def left(self, sweep: int, days: int) -> int:
        """Return how many visits are to come, after so many more days of this sweep."""
        return days + max(0, (self.sweeps or LEAST_SWEEPS) - sweep) * len(self.days)

    def visit(self, sweep: int, day: str, reference: int | None) -> Steps[int | None]:
        """Measure a day beside the reference; return the reference's worker, if it lives."""
        before = self.spent
        process = None
        if self.turns:
            process = yield from self.sides.up(day, self.cells[day])
        self.up = self.sides.sides[day].up_seconds
        self.proof = max(0.0, self.spent - before - self.up) if sweep == 1 else self.proof
        if process is not None and reference is not None:
            before = self.spent
            for _ in range(self.options.blocks or self.cycles):
                for turn in self.rng.sample(list(self.turns), len(self.turns)):
                    workers = {day: process, REFERENCE: reference}
                    alive = yield from self.turn(turn, workers, sweep)
                    if day not in alive or REFERENCE not in alive:
                        yield from self.sides.close(alive.get(day), day)
                        return alive.get(REFERENCE)
            self.cycle = (self.spent - before) / (self.options.blocks or self.cycles)
            yield from self.sides.close(process, day)
        yield from self.cold(sweep, day)
        self.visits.append((sweep, day))
        return reference

    def turn(self, turn: Turn, workers: Mapping[str, int], sweep: int) -> Steps[dict[str, int]]:
        """Measure one block of a day and one of the reference; return the workers that live."""
        self.numbers += 1
        seed, alive = self.rng.getrandbits(32), dict(workers)
        for name in self.rng.sample(list(workers), len(workers)):
            if not living(self.sides.sides[name], self.at(name, turn.workload)):
                continue
            well = yield from self.sides.block(workers[name], name, turn, self.numbers, sweep, seed)
            if not well:
                del alive[name]
                break
        return alive

    def at(self, name: str, workload: str) -> list[Cell]:
        """Return a side's cells at a workload."""
        return [cell for cell in self.cells[name] if cell.workload == workload]

    def cold(self, sweep: int, day: str) -> Steps[None]:
        """Measure cold processes of a day's cells, those of the reference's baseline among them."""
        jobs: list[tuple[str, Cell]] = []
        alive = set(living(self.sides.sides[day], self.cells[day]))
        for workload in dict.fromkeys(cell.workload for cell in self.chosen):
            here = [c for c in self.chosen if c.workload == workload and c in alive]
            if here:
                base = Cell(*BASELINE, workload, here[0].backend)
                often = COLD_TWICE if len(here) == 1 else 1
                jobs += [(day, cell) for cell in here] * often + [(REFERENCE, base)] * COLD_TWICE
        before = self.spent
        for name, cell in self.rng.sample(jobs, len(jobs)):
            self.numbers += 1
            self.visit_of[self.numbers] = (sweep, day)
            yield from self.sides.cold(name, cell, self.numbers)
        if jobs:
            self.cold_cost = (self.spent - before) / len(jobs)

    def cold_count(self, cells: Sequence[Cell]) -> int:
        """Return the cold processes of a visit, where the day has all of the cells."""
        workloads = {cell.workload for cell in cells}
        alone = len(cells) == len(workloads)
        return len(cells) * (COLD_TWICE if alone else 1) + len(workloads) * COLD_TWICE

    def visit_cost(self) -> float:
        """Return the seconds of a visit as it is planned."""
        cold = self.cold_count(self.chosen) * self.cold_cost
        return self.up + self.cycles * self.cycle + cold

    def share(self, first: bool, left: int, unproven: int) -> None:
        """Choose what fits into the visits to come: cells of cold processes once, and cycles.

        Args:
            first: Whether one visit has been made.
            left: Visits to come.
            unproven: Those of them that have to prove first.
        """
        if left < 1 or self.options.blocks is not None:
            return
        each = max(0.0, self.end - self.spent - unproven * self.proof) / left
        fixed = self.up + LEAST_CYCLES * self.cycle
        if first:
            self.chosen = next(
                level
                for level in self.levels()
                if not level or fixed + self.cold_count(level) * self.cold_cost <= each
            )
            self.plan = {
                "cold_cells": [str(cell) for cell in self.chosen],
                "seconds_a_visit": each,
                "seconds_to_open": self.up,
                "seconds_of_a_cycle": self.cycle,
                "seconds_of_a_cold_process": self.cold_cost,
            }
        rest = each - self.up - self.cold_count(self.chosen) * self.cold_cost
        cycles = int(rest / self.cycle) if self.cycle else LEAST_CYCLES
        self.cycles = max(LEAST_CYCLES, min(MOST_CYCLES, cycles))


def days_of(since: datetime.date, until: datetime.date, every: str) -> list[datetime.date]:
    """Return the days from `since` to `until`, which is one of them, `every` so often.

    Raises:
        BakeoffError: there is no such step, or it gives none or too many.
    """
    match = EVERY.fullmatch(every)
    if match is None or not int(match[1]):
        raise BakeoffError(
            f"--every {every!r} is no step; give days, weeks, months or years, as in 10d, 2w, 1mo"
        )
    if since > until:
        raise BakeoffError(f"--since {since} is after --until {until}; turn them around")
    count, unit = int(match[1]), match[2]
    days, number = [since], 1
    while len(days) <= MOST_DAYS:
        after = later(since, number * count, unit)
        if after >= until:
            break
        days.append(after)
        number += 1
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return [*days, until] if until > days[-1] else days


def later(day: datetime.date, count: int, unit: str) -> datetime.date:
    """Return a day so many units later; the last of a month where it has no such day."""
    if unit in ("d", "w"):
        return day + datetime.timedelta(count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "y" else 1)
    first = datetime.date(months // 12, months % 12 + 1, 1)
    following = (first + datetime.timedelta(32)).replace(day=1)
    return first.replace(day=min(day.day, (following - first).days))
