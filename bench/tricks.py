"""Each trick of the tuned step on its own, beside the shared step: what is each of them worth?

    pytest bench --entrant pure_jax,bench/tricks.py --metric step --benchmark-json=tricks.json
    python -m bench.tricks tricks.json

An entrant from outside: a style is the shared step with one change, and is proven equal like every
other style. `donated` is the only style of this project that donates buffers: parameters and
optimiser state, never the hidden state, so that a second call with the same arguments is allowed.
Run as a module, this file prints what a run found, as a table in Markdown.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

import impls
from common.errors import BakeoffError
from common.layerwise import in_groups, kernel_gradient, mean_loss
from common.loss import cross_entropy, scan_loss
from common.older import tree_get, tree_set
from common.steps import (
    FunctionalStep,
    functional,
    load_adam,
    pure_style,
    pure_update,
    save_adam,
    stages_of,
    update_of,
)
from impls.pure_jax import build, char_rnn, dense

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Array, Float

    from bench.report.runs import Run
    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, Params, State, Style, TrainStep, Weights
    from common.layerwise import Loss, Rows, Sequences
    from impls.pure_jax import Layer

    type LossOf = Callable[[list[Layer], Hidden, Chunk], tuple[Loss, Hidden]]

DISTRIBUTION = "jax"
NOTE = "The shared step with one trick each; `donated` donates its own state."
NAME = "tricks"
BASELINE, TUNED = ("pure_jax", "pure"), ("pure_jax", "tuned")
UNROLL = 8
"""Characters that one iteration of `unrolled` works on."""


def by_loss(loss_of: LossOf) -> Style:
    """Return the shared step with another way to the same loss."""

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        update = jax.jit(update_of(loss_of, optimiser))
        return functional(update, build(config), optimiser, stages_of(update))

    style.__doc__ = loss_of.__doc__
    return style


def by_layer(layer_of: Callable[[Layer, Rows, Sequences], Sequences], doc: str) -> Style:
    """Return the shared step with one scan per layer, the first over one-hot characters."""

    def loss(params: list[Layer], hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
        *cells, readout = params
        x, after = jax.nn.one_hot(chunk.inputs, readout["bias"].size), []
        for layer, state in zip(cells, hidden, strict=True):
            x = layer_of(layer, state, x)
            after.append(x[-1])
        logits = x @ readout["kernel"] + readout["bias"][None, None]
        return cross_entropy(logits, chunk), tuple(after)

    loss.__doc__ = doc
    return by_loss(loss)


def joined(layer: Layer, hidden: Rows, x: Sequences) -> Sequences:
    """Return one layer's states, the cell as the shared step has it: over `[hidden, x]`."""

    def step(hidden: Rows, x: Rows) -> tuple[Rows, Rows]:
        both = jnp.concatenate([hidden, x], axis=1)
        hidden = jnp.tanh(both @ layer["kernel"] + layer["bias"][None])
        return hidden, hidden

    return jax.lax.scan(step, hidden, x)[1]


def projected(layer: Layer, hidden: Rows, x: Sequences) -> Sequences:
    """Return one layer's states; the products with its input are one product before the scan."""
    own, other = jnp.split(layer["kernel"], [hidden.shape[1]])

    def step(hidden: Rows, below: Rows) -> tuple[Rows, Rows]:
        hidden = jnp.tanh(hidden @ own + below)
        return hidden, hidden

    return jax.lax.scan(step, hidden, x @ other + layer["bias"][None, None])[1]


@jax.custom_vjp
def by_hand(layer: Layer, hidden: Rows, x: Sequences) -> Sequences:
    """Return what `joined` does; the gradient of the kernel is one product after the scan."""
    return joined(layer, hidden, x)


def _forward(layer: Layer, hidden: Rows, x: Sequences) -> tuple[Sequences, Any]:
    states = joined(layer, hidden, x)
    return states, (layer["kernel"], hidden, x, states)


def _backward(kept: Any, gradient: Sequences) -> tuple[Layer, Rows, Sequences]:
    kernel, hidden, x, states = kept
    width, transposed = hidden.shape[1], kernel.T

    def step(after: Rows, here: tuple[Rows, Rows]) -> tuple[Rows, tuple[Rows, Rows]]:
        gradient, state = here
        before = (gradient + after) * (1 - state * state)
        both = before @ transposed
        return both[:, :width], (before, both[:, width:])

    first, (sums, below) = jax.lax.scan(
        step, jnp.zeros_like(hidden), (gradient, states), reverse=True
    )
    read = jnp.concatenate([jnp.concatenate([hidden[None], states[:-1]]), x], axis=2)
    return {"kernel": kernel_gradient(read, sums), "bias": jnp.sum(sums, (0, 1))}, first, below


by_hand.defvjp(_forward, _backward)


def gathered(params: list[Layer], hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
    """The first layer reads a row of its kernel instead of multiplying by a one-hot vector."""
    *cells, readout = params

    def step(state: State, token: Array) -> tuple[State, Float[Array, " vocab"]]:
        new: list[Array] = []
        for layer, hidden in zip(cells, state, strict=True):
            if new:
                total = dense(layer, jnp.concatenate([hidden, new[-1]]))
            else:
                own, other = jnp.split(layer["kernel"], [hidden.size])
                total = hidden @ own + other[token] + layer["bias"]
            new.append(jnp.tanh(total))
        return tuple(new), dense(readout, new[-1])

    return scan_loss(step, hidden, chunk)


def unrolled(params: list[Layer], hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
    """The scan is unrolled: one iteration works on eight characters."""
    step = jax.vmap(partial(char_rnn, params))
    hidden, logits = jax.lax.scan(step, hidden, jnp.asarray(chunk.inputs), unroll=UNROLL)
    return cross_entropy(logits, chunk), hidden


def grouped(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """More than eight streams are worked on eight at a time, and gradients are added up."""

    def loss_of(params: Params, hidden: Hidden, chunk: Chunk, total: Loss) -> tuple[Loss, Hidden]:
        step = jax.vmap(partial(char_rnn, params))
        hidden, logits = jax.lax.scan(step, hidden, jnp.asarray(chunk.inputs))
        return mean_loss(logits, chunk, total), hidden

    @jax.jit
    def update(state: tuple[Params, optax.OptState], hidden: Hidden, chunk: Chunk) -> Any:
        params, opt_state = state
        loss, hidden, grads = in_groups(loss_of, params, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden, loss

    return functional(update, build(config), optimiser, stages_of(update))


def flat_optimiser(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """The optimiser works on one vector (`optax.flatten`) instead of eight arrays."""
    model, vector = build(config), optax.flatten(optimiser)
    update = jax.jit(pure_update(model, vector))

    def flat(weights: Weights) -> Array:
        return ravel_pytree(model.from_weights(weights))[0]

    def load(checkpoint: Checkpoint) -> tuple[Params, optax.OptState]:
        params = model.from_weights(checkpoint.weights)
        return params, load_adam(vector, params, model._replace(from_weights=flat), checkpoint)

    def save(state: tuple[Params, optax.OptState]) -> Checkpoint:
        params, opt_state = state
        tree = ravel_pytree(params)[1]
        moments = {name: tree(tree_get(opt_state, name)) for name in ("mu", "nu")}
        return save_adam(params, tree_set(opt_state, **moments), model)

    return FunctionalStep(update, load, save, stages_of(update))


def donated(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """Parameters and moments are donated: the new ones take the memory of the old ones."""
    model = build(config)
    update = jax.jit(pure_update(model, optimiser), donate_argnums=0)

    def load(checkpoint: Checkpoint) -> tuple[Params, optax.OptState]:
        params = model.from_weights(checkpoint.weights)
        state = params, load_adam(optimiser, params, model, checkpoint)
        return jax.tree.map(jnp.copy, state)  # the checkpoint's arrays are not ours to give away

    def save(state: tuple[Params, optax.OptState]) -> Checkpoint:
        return save_adam(*state, model)

    return FunctionalStep(update, load, save, stages_of(update))


def unjitted_optimiser(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """Only loss and gradient are compiled; the optimiser runs operation by operation."""

    @jax.jit
    def gradient(params: Params, hidden: Hidden, chunk: Chunk) -> Any:
        def loss_fn(params: Params) -> tuple[Loss, Hidden]:
            return scan_loss(partial(char_rnn, params), hidden, chunk)

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    def update(state: tuple[Params, optax.OptState], hidden: Hidden, chunk: Chunk) -> Any:
        params, opt_state = state
        (loss, hidden), grads = gradient(params, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden, loss

    stages = stages_of(gradient, whole=False)
    return functional(
        update, build(config), optimiser, lambda state, *rest: stages(state[0], *rest)
    )


STYLES: dict[str, Style] = {
    "pure": pure_style(build),
    "layered": by_layer(joined, "One scan per layer; `hoisted` and `handwritten` build on it."),
    "hoisted": by_layer(
        projected, "One scan per layer; the products with its input are one product before it."
    ),
    "handwritten": by_layer(
        by_hand, "One scan per layer; its kernel's gradient is one product after it."
    ),
    "gathered": by_loss(gathered),
    "unrolled": by_loss(unrolled),
    "grouped": grouped,
    "flat_optimiser": flat_optimiser,
    "donated": donated,
    "unjitted_optimiser": unjitted_optimiser,
}


def table(run: Run) -> str:
    """Return tricks × workloads in Markdown: ratios to the shared step, and `tuned` at the end.

    Raises:
        BakeoffError: the run did not measure the tricks.
    """
    from bench.report import markdown, wording  # here, since workers import this file

    cells = {
        (cell["entrant"], cell["style"], cell["workload"], cell["backend"]): cell
        for cell in run.section["cells"]
        if cell["entrant"] == NAME or (cell["entrant"], cell["style"]) == TUNED
    }
    rows = {(NAME, style): inspect.getdoc(make) or "" for style, make in STYLES.items()}
    rows[NAME, BASELINE[1]] = "Nothing: any difference is noise."
    rows[TUNED] = inspect.getdoc(impls.load(TUNED[0]).style(TUNED[1])) or ""
    measured = {key[:2] for key in cells}
    if measured <= {TUNED}:
        raise BakeoffError(
            f"{run.name} has no tricks; measure them: "
            f"pytest bench --entrant {BASELINE[0]},bench/{NAME}.py --benchmark-json=tricks.json"
        )
    backends = dict.fromkeys(cell["backend"] for cell in cells.values())
    columns = [(w, b) for w in wording.workloads(cells.values()) for b in backends]
    heads = [f"step at `{w}`" + (f" on {b}" if len(backends) > 1 else "") for w, b in columns]
    out = [f"| trick | what it does | {' | '.join(heads)} |", f"|---|---|{'--:|' * len(columns)}"]
    for row, does in rows.items():
        if row in measured:
            name = f"`{row[1]}`" if row != TUNED else f"{row[0]} `{row[1]}`: most of them"
            steps = [markdown.step(cells.get((*row, *column))) for column in columns]
            out.append(f"| {' | '.join([name, does, *steps])} |")
    margin = wording.percent(run.section["plan"]["margin"])
    legend = (
        f"Ratios to the shared step of {BASELINE[0]}, with 95 % intervals; below 1 is faster; "
        f"`=`: equivalent (within ±{margin}), `?`: inconclusive, **bold**: slower or faster."
    )
    return "\n".join([*out, "", legend])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a run; return the exit status: 0 done, 2 wrong use."""
    from bench.report.runs import read

    parser = argparse.ArgumentParser(
        prog="python -m bench.tricks",
        description="Print what each trick of the tuned step gains on its own, in Markdown.",
        epilog="examples:\n"
        "  pytest bench --entrant pure_jax,bench/tricks.py --benchmark-json=tricks.json\n"
        "  python -m bench.tricks tricks.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN.json", help="a run that measured the tricks")
    try:
        print(table(read(parser.parse_args(arguments).run, samples=False)))
    except BakeoffError as error:
        print(f"bakeoff: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
