"""How far from what this machine can do: the least time of a training step.

    python -m bench.limit --run run.json

The model is back-propagation through time with ordinary matrix products, in float32. At every
character each layer multiplies its state by its recurrent kernel, forwards and backwards, and the
next product needs the result: these products are the chain. The inputs of all other products are
known for the whole chunk at once, so they count at the best rate of any matrix product: projections
between layers, the readout, the gradients of both by their inputs, and the gradients of all
kernels. The first layer reads rows of its kernel, which counts as free. Added to these are tanh,
the exponentials of the softmax, and the optimiser's reads and writes of memory. Anything that can
only cost more is left out: other elementwise work, activations that leave the cache, loops.

The rates are measured with NumPy, in processes in which BLAS has one thread: first one process
alone, then one on each core at the same time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
import numpy as np

import impls
from bench.cells import BASELINE
from bench.report import runs
from bench.report.wording import joined, measured, seconds
from bench.worker.settings import ROOT, affinity, environment
from common import corpus
from common.config import WORKLOADS, ModelConfig
from common.errors import BakeoffError, unknown
from common.files import MOST_JSON, read_regular
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EXAMPLES = """examples:
  python -m bench.limit
  python -m bench.limit --workload toy,seed,wide --json > limit.json
  python -m bench.limit --run run.json
  bakeoff report run.json --limit limit.json -o run.html"""
MOST_SECONDS = 60.0
TUNED = (BASELINE[0], "tuned")

STREAMS = 7
"""AdamW reads parameters, gradients and two moments, and writes all but the gradients."""
FLOAT_BYTES = 4
STACK = 32
"""Products in one call of NumPy, so that Python's own time is a small part of it."""
LEAST_FLOPS = 4e6
"""Of one call with products over a chunk, for the same reason."""
ARRAY_SETS = 4
"""Fresh arrays that each measurement is repeated with: addresses matter to caches."""
FEWER_ROWS = (8, 16, 32)
"""Numbers of rows that a product of more rows may be divided into."""
FEWEST_CALLS = 3
UNCACHED_FLOATS = 1 << 23
"""Length of arrays that no cache holds: four of them are 128 MiB."""

OLD_BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that correct an old OpenBLAS on a new processor, and slow down a new one."""
ONE_THREAD = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


class Step(msgspec.Struct, frozen=True):
    """The sizes of a training step."""

    model: ModelConfig
    chunk: int
    """Characters of each stream."""
    batch: int = 1
    """Streams side by side."""


class Counts(msgspec.Struct, frozen=True):
    """What one training step computes."""

    chain: int
    """Products of a layer's state by its recurrent kernel, forwards and backwards."""
    longest: int
    """The longest sequence of these that depend on each other, if layers run in parallel."""
    flops: float
    """Of all other products; a multiplication and an addition are two."""
    tanh: int
    exp: int
    stream_bytes: int
    """What the optimiser reads and writes."""


class Rates(msgspec.Struct, frozen=True):
    """The best that one core, or all cores together, were measured to do."""

    product_seconds: float
    """Of one product of the chain: the states of all streams by a recurrent kernel."""
    flops: float
    """Of matrix products, per second."""
    tanh: float
    """Per second, as are the rates below."""
    exp: float
    stream_bytes: float
    """Of arrays of the optimiser's size."""
    memory_bytes: float = 0.0
    """Of arrays that no cache holds. Shown for comparison: it is not part of the limit."""
    share_seconds: float = 0.0
    """Of one product of the chain, of one core's share of the streams."""


class Parts(msgspec.Struct, frozen=True):
    """Least seconds of a step's parts."""

    chain: float
    products: float
    elementwise: float
    optimiser: float

    @property
    def total(self) -> float:
        """Seconds of all parts, one after another."""
        return self.chain + self.products + self.elementwise + self.optimiser


class Limit(msgspec.Struct, frozen=True):
    """The least time of a step, in seconds."""

    one_core: Parts
    all_cores: Parts
    """The same work, perfectly shared between all cores."""
    waiting: float
    """Of the longest sequence of products that depend on each other, rows shared by all cores."""
    seconds: float
    """The lower bound on this machine: the shared work, or `waiting` if that takes longer."""
    chain_on_one: float
    """The bound of a program that runs the chain on one core and the rest on all, as XLA does."""
    one_core_total: float
    """The bound of a program that uses one core."""


class Measured(msgspec.Struct, frozen=True):
    """Medians of a step in a run, in seconds; None where the run has none."""

    all_libraries: float | None = None
    """The median over JAX libraries of the shared step's medians."""
    tuned: float | None = None


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one workload."""

    counts: Counts
    rates: dict[str, Rates]
    """Of `one_core` and of `all_cores`."""
    limit: Limit
    run: Measured | None = None


class Limits(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    cores: int
    blas: str
    workloads: dict[str, Row]


class Request(msgspec.Struct, frozen=True):
    """What a measuring process is asked for."""

    steps: list[Step]
    seconds: float
    """To spend on each rate."""
    cores: int
    """How many cores share the streams."""
    core: int | None
    """Number of the core to run on; None where the system chooses."""


def counts(step: Step) -> Counts:
    """Return what a training step computes.

    If layers run in parallel, layer l can begin when the layer below has done one character: the
    last layer ends after `chunk + layers - 1` products, forwards, and as many backwards.
    """
    width, vocab, layers = step.model.width, step.model.vocab_size, step.model.layers
    characters = step.chunk * step.batch
    recurrent = layers * width * width  # gradients of the recurrent kernels
    between = 3 * (layers - 1) * width * width  # projections, and their gradients by both factors
    readout = 3 * width * vocab
    return Counts(
        chain=2 * step.chunk * layers,
        longest=2 * (step.chunk + layers - 1),
        flops=2.0 * characters * (recurrent + between + readout),
        tanh=characters * width * layers,
        exp=characters * vocab,
        stream_bytes=STREAMS * FLOAT_BYTES * step.model.parameters,
    )


def parts(work: Counts, rates: Rates) -> Parts:
    """Return the seconds of a step's parts at given rates."""
    return Parts(
        chain=work.chain * rates.product_seconds,
        products=work.flops / rates.flops,
        elementwise=work.tanh / rates.tanh + work.exp / rates.exp,
        optimiser=work.stream_bytes / rates.stream_bytes,
    )


def limit_of(work: Counts, one: Rates, together: Rates) -> Limit:
    """Return the limits of a step from the rates of one core and of all cores together."""
    alone, shared = parts(work, one), parts(work, together)
    waiting = work.longest * one.share_seconds
    return Limit(
        one_core=alone,
        all_cores=shared,
        waiting=waiting,
        seconds=max(shared.total, waiting),
        chain_on_one=alone.chain + shared.total - shared.chain,
        one_core_total=alone.total,
    )


def least_seconds(
    function: Callable[..., object], shapes: Sequence[tuple[int, ...]], spend: float
) -> float:
    """Return the least seconds of a call: a limit is a minimum, so the best of all calls counts.

    Args:
        function: Works on float32 arrays, the last of which takes the result.
        shapes: Of the arrays.
        spend: Seconds to look for the best, over several sets of arrays.
    """
    numbers = np.random.default_rng(0)
    took: list[float] = []
    for _ in range(ARRAY_SETS):
        arrays = [numbers.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
        function(*arrays)
        fewest, end = len(took) + FEWEST_CALLS, time.perf_counter() + spend / ARRAY_SETS
        while len(took) < fewest or time.perf_counter() < end:
            start = time.perf_counter()
            function(*arrays)
            took.append(time.perf_counter() - start)
    return min(took)


def product_seconds(rows: int, width: int, spend: float) -> float:
    """Return the least seconds of the product of `rows` states by one kernel, in the cache.

    The kernel is stored by rows and by columns. Twice the rows are tried too, since one row can
    take longer than two. So are fewer rows, one product after another, since products of many rows
    can be slower.
    """

    def transposed(states: np.ndarray, kernel: np.ndarray, out: np.ndarray) -> None:
        np.matmul(states, kernel.T, out)

    tried = [rows, 2 * rows, *(few for few in FEWER_ROWS if few < rows)]
    found = []
    for each in tried:
        states = (STACK, each, width)
        for function in (np.matmul, transposed):
            shapes = [states, (width, width), states]
            product = least_seconds(function, shapes, spend / len(tried) / 2) / STACK
            found.append(product * max(1.0, rows / each))
    return min(found)


def chunk_product_seconds(characters: int, width: int, spend: float) -> float:
    """Return the least seconds of a product over a chunk: a projection, or a kernel's gradient."""
    several = ceil(LEAST_FLOPS / (2 * characters * width**2))
    states = (several, characters, width)

    def gradient(x: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
        # Not of x with itself: NumPy sees that the result is symmetric, and computes half of it.
        np.matmul(np.swapaxes(x, 1, 2), other, out)

    projection = least_seconds(np.matmul, [states, (width, width), states], spend / 2)
    return (
        min(
            projection,
            least_seconds(gradient, [states, states, (several, width, width)], spend / 2),
        )
        / several
    )


def stream_rate(count: int, spend: float) -> float:
    """Return the bytes a second of reading and writing four arrays, as an optimiser does."""

    def work(first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray) -> None:
        np.add(first, second, second)
        np.add(second, third, third)
        np.add(third, fourth, fourth)

    moved = 3 * 3 * FLOAT_BYTES * count
    return moved / least_seconds(work, [(count,)] * 4, spend)


def rates_of(step: Step, spend: float, cores: int) -> Rates:
    """Return the rates of one thread at one size.

    Args:
        step: The sizes.
        spend: Seconds to spend on each rate.
        cores: How many cores share the streams.
    """
    width, characters = step.model.width, step.chunk * step.batch
    states, share = [(characters * width,)] * 2, ceil(step.batch / cores)
    product = product_seconds(step.batch, width, spend)
    over_chunk = chunk_product_seconds(characters, width, spend)
    return Rates(
        product_seconds=product,
        flops=2.0 * width**2 * max(step.batch / product, characters / over_chunk),
        tanh=characters * width / least_seconds(np.tanh, states, spend),
        exp=characters * width / least_seconds(np.exp, states, spend),
        stream_bytes=stream_rate(step.model.parameters, spend),
        memory_bytes=stream_rate(UNCACHED_FLOATS, spend),
        share_seconds=product if share == step.batch else product_seconds(share, width, spend),
    )


def answer() -> None:
    """Measure what standard input asks for, in this process, and print the rates as JSON."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    if request.core is not None:
        os.sched_setaffinity(0, [request.core])
    found = [rates_of(step, request.seconds, request.cores) for step in request.steps]
    sys.stdout.buffer.write(msgspec.json.encode(found))


def ask(request: Request) -> list[Rates]:
    """Return the rates that a new process measures, one for each step.

    Raises:
        BakeoffError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", "from bench.limit import answer; answer()"],
        input=msgspec.json.encode(request),
        env=variables(),
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit status {done.returncode}"
        raise BakeoffError(f"measuring the machine failed ({last}); try a smaller workload")
    return msgspec.json.decode(done.stdout, type=list[Rates])


def variables() -> dict[str, str]:
    """Return the environment variables of a measuring process: BLAS as it is, with one thread."""
    kept = {name: value for name, value in environment().items() if name not in OLD_BLAS}
    return kept | dict.fromkeys(ONE_THREAD, "1")


def usable_cores() -> list[int | None]:
    """Return the cores that processes may use; None for each where a process cannot choose."""
    known = affinity()
    return [*known] if known else [None] * (os.cpu_count() or 1)


def summed(cores: Sequence[Rates]) -> Rates:
    """Return the rates of several cores that work at the same time."""
    names = ("flops", "tanh", "exp", "stream_bytes", "memory_bytes")
    return Rates(
        product_seconds=1 / sum(1 / core.product_seconds for core in cores),
        share_seconds=max(core.share_seconds for core in cores),
        **{name: sum(getattr(core, name) for core in cores) for name in names},
    )


def measure(steps: Mapping[str, Step], spend: float) -> Limits:
    """Measure this machine, and return the limits of some steps.

    Args:
        steps: By workload.
        spend: Seconds to spend on each rate, on one core and again on all.

    Raises:
        BakeoffError: a measuring process failed, or took too long.
    """
    cores = usable_cores()
    sizes = list(steps.values())
    alone = ask(Request(sizes, spend, len(cores), None))
    each_core = [alone]
    if len(cores) > 1:
        requests = [Request(sizes, spend, len(cores), core) for core in cores]
        with ThreadPoolExecutor(len(cores)) as pool:
            each_core = list(pool.map(ask, requests))
    found: dict[str, Row] = {}
    for (name, step), one, *all_ in zip(steps.items(), alone, *each_core, strict=True):
        work, together = counts(step), summed(all_)
        rates = {"one_core": one, "all_cores": together}
        found[name] = Row(work, rates, limit_of(work, one, together))
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return Limits(len(cores), f"{blas['name']} {blas.get('version', '')}".strip(), found)


def medians(run: runs.Run, workload: str) -> Measured:
    """Return what a run measured of a workload on the CPU."""
    own = [name for name in impls.names() if name not in impls.OUTSIDE]
    found = {
        (cell["entrant"], cell["style"]): metric["median"]
        for cell in run.section["cells"]
        if (cell["workload"], cell["backend"]) == (workload, "cpu")
        and (metric := measured(cell, "step")) is not None
    }
    shared = [
        found[name, BASELINE[1]]
        for name in own
        if (name, BASELINE[1]) in found and impls.declared(name).jax
    ]
    return Measured(median(shared) if shared else None, found.get(TUNED))


def sentence(workload: str, limit: Limit, cores: int, found: Measured) -> str:
    """Return what was measured of a workload, if anything was, and the limit."""
    words = []
    if found.all_libraries is not None:
        words.append(f"all libraries {seconds(found.all_libraries)}")
    if found.tuned is not None:
        words.append(f"tuned {seconds(found.tuned)}")
    bounds = {"": limit.seconds}
    if cores > 1:
        bounds = {
            f" on {cores} cores": limit.seconds,
            " with the chain on one of them": limit.chain_on_one,
            " on one core": limit.one_core_total,
        }
    listed = ", ".join(f"{seconds(value)}{where}" for where, value in bounds.items())
    words.append(f"the machine's limit {listed}")
    if found.tuned is not None:
        times = joined([f"{found.tuned / value:.2g}" for value in bounds.values()])
        words[-1] += f" (tuned is {times} times that)"
    return f"{workload}: {', '.join(words)}"


def sentences(run: runs.Run, path: Path) -> list[str]:
    """Return a sentence for each workload of a limit file that the run measured on the CPU.

    Args:
        run: Whose medians are compared with the limits.
        path: What `python -m bench.limit --json` printed on the same machine.

    Raises:
        BakeoffError: the file cannot be read, or is another one.
    """
    try:
        limits = msgspec.json.decode(read_regular(path, MOST_JSON), type=Limits)
    except OSError as error:
        raise BakeoffError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BakeoffError(
            f"{path} is no limit file ({error}); give what `python -m bench.limit --json` printed"
        ) from error
    found = {name: medians(run, name) for name in limits.workloads}
    return [
        sentence(name, row.limit, limits.cores, found[name])
        for name, row in limits.workloads.items()
        if found[name] != Measured()
    ]


def read_run(path: Path) -> runs.Run:
    """Return a run; warn if it was made on another processor."""
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    run = runs.read(path, samples=False)
    theirs = runs.processor_model(run.machine) or "an unknown processor"
    ours = runs.processor_model(pytest_benchmark_generate_machine_info())
    if theirs != ours:
        print(
            f"bakeoff: {path} was measured on {theirs}, and this is {ours or 'an unknown one'}: "
            "do not compare the run with this limit",
            file=sys.stderr,
        )
    return run


def show(name: str, row: Row, cores: int) -> None:
    """Print the rates and the parts of the limit of a workload, on one core and on all."""
    limit, rates = row.limit, (row.rates["one_core"], row.rates["all_cores"])
    both = (limit.one_core, limit.all_cores)
    lines = {
        name: ["one core", f"{cores} cores"],
        "product of the chain": [seconds(each.product_seconds) for each in rates],
        "matrix products": [f"{each.flops / 1e9:.3g} GFLOP/s" for each in rates],
        "tanh": [f"{each.tanh / 1e9:.3g} G/s" for each in rates],
        "exp": [f"{each.exp / 1e9:.3g} G/s" for each in rates],
        "optimiser's arrays": [f"{each.stream_bytes / 1e9:.3g} GB/s" for each in rates],
        "memory beyond the caches": [f"{each.memory_bytes / 1e9:.3g} GB/s" for each in rates],
        f"chain of {row.counts.chain}": [seconds(each.chain) for each in both],
        "other products": [seconds(each.products) for each in both],
        "all tanh and exp": [seconds(each.elementwise) for each in both],
        "optimiser": [seconds(each.optimiser) for each in both],
        "least time of a step": [seconds(limit.one_core_total), seconds(limit.seconds)],
    }
    if cores > 1:
        lines["chain alone, layers in parallel"] = ["", seconds(limit.waiting)]
        lines["chain on one core, rest on all"] = ["", seconds(limit.chain_on_one)]
    for label, texts in lines.items():
        print(f"{label:34}" + "".join(f"{text:>14}" for text in texts[:cores]))
    print()


def steps_of(names: str) -> dict[str, Step]:
    """Return the training steps of workloads, which are named with commas between them.

    Raises:
        BakeoffError: there is no such workload.
    """
    found: dict[str, Step] = {}
    for name in (each.strip() for each in names.split(",")):
        if name not in WORKLOADS:
            raise unknown("workload", name, WORKLOADS)
        chosen = WORKLOADS[name]
        vocabulary = Vocab.of(corpus.load(chosen.corpus).text)
        found[name] = Step(ModelConfig(len(vocabulary), chosen.width), chosen.chunk, chosen.batch)
    return found


def report(given: argparse.Namespace) -> None:
    """Measure the machine, and print what the command line asks for."""
    if not 0 < given.seconds <= MOST_SECONDS:
        raise BakeoffError(
            f"--seconds is {given.seconds:g}; more than 0 and at most {MOST_SECONDS:g} are "
            "allowed: give another one"
        )
    steps = steps_of(given.workload)
    run = None if given.run is None else read_run(given.run)
    limits = measure(steps, given.seconds)
    if run is not None:
        for name, row in limits.workloads.items():
            limits.workloads[name] = msgspec.structs.replace(row, run=medians(run, name))
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(limits)).decode())
        return
    for name, row in limits.workloads.items():
        show(name, row, limits.cores)
    print(f"matrix products by {limits.blas}")
    for name, row in limits.workloads.items():
        print(sentence(name, row.limit, limits.cores, row.run or Measured()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.limit",
        description="Measure the best rates of this machine, and compute the least time of a\n"
        "training step: on all cores, with the recurrent products (the chain) on one\n"
        "core as XLA runs them, and on one core.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workload", default="seed,batched", help="names, with commas (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.2,
        help="to spend on each rate, on one core and again on all (default: %(default)s)",
    )
    parser.add_argument(
        "--run", type=Path, help="a run file of this machine, to compare its medians with the limit"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    try:
        report(parser.parse_args(arguments))
    except BakeoffError as error:
        print(f"bakeoff: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
