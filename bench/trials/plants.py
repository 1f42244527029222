"""Planted differences: plain JAX's step with a known difference, which computes the same numbers.

To try a tool with them, write an entrant's file and measure its styles beside `pure_jax`:

    from bench.trials.plants import write_entrant
    write_entrant(Path("planted.py"), {"same": "wait(0)", "slower": "wait(27)"})
    # pytest bench --entrant planted.py --workload seed --metric step

`wait` adds so many microseconds to each call, by the clock; the others change what is counted
exactly. Each is a `Style` that passes the equality proof.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import optax

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, Style, TrainStep
    from common.steps import Loss, Update

    type State = Any
    """Parameters and optimiser state."""

MICROSECONDS = "BAKEOFF_PLANTED_MICROSECONDS"
"""Variable with what `wait_of_side` adds on one side of a comparison."""

ENTRANT = '''\
"""Planted differences, written by bench.trials.plants."""

from bench.trials import plants
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

STYLES = {{
{styles}
}}
'''


def changed(change: Callable[[Update], Update], *, whole: bool = True) -> Style:
    """Return the baseline's style with a change of how its compiled update is called.

    `whole` is False where a call runs more than this one program then.
    """

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser))
        return functional(change(update), model, optimiser, stages_of(update, whole=whole))

    return style


def wait(microseconds: float) -> Style:
    """Return a style that keeps its core busy for so long before each call."""
    seconds = microseconds / 1e6

    def change(plain: Update) -> Update:
        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass
            return plain(state, hidden, chunk)

        return update

    return changed(change)


def wait_of_side() -> Style:
    """Return `wait` of as many microseconds as this process's environment says."""
    return wait(float(os.environ[MICROSECONDS]))


def layer(calls: int) -> Style:
    """Return a style that goes through so many Python functions more.

    Caught by `python_starts` and `python_calls`.
    """

    def through(function: Update) -> Update:
        return lambda *arguments: function(*arguments)

    def change(plain: Update) -> Update:
        for _ in range(calls):
            plain = through(plain)
        return plain

    return changed(change)


def copy() -> Style:
    """Return a style that copies all parameters, by a second program, before each update.

    Caught by `compilations_first` and `python_calls`.
    """

    def change(plain: Update) -> Update:
        copied = jax.jit(lambda params: jax.tree.map(jnp.copy, params))

        def update(state: State, hidden: Hidden, chunk: Chunk) -> tuple[State, Hidden, Loss]:
            params, opt_state = state
            return plain((copied(params), opt_state), hidden, chunk)

        return update

    return changed(change, whole=False)


def write_entrant(path: Path, styles: Mapping[str, str]) -> Path:
    """Write an entrant whose styles are plants, as in `{"slower": "wait(27)"}`; return its path.

    Raises:
        FileExistsError: the file exists.
    """
    lines = "\n".join(f"    {name!r}: plants.{plant}," for name, plant in styles.items())
    with path.open("x", encoding="utf-8") as file:
        file.write(ENTRANT.format(styles=lines))
    return path
