"""Planted differences: plain JAX's step with a known cost added, which computes the same numbers.

Each plant is a `Style` that passes the equality proof, and is caught by an exact metric, which the
last lines of its docstring name. What is added inside of the program reaches the loss, so
that XLA cannot remove it, as a zero that XLA cannot know.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build, char_rnn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import optax
    from jaxtyping import Array, Float

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, Style, TrainStep
    from common.steps import Loss, Update

    type State = Any
    """Parameters and optimiser state."""

PLANTED = "BAKEOFF_PLANTED"
"""Variable with the iterations of planted work on one side of a comparison."""
UNROLLED = 100
"""Characters that `work` reads without a loop."""
STORES = 8
"""Numbers that the loop of `temp` stores one by one; a loop of one would be no loop."""

ENTRANT = '''\
"""Planted differences, written by bench.trials.plants."""

from bench.trials import plants
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

STYLES = {{
{styles}
}}
'''


def unchanged(update: Update) -> Update:
    """Return an update as it is."""
    return update


def style_of(
    *,
    inside: Callable[[Update], Update] = unchanged,
    outside: Callable[[Update], Update] = unchanged,
    whole: bool = True,
) -> Style:
    """Return the baseline's style, with a change of what is compiled or of how that is called.

    `whole` is False where more than this one program runs then.
    """

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        model = build(config)
        update = jax.jit(inside(pure_update(model, optimiser)))
        return functional(outside(update), model, optimiser, stages_of(update, whole=whole))

    return style


def same() -> Style:
    """Return the baseline's style once more, with a program of its own; nothing catches it."""
    return style_of()


def work(iterations: int) -> Style:
    """Return a style whose program reads `iterations` characters more, forward only.

    It reads them one after the other, and after the update, with its new parameters: otherwise
    XLA:CPU could read them beside it, on another core. Of a step of `seed`, which reads 256 forward
    and backward, one more forward is about a thousandth. Up to `UNROLLED` they stand one after the
    other in the program: a loop costs half a per cent by itself.

    Caught by `hlo_instructions`, `flops` and the fingerprint; a loop's trip count by the last
    alone, for its body counts once.
    """

    def change(plain: Update) -> Update:
        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            state, hidden, loss = plain(state, hidden, chunk)
            params, _ = state
            token = jnp.asarray(chunk.inputs)[0, 0]

            def read(_: int, rows: tuple[Array, ...]) -> tuple[Array, ...]:
                return char_rnn(params, rows, token)[0]

            unroll = iterations <= UNROLLED
            first = tuple(rows[0] for rows in hidden)
            last = jax.lax.fori_loop(0, iterations, read, first, unroll=unroll)
            return state, hidden, loss + zero(jnp.sum(last[-1]))

        return update

    return style_of(inside=change)


def of_side() -> Style:
    """Return `work` of so many iterations as this process's environment says; without, `same`."""
    iterations = int(os.environ[PLANTED])
    return work(iterations) if iterations else same()


def temp(bytes_: int) -> Style:
    """Return a style whose program holds `bytes_` bytes more from its beginning to its end.

    They are written once, which takes time too. The first number is read before the update, one
    that depends on the loss after it, so that they cannot share their place with anything.

    Caught by `temp_bytes`, `bytes_accessed`, `hlo_instructions` and the fingerprint.
    """

    def change(plain: Update) -> Update:
        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            held = jnp.full(bytes_ // 4, hidden[0][0, 0])
            held = jax.lax.fori_loop(0, STORES, lambda i, x: x.at[i].set(x[i + 1] + 1), held)
            hidden = tuple(rows + zero(held[0]) for rows in hidden)
            state, hidden, loss = plain(state, hidden, chunk)
            read = jax.lax.dynamic_index_in_dim(held, loss.astype(jnp.int32), keepdims=False)
            return state, hidden, loss + zero(read)

        return update

    return style_of(inside=change)


def layer(calls: int) -> Style:
    """Return a style that goes through `calls` more functions of Python, and the state's tree.

    Caught by `python_starts` and `python_calls`.
    """

    def through(function: Update) -> Update:
        return lambda *arguments: function(*arguments)

    def change(plain: Update) -> Update:
        for _ in range(calls):
            plain = through(plain)

        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            return plain(jax.tree.map(lambda leaf: leaf, state), hidden, chunk)

        return update

    return style_of(outside=change)


def retrace() -> Style:
    """Return a style that jits a new function on every call, so traces and compiles each time.

    Caught by `compilations_warm`, and refused by runs, for it compiles while it is timed; its
    `python_starts` and `python_calls` are None.
    """

    def change(plain: Update) -> Update:
        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            return jax.jit(lambda *arguments: plain(*arguments))(state, hidden, chunk)

        return update

    return style_of(outside=change)


def copy() -> Style:
    """Return a style that copies all parameters, by a second program, before each update.

    Caught by `compilations_first`, `python_starts` and `python_calls`, and by a program that is not
    the whole one.
    """

    def change(plain: Update) -> Update:
        copied = jax.jit(lambda params: jax.tree.map(jnp.copy, params))

        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            params, opt_state = state
            return plain((copied(params), opt_state), hidden, chunk)

        return update

    return style_of(outside=change, whole=False)


def zero(x: Float[Array, ""]) -> Float[Array, ""]:
    """Return zero, which XLA cannot know: it would be NaN if `x` were."""
    return jnp.where(jnp.isnan(x), x, 0)


def write_entrant(path: Path, styles: Mapping[str, str]) -> Path:
    """Write an entrant whose styles are plants, as in `{"work_1": "work(12)"}`; return its path.

    Raises:
        FileExistsError: the file exists.
    """
    lines = "\n".join(f"    {name!r}: plants.{plant}," for name, plant in styles.items())
    with path.open("x", encoding="utf-8") as file:
        file.write(ENTRANT.format(styles=lines))
    return path
