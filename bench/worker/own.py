"""A user's own training step: a Python file with a model, a batch and a loss.

The file is a workload of its name. Its model is one library's, each style of which trains it. The
baseline is `jax.jit` over the arrays of the same model alone: a style's extra time is its cost. A
file with a whole `make_step()` has that as one more arm, `NAME/step`, or as its only one.
"""

from __future__ import annotations

import inspect
import math
import sys
from functools import cached_property, partial
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import impls
from bench.cells import BASELINE, FLAT, PURE, WHOLE, Arm
from bench.samples import Proof
from bench.worker.arms import Arms, End
from bench.worker.counts import code_lines, dispatch_seconds, measure_collections
from common.config import WORKLOADS
from common.equality import TRAJECTORY_STEPS, NotEqualError
from common.errors import BakeoffError
from common.steps import AtRest, is_pair, plain_style

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.contract import Hidden, Library, ModelStyle, TrainStep

PARAMETERS_TOLERANCE = 0.05
"""Largest distance of parameters from the baseline's after ten steps, as a fraction of the
baseline's displacement. Adam's first steps follow signs: where a gradient is zero, such as that of
the bias of an attention's keys, they are signs of roundings. An omitted update makes a tenth."""
BLOCK_TOLERANCE = 0.1
"""`PARAMETERS_TOLERANCE` of a block: rounding grows in a hundred steps of any optimiser."""
TAKES = ("state", "key")
"""Arguments that a file's loss may have beside the model and the batch: the state that its last
call returned, and a new key."""
STILL = 1e-3
"""Least displacement of a state's array that counts, as a fraction of its size: less is rounding.
Arrays are compared one by one: a counter goes further than running means."""
NAMED = 3
"""Most arrays without a gradient that a remark names: their kind shows by then."""
STATE_FORM = "`loss(model, batch, *, state)`, which returns `(loss, state)`"


class Inputs:
    """Inputs of a file's steps: one batch; steps keep their carried values themselves."""

    def __init__(self, start: AtRest, batch: Any) -> None:
        self.start, self.batch = start, batch

    def fresh(self) -> AtRest:
        """Return the first parameters and the optimiser's first state, in new buffers."""
        return jax.tree.map(jnp.copy, self.start)

    def hidden(self) -> tuple[()]:
        """Return the state to pass to a call: empty, for steps keep theirs."""
        return ()

    zero = hidden

    def data(self, _seed: int = 1) -> Any:
        """Return the batch."""
        return jax.tree.map(jnp.copy, self.batch)  # a step may take what it is given


class CarryingStep:
    """A step whose loss takes a state or a key: each call gets those that the last one returned."""

    def __init__(self, step: TrainStep, *, flat: bool) -> None:
        """Keep carried values in the file's structure, or as a list of arrays if `flat`."""
        self.step, self.flat = step, flat
        self.carried: Any = ()

    def load(self, rest: AtRest) -> None:
        """Go on from a training at rest, with its carried values."""
        self.step.load(rest)  # type: ignore[arg-type]
        self.structure = jax.tree.structure(rest.carried)
        self.carried = jax.tree.leaves(rest.carried) if self.flat else rest.carried

    def save(self) -> AtRest:
        """Return the training at rest, with its carried values."""
        rest: Any = self.step.save()
        carried = jax.tree.unflatten(self.structure, jax.tree.leaves(self.carried))
        return rest._replace(carried=carried)

    def __call__(self, hidden: Hidden, batch: Any) -> tuple[Hidden, Any]:
        """Make one update."""
        self.carried, loss = self.step(self.carried, batch)
        return hidden, loss

    def program(self, _: Hidden, batch: Any) -> Any:
        """Return the stages of the step's program."""
        return self.step.program(self.carried, batch)


class WholeStep:
    """A step that a file makes itself: a function of a batch that returns the loss."""

    is_in_flight = False
    """Whether updates are still made when a call has returned."""

    def __init__(self, make_step: Callable[[], Callable[[Any], Any]]) -> None:
        self.call = make_step()

    def load(self, start: Any) -> None:
        """Do nothing: the step keeps its own state, and trains on."""

    def save(self) -> None:
        """Return None: its state is not known."""

    def __call__(self, hidden: Hidden, batch: Any) -> tuple[Hidden, Any]:
        """Make one update."""
        return hidden, self.call(batch)

    def program(self, hidden: Hidden, batch: Any) -> None:
        """Return None: its program is not known."""


class OwnStep:
    """The imported file; each mistake in it is a BakeoffError that names the file."""

    def __init__(self, workload: str) -> None:
        self.name, self.path = workload, Path(WORKLOADS[workload].file)
        self.module = impls.step_module(self.name)
        given = [getattr(self.module, n, None) for n in ("optimiser", "optimizer")]
        self.optimiser = next((made for made in given if made is not None), optax.adamw(1e-3))
        self.whole = hasattr(self.module, "make_step")
        self.has_model = hasattr(self.module, "make_model")
        model, whole = ("make_model", "loss"), ("make_step",)
        for name in ("make_batch", *model * self.has_model, *whole * self.whole):
            if not callable(getattr(self.module, name, None)):
                raise BakeoffError(f"{self.path.name} has no function {name}; write one")
        self.entrant = BASELINE.entrant
        """Name of the model's library; plain JAX for a file without a model."""
        self.takes: list[str] = []
        if not all(callable(getattr(self.optimiser, n, None)) for n in ("init", "update")):
            raise self.problem(
                f"optimiser is a {type(self.optimiser).__name__}; give one of optax, as "
                "`nnx.Optimizer` is given it"
            )
        if self.has_model:
            arguments = inspect.signature(self.module.loss).parameters
            self.takes = [name for name in TAKES if name in arguments]
            self.entrant, self.library = self.find_library()

    def problem(self, text: str) -> BakeoffError:
        """Return an error that names the file."""
        return BakeoffError(f"{self.path.name}: {text}")

    def split_state(self, library: Library, made: Any) -> tuple[Any, Any]:
        """Split a result of `make_model` into the model and its state, empty if it has none."""
        may_be_state = isinstance(made, tuple) and len(made) == 2 and not is_pair(made)
        if may_be_state and ("state" in self.takes or not library.holds(made)):
            return made
        return library.parted(made) if library.holds(made) else (made, ())

    def find_library(self) -> tuple[str, Library]:
        """Return the name of the model's library, and that library's functions."""
        made, names = self.module.make_model(), []
        for name in [*impls.list_usual()[1:], BASELINE.entrant]:
            if name != BASELINE.entrant and impls.find_declaration(name).models not in sys.modules:
                continue
            library = impls.load(name).library
            if library is None:
                continue
            names.append(name)
            model, state = self.split_state(library, made)
            if library.holds(model):
                has_state = bool(jax.tree.leaves(state))
                if has_state and "state" not in self.takes:
                    raise self.problem(
                        "make_model returns a model and its state, and loss does not take that: "
                        f"write {STATE_FORM}; or return what is trained alone"
                    )
                if "state" in self.takes and not has_state:
                    raise self.problem(
                        "loss takes `state`, and make_model returns none: return `(model, state)`, "
                        "or of Linen all variables and the function that applies them"
                    )
                return name, library
        raise self.problem(
            f"make_model returns {type(made).__name__!r}, which no library knows as its model: "
            f"give one of {', '.join(names)}; of Linen, Haiku and plain JAX, the parameters and "
            "a function that applies them"
        )

    def make_start(self) -> tuple[Any, dict[str, Any]]:
        """Return a new model, and the carried values for its first step."""
        model, state = self.split_state(self.library, self.module.make_model())
        state = jax.tree.map(jnp.asarray, state)  # a number of Python's has no type of its own
        carried = dict.fromkeys(self.takes, state)
        if "key" in carried:
            carried["key"] = jax.random.key(0)
        return model, carried

    @cached_property
    def missing(self) -> dict[str, str]:
        """Style of the library that cannot be measured here → why."""
        unsuited = self.library.unsuited(self.make_start()[0]) if self.has_model else {}
        return {**impls.load(self.entrant).missing, **unsuited}

    @cached_property
    def styles(self) -> Mapping[str, ModelStyle]:
        """Ways to write the step in the model's library."""
        left_out = {*self.missing, FLAT}  # which is the baseline
        named = {n: s for n, s in self.library.styles.items() if n not in left_out}
        return {PURE: plain_style(self.library, flat=False)} | named

    @property
    def arms(self) -> list[Arm]:
        """Arms that the file can be measured as."""
        arms = [Arm(self.entrant, style) for style in self.styles] if self.has_model else []
        return [*arms, *([Arm(self.name, WHOLE)] if self.whole else [])]

    def loss(self, model: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        """Return the mean loss, and the carried values after it: its state, and another key."""
        if not self.takes:
            return self.module.loss(model, batch), carried
        after, given = dict(carried), dict(carried)
        if "key" in given:
            after["key"], given["key"] = jax.random.split(given["key"])
        value = self.module.loss(model, batch, **given)
        if "state" in given:
            if not isinstance(value, tuple) or len(value) != 2:
                raise self.problem(f"loss takes `state` and does not return it: write {STATE_FORM}")
            value, after["state"] = value
        return value, after

    def batch(self) -> Any:
        """Return the batch on the device; raise BakeoffError where each call has another one."""
        first, second = (jax.tree.map(jnp.asarray, self.module.make_batch()) for _ in range(2))
        if not is_same_tree(first, second):
            raise self.problem(
                "make_batch returns other data in its second call; draw them with a fixed seed"
            )
        return jax.device_put(first)

    def check(self) -> list[str]:
        """Check the file; return remarks on untrained arrays and on styles that cannot train it.

        Raises:
            BakeoffError: the batch changes, the loss is not one number, or nothing is trained.
        """
        batch = self.batch()
        if not self.has_model:
            return []
        (model, carried), (again, _) = self.make_start(), self.make_start()
        params, others, static = self.library.split(model)
        if not is_same_tree(params, self.library.split(again)[0]):
            raise self.problem(
                "make_model returns other parameters in its second call; draw them with a fixed "
                "seed"
            )

        def value(params: Any, others: Any, carried: Any) -> Any:
            return self.loss(self.library.merge(params, others, static), carried, batch)

        returned, after = jax.eval_shape(value, params, others, carried)
        shape = getattr(returned, "shape", None)
        if shape != ():
            what = f"an array of shape {shape}" if shape else f"a {type(returned).__name__}"
            raise self.problem(f"loss returns {what}; it has to be one number, the mean loss")
        if types(after) != types(jax.eval_shape(lambda: carried)):
            raise self.problem(
                "loss returns a state of another structure, or other shapes or types, than it is "
                "given: a step cannot go on from it"
            )
        self.require_new_keys(lambda: jax.jit(value).lower(params, others, carried))
        grads = jax.make_jaxpr(jax.grad(value, has_aux=True))(params, others, carried)
        remarks = self.find_untrained(params, grads.jaxpr)
        unsuited = self.library.unsuited(model)
        for reason in dict.fromkeys(unsuited.values()):
            styles = [s for s, why in unsuited.items() if why == reason and s != FLAT]
            remarks.append(f"{self.path.name}: {reason}, so {', '.join(styles)} cannot train it.")
        return remarks

    def require_new_keys(self, lower: Callable[[], Any]) -> None:
        """Raise BakeoffError where the loss uses a key twice, as JAX finds (from 0.4.26 on)."""
        if "key" in self.takes and hasattr(jax, "debug_key_reuse"):
            try:
                with jax.debug_key_reuse(True):
                    lower()
            except jax.errors.KeyReuseError as error:
                raise self.problem(
                    "loss uses a key twice, and what it draws is the same: split it by "
                    "jax.random.split"
                ) from error

    def find_untrained(self, params: Any, grads: Any) -> list[str]:
        """Return in words which arrays get no gradient, if there are any.

        Their gradients are constant zeros in the traced program, so nothing needs to be compiled.

        Raises:
            BakeoffError: no array gets a gradient.
        """
        paths = jax.tree_util.tree_leaves_with_path(params)
        still = [
            jax.tree_util.keystr(path)
            for (path, _), has_none in zip(paths, zero_outputs(grads), strict=False)
            if has_none
        ]
        if len(still) == len(paths):
            raise self.problem(
                "no array of the model gets a gradient: loss does not depend on it"
                if paths
                else "the model has no arrays to train"
            )
        if not still:
            return []
        named = ", ".join(still[:NAMED]) + ", …" * (len(still) > NAMED)
        return [
            f"{self.path.name}: {len(still)} of {len(paths)} arrays get no gradient "
            f"({named}). If they are state, write {STATE_FORM}."
        ]


class Displacement(NamedTuple):
    """Displacement of a training from its start."""

    params: np.ndarray
    """Displacement of all parameters, one array after the other."""
    state: list[np.ndarray]
    """Displacement of each array of the state."""


class OwnArms(Arms):
    """The arms of a user's own step."""

    skipped_metrics = ("host_cost_pipelined",)  # a row of steps is measured on all cores
    jax_without_program = None

    def prepare(self, workload: str) -> None:
        """Import the file, and make its first model and its batch."""
        self.own, start = OwnStep(workload), AtRest((), ())
        if self.own.has_model:
            model, carried = self.own.make_start()
            params, others, _ = self.own.library.split(model)
            start = AtRest(params, self.own.optimiser.init(params), others, carried=carried)
        self.case = Inputs(start, self.own.batch())
        self.chunks = [self.case.batch]
        leaves = jax.tree.leaves((self.case.start.params, self.case.batch))
        types = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        epsilon = max((float(jnp.finfo(t).eps) for t in types), default=float(jnp.finfo("f4").eps))
        self.tolerance = math.sqrt(epsilon)
        """Root of the coarsest type's epsilon: rounding is far below, a wrong step far above."""

    def make(self, arm: Arm) -> TrainStep:
        """Return a new step of an arm, which has to be loaded."""
        file = self.own
        step: Any
        if arm.entrant == file.name or not file.has_model:
            step = WholeStep(file.module.make_step)
            return step
        flat = arm.code == BASELINE and file.entrant != BASELINE.entrant  # its arrays alone
        style = plain_style(file.library, flat=True) if flat else file.styles[arm.style]
        model, carried = file.make_start()
        structure = jax.tree.structure(carried)

        def loss_of_arrays(model: Any, arrays: Any, batch: Any) -> tuple[Any, Any]:
            value, carried = file.loss(model, jax.tree.unflatten(structure, arrays), batch)
            return value, jax.tree.leaves(carried)

        loss = loss_of_arrays if flat and carried else file.loss
        step = style(model, loss, file.optimiser, donate=self.donate)
        if carried and (flat or arm.style not in file.library.keeping):
            step = CarryingStep(step, flat=flat)
        return step

    def load(self, step: TrainStep, _scale: float) -> None:
        """Give a step fresh buffers, which always have the model's first numbers."""
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
        rest = step.save()
        if rest is not None and any(np.isnan(array).any() for array in numbers(rest.carried)):
            raise self.own.problem(f"the state is not a number after {TRAJECTORY_STEPS} steps")
        return np.array(losses)

    def compare_losses(self, arm: Arm, losses: np.ndarray, expected: np.ndarray) -> float:
        """Return the largest difference of losses, relative to the largest expected one."""
        if arm.style == WHOLE and self.own.has_model:
            return 0.0  # its proof has said whether it computes what the model does
        return float(np.max(np.abs(losses - expected)) / np.max(np.abs(expected)))

    def measure_displacement(self, rest: Any) -> Displacement:
        """Return the displacement of a training from its start."""
        start = self.case.start
        params = [np.zeros(1), *map(np.ravel, displacements(rest.params, start.params))]
        state, first = ((at.others, at.carried) for at in (rest, start))
        return Displacement(np.concatenate(params), displacements(state, first))

    @cached_property
    def baseline_displacement(self) -> Displacement:
        """Displacement of the baseline in ten steps."""
        step = self.make(BASELINE)
        self.losses(step)
        return self.measure_displacement(step.save())

    def judge_step(self, step: Any, baseline: np.ndarray) -> tuple[Proof, np.ndarray]:
        """Return a step's relative deviations from the baseline's, and its losses.

        Of a whole step, losses alone are known; other losses than the baseline's are no failure.

        Raises:
            NotEqualError: it computes something else.
        """
        losses = self.losses(step)
        if isinstance(step, WholeStep):
            loss, trajectory = (
                self.compare_losses(BASELINE, losses[:n], baseline[:n]) for n in (1, None)
            )
            equal = not self.own.has_model or trajectory <= self.tolerance
            return Proof(loss=loss, gradient=0.0, trajectory=trajectory, equal=equal), losses
        rest = step.save()
        displacement, after = self.measure_displacement(rest), numbers((rest.others, rest.carried))
        proof = Proof(
            loss=self.compare_losses(BASELINE, losses[:1], baseline[:1]),
            gradient=distance(displacement.params, self.baseline_displacement.params),
            trajectory=self.compare_losses(BASELINE, losses, baseline),
        )
        first = numbers((self.case.start.others, self.case.start.carried))
        pairs = zip(displacement.state, self.baseline_displacement.state, first, strict=True)
        state = max((relative_deviation(*arrays) for arrays in pairs), default=0.0)
        for what, deviation, allowed in (
            ("ten steps' losses are", proof.trajectory, self.tolerance),
            ("the parameters after ten steps are", proof.gradient, PARAMETERS_TOLERANCE),
            ("the state after ten steps is", state, PARAMETERS_TOLERANCE),
        ):
            if not deviation <= allowed:
                raise NotEqualError(
                    f"not equal: {what} off by {deviation:.2g} of the baseline's (allowed: "
                    f"{allowed:.2g})"
                )
        finite = (np.nan_to_num(array, posinf=0.0, neginf=0.0) for array in after)
        # JSON has no infinity
        proof.state = [min(float(np.linalg.norm(array)), sys.float_info.max) for array in finite]
        return proof, losses

    def facts_of(self, _arm: Arm) -> dict[str, float | None]:
        """Return exact numbers of an arm that need no call."""
        params = jax.tree.leaves(self.case.start.params)
        return {
            "parameters": sum(leaf.size for leaf in params),
            "parameter_arrays": len(params),
            "state_arrays": len(numbers((self.case.start.others, self.case.start.carried))),
            "code_lines": code_lines(self.own.path),
        }

    def further_counts(self, arm: Arm, step: Any) -> Mapping[str, float | None]:
        """Return pauses for garbage; for the baseline, also the seconds of an empty call."""
        step.load(self.case.fresh())
        batch = self.case.data()
        pauses = measure_collections(partial(step, (), batch))
        if arm.code != BASELINE:
            return pauses
        start = self.case.start._replace(updates=())
        counts = (len(jax.tree.leaves(tree)) for tree in (start, batch))
        return pauses | {"dispatch": dispatch_seconds(*counts)}

    def difference(self, end: End, baseline: End | None) -> str:
        """Return in words how an arm differs from the baseline after a block; empty if equal."""
        if not math.isfinite(end.loss):
            return f"its loss is {end.loss}"
        if baseline is None or end.checkpoint is None:
            return ""
        checkpoints = end.checkpoint, baseline.checkpoint
        ours, theirs = map(self.measure_displacement, checkpoints)
        deviation = distance(ours.params, theirs.params)
        if not deviation <= BLOCK_TOLERANCE:
            return (
                f"after {end.calls} calls its parameters are off by {deviation:.2g} of the way "
                f"that the baseline's went (allowed: {BLOCK_TOLERANCE:g})"
            )
        return ""


def zero_outputs(jaxpr: Any) -> list[bool]:
    """Return for each output of a jaxpr whether it is a constant zero: a literal or a broadcast."""
    zeros = {
        equation.outvars[0]
        for equation in jaxpr.eqns
        if equation.primitive.name == "broadcast_in_dim" and is_zero(equation.invars[0])
    }
    return [is_zero(var) or (not hasattr(var, "val") and var in zeros) for var in jaxpr.outvars]


def is_zero(var: Any) -> bool:
    """Tell whether a variable of a jaxpr is a literal zero."""
    return hasattr(var, "val") and not np.any(var.val)


def types(tree: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return a tree's structure, and the shape and type of each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def numbers(tree: Any) -> list[np.ndarray]:
    """Return the arrays of a tree, without keys of random numbers."""
    leaves = jax.tree.leaves(tree)
    return [
        np.asarray(leaf, "f8")
        for leaf in leaves
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def displacements(tree: Any, start: Any) -> list[np.ndarray]:
    """Return the difference of each array of a tree to that of another tree."""
    with np.errstate(invalid="ignore"):  # a running minimum begins at infinity
        pairs = zip(numbers(tree), numbers(start), strict=True)
        return [np.nan_to_num(a - b, posinf=0.0, neginf=0.0) for a, b in pairs]


def relative_deviation(ours: np.ndarray, theirs: np.ndarray, start: np.ndarray) -> float:
    """Return the difference of two displacements of a state's array, relative to the second."""
    size = float(np.linalg.norm(np.nan_to_num(start, posinf=0.0, neginf=0.0) + theirs))
    least = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(ours - theirs)) / (max(least, STILL * size) or 1.0)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the norm of a difference, relative to that of the second; 0 where both are 0."""
    norm = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(ours - theirs)) / (norm or 1.0)


def is_same_tree(first: Any, second: Any) -> bool:
    """Tell whether two trees have the same arrays, bit by bit; keys of random numbers, too."""

    def content(leaf: Any) -> tuple[Any, ...]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()

    ours, theirs = jax.tree.leaves(first), jax.tree.leaves(second)
    return len(ours) == len(theirs) and all(map(eq, map(content, ours), map(content, theirs)))
