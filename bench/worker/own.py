"""A training step of a user's own: what one Python file says of a model, a batch and a loss.

The file is a workload of its name. Its model is one library's, each style of which trains it. The
baseline is `jax.jit` over the arrays of the same model alone: what a style takes longer is what it
costs. A file with a whole `make_step()` has that as one more arm, `NAME/step`, or as its only one.
"""

from __future__ import annotations

import math
import sys
from functools import cached_property
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import impls
from bench.cells import BASELINE, FLAT, PURE, Arm
from bench.worker.arms import Arms, End
from bench.worker.counts import code_lines
from common.config import WORKLOADS
from common.equality import TRAJECTORY_STEPS, NotEqualError
from common.errors import BakeoffError
from common.steps import AtRest, plain_style

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.contract import Hidden, Library, ModelStyle, TrainStep

WHOLE = "step"
"""Style that a file's own `make_step` is."""
PARAMETERS_TOLERANCE = 0.05
"""Largest distance of parameters from the baseline's after ten steps, as a part of the way that
these went. Adam's first steps follow signs: of a parameter whose gradient is zero, such as the bias
of an attention's keys, those of roundings. An update that is left out is a tenth."""
BLOCK_TOLERANCE = 0.1
"""The same after a block: rounding grows in a hundred steps of any optimiser."""


class Inputs:
    """What the steps of a file are called with: nothing is carried on, and each has one batch."""

    def __init__(self, start: AtRest, batch: Any) -> None:
        self.start, self.batch = start, batch

    def fresh(self) -> AtRest:
        """Return the first parameters and the optimiser's first state, in new buffers."""
        return jax.tree.map(jnp.copy, self.start)

    def hidden(self) -> tuple[()]:
        """Return what is carried on from step to step: nothing."""
        return ()

    zero = hidden

    def data(self, _seed: int = 1) -> Any:
        """Return the batch."""
        return jax.tree.map(jnp.copy, self.batch)  # a step may take what it is given


class WholeStep:
    """A step that a file makes itself: a function of a batch that returns the loss."""

    def __init__(self, make_step: Callable[[], Callable[[Any], Any]]) -> None:
        self.call = make_step()

    def load(self, start: Any) -> None:
        """Do nothing: such a step has its state to itself, and trains on."""

    def save(self) -> None:
        """Return None: its state is not known."""

    def __call__(self, hidden: Hidden, batch: Any) -> tuple[Hidden, Any]:
        """Make one update."""
        return hidden, self.call(batch)

    def program(self, hidden: Hidden, batch: Any) -> None:
        """Return None: what it compiles is not known."""


class OwnStep:
    """The file, imported; everything that is wrong with it is a BakeoffError that names it."""

    def __init__(self, workload: str) -> None:
        self.name, self.path = workload, Path(WORKLOADS[workload].file)
        self.module = impls.step_module(self.name)
        given = [getattr(self.module, n, None) for n in ("optimiser", "optimizer")]
        self.optimiser = next(filter(None, given), optax.adamw(1e-3))
        self.whole = hasattr(self.module, "make_step")
        self.has_model = hasattr(self.module, "make_model")
        model, whole = ("make_model", "loss"), ("make_step",)
        for name in ("make_batch", *model * self.has_model, *whole * self.whole):
            if not callable(getattr(self.module, name, None)):
                raise BakeoffError(f"{self.path.name} has no function {name}; write one")
        self.entrant = BASELINE.entrant
        """The library of the model; of a file without one, plain JAX."""
        if self.has_model:
            self.entrant, self.library = self.held()

    def problem(self, text: str) -> BakeoffError:
        """Return an error that names the file."""
        return BakeoffError(f"{self.path.name}: {text}")

    def held(self) -> tuple[str, Library]:
        """Return the name of the library that holds the model, and how that is trained."""
        model, names = self.module.make_model(), []
        for name in [*impls.usual()[1:], BASELINE.entrant]:
            if name != BASELINE.entrant and impls.readable(name).models not in sys.modules:
                continue
            library = impls.load(name).library
            if library is not None:
                names.append(name)
                if library.holds(model):
                    return name, library
        raise self.problem(
            f"make_model returns {type(model).__name__!r}, which no library knows as its model: "
            f"give one of {', '.join(names)}; of Linen, Haiku and plain JAX, the parameters and "
            "a function that applies them"
        )

    @cached_property
    def styles(self) -> Mapping[str, ModelStyle]:
        """Ways to write the step in the model's library."""
        missing = {*impls.load(self.entrant).missing, FLAT}  # which is the baseline
        named = {n: s for n, s in self.library.styles.items() if n not in missing}
        return {PURE: plain_style(self.library, flat=False)} | named

    @property
    def arms(self) -> list[Arm]:
        """Everything that the file can be measured as."""
        arms = [Arm(self.entrant, style) for style in self.styles] if self.has_model else []
        return [*arms, *([Arm(self.name, WHOLE)] if self.whole else [])]

    def loss(self, model: Any, hidden: Hidden, batch: Any) -> tuple[Any, Hidden]:
        """Return the mean loss, and nothing to carry on."""
        return self.module.loss(model, batch), hidden

    def batch(self) -> Any:
        """Return the batch on the device; raise BakeoffError where each call has another one."""
        first, second = (jax.tree.map(jnp.asarray, self.module.make_batch()) for _ in range(2))
        if not same(first, second):
            raise self.problem(
                "make_batch returns other data in its second call; draw them with a fixed seed"
            )
        return jax.device_put(first)

    def check(self) -> None:
        """Raise BakeoffError where the batch changes, or the loss is not one number."""
        batch = self.batch()
        if not self.has_model:
            return
        first, second = (self.library.split(self.module.make_model()) for _ in range(2))
        params, others, static = first
        if not same(params, second[0]):
            raise self.problem(
                "make_model returns other parameters in its second call; draw them with a fixed "
                "seed"
            )

        def value(params: Any, others: Any) -> Any:
            return self.module.loss(self.library.merge(params, others, static), batch)

        returned = jax.eval_shape(value, params, others)
        shape = getattr(returned, "shape", None)
        if shape != ():
            what = f"an array of shape {shape}" if shape else f"a {type(returned).__name__}"
            raise self.problem(f"loss returns {what}; it has to be one number, the mean loss")


class OwnArms(Arms):
    """The arms of a user's own step."""

    left_out = ("host_cost_pipelined",)  # a row of steps is measured on all cores

    def prepare(self, workload: str) -> None:
        """Import the file, and make its first model and its batch."""
        own, start = OwnStep(workload), AtRest((), ())
        if own.has_model:
            params, others, _ = own.library.split(own.module.make_model())
            start = AtRest(params, own.optimiser.init(params), others)
        self.own, self.case = own, Inputs(start, own.batch())
        self.chunks = [self.case.batch]
        leaves = jax.tree.leaves((self.case.start.params, self.case.batch))
        types = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        epsilon = max((float(jnp.finfo(t).eps) for t in types), default=float(jnp.finfo("f4").eps))
        self.tolerance = math.sqrt(epsilon)
        """Of the coarsest type of number: rounding is far below, a wrong step far above."""

    def make(self, arm: Arm) -> TrainStep:
        """Return a new step of an arm, which has to be loaded."""
        own = self.own
        if arm.entrant == own.name or not own.has_model:
            step: Any = WholeStep(own.module.make_step)
            return step
        if arm.code == BASELINE:  # of a library's model, its arrays alone
            style = plain_style(own.library, flat=own.entrant != BASELINE.entrant)
        else:
            style = own.styles[arm.style]
        return style(own.module.make_model(), own.loss, own.optimiser, donate=self.donate)

    def load(self, step: TrainStep, _scale: float) -> None:
        """Give a step fresh buffers; of a user's own model, they have the first numbers."""
        step.load(self.case.fresh())

    def initialise(self, arm: Arm) -> None:
        """Do nothing: `make` has made a model."""

    def losses(self, step: Any) -> np.ndarray:
        """Return the losses of ten steps from the first parameters.

        Raises:
            BakeoffError: one is not a number.
        """
        if isinstance(step, WholeStep):  # which cannot begin anew
            step = self.make(Arm(self.own.name, WHOLE))
        step.load(self.case.fresh())
        losses = []
        for number in range(1, TRAJECTORY_STEPS + 1):
            _, loss = step((), self.case.data())
            losses.append(float(loss))
            if not math.isfinite(losses[-1]):
                raise self.own.problem(f"the loss is {losses[-1]} in step {number}")
        return np.array(losses)

    def apart(self, arm: Arm, losses: np.ndarray, expected: np.ndarray) -> float:
        """Return how far ten losses are from others, relative to the largest of these."""
        if arm.style == WHOLE and self.own.has_model:
            return 0.0  # it need not compute what the model does
        return float(np.max(np.abs(losses - expected)) / np.max(np.abs(expected)))

    def moved(self, rest: Any) -> np.ndarray:
        """Return how far all parameters are from the first ones, one after the other."""
        first = jax.tree.leaves(self.case.start.params)
        pairs = zip(jax.tree.leaves(rest.params), first, strict=True)
        return np.concatenate(
            [np.zeros(1), *(np.ravel(np.asarray(a, "f8") - np.asarray(b, "f8")) for a, b in pairs)]
        )

    @cached_property
    def ended(self) -> np.ndarray:
        """The way that the baseline's parameters go in ten steps."""
        step = self.make(BASELINE)
        self.losses(step)
        return self.moved(step.save())

    def judged(self, step: Any, baseline: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Return how far a step is from the baseline's, relative to its numbers, and its losses.

        Raises:
            NotEqualError: it computes something else.
        """
        losses = self.losses(step)
        if isinstance(step, WholeStep):
            return {"loss": 0.0, "gradient": 0.0, "trajectory": 0.0}, losses
        away = {
            "loss": self.apart(BASELINE, losses[:1], baseline[:1]),
            "gradient": distance(self.moved(step.save()), self.ended),
            "trajectory": self.apart(BASELINE, losses, baseline),
        }
        for name, what, allowed in (
            ("trajectory", "ten steps' losses", self.tolerance),
            ("gradient", "the parameters after ten steps", PARAMETERS_TOLERANCE),
        ):
            if not away[name] <= allowed:
                raise NotEqualError(
                    f"not equal: {what} are off by {away[name]:.2g} of the baseline's (allowed: "
                    f"{allowed:.2g})"
                )
        return away, losses

    def facts_of(self, _arm: Arm) -> dict[str, float | None]:
        """Return exact numbers of an arm that need no call."""
        params = jax.tree.leaves(self.case.start.params)
        return {
            "parameters": sum(leaf.size for leaf in params),
            "parameter_arrays": len(params),
            "code_lines": code_lines(self.own.path),
        }

    def difference(self, end: End, baseline: End | None) -> str:
        """Return in words how far an arm is from the baseline after a block; empty if not."""
        if not math.isfinite(end.loss):
            return f"its loss is {end.loss}"
        if baseline is None or end.checkpoint is None:
            return ""
        off = distance(self.moved(end.checkpoint), self.moved(baseline.checkpoint))
        if not off <= BLOCK_TOLERANCE:
            return (
                f"after {end.calls} calls its parameters are off by {off:.2g} of the way that the "
                f"baseline's went (allowed: {BLOCK_TOLERANCE:g})"
            )
        return ""


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the norm of a difference, relative to that of the second; 0 where both are 0."""
    norm = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(ours - theirs)) / (norm or 1.0)


def same(first: Any, second: Any) -> bool:
    """Tell whether two trees have the same arrays, bit by bit; keys of random numbers, too."""

    def content(leaf: Any) -> tuple[Any, ...]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()

    ours, theirs = jax.tree.leaves(first), jax.tree.leaves(second)
    return len(ours) == len(theirs) and all(map(eq, map(content, ours), map(content, theirs)))
