"""Each trick of the tuned step on its own, beside the shared step: what is each of them worth?

    pytest bench --entrant pure_jax,bench/tricks.py --metric step --benchmark-json=tricks.json
    python -m bench.tricks tricks.json

An entrant from outside: a style is the shared step with one change, and is proven equal like every
other style. Run as a module, this file prints what a run found, as a table in Markdown.
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from bench.cells import BASELINE, Arm
from common.errors import BakeoffError
from common.layerwise import in_groups, kernel_gradient, mean_loss
from common.loss import cross_entropy, scan_loss
from common.steps import functional, pure_style, stages_of, update_of
from impls.pure_jax import build, char_rnn, dense

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float

    from bench.runfile.reader import Run
    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, Params, State, Style, TrainStep
    from common.layerwise import Loss, Rows, Sequences
    from impls.pure_jax import Layer

    type LossOf = Callable[[list[Layer], Hidden, Chunk], tuple[Loss, Hidden]]

DISTRIBUTION = "jax"
NAME = "tricks"
TUNED = Arm("pure_jax", "tuned")


def by_loss(loss_of: LossOf) -> Style:
    """Return the shared step with another way to the same loss."""

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        update = jax.jit(update_of(loss_of, optimiser))
        return functional(update, build(config), optimiser, stages_of(update))

    style.__doc__ = loss_of.__doc__
    return style


def by_layer(layer_of: Callable[[Layer, Rows, Sequences], Sequences]) -> Style:
    """Return the shared step with one scan per layer, the first over one-hot characters."""

    def loss(params: list[Layer], hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
        *cells, readout = params
        x, after = jax.nn.one_hot(chunk.inputs, readout["bias"].size), []
        for layer, state in zip(cells, hidden, strict=True):
            x = layer_of(layer, state, x)
            after.append(x[-1])
        logits = x @ readout["kernel"] + readout["bias"][None, None]
        return cross_entropy(logits, chunk), tuple(after)

    loss.__doc__ = layer_of.__doc__
    return by_loss(loss)


def joined(layer: Layer, hidden: Rows, x: Sequences) -> Sequences:
    """One scan per layer; `hoisted` and `handwritten` build on it."""

    def step(hidden: Rows, x: Rows) -> tuple[Rows, Rows]:
        both = jnp.concatenate([hidden, x], axis=1)
        hidden = jnp.tanh(both @ layer["kernel"] + layer["bias"][None])
        return hidden, hidden

    return jax.lax.scan(step, hidden, x)[1]


def projected(layer: Layer, hidden: Rows, x: Sequences) -> Sequences:
    """One scan per layer; the products with its input are one product before it."""
    own, other = jnp.split(layer["kernel"], [hidden.shape[1]])

    def step(hidden: Rows, below: Rows) -> tuple[Rows, Rows]:
        hidden = jnp.tanh(hidden @ own + below)
        return hidden, hidden

    return jax.lax.scan(step, hidden, x @ other + layer["bias"][None, None])[1]


@jax.custom_vjp
def by_hand(layer: Layer, hidden: Rows, x: Sequences) -> Sequences:
    """One scan per layer; its kernel's gradient is one product after it."""
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


STYLES: dict[str, Style] = {
    "pure": pure_style(build),
    "layered": by_layer(joined),
    "hoisted": by_layer(projected),
    "handwritten": by_layer(by_hand),
    "gathered": by_loss(gathered),
    "grouped": grouped,
}


def table(run: Run) -> str:
    """Return tricks × workloads in Markdown: ratios to the shared step, and `tuned` at the end.

    Raises:
        BakeoffError: the run did not measure the tricks.
    """
    from bench.report import markdown, wording  # here, since workers import this file
    from bench.report.table import percent

    rows = {Arm(NAME, style): inspect.getdoc(make) or "" for style, make in STYLES.items()}
    rows[Arm(NAME, BASELINE[1])] = "Nothing: any difference is noise."
    rows[TUNED] = inspect.getdoc(TUNED.load()) or ""
    cells = {each.cell: each for each in run.section.cells if each.cell.arm in rows}
    if not any(cell.entrant == NAME for cell in cells):
        raise BakeoffError(
            f"{run.name} has no tricks; measure them: "
            f"pytest bench --entrant {BASELINE[0]},bench/{NAME}.py --benchmark-json=tricks.json"
        )
    backends = dict.fromkeys(cell.backend for cell in cells)
    columns = [(w, b) for w in wording.workloads(cells.values()) for b in backends]
    heads = [f"step at `{w}`" + (f" on {b}" if len(backends) > 1 else "") for w, b in columns]
    lines = [f"| trick | what it does | {' | '.join(heads)} |", f"|---|---|{'--:|' * len(columns)}"]
    measured = {cell.arm for cell in cells}
    for arm, text in rows.items():
        if arm in measured:
            name = f"`{arm.style}`" if arm != TUNED else f"{arm.entrant} `{arm.style}`: all of them"
            steps = [markdown.step(cells.get(arm.at(*column))) for column in columns]
            lines.append(f"| {' | '.join([name, text, *steps])} |")
    margin = percent(run.section.plan.margin)
    legend = (
        f"Ratios to the shared step of {BASELINE[0]}, with 95 % intervals; below 1 is faster; "
        f"`=`: equivalent (within ±{margin}), `?`: inconclusive, **bold**: slower or faster."
    )
    return "\n".join([*lines, "", legend])


def tricks(run: str) -> None:
    """Print what each trick of the tuned step is worth on its own, in Markdown."""
    from bench.runfile.reader import read

    print(table(read(Path(run), samples=False)))


if __name__ == "__main__":
    from bench.cli import program, run_program

    run_program(program(tricks, "python -m bench.tricks"))
