"""Time styles of a training step beside `jax.jit` over its arrays: a second method for `cost`.

    python results/cost/truth.py mine.py equinox filter_jit pure --seconds 3
    python results/cost/truth.py mine.py equinox filter_jit --real --cores 2

It uses no code of this project. Each style is written here as in its library's documentation. The
skeleton is written here, too: the same model and optimiser, with arrays of one element. It is timed
unless `--real` is given.

All steps train in one process, call by call in rounds of random order, each timed call after an
untimed one of the same step, as in a loop of its own. The script prints microseconds as JSON: what
a style adds to a call, and a quiet call of the baseline, its 10 % quantile. The added time is the
median ratio of a style's call to the baseline's in the same round, minus one, times the quiet call.

In a process that has compiled its programs, a style can add a tenth less than in one that reads
them from JAX's persistent cache: JAX_COMPILATION_CACHE_DIR names its folder, and `--seconds 0`
fills it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import inspect
import json
import os
import random
import time
from functools import wraps
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    type Call = Callable[[Any], Any]
    """One update by a batch; it returns the loss."""

WARMING_CALLS = 5
"""Calls of each step before any is timed: the second and third can still take another path."""
MIN_ROUNDS = 40
"""Rounds of timed calls at least: calls of tens of milliseconds vary by some per cent."""


def is_array(leaf: Any) -> bool:
    """Tell whether a leaf is an array of numbers, and not of keys."""
    return hasattr(leaf, "shape") and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def shrink(tree: Any) -> Any:
    """Return a tree whose arrays have one element, and their ranks and types."""
    return jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf, shape=(1,) * leaf.ndim) if is_array(leaf) else leaf, tree
    )


def touch(tree: Any) -> Any:
    """Return a tree with other arrays: what a program does not change, JAX hands on."""
    return jax.tree.map(lambda leaf: leaf + leaf if is_array(leaf) else leaf, tree)


def total(tree: Any) -> Any:
    """Return the sum of a tree's numbers."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]
    return sum((array.sum().astype(jnp.float32) for array in arrays), jnp.zeros(()))


def skeleton(file: Any, library: str) -> Any:
    """Return a step file with the same trees as another one, and next to nothing to compute."""

    def make_model() -> Any:
        made = file.make_model()
        if library != "flax_nnx":
            return shrink(made)
        from flax import nnx

        nnx.update(made, shrink(nnx.state(made)))
        return made

    @wraps(file.loss)
    def loss(model: Any, batch: Any, **carried: Any) -> Any:
        if library == "flax_nnx":
            from flax import nnx

            nnx.update(model, touch(nnx.state(model, nnx.Not(nnx.Param))))
            model = nnx.state(model, nnx.Param)
        value = total(model) + 0 * total((batch, carried))
        return (value, touch(carried["state"])) if "state" in carried else value

    def update(grads: Any, state: Any, _params: Any = None) -> tuple[Any, Any]:
        return touch(grads), touch(state)

    return SimpleNamespace(
        make_model=make_model,
        make_batch=lambda: shrink(jax.device_put(file.make_batch())),
        loss=loss,
        optimiser=optax.GradientTransformation(file.optimiser.init, update),
    )


class Training:
    """The model of a step file as parameters, what a step carries on, and a loss of both."""

    def __init__(self, file: Any, library: str) -> None:
        self.file, self.optimiser, made = file, file.optimiser, file.make_model()
        takes, state = inspect.signature(file.loss).parameters, None
        self.carried: Any
        self.merge: Callable[[Any], Any] = lambda params: params
        if library in ("equinox", "haiku"):
            made, state = made if "state" in takes else (made, None)
        if library == "equinox":
            import equinox as eqx  # here and below: only what is measured, for imports take seconds

            self.params, static = eqx.partition(made, eqx.is_inexact_array)
            self.merge = lambda params: eqx.combine(params, static)
        elif library == "flax_nnx":
            from flax import nnx

            parts: Any = nnx.split(made, nnx.Param, ...)
            self.graphdef, self.params, self.carried = parts
        elif library == "pure_jax":
            self.params = made
        else:
            self.params, self.apply = made
            if library == "flax_linen" and "state" in takes:
                state = {name: v for name, v in self.params.items() if name != "params"}
                self.params = self.params["params"]
            self.merge = lambda params: (params, self.apply)
        self.model, self.is_nnx = made, library == "flax_nnx"
        if not self.is_nnx:
            both = {"state": state, "key": jax.random.key(0)}
            self.carried = {name: value for name, value in both.items() if name in takes}

    def loss(self, model: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        """Return a model's loss, and what the next step is given: its state, another key."""
        given, after = dict(carried), dict(carried)
        if "key" in carried:
            after["key"], given["key"] = jax.random.split(carried["key"])
        value = self.file.loss(model, batch, **given)
        if "state" in carried:
            value, after["state"] = value
        return value, after

    def loss_of_params(self, params: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        """Return the same of parameters alone."""
        if self.is_nnx:
            from flax import nnx

            model = nnx.merge(self.graphdef, params, carried, copy=True)
            value = self.file.loss(model, batch)
            return value, nnx.state(model, nnx.Not(nnx.Param))
        return self.loss(self.merge(params), carried, batch)

    def update(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """Make one update of parameters, the optimiser's state and what is carried on."""
        params, opt_state, carried = state
        grad_of = jax.value_and_grad(self.loss_of_params, has_aux=True)
        (loss, carried), grads = grad_of(params, carried, batch)
        updates, opt_state = self.optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, carried), loss

    def first(self) -> Any:
        """Return what the first update is given, in buffers of its own."""
        state = self.params, self.optimiser.init(self.params), self.carried
        return jax.tree.map(lambda leaf: leaf.copy(), state)


def in_a_loop(jitted: Callable[..., Any], state: Any) -> Call:
    """Return a step that hands what a jitted function returns to its next call."""

    def call(batch: Any) -> Any:
        nonlocal state
        state, loss = jitted(state, batch)
        return loss

    return call


def arrays_alone(training: Training) -> Call:
    """`jax.jit` over a list of arrays: the baseline of every library's model."""
    arrays, structure = jax.tree.flatten(training.first())

    @jax.jit
    def step(arrays: Any, batch: Any) -> Any:
        state, loss = training.update(jax.tree.unflatten(structure, arrays), batch)
        return jax.tree.leaves(state), loss

    return in_a_loop(step, arrays)


def pure(training: Training) -> Call:
    """`jax.jit` over parameters and optimiser state in the structures of the library."""
    return in_a_loop(jax.jit(training.update), training.first())


def make_step(training: Training) -> Call:
    """The file's own step."""
    return training.file.make_step()


def filter_jit(training: Training) -> Call:
    """Equinox's documentation: the whole model through `filter_jit`."""
    import equinox as eqx

    optimiser = training.optimiser

    @eqx.filter_jit
    def step(state: Any, batch: Any) -> Any:
        model, opt_state, carried = state
        grad_of = eqx.filter_value_and_grad(training.loss, has_aux=True)
        (loss, carried), grads = grad_of(model, carried, batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (eqx.apply_updates(model, updates), opt_state, carried), loss

    params, opt_state, carried = training.first()
    return in_a_loop(step, (training.merge(params), opt_state, carried))


def flax_train_state(training: Training) -> Call:
    """Flax's documentation: a TrainState, with fields for statistics and keys."""
    from flax.training import train_state

    class TrainState(train_state.TrainState):
        carried: Any

    @jax.jit
    def step(state: TrainState, batch: Any) -> Any:
        def loss_fn(params: Any) -> Any:
            return training.loss((params, state.apply_fn), state.carried, batch)

        (loss, carried), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, carried=carried), loss

    params, _, carried = training.first()
    state = TrainState.create(
        apply_fn=training.apply, params=params, tx=training.optimiser, carried=carried
    )
    return in_a_loop(step, state)


def nnx_step(style: str) -> Callable[[Training], Call]:
    """NNX's documentation: model and optimizer are updated in place, by one of its transforms."""

    def make(training: Training) -> Call:
        from flax import nnx

        model = training.model
        optimizer = nnx.Optimizer(model, training.optimiser, wrt=nnx.Param)

        def train_step(model: Any, optimizer: Any, batch: Any) -> Any:
            loss, grads = nnx.value_and_grad(training.file.loss)(model, batch)
            optimizer.update(model, grads)
            return loss

        def returning(pair: tuple[Any, Any], batch: Any) -> Any:
            loss = train_step(*pair, batch)
            return pair, loss

        if style == "jax_jit":
            return in_a_loop(jax.jit(returning), (model, optimizer))
        if style == "jit_partial":
            return nnx.jit_partial(train_step, model, optimizer, graph=False)
        if style == "cached_partial":
            return nnx.cached_partial(nnx.jit(train_step), model, optimizer)
        step = nnx.jit(train_step, graph=False) if style == "jit_tree" else nnx.jit(train_step)
        return lambda batch: step(model, optimizer, batch)

    return make


STYLES: dict[str, Callable[[Training], Call]] = {
    "pure": pure,
    "step": make_step,
    "filter_jit": filter_jit,
    "train_state": flax_train_state,
} | {
    name: nnx_step(name) for name in ("jit", "jit_tree", "cached_partial", "jit_partial", "jax_jit")
}


def seconds_of(call: Call, batch: Any) -> float:
    """Return the time of a call that is waited for, after one that is not timed."""
    call(batch).block_until_ready()
    start = time.perf_counter()
    call(batch).block_until_ready()
    return time.perf_counter() - start


def warm(call: Call, batch: Any) -> None:
    """Compile a step, and call it until its calls are alike."""
    for _ in range(WARMING_CALLS):
        jax.block_until_ready(call(batch))


def measure(
    baseline: Call, styles: Mapping[str, Call], batch: Any, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield what each style adds to the baseline's quiet call, in microseconds."""
    gc.collect()
    gc.disable()
    rounds: list[dict[Call, float]] = []
    calls = [baseline, *styles.values()]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < MIN_ROUNDS:
        order = random.sample(calls, len(calls))
        rounds.append({call: seconds_of(call, batch) for call in order})
    gc.enable()
    quiet = 1e6 * quantiles((taken[baseline] for taken in rounds), n=10)[0]
    for name, style in styles.items():
        ratio = median(taken[style] / taken[baseline] for taken in rounds)
        numbers = {"added": (ratio - 1) * quiet, "call": quiet, "rounds": len(rounds)}
        yield {"style": name} | numbers


def module(path: Path) -> Any:
    """Return a step file's module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="as `bakeoff cost` takes it")
    parser.add_argument("library", help="as in flax_nnx")
    parser.add_argument(
        "styles", nargs="+", help="as in jit; `step` is the file's own, with --real"
    )
    parser.add_argument("--real", action="store_true", help="the real step, not the skeleton")
    parser.add_argument("--cores", type=int, default=1, help="to run on")
    parser.add_argument("--first", type=int, default=0, help="of these cores, by its place")
    parser.add_argument("--seconds", type=float, default=3, help="of timed calls; 0: only compile")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[options.first :][: options.cores]
    os.sched_setaffinity(0, cores)  # before JAX counts cores
    library, file = options.library, module(options.file)
    if not options.real:
        file = skeleton(file, library)
    batch = jax.device_put(file.make_batch())
    plain = pure if library == "pure_jax" else arrays_alone
    makers = {"": plain} | {name: STYLES[name] for name in options.styles}
    steps = {}
    for name in random.sample([*makers], len(makers)):
        steps[name] = makers[name](Training(file, library))
        warm(steps[name], batch)
    if options.seconds:
        for numbers in measure(steps.pop(""), steps, batch, options.seconds):
            print(json.dumps(numbers))


if __name__ == "__main__":
    main()
