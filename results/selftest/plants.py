"""Planted differences: plain JAX's step with a wait, which computes the same numbers.

To try a tool with them, write an entrant's file and measure its styles beside `pure_jax`:

    from results.selftest.plants import write_entrant
    write_entrant(Path("planted.py"), {"same": "wait(0)", "slower": "wait(27)"})
    # pytest bench --entrant planted.py --workload seed --metric step

`wait` adds so many microseconds to each call, by the clock, and so many for each parameter array;
`first_of_round` adds them unless it is the first of two to run in a round. They are a `Style` that
passes the equality proof.
"""

from __future__ import annotations

import os
import time
from mmap import mmap
from typing import TYPE_CHECKING, Any

import jax

from bench.worker.settings import CORES
from common.steps import Threaded, functional, pure_step
from impls.pure_jax import build

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import optax

    from common.config import ModelConfig
    from common.contract import Checkpoint, Style, TrainStep

    type State = Any
    """Parameters and optimiser state."""

MICROSECONDS = "BAKEOFF_PLANTED_MICROSECONDS"
"""Variable with what `wait_of_side` adds on one side of a comparison, or adds for each array, and
with what `first_of_round` adds."""
COUNTS, SIDE = "BAKEOFF_PLANTED_COUNTS", "BAKEOFF_PLANTED_SIDE"
"""Variables with the path of a file of `first_of_round`, and with the number of a side, 0 or 1."""

ENTRANT = '''\
"""Planted differences, written by results.selftest.plants."""

from results.selftest import plants
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

STYLES = {{
{styles}
}}
'''


def wait(microseconds: float, per_array: float = 0.0, *, looks: bool = False) -> Style:
    """Return the baseline's style, which keeps its core busy for so long before each call.

    It `looks` at the clock where it has nothing to wait for, too: that Python takes a microsecond
    (1.1 ± 0.2 µs at `toy`), so two sides that look differ by what is planted alone. Else, nothing
    planted is nothing at all.
    """

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        model = build(config)
        arrays = len(jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))))
        seconds = (microseconds + per_array * arrays) / 1e6
        plain = jax.jit(pure_step(model, optimiser))

        def update(*arguments: Any) -> Any:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass
            return plain(*arguments)

        called = update if seconds or looks else plain
        return functional(called, model, optimiser, plain)

    return style


def wait_of_side(*, per_array: bool = False) -> Style:
    """Return `wait` of as many microseconds as this process's environment says; it looks."""
    microseconds = float(os.environ[MICROSECONDS])
    return wait(0.0, microseconds, looks=True) if per_array else wait(microseconds, looks=True)


def slower_later() -> Style:
    """Return the baseline's style, which waits before each call from some time on.

    `BESIDE_SLOWER` says how many microseconds, and from when: both sides have it, so what is
    measured first has an advantage.
    """
    more, turn = map(float, os.environ["BESIDE_SLOWER"].split())

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        model = build(config)
        plain = jax.jit(pure_step(model, optimiser))

        def update(*arguments: Any) -> Any:
            end = time.perf_counter() + (more / 1e6 if time.time() > turn else 0.0)
            while time.perf_counter() < end:
                pass
            return plain(*arguments)

        return functional(update, model, optimiser, plain)

    return style


def first_of_round(side: int | None = None) -> Style:
    """Return the baseline's style, which waits before a call unless it is its round's first to run.

    Two have it: arms of a worker, or sides whose processes take turns on one core. They count their
    calls since their buffers were loaded in a file that both map: the one whose turn it is comes
    first where it has made as many as the other, however many calls a turn has.

    Args:
        side: 0 or 1; by the environment unless given.
    """
    mine = int(os.environ[SIDE]) if side is None else side
    seconds = float(os.environ[MICROSECONDS]) / 1e6

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        model, calls = build(config), counts()
        plain = jax.jit(pure_step(model, optimiser))

        def update(*arguments: Any) -> Any:
            first = calls[mine] >= calls[1 - mine]
            for slot, more in ((mine, 1), (2 + mine, first), (4 + mine, 1)):
                calls[slot] += more
            end = time.perf_counter() + (0.0 if first else seconds)
            while time.perf_counter() < end:
                pass
            return plain(*arguments)

        def load(checkpoint: Checkpoint) -> None:
            calls[mine] = 0
            Threaded.load(step, checkpoint)

        step: Any = functional(update, model, optimiser, plain)
        step.load = load
        return step

    return style


def counts() -> memoryview:
    """Return counts of both sides, which the processes on these cores share.

    They are calls since buffers were loaded, calls that came first, and all calls.
    """
    path = f"{os.environ[COUNTS]}-{os.environ[CORES]}"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, 6 * 8)
    shared = memoryview(mmap(file, 6 * 8)).cast("q")
    os.close(file)
    return shared


def shares_of_first(path: Path) -> list[float]:
    """Return which part of all calls of each side came first, by the files that `counts` made."""
    files = [memoryview(file.read_bytes()).cast("q") for file in path.parent.glob(f"{path.name}-*")]
    return [sum(f[2 + side] for f in files) / sum(f[4 + side] for f in files) for side in (0, 1)]


def write_entrant(path: Path, styles: Mapping[str, str]) -> Path:
    """Write an entrant whose styles are plants, as in `{"slower": "wait(27)"}`; return its path.

    Raises:
        FileExistsError: the file exists.
    """
    lines = "\n".join(f"    {name!r}: plants.{plant}," for name, plant in styles.items())
    with path.open("x", encoding="utf-8") as file:
        file.write(ENTRANT.format(styles=lines))
    return path
