"""The arms of a user's own training step: a library's styles of it, and its `make_step`.

The baseline is `jax.jit` over the arrays of the same model alone: a style's extra time is its cost.
`make_step` is one more arm, `NAME/step`, or the only one of a file without a model.
"""

from __future__ import annotations

import math
import sys
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.linalg import norm

from bench.cells import BASELINE, PURE, WHOLE, Arm
from bench.metrics import HOST_IN_A_ROW
from bench.samples import Proof
from bench.worker.arms import Arms, End, Reference, find_program
from bench.worker.counts import count_code_lines, measure_collections, measure_dispatch
from bench.worker.program import ProgramFacts, facts
from bench.worker.step_file import (
    CarryingStep,
    StepFile,
    WholeStep,
    is_key,
)
from bench.worker.trace import require_repeatable
from common.equality import TRAJECTORY_STEPS, NotEqualError
from common.errors import BakeoffError
from common.library import AtRest
from common.steps import Flat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.contract import TrainStep

PARAMETERS_TOLERANCE = 0.05
"""Largest distance of parameters from the baseline's after ten steps, as a fraction of the
baseline's displacement. Adam's first steps follow signs: where a gradient is zero, such as that of
the bias of an attention's keys, they are signs of roundings. An omitted update makes a tenth."""
BLOCK_TOLERANCE = 0.1
"""`PARAMETERS_TOLERANCE` of a block: rounding grows in a hundred steps of any optimiser."""
STILL = 1e-3
"""Least displacement of a state's array that counts, as a fraction of its size: less is rounding.
Arrays are compared one by one: a counter goes further than running means."""


class StepInputs:
    """Inputs of a file's steps: one batch; steps keep their carried values themselves."""

    def __init__(self, start: AtRest, batch: Any, copy: Callable[[Any], Any]) -> None:
        self.start, self.batch, self.copy = start, batch, copy

    def fresh(self) -> AtRest:
        """Return the first parameters and the optimiser's first state, in new buffers."""
        return jax.tree.map(self.copy, self.start)

    def hidden(self) -> tuple[()]:
        """Return the state to pass to a call: empty, since these steps keep their own."""
        return ()

    zero = hidden

    def data(self, _seed: int = 1) -> Any:
        """Return the batch."""
        return jax.tree.map(self.copy, self.batch)  # a step may take what it is given


class StepArms(Arms):
    """The arms of a user's own training step.

    `copy` makes an array's new buffer; in a trace, it hands the array on.
    """

    skipped_metrics: tuple[str, ...] = (HOST_IN_A_ROW,)  # a row is measured on all cores
    pairs_calls = True
    jax_without_program = None

    def __init__(
        self,
        file: StepFile,
        backend: str,
        *,
        donate: bool,
        copy: Callable[[Any], Any] = jnp.copy,
    ) -> None:
        self.file, self.user_file, self.copy = file, str(file.path), copy
        super().__init__(self.file.name, backend, donate=donate)

    def prepare(self, _workload: str) -> None:
        """Make the file's first model and its batch."""
        start = AtRest((), ())
        if self.file.has_model:
            if self.file.is_real and (why := self.file.describe_shortage(self.backend)):
                raise BakeoffError(why)
            model, carried = self.file.make_start()
            params, others, _ = self.file.library.split(model)
            start = AtRest(params, self.file.optimiser.init(params), others, carried=carried)
        self.case = StepInputs(start, self.file.make_batch(), self.copy)
        self.chunks = [self.case.batch]
        leaves = jax.tree.leaves((start.params, self.case.batch))
        types = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        self.tolerance = math.sqrt(max(float(jnp.finfo(dtype).eps) for dtype in types or ["f4"]))
        """Root of the coarsest type's epsilon: rounding is far below, a wrong step far above."""

    def compile_ahead(self, arm: Arm) -> None:
        """Compile an arm before the reference.

        A large model's reference takes half a minute to compile. Another worker is doing that now;
        this one finds it in the cache, later.
        """
        if arm.code != BASELINE and "baseline_course" not in vars(self):
            self.require_repeatable()
            step = self.make(arm)
            step.load(self.case.fresh())
            jax.block_until_ready(step((), self.case.data()))

    @cached_property
    def reference(self) -> Reference:
        """Facts about the baseline."""
        return self.baseline_course[0]

    @cached_property
    def baseline_course(self) -> tuple[Reference, list[np.ndarray]]:
        """Facts about the baseline, and its displacement in ten steps, from one making."""
        self.require_repeatable()
        step = self.make(BASELINE)
        losses = self.compute_losses(step)
        displacement = self.measure_displacement(step.save()) if self.file.has_model else []
        return Reference(losses, self.describe_program(step)), displacement

    def require_repeatable(self) -> None:
        """Raise BakeoffError if the model is another one each time that it is made."""
        if self.file.has_model:
            require_repeatable(self.file)

    def describe_program(self, step: Any) -> ProgramFacts | None:
        """Return the facts about a step's program, if it is known."""
        program = find_program(step, self.case)
        return facts(program) if program else None

    def make(self, arm: Arm) -> Any:
        """Return a new step of an arm, which has to be loaded."""
        file = self.file
        if arm.entrant == file.name or not file.has_model:
            return WholeStep(file)
        model, carried = file.make_start()
        flat = arm.code == BASELINE and file.entrant != BASELINE.entrant  # its arrays alone
        style = file.styles[PURE if flat else arm.style]
        adapt = partial(Flat.of_style, file.library, style.style) if flat else style.adapt
        structure = jax.tree.structure(carried)

        def loss_of_arrays(model: Any, arrays: Any, batch: Any) -> tuple[Any, Any]:
            value, carried = file.compute_loss(model, jax.tree.unflatten(structure, arrays), batch)
            return value, jax.tree.leaves(carried)

        loss = loss_of_arrays if flat and carried else file.compute_loss
        step: Any = adapt(lambda: model, loss, file.optimiser, donate=self.donate)
        return CarryingStep(step, flat=flat) if carried else step

    def load(self, step: TrainStep, _scale: float) -> None:
        """Give a step fresh buffers, which always have the model's first numbers."""
        step.load(self.case.fresh())

    def initialise(self, arm: Arm) -> None:
        """Do nothing: `make` has made a model."""

    def compute_losses(self, step: Any) -> np.ndarray:
        """Return the losses of ten steps from the first parameters.

        Raises:
            BakeoffError: one is not a number, or is kept from an earlier call.
        """
        function = "make_step" if isinstance(step, WholeStep) else "loss"
        step.load(self.case.fresh())
        losses = []
        again = self.case.data()  # in a block, a step is given the same object again
        for number in range(1, TRAJECTORY_STEPS + 1):
            _, loss = step((), self.case.data() if number % 2 else again)
            losses.append(self.file.read_loss(function, loss))
            if not math.isfinite(losses[-1]):
                raise self.file.problem(function, f"the loss is {losses[-1]} in step {number}")
        if isinstance(step, WholeStep):
            step.require_new_losses(again)
            step.losses = np.array(losses)
        rest = step.save() or AtRest((), ())
        for path, leaf in jax.tree_util.tree_leaves_with_path((rest.others, rest.carried)):
            if any(np.isnan(array).any() for array in list_numbers(leaf)):
                name = jax.tree_util.keystr(path[1:]).removeprefix("['state']")
                why = f"the state{name} is not a number after {TRAJECTORY_STEPS} steps"
                raise self.file.problem(function, why)
        return np.array(losses)

    def compare_losses(self, arm: Arm, losses: np.ndarray, expected: np.ndarray) -> float:
        """Return the largest difference of losses, relative to the largest expected one."""
        if arm.style == WHOLE and self.file.has_model:
            return 0.0  # its proof has said whether it computes what the model does
        return float(np.max(np.abs(losses - expected)) / np.max(np.abs(expected)))

    def measure_displacement(self, rest: AtRest) -> list[np.ndarray]:
        """Return a training's distance from its start: of all parameters, and of state arrays."""
        start = self.case.start
        params = map(np.ravel, subtract(list_numbers(rest.params), list_numbers(start.params)))
        state = subtract(list_state(rest), list_state(start))
        return [np.concatenate([np.zeros(1), *params]), *state]

    def judge_step(self, step: Any, baseline: np.ndarray) -> tuple[Proof, np.ndarray]:
        """Return the proof of a step, relative to the baseline, and its ten losses.

        Of a whole step, losses alone are known; other losses than the baseline's are no failure.

        Raises:
            NotEqualError: it computes something else.
        """
        losses = self.compute_losses(step)
        loss, trajectory = (
            self.compare_losses(BASELINE, losses[:n], baseline[:n]) for n in (1, None)
        )
        if isinstance(step, WholeStep):
            equal = not self.file.has_model or trajectory <= self.tolerance
            return Proof(loss=loss, gradient=0.0, trajectory=trajectory, equal=equal), losses
        rest = step.save()
        gradient, *state = self.compare_displacement(self.measure_displacement(rest))
        for what, away, allowed in (
            ("ten steps' losses are", trajectory, self.tolerance),
            ("the parameters after ten steps are", gradient, PARAMETERS_TOLERANCE),
            ("the state after ten steps is", max(state, default=0.0), PARAMETERS_TOLERANCE),
        ):
            if not away <= allowed:
                raise NotEqualError(
                    f"not equal: {what} off by {away:.2g} of the baseline's (allowed: "
                    f"{allowed:.2g})"
                )
        arrays = map(replace_infinities, list_state(rest))
        norms = [min(float(norm(array)), sys.float_info.max) for array in arrays]  # for JSON
        return Proof(loss=loss, gradient=gradient, trajectory=trajectory, state=norms), losses

    def compare_displacement(self, displacement: list[np.ndarray]) -> list[float]:
        """Return the deviation of each part of a displacement from the baseline's in ten steps."""
        _, expected = self.baseline_course
        start = map(replace_infinities, list_state(self.case.start))
        ends = [array + moved for array, moved in zip(start, expected[1:], strict=True)]
        least = [0.0, *(STILL * norm(array) for array in ends)]
        return [*map(measure_deviation, displacement, expected, least)]

    def measure_facts(self, _arm: Arm) -> dict[str, float | None]:
        """Return exact numbers of an arm that need no call."""
        start = self.case.start
        params = jax.tree.leaves(start.params)
        return {
            "parameters": sum(leaf.size for leaf in params),
            "parameter_arrays": len(params),
            "state_arrays": len(list_state(start)),
            "code_lines": count_code_lines(self.file.path),
        }

    def measure_overhead(self, arm: Arm, step: Any) -> Mapping[str, float | None]:
        """Return pauses for garbage; for the baseline, also the seconds of an empty call."""
        step.load(self.case.fresh())
        batch = self.case.data()
        pauses = measure_collections(partial(step, (), batch))
        if arm.code != BASELINE:
            return pauses
        counts = (len(jax.tree.leaves(tree)) for tree in (self.case.start, batch))
        return pauses | {"dispatch": measure_dispatch(*counts)}

    def describe_difference(self, end: End, baseline: End | None) -> str:
        """Return in words how an arm differs from the baseline after a block; empty if equal."""
        if not math.isfinite(end.loss):
            return f"its loss is {end.loss}"
        if baseline is None or baseline.checkpoint is None:
            return ""
        if end.checkpoint is None:
            return self.describe_other_course(end, baseline)
        params, expected = (self.measure_displacement(e.checkpoint)[0] for e in (end, baseline))
        away = measure_deviation(params, expected)
        if not away <= BLOCK_TOLERANCE:
            return (
                f"after {end.calls} calls its parameters are off by {away:.2g} of the way "
                f"that the baseline's went (allowed: {BLOCK_TOLERANCE:g})"
            )
        return ""

    def describe_other_course(self, end: End, baseline: End) -> str:
        """Return in words how a whole step with the baseline's first losses went on; or empty.

        Losses that all are the same number say nothing about updates. A step that stands still has
        to stand where the baseline is.
        """
        step: Any = self.steps[Arm(self.file.name, WHOLE)]
        expected = self.expected_losses
        is_equal = self.compare_losses(BASELINE, step.losses, expected) <= self.tolerance
        if not is_equal or len({*expected}) == 1:
            return ""
        allowed = self.tolerance * np.max(np.abs(expected))
        if float(step((), self.case.data())[1]) != end.loss:
            way = np.max(np.abs(np.append(expected, baseline.loss) - expected[0]))
            allowed = max(allowed, BLOCK_TOLERANCE * way)
        if abs(end.loss - baseline.loss) <= allowed:
            return ""
        return (
            f"after {end.calls} calls its loss is {end.loss:.4g}, and the baseline's "
            f"{baseline.loss:.4g} (allowed: {allowed:.2g} apart); the first {len(expected)} were "
            "the same. Compute each call anew, and give the file the step's `optimiser`"
        )


def list_numbers(tree: Any) -> list[np.ndarray]:
    """Return the arrays of a tree, without keys of random numbers."""
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if not is_key(leaf)]
    return [np.stack([a.real, a.imag]) if np.iscomplexobj(a) else a.astype("f8") for a in arrays]


def list_state(rest: AtRest) -> list[np.ndarray]:
    """Return the arrays that a training at rest has beside parameters and the optimiser's."""
    return list_numbers((rest.others, rest.carried))


def replace_infinities(array: np.ndarray) -> np.ndarray:
    """Return an array with zeros in place of infinities: a running minimum begins with one."""
    return np.nan_to_num(array, posinf=0.0, neginf=0.0)


def subtract(arrays: list[np.ndarray], start: list[np.ndarray]) -> list[np.ndarray]:
    """Return the difference of each array to another one."""
    with np.errstate(invalid="ignore"):  # of two infinities
        return [replace_infinities(a - b) for a, b in zip(arrays, start, strict=True)]


def measure_deviation(array: np.ndarray, expected: np.ndarray, least: float = 0.0) -> float:
    """Return the norm of a difference, relative to that of `expected`, but `least` at least."""
    return float(norm(array - expected) / (max(norm(expected), least) or 1.0))
