"""A training step of a user's own: what one Python file says of a model, a batch and a loss.

The file is a workload of its name. Its model is one library's, each style of which trains it. The
baseline is `jax.jit` over the arrays of the same model alone: what a style takes longer is what it
costs. A file with a whole `make_step()` has that as one more arm, `NAME/step`, or as its only one.
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
from bench.worker.arms import Arms, End
from bench.worker.counts import code_lines, collecting, dispatch_seconds
from common.config import WORKLOADS
from common.equality import TRAJECTORY_STEPS, NotEqualError
from common.errors import BakeoffError
from common.steps import AtRest, is_pair, plain_style

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.contract import Hidden, Library, ModelStyle, TrainStep

PARAMETERS_TOLERANCE = 0.05
"""Largest distance of parameters from the baseline's after ten steps, as a part of the way that
these went. Adam's first steps follow signs: of a parameter whose gradient is zero, such as the bias
of an attention's keys, those of roundings. An update that is left out is a tenth."""
BLOCK_TOLERANCE = 0.1
"""The same after a block: rounding grows in a hundred steps of any optimiser."""
TAKES = ("state", "key")
"""What a file's loss is given beside the model and the batch, if it has an argument of that name:
what its last call returned, and a new key."""
STILL = 1e-3
"""Way of a state's array at least, as a part of its size: of one that hardly moves, it is rounding.
Each array is looked at by itself: a counter goes further than running means."""
NAMED = 3
"""Arrays without a gradient whose names are said: which kind they are shows by then."""
STATE_FORM = "`loss(model, batch, *, state)`, which returns `(loss, state)`"


class Inputs:
    """What the steps of a file are called with: each has one batch, and keeps what it carries."""

    def __init__(self, start: AtRest, batch: Any) -> None:
        self.start, self.batch = start, batch

    def fresh(self) -> AtRest:
        """Return the first parameters and the optimiser's first state, in new buffers."""
        return jax.tree.map(jnp.copy, self.start)

    def hidden(self) -> tuple[()]:
        """Return what calls are given of the last one: nothing, for steps keep that."""
        return ()

    zero = hidden

    def data(self, _seed: int = 1) -> Any:
        """Return the batch."""
        return jax.tree.map(jnp.copy, self.batch)  # a step may take what it is given


class Carrying:
    """A step whose loss is given state or a key: each call is given what the last one returned."""

    def __init__(self, step: TrainStep, *, flat: bool) -> None:
        """Keep what is carried as the file has it, or as a list of arrays."""
        self.step, self.flat = step, flat
        self.carried: Any = ()

    def load(self, rest: AtRest) -> None:
        """Begin with what is carried at rest, too."""
        self.step.load(rest)  # type: ignore[arg-type]
        self.structure = jax.tree.structure(rest.carried)
        self.carried = jax.tree.leaves(rest.carried) if self.flat else rest.carried

    def save(self) -> AtRest:
        """Return the training at rest, with what is carried."""
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

    state_is_known = False

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
        self.optimiser = next((made for made in given if made is not None), optax.adamw(1e-3))
        self.whole = hasattr(self.module, "make_step")
        self.has_model = hasattr(self.module, "make_model")
        model, whole = ("make_model", "loss"), ("make_step",)
        for name in ("make_batch", *model * self.has_model, *whole * self.whole):
            if not callable(getattr(self.module, name, None)):
                raise BakeoffError(f"{self.path.name} has no function {name}; write one")
        self.entrant = BASELINE.entrant
        """The library of the model; of a file without one, plain JAX."""
        self.takes: list[str] = []
        if not all(callable(getattr(self.optimiser, n, None)) for n in ("init", "update")):
            raise self.problem(
                f"optimiser is a {type(self.optimiser).__name__}; give one of optax, as "
                "`nnx.Optimizer` is given it"
            )
        if self.has_model:
            arguments = inspect.signature(self.module.loss).parameters
            self.takes = [name for name in TAKES if name in arguments]
            self.entrant, self.library = self.held()

    def problem(self, text: str) -> BakeoffError:
        """Return an error that names the file."""
        return BakeoffError(f"{self.path.name}: {text}")

    def parted(self, library: Library, made: Any) -> tuple[Any, Any]:
        """Return the model and its state, empty if it has none, of what `make_model` made."""
        may_be_state = isinstance(made, tuple) and len(made) == 2 and not is_pair(made)
        if may_be_state and ("state" in self.takes or not library.holds(made)):
            return made
        return library.parted(made) if library.holds(made) else (made, ())

    def held(self) -> tuple[str, Library]:
        """Return the name of the library that holds the model, and how that is trained."""
        made, names = self.module.make_model(), []
        for name in [*impls.usual()[1:], BASELINE.entrant]:
            if name != BASELINE.entrant and impls.readable(name).models not in sys.modules:
                continue
            library = impls.load(name).library
            if library is None:
                continue
            names.append(name)
            model, state = self.parted(library, made)
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

    def first(self) -> tuple[Any, dict[str, Any]]:
        """Return a new model, and what its loss takes in the first step."""
        model, state = self.parted(self.library, self.module.make_model())
        state = jax.tree.map(jnp.asarray, state)  # a number of Python's has no type of its own
        carried = dict.fromkeys(self.takes, state)
        if "key" in carried:
            carried["key"] = jax.random.key(0)
        return model, carried

    @cached_property
    def missing(self) -> dict[str, str]:
        """Styles of the library that cannot be measured here, and why."""
        unsuited = self.library.unsuited(self.first()[0]) if self.has_model else {}
        return {**impls.load(self.entrant).missing, **unsuited}

    @cached_property
    def styles(self) -> Mapping[str, ModelStyle]:
        """Ways to write the step in the model's library."""
        left_out = {*self.missing, FLAT}  # which is the baseline
        named = {n: s for n, s in self.library.styles.items() if n not in left_out}
        return {PURE: plain_style(self.library, flat=False)} | named

    @property
    def arms(self) -> list[Arm]:
        """Everything that the file can be measured as."""
        arms = [Arm(self.entrant, style) for style in self.styles] if self.has_model else []
        return [*arms, *([Arm(self.name, WHOLE)] if self.whole else [])]

    def loss(self, model: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        """Return the mean loss, and what is carried on: the state after it, and another key."""
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
        if not same(first, second):
            raise self.problem(
                "make_batch returns other data in its second call; draw them with a fixed seed"
            )
        return jax.device_put(first)

    def check(self) -> list[str]:
        """Return remarks on what the file trains, and in which styles it cannot.

        Raises:
            BakeoffError: the batch changes, the loss is not one number, or nothing is trained.
        """
        batch = self.batch()
        if not self.has_model:
            return []
        (model, carried), (again, _) = self.first(), self.first()
        params, others, static = self.library.split(model)
        if not same(params, self.library.split(again)[0]):
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
        remarks = self.idle(params, grads.jaxpr)
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

    def idle(self, params: Any, grads: Any) -> list[str]:
        """Return in words which arrays get no gradient, if there are any.

        Those are the ones of which the program of the gradients makes a constant: nothing needs to
        be compiled for that.

        Raises:
            BakeoffError: none gets one.
        """
        paths = jax.tree_util.tree_leaves_with_path(params)
        still = [
            jax.tree_util.keystr(path)
            for (path, _), is_constant in zip(paths, constants_of(grads), strict=False)
            if is_constant
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


class Moved(NamedTuple):
    """How far a training is from its start."""

    params: np.ndarray
    """All numbers of all arrays, one after the other."""
    state: list[np.ndarray]
    """Of each array."""


class OwnArms(Arms):
    """The arms of a user's own step."""

    left_out = ("host_cost_pipelined",)  # a row of steps is measured on all cores
    jax_without_program = None

    def prepare(self, workload: str) -> None:
        """Import the file, and make its first model and its batch."""
        own, start = OwnStep(workload), AtRest((), ())
        if own.has_model:
            model, carried = own.first()
            params, others, _ = own.library.split(model)
            start = AtRest(params, own.optimiser.init(params), others, carried=carried)
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
        step: Any
        if arm.entrant == own.name or not own.has_model:
            step = WholeStep(own.module.make_step)
            return step
        flat = arm.code == BASELINE and own.entrant != BASELINE.entrant  # its arrays alone
        style = plain_style(own.library, flat=True) if flat else own.styles[arm.style]
        model, carried = own.first()
        structure = jax.tree.structure(carried)

        def loss_of_arrays(model: Any, arrays: Any, batch: Any) -> tuple[Any, Any]:
            value, carried = own.loss(model, jax.tree.unflatten(structure, arrays), batch)
            return value, jax.tree.leaves(carried)

        loss = loss_of_arrays if flat and carried else own.loss
        step = style(model, loss, own.optimiser, donate=self.donate)
        if carried and (flat or arm.style not in own.library.keeping):
            step = Carrying(step, flat=flat)
        return step

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
        rest = step.save()
        if rest is not None and any(np.isnan(array).any() for array in numbers(rest.carried)):
            raise self.own.problem(f"the state is not a number after {TRAJECTORY_STEPS} steps")
        return np.array(losses)

    def apart(self, arm: Arm, losses: np.ndarray, expected: np.ndarray) -> float:
        """Return how far ten losses are from others, relative to the largest of these."""
        if arm.style == WHOLE and self.own.has_model:
            return 0.0  # its proof has said whether it computes what the model does
        return float(np.max(np.abs(losses - expected)) / np.max(np.abs(expected)))

    def moved(self, rest: Any) -> Moved:
        """Return how far a training is from its start."""
        start = self.case.start
        params = [np.zeros(1), *map(np.ravel, ways(rest.params, start.params))]
        state, first = ((at.others, at.carried) for at in (rest, start))
        return Moved(np.concatenate(params), ways(state, first))

    @cached_property
    def ended(self) -> Moved:
        """The way that the baseline goes in ten steps."""
        step = self.make(BASELINE)
        self.losses(step)
        return self.moved(step.save())

    def judged(self, step: Any, baseline: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """Return how far a step is from the baseline's, relative to its numbers, and its losses.

        Of a whole step, losses alone are known; where it has others, it stands for itself.

        Raises:
            NotEqualError: it computes something else.
        """
        losses = self.losses(step)
        if isinstance(step, WholeStep):
            loss, trajectory = (self.apart(BASELINE, losses[:n], baseline[:n]) for n in (1, None))
            equal = not self.own.has_model or trajectory <= self.tolerance
            return {"loss": loss, "gradient": 0.0, "trajectory": trajectory, "equal": equal}, losses
        rest = step.save()
        moved, after = self.moved(rest), numbers((rest.others, rest.carried))
        away = {
            "loss": self.apart(BASELINE, losses[:1], baseline[:1]),
            "gradient": distance(moved.params, self.ended.params),
            "trajectory": self.apart(BASELINE, losses, baseline),
        }
        first = numbers((self.case.start.others, self.case.start.carried))
        pairs = zip(moved.state, self.ended.state, first, strict=True)
        state = max((off(*arrays) for arrays in pairs), default=0.0)
        for what, apart, allowed in (
            ("ten steps' losses are", away["trajectory"], self.tolerance),
            ("the parameters after ten steps are", away["gradient"], PARAMETERS_TOLERANCE),
            ("the state after ten steps is", state, PARAMETERS_TOLERANCE),
        ):
            if not apart <= allowed:
                raise NotEqualError(
                    f"not equal: {what} off by {apart:.2g} of the baseline's (allowed: "
                    f"{allowed:.2g})"
                )
        norms = [float(np.linalg.norm(np.nan_to_num(array))) for array in after]
        return {**away, "state": norms}, losses

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
        """Return pauses for garbage; of the baseline, what a call takes that computes nothing."""
        step.load(self.case.fresh())
        batch = self.case.data()
        pauses = collecting(partial(step, (), batch))
        if arm.code != BASELINE:
            return pauses
        return pauses | {"dispatch": dispatch_seconds(jax.tree.leaves((self.case.start, batch)))}

    def difference(self, end: End, baseline: End | None) -> str:
        """Return in words how far an arm is from the baseline after a block; empty if not."""
        if not math.isfinite(end.loss):
            return f"its loss is {end.loss}"
        if baseline is None or end.checkpoint is None:
            return ""
        ours, theirs = self.moved(end.checkpoint), self.moved(baseline.checkpoint)
        off = distance(ours.params, theirs.params)
        if not off <= BLOCK_TOLERANCE:
            return (
                f"after {end.calls} calls its parameters are off by {off:.2g} of the way that the "
                f"baseline's went (allowed: {BLOCK_TOLERANCE:g})"
            )
        return ""


def constants_of(jaxpr: Any) -> list[bool]:
    """Return of each output of a jaxpr whether it depends on none of its inputs."""
    depending = {*jaxpr.invars, *jaxpr.constvars}

    def depends(var: Any) -> bool:
        return not hasattr(var, "val") and var in depending  # a literal has a value

    for equation in jaxpr.eqns:
        if any(map(depends, equation.invars)):
            depending.update(equation.outvars)
    return [not depends(var) for var in jaxpr.outvars]


def types(tree: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return the structure of a tree of shapes and types, and these."""
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


def ways(tree: Any, start: Any) -> list[np.ndarray]:
    """Return how far each array of a tree is from that of another one."""
    with np.errstate(invalid="ignore"):  # a running minimum begins at infinity
        pairs = zip(numbers(tree), numbers(start), strict=True)
        return [np.nan_to_num(a - b, posinf=0.0, neginf=0.0) for a, b in pairs]


def off(ours: np.ndarray, theirs: np.ndarray, start: np.ndarray) -> float:
    """Return how far one way of a state's array is from another, relative to that."""
    size = float(np.linalg.norm(np.nan_to_num(start, posinf=0.0, neginf=0.0) + theirs))
    least = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(ours - theirs)) / (max(least, STILL * size) or 1.0)


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
