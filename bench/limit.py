"""How far from what this machine can do: the least time of a training step.

    python -m bench.limit --run run.json

The model is back-propagation through time with ordinary matrix products, in float32. At every
character each layer multiplies its state by its recurrent kernel, forwards and backwards, and the
next product needs the result: these products are the chain. The inputs of all other products are
known for the whole chunk at once, so they count at the best rate of any matrix product. Added to
these are tanh, the exponentials of the softmax, and the optimiser's reads and writes of memory.
Anything that can only cost more is left out: other elementwise work, activations that leave the
cache, loops. The first layer reads rows of its kernel, which counts as free.

The rates are measured with NumPy on one core; all cores together are taken to do as many times as
much, which is the best that they could.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path  # noqa: TC003 -- typer reads it
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer

import impls
from bench.cells import BASELINE, Arm
from bench.report.table import amount
from bench.report.wording import joined
from bench.runfile.reader import Run, read
from bench.worker.settings import affinity
from common import corpus
from common.config import WORKLOADS, ModelConfig
from common.errors import BakeoffError, unknown
from common.files import MOST_JSON, read_regular
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EXAMPLES = """Examples:\n
python -m bench.limit --run run.json\n
python -m bench.limit --workload toy,seed,wide --json > limit.json\n
bakeoff report run.json --limit limit.json -o run.html"""
TUNED = Arm(BASELINE[0], "tuned")
STREAM_BYTES = 7 * 4
"""Of a parameter: AdamW reads it, its gradient and two moments, and writes all but the gradient."""
MOST_PRODUCTS = 32
CALL_FLOPS = 4e6
"""Of one call of NumPy, or `MOST_PRODUCTS` products, so that Python's own time is a small part."""
FEWER_ROWS = (8, 16, 32)
"""Numbers of rows that a product of more rows may be divided into."""
ARRAY_SETS = 4
"""Fresh arrays that each measurement is repeated with: addresses matter to caches."""
FEWEST_CALLS = 3
ONE_THREAD = {f"{name}_THREADS": "1" for name in ("OPENBLAS_NUM", "OMP_NUM", "MKL_NUM")}
"""Variables that BLAS reads when NumPy is imported."""


class Rates(msgspec.Struct, frozen=True):
    """The best that one core was measured to do."""

    product_seconds: float
    """Of one product of the chain: the states of all streams by a recurrent kernel."""
    flops: float
    """Of matrix products, per second, as are the rates below."""
    tanh: float
    exp: float
    stream_bytes: float
    """Of reading and writing arrays of the optimiser's size."""


class Limit(msgspec.Struct, frozen=True):
    """The least time of a step, in seconds."""

    seconds: float
    """The lower bound on this machine: all work perfectly shared between all cores."""
    chain_on_one: float
    """The bound of a program that runs the chain on one core and the rest on all, as XLA does."""
    one_core_total: float
    """The bound of a program that uses one core."""


class WorkloadLimit(msgspec.Struct, frozen=True):
    """What is known of one workload."""

    limit: Limit
    rates: Any = None
    """`Rates` of one core."""


class LimitFile(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    cores: int
    blas: str
    workloads: dict[str, WorkloadLimit]


def parts(model: ModelConfig, chunk: int, batch: int, rates: Rates) -> dict[str, float]:
    """Return the least seconds of a step's parts on one core, at given rates.

    A chunk has `chunk` characters of `batch` streams side by side.
    """
    width, vocab, layers = model.width, model.vocab_size, model.layers
    recurrent = layers * width * width  # gradients of the recurrent kernels
    between = 3 * (layers - 1) * width * width  # projections, and their gradients by both factors
    readout = 3 * width * vocab
    return {
        "chain": 2 * chunk * layers * rates.product_seconds,
        "products": 2 * chunk * batch * (recurrent + between + readout) / rates.flops,
        "elementwise": chunk * batch * (width * layers / rates.tanh + vocab / rates.exp),
        "optimiser": STREAM_BYTES * model.parameters / rates.stream_bytes,
    }


def limit_of(known: Mapping[str, float], cores: int) -> Limit:
    """Return the limits of a step from its parts on one core."""
    total, chain = sum(known.values()), known["chain"]
    return Limit(total / cores, chain + (total - chain) / cores, total)


def least_seconds(
    function: Callable[..., object], shapes: Sequence[tuple[int, ...]], spend: float
) -> float:
    """Return the least seconds of a call: a limit is a minimum, so the best of all calls counts.

    `function` takes float32 arrays of these shapes; the last one takes the result.
    """
    numbers = np.random.default_rng(0)
    took: list[float] = []
    for _ in range(ARRAY_SETS):
        arrays = [numbers.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
        fewest, end = len(took) + FEWEST_CALLS, time.perf_counter() + spend / ARRAY_SETS
        while len(took) < fewest or time.perf_counter() < end:
            start = time.perf_counter()
            function(*arrays)
            took.append(time.perf_counter() - start)
    return min(took)


def product_seconds(rows: int, width: int, spend: float) -> float:
    """Return the least seconds of the product of some rows by one kernel.

    The kernel is stored by rows and by columns. Twice the rows are tried too, since one row can
    take longer than two. So are fewer rows, one product after another, since products of many rows
    can be slower.
    """
    products = (np.matmul, lambda x, kernel, out: np.matmul(x, kernel.T, out))
    tried = [rows, 2 * rows, *(few for few in FEWER_ROWS if few < rows)]
    found = []
    for each in tried:
        stack = min(MOST_PRODUCTS, int(CALL_FLOPS / (2 * each * width**2)) + 1)
        shapes = [(stack, each, width), (width, width), (stack, each, width)]
        for product in products:
            least = least_seconds(product, shapes, spend / len(tried) / 2) / stack
            found.append(least * max(1.0, rows / each))
    return min(found)


def rates_of(model: ModelConfig, chunk: int, batch: int, spend: float) -> Rates:
    """Return the rates of this thread at one size; `spend` seconds go on each of them."""
    width, characters, parameters = model.width, chunk * batch, model.parameters

    def stream(first: np.ndarray, second: np.ndarray, third: np.ndarray, out: np.ndarray) -> None:
        np.add(first, second, second)
        np.add(second, third, third)
        np.add(third, out, out)

    states = [(characters, width)] * 2
    product = product_seconds(batch, width, spend)
    over_chunk = min(
        product_seconds(characters, width, spend),
        least_seconds(lambda x, y, out: np.matmul(x.T, y, out), [*states, (width, width)], spend),
    )
    return Rates(
        product_seconds=product,
        flops=2.0 * width**2 * max(batch / product, characters / over_chunk),
        tanh=characters * width / least_seconds(np.tanh, states, spend),
        exp=characters * width / least_seconds(np.exp, states, spend),
        stream_bytes=9 * 4 * parameters / least_seconds(stream, [(parameters,)] * 4, spend),
    )


def measure(workloads: Sequence[str], spend: float) -> LimitFile:
    """Return the limits of this machine; `spend` seconds go on each rate of each workload."""
    cores = len(affinity() or range(os.cpu_count() or 1))
    found = {}
    for name in workloads:
        workload = WORKLOADS[name]
        vocabulary = Vocab.of(corpus.load(workload.corpus).text)
        model = ModelConfig(len(vocabulary), workload.width)
        rates = rates_of(model, workload.chunk, workload.batch, spend)
        known = parts(model, workload.chunk, workload.batch, rates)
        found[name] = WorkloadLimit(limit_of(known, cores), rates)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return LimitFile(cores, f"{blas['name']} {blas.get('version', '')}".strip(), found)


def medians(run: Run, workload: str) -> tuple[float | None, float | None]:
    """Return seconds of a step on the CPU in a run: of JAX libraries' `pure`, and of `tuned`.

    The first is the median over libraries of their medians; None stands for what the run lacks.
    """
    found = {
        cell.cell.arm: metric.median
        for cell in run.section.cells
        if (cell.workload, cell.backend) == (workload, "cpu")
        and (metric := cell.measured("step")) is not None
    }
    own = [name for name in impls.names() if name not in impls.OUTSIDE and impls.declared(name).jax]
    pure = [Arm(name, BASELINE[1]) for name in own]
    shared = [found[arm] for arm in pure if arm in found]
    return median(shared) if shared else None, found.get(TUNED)


def sentence(
    workload: str, limit: Limit, cores: int, libraries: float | None, tuned: float | None
) -> str:
    """Return the medians of a workload, where a run has them, and its limits."""
    known = {"all libraries": libraries, "tuned": tuned}
    words = [f"{what} {amount(value, 's')}" for what, value in known.items() if value is not None]
    bounds = {
        f" on {cores} cores": limit.seconds,
        " with the chain on one of them": limit.chain_on_one,
        " on one core": limit.one_core_total,
    }
    listed = ", ".join(f"{amount(value, 's')}{where}" for where, value in bounds.items())
    words.append(f"the machine's limit {listed}")
    if tuned is not None:
        times = joined([f"{tuned / value:.2g}" for value in bounds.values()])
        words[-1] += f" (tuned is {times} times that)"
    return f"{workload}: {', '.join(words)}"


def sentences(run: Run, path: Path) -> list[str]:
    """Return a sentence for each workload of a limit file that the run measured on the CPU.

    Raises:
        BakeoffError: the file cannot be read, or is another one.
    """
    try:
        file = msgspec.json.decode(read_regular(path, MOST_JSON), type=LimitFile)
    except OSError as error:
        raise BakeoffError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BakeoffError(
            f"{path} is no limit file ({error}); give what `python -m bench.limit --json` printed"
        ) from error
    return [
        sentence(name, row.limit, file.cores, *known)
        for name, row in file.workloads.items()
        if any(known := medians(run, name))
    ]


def limit(
    workload: Annotated[str, typer.Option(help="Names, with commas.")] = "seed,batched",
    run: Annotated[
        Path | None, typer.Option(help="A run file of this machine, to compare with its limit.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines, with all rates.")] = False,
    spend: Annotated[float, typer.Option("--seconds", help="For each rate.", min=0)] = 0.2,
) -> None:
    """Measure the best rates of this machine, and compute the least time of a training step.

    Three limits: on all cores, with the recurrent products (the chain) on one core as XLA runs
    them, and on one core for everything.
    """
    names = workload.split(",")
    for name in names:
        if name not in WORKLOADS:
            raise unknown("workload", name, WORKLOADS)
    compared = None if run is None else read(run, samples=False)
    file = measure(names, spend)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(file)).decode())
        return
    for name, row in file.workloads.items():
        known = medians(compared, name) if compared else (None, None)
        print(sentence(name, row.limit, file.cores, *known))


if __name__ == "__main__":
    from bench.cli import program, run_program

    if not ONE_THREAD.items() <= os.environ.items():
        # Some of OpenBLAS's variables correct an old one, and slow down a new one
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        command = [sys.executable, "-m", "bench.limit", *sys.argv[1:]]
        os.execve(sys.executable, command, kept | ONE_THREAD)  # noqa: S606 -- itself
    run_program(program(limit, "python -m bench.limit", EXAMPLES))
