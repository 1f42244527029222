"""What styles cost a user's own step, from its results; and which style costs less."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

import impls
from bench.cells import BASELINE, FLAT, PURE, REFERENCE, WHOLE
from bench.metrics import HOST, STEP
from bench.runfile import find_needed_seconds
from bench.stats.amounts import make_zero_cost
from bench.workloads import SKELETON, is_skeleton

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cells import Arm, Cell
    from bench.estimates import Estimate
    from bench.runfile import CellResult, Results


class OwnCost:
    """Views of the results of a step, and of its skeleton, on one backend."""

    def __init__(self, results: Results) -> None:
        self.table, self.budget = results.table, results.options.budget or 0.0
        first = min((row.cell for row in results.cells), key=lambda c: is_skeleton(c.workload))
        self.is_generated = any(word.startswith("--arrays") for word in results.arguments)
        """Whether a stack of layers stands for a model."""
        self.file = first.workload.removesuffix(SKELETON)
        """Name of the user's file."""
        self.baseline = BASELINE.make_cell(self.file, first.backend)
        """Plain JAX's cell at the real step."""
        has_skeleton = any(is_skeleton(row.cell.workload) for row in results.cells)
        light = BASELINE.make_cell(self.file + SKELETON, "cpu")
        self.light = light if has_skeleton else self.baseline
        """Plain JAX's cell at the skeleton; files of older versions have none."""
        self.step, self.call = (
            self.table.amount(self.baseline, STEP),
            self.table.amount(self.light, HOST),
        )
        """Time of plain JAX's step, and of its call of the skeleton."""
        real = [row for row in results.cells if row.cell == self.baseline]
        self.failure = next((row.failure for row in real if row.failure), "")
        """Why the real step fails in each style; empty if it does not."""
        self.is_shown_to_work = self.step is not None or any(row.proof for row in real)
        """Whether the real step was run, without which a skeleton does not show that it works."""
        rows = [row for row in results.cells if row.cell.arm not in REFERENCE]
        self.other_steps = [row for row in rows if row.proof and not row.proof.equal]
        """Results of whole steps that compute something else than the model."""
        self.rows = [row for row in rows if row not in self.other_steps]
        """All other results but the references', of skeletons and of real steps."""
        entrants = (row.cell.entrant for row in self.rows)
        self.entrant = next((name for name in entrants if name != self.file), self.file)
        """The model's library; the file's name if that is plain JAX or there is no model."""
        self.plain, self.baseline_words = "jax.jit", "`jax.jit` over the model as it is"
        """Name of the baseline, and what it is."""
        if self.entrant != self.file:
            self.plain = f"{self.entrant}/{FLAT}"
            self.baseline_words = (
                f"`{self.plain}`: `jax.jit` over a list of the same model's arrays"
            )
        has_model = self.entrant != self.file
        self.library = self.entrant if has_model else self.baseline.entrant
        """Library whose styles are compared: plain JAX's without a model of another one."""
        self.plain_style = FLAT if has_model else PURE
        """Style that adds nothing: it is the baseline."""
        arms = dict.fromkeys(row.cell.arm for row in self.rows)
        self.arms = sorted(arms, key=lambda arm: arm.entrant == self.entrant)
        """Arms, the file's own step first."""
        added = {arm: self.table.comparison(self.find_light(arm), HOST) for arm in self.arms}
        self.costs = {arm.style: row for arm, row in added.items() if row is not None}
        """Style → seconds that it adds to a call."""
        levels = (row.level for style, row in self.costs.items() if style != WHOLE)
        if self.call and (level := next(levels, None)):
            self.call = replace(self.call, value=level)  # of a quiet machine, as what is added
        failed = {row.cell for row in self.rows if row.failure is not None}
        self.unknown = [
            arm
            for arm, cost in added.items()
            if not failed & {self.find_light(arm), self.find_real(arm)}
            and (cost is None or cost.is_unknown)
        ]
        """Arms whose added time is not known yet, and whose steps have not failed."""
        compared = [self.table.comparison(self.find_real(arm), STEP) for arm in self.arms]
        self.has_numbers = bool(self.costs) or any(compared)
        """Whether any style is compared with plain JAX's."""
        compared_metrics = HOST, STEP, "step_pipelined"
        self.compared = [row for row in results.estimates if row.metric in compared_metrics]
        """Numbers that are compared with plain JAX's."""
        self.missing = [why for row in results.cells for why in row.missing.values()]
        """Reasons why numbers are missing."""
        self.missing_seconds = max(map(find_needed_seconds, self.missing), default=0.0)
        """Seconds that the missing numbers need, as far as the reasons say."""
        self.carries = any(row.proof and row.proof.state for row in rows)
        """Whether the model has a state."""

    def find_light(self, arm: Arm) -> Cell:
        """Return the cell at which an arm's call is timed: a skeleton has no `make_step`."""
        real = self.find_real(arm)
        return (
            real if arm.style == WHOLE else arm.make_cell(self.light.workload, self.light.backend)
        )

    def find_step(self, style: str) -> Estimate | None:
        """Return the time of a style's real step; of the list of arrays, the baseline's."""
        arm = next((arm for arm in self.arms if arm.style == style), BASELINE)
        return self.table.amount(self.find_real(arm), STEP)

    def find_real(self, arm: Arm) -> Cell:
        """Return an arm's cell at the real step."""
        return arm.make_cell(self.baseline.workload, self.baseline.backend)


def real_rows(it: OwnCost) -> list[CellResult]:
    """Return the results of real steps: a skeleton's losses mean nothing."""
    return [row for row in it.rows if not is_skeleton(row.cell.workload)]


def find_status(results: Results) -> int:
    """Return the exit status: 1 if a style failed, 2 if no style could be compared in time."""
    it = OwnCost(results)
    if any(row.failure is not None for row in results.cells):
        return 1
    has_times = not it.arms and (it.call or it.step)  # plain JAX's, with nothing to compare
    return 0 if it.has_numbers or has_times or not it.missing else 2


def find_better(it: OwnCost, usual: str) -> str:
    """Return the style to write in place of another one; empty if none certainly adds less.

    None is advised whose real step failed, or certainly takes longer. A file's own step is measured
    really, where calls take longer than a skeleton's: in its place, a style's real step has to
    certainly take less.
    """
    if it.failure:
        return ""
    costs = {s: c for s, c in it.costs.items() if not c.is_unknown or s == usual}
    costs[it.plain_style] = make_zero_cost(it.light)
    failed = {row.cell.style for row in real_rows(it) if row.failure is not None}

    def is_advisable(style: str) -> bool:
        before, after = it.find_step(usual), it.find_step(style)
        if style in failed or before is None or after is None:
            return style not in failed and usual != WHOLE
        gains = is_certain_gain(before, after)
        return gains if usual == WHOLE else not is_certain_gain(after, before)

    advisable = {s: c for s, c in costs.items() if s == usual or is_advisable(s)}
    return find_cheaper(it.library, usual, advisable)


def find_real_difference(it: OwnCost, usual: str, better: str) -> Estimate | None:
    """Return the seconds by which a real step takes longer in one style than in another one.

    Both are compared with plain JAX's step, as ratios whose correlation is left out, which makes
    the interval wider. None if one of them has no interval.
    """
    sides = []
    for style in (usual, better):
        arm = next((arm for arm in it.arms if arm.style == style), None)
        ratio = it.table.comparison(it.find_real(arm), STEP) if arm else None
        low, high = ratio.limits if ratio else (None, None)
        if ratio and low is not None and high is not None:
            sides.append((low, ratio.value, high))
        elif style == it.plain_style:
            sides.append((1.0, 1.0, 1.0))
    if it.step is None or len(sides) < 2:
        return None
    (low, middle, high), (other_low, other_middle, other_high) = sides
    value, unit = middle - other_middle, it.step.value
    below = math.hypot(middle - low, other_high - other_middle)
    above = math.hypot(high - middle, other_middle - other_low)
    ends = {"low": unit * (value - below), "high": unit * (value + above)}
    return replace(make_zero_cost(it.baseline), value=unit * value, unit="s", level=unit, **ends)


def find_cheaper(entrant: str, style: str, costs: Mapping[str, Estimate]) -> str:
    """Return the cheapest style of a library, of those that certainly cost less; or "".

    Styles that a run measures only if they are named are unusual: they count if there is no other.
    Styles for comparison alone never do. The correlation of two styles of the same workers is left
    out, which is stricter than needed.

    Args:
        entrant: The library's entrant.
        style: The style that another one may replace.
        costs: Seconds that styles of the library add, by their names.
    """
    about, before = impls.find_declaration(entrant), costs[style]
    usable = {style: cost for style, cost in costs.items() if style not in about.references}
    better = [style for style, cost in usable.items() if is_certain_gain(before, cost)]
    return min(better, key=lambda s: (s in about.if_named, costs[s].value), default="")


def is_certain_gain(before: Estimate, after: Estimate) -> bool:
    """Tell whether one time is certainly less than another one, by both intervals."""
    doubt = math.hypot(before.half_width, after.half_width)
    return after.value + doubt < before.value
