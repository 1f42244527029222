"""The rates of one core, measured with NumPy: matrix products, tanh, exp, memory.

`python -m bench.tuned.rates GIVEN` is a process of its own, in which BLAS has one thread. A limit
is a minimum, so the best of many repetitions counts, of several ways to store a matrix, and of
several places in memory. NumPy loops over a stack of products itself, which keeps Python's own time
out.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.tuned.limit import Rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    type Work = Callable[[], object]
    type Way = Callable[[], Work]

STACK = 32
"""Products that NumPy does in one call, so that Python's own part is small."""
LEAST_FLOPS = 4e6
"""Of the products over a chunk in one call, for the same reason."""
PLACES = 4
"""Sets of arrays, for where they lie in memory can matter."""
PIECES = (8, 16, 32)
"""Rows that a product of more is taken apart into."""
FEWEST = 3
"""Calls that are timed, however long they take."""
UNCACHED = 1 << 23
"""Numbers of an array that is not in a cache when it is read again: four of them are 128 MiB."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: the sizes of one training step."""

    width: int
    rows: int
    """Streams side by side."""
    characters: int
    """Of one step, of all streams."""
    parameters: int


@dataclass(frozen=True)
class Core:
    """What one process found at one size."""

    rates: Rates
    share_seconds: float
    """Of one product of the chain, of a core's share of the streams."""


def on_this_core(sizes: Sizes, seconds: float, share: int) -> Core:
    """Return what one thread does at one size, `share` being the number of cores."""
    width, rows, characters = sizes.width, sizes.rows, sizes.characters
    product = product_seconds(rows, width, seconds)
    several = ceil(LEAST_FLOPS / (2 * characters * width**2))
    over_chunk = best(over_chunks(several, characters, width), seconds) / several
    tanh, exp = (best(elementwise(f, characters * width), seconds) for f in (np.tanh, np.exp))
    rates = Rates(
        product_seconds=product,
        flops=2.0 * width**2 * max(rows / product, characters / over_chunk),
        tanh=characters * width / tanh,
        exp=characters * width / exp,
        stream_bytes=STREAMED * sizes.parameters / best(streams(sizes.parameters), seconds),
        memory_bytes=STREAMED * UNCACHED / best(streams(UNCACHED), seconds),
    )
    fewer = ceil(rows / share)
    alone = product if fewer == rows else product_seconds(fewer, width, seconds)
    return Core(rates, alone)


def best(ways: Sequence[Way], seconds: float) -> float:
    """Return the least seconds of a call, of the best of some ways and of some places in memory."""
    works = [way() for way in ways for _ in range(PLACES)]
    return min(least(work, seconds / len(works)) for work in works)


def least(work: Work, seconds: float) -> float:
    """Return the least seconds of a call, of as many as there is time for."""
    work()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def floats(*shape: int) -> np.ndarray:
    """Return float32 numbers of an ordinary size."""
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def product_seconds(rows: int, width: int, seconds: float) -> float:
    """Return the least seconds of the product of so many states by one kernel.

    Twice the rows are looked at too: one row can take more time than two, whose time is then a
    limit. And so are fewer, one product after another: those of many rows can be slower.
    """
    looked_at = [rows, 2 * rows, *(few for few in PIECES if few < rows)]
    return min(
        best(products(each, width), seconds / len(looked_at)) / STACK * max(1.0, rows / each)
        for each in looked_at
    )


def products(rows: int, width: int) -> list[Way]:
    """Return ways to multiply a stack of states by one kernel, which stays in the cache."""

    def way(*, by_rows: bool) -> Way:
        def make() -> Work:
            kernel = floats(width, width) if by_rows else floats(width, width).T
            states, out = floats(STACK, rows, width), floats(STACK, rows, width)
            return lambda: np.matmul(states, kernel, out=out)

        return make

    return [way(by_rows=True), way(by_rows=False)]


def over_chunks(several: int, characters: int, width: int) -> list[Way]:
    """Return ways to a product over a chunk: a projection, and the gradient of a kernel."""
    states, kernel = (several, characters, width), (several, width, width)

    def projection() -> Work:
        x, by, out = floats(*states), floats(width, width), floats(*states)
        return lambda: np.matmul(x, by, out=out)

    def gradient() -> Work:
        # Not of x with itself: NumPy sees that it is symmetric, and does half of it.
        x, by, out = floats(*states), floats(*states), floats(*kernel)
        transposed = np.swapaxes(x, 1, 2)
        return lambda: np.matmul(transposed, by, out=out)

    return [projection, gradient]


def elementwise(function: np.ufunc, count: int) -> list[Way]:
    """Return the way to call a function on so many numbers."""

    def make() -> Work:
        x, out = floats(count), floats(count)
        return lambda: function(x, out=out)

    return [make]


STREAMED = 3 * 3 * 4
"""Bytes that a call of `streams` moves for each number: three additions, of three arrays each."""


def streams(count: int) -> list[Way]:
    """Return the way to stream through four arrays, as an optimiser does."""

    def make() -> Work:
        first, second, third, fourth = floats(4, count)

        def work() -> None:
            np.add(first, second, out=second)
            np.add(second, third, out=third)
            np.add(third, fourth, out=fourth)

        return work

    return [make]


def blas() -> str:
    """Return the name and version of NumPy's BLAS, and its kernel where that can be told."""
    configuration: Any = np.show_config(mode="dicts")
    found = configuration["Build Dependencies"]["blas"]
    name = f"{found['name']} {found.get('version', '')}".strip()
    try:
        pools: list[dict[str, Any]] = importlib.import_module("threadpoolctl").threadpool_info()
    except ModuleNotFoundError:
        return name
    kernels = [pool["architecture"] for pool in pools if pool.get("architecture")]
    return f"{name}, {kernels[0]}" if kernels else name


def main() -> None:
    """Measure the sizes that the one argument says on a core, and print what was found."""
    given = json.loads(sys.argv[1])
    if given["core"] is not None:
        os.sched_setaffinity(0, [given["core"]])
    found = [
        asdict(on_this_core(Sizes(**sizes), given["seconds"], given["share"]))
        for sizes in given["sizes"]
    ]
    print(json.dumps({"found": found, "blas": blas()}))


if __name__ == "__main__":
    main()
