"""Measures what styles add to a step of other models than the character RNN, a user's too.

Calls are timed as `bench.worker` times those of the character RNN: in turns, in random order, in
blocks, in several processes that keep to one core each.
"""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from queue import Queue
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.cells import Arm
from bench.cost import own
from bench.cost.models import KINDS, LIBRARIES, PLAIN, data
from bench.cost.table import Counts
from bench.engine.cores import one_core_lanes
from bench.engine.machine import only_one
from bench.estimates import datum
from bench.report import wording
from bench.stats.law import Range, mean_of_workers
from bench.worker.settings import environment, threads
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.samples import Cores

DEPTHS = {
    "linear": (12, 32),
    "bare": (16, 40),
    "norm": (12, 24),
    "nested": (12, 24),
    "mlp": (8, 24),
    "transformer": (2, 6),
}
"""Blocks of each kind of model."""
WORKERS, SECONDS, BLOCKS, ROUNDS = 4, 8.0, 4, 4
"""Processes for each model; for how long each of them is timed, at least, and how many blocks;
rounds of a block."""


class Model(NamedTuple):
    """One model in one library."""

    library: str
    kind: str
    """One of `KINDS`, or `FILE.py:FUNCTION` that returns a model."""
    depth: int = 0
    """Blocks."""

    def __str__(self) -> str:
        blocks = f" of {self.depth} blocks" if self.depth else ""
        return f"{self.kind}{blocks} in {self.library}"


class Found(NamedTuple):
    """What a style was measured to add to a call of a model's step."""

    model: Model
    counts: Counts
    style: str
    seconds: Range
    plain: float
    """Seconds of the same step over plain tuples."""

    @property
    def name(self) -> str:
        """The library, and its style where that needs a name."""
        return wording.name(Arm(self.model.library, self.style))


def models() -> list[Model]:
    """Return all models."""
    return [Model(lib, kind, d) for kind in KINDS for d in DEPTHS[kind] for lib in LIBRARIES]


def measured(chosen: list[Model], told: Callable[[str], None]) -> Iterator[Found]:
    """Yield what was measured, model by model.

    All models are measured once before any of them is again, so that a busy minute is not all that
    is known of one of them.

    Args:
        chosen: Models.
        told: Called with what is done.

    Raises:
        BakeoffError: a worker failed.
    """
    lanes: Queue[Cores] = Queue()
    for lane in one_core_lanes():
        lanes.put(lane)

    number, total = count(1), WORKERS * len(chosen)

    def worker(model: Model, seed: int) -> dict[str, Any]:
        cores = lanes.get()
        try:
            found = ask(model, cores, seed, cache)
        finally:
            lanes.put(cores)
        told(f"{next(number)}/{total} {model}")
        return found

    with (
        only_one(),
        TemporaryDirectory() as cache,
        ThreadPoolExecutor(lanes.qsize()) as pool,
    ):
        rounds = [{m: pool.submit(worker, m, n) for m in chosen} for n in range(WORKERS)]
        try:
            for model in chosen:
                yield from summary(model, [asked[model].result() for asked in rounds])
        finally:
            pool.shutdown(cancel_futures=True)


def ask(model: Model, cores: Cores, seed: int, cache: str) -> dict[str, Any]:
    """Return what one process measures, which shares compiled programs in a folder with others."""
    command = [sys.executable, "-m", __name__, *map(str, model), str(seed), cache]
    variables = environment() | (threads(cores) if cores else {})
    done = subprocess.run(  # noqa: S603 -- this module, no shell
        command, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise BakeoffError(f"{model} could not be measured: {' '.join(last)}")
    return json.loads(done.stdout)


def summary(model: Model, workers: list[dict[str, Any]]) -> Iterator[Found]:
    """Yield what each style adds, from what workers measured."""
    plain = float(np.median(np.concatenate([w["seconds"][PLAIN] for w in workers])))
    for style in workers[0]["seconds"]:
        if style != PLAIN:
            ratios = [
                np.array(w["seconds"][style]) / np.array(w["seconds"][PLAIN]) - 1 for w in workers
            ]
            added = mean_of_workers([plain * float(ratio.mean()) for ratio in ratios])
            yield Found(model, Counts(*workers[0]["counts"]), style, added, plain)


def work(model: Model, seed: int) -> dict[str, Any]:
    """Time all styles of a model in this process; return the datum of each block by style."""
    from bench.worker.__main__ import keep_to_cores
    from bench.worker.block import seconds_of
    from bench.worker.counts import collector_off
    from bench.worker.turns import CLOCK, WARM_CALLS, HostCostTurn

    keep_to_cores()
    if model.kind in KINDS:
        module = importlib.import_module(f"bench.cost.models.{model.library}")
        subject = module.of_kind(model.kind, model.depth)
    else:
        _, subject = own.subject(model.kind)
    rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
    inputs, targets = data(model.kind)
    turns, losses = {}, {}
    for style in rng.sample(list(subject.steps), len(subject.steps)):
        step = subject.steps[style]()
        losses[style] = [float(step(inputs, targets)) for _ in range(WARM_CALLS)]
        turns[style] = HostCostTurn(partial(with_loss, step), inputs, targets)  # type: ignore[arg-type]
    for style, found in losses.items():
        if not np.allclose(found, losses[PLAIN], rtol=1e-5):
            raise BakeoffError(f"{style} has the losses {found}, the same step {losses[PLAIN]}")
    blocks: dict[str, list[float]] = defaultdict(list)
    end = CLOCK() + SECONDS
    while CLOCK() < end or len(blocks[PLAIN]) < BLOCKS:
        calls: dict[str, list[Any]] = defaultdict(list)
        with collector_off():
            for number in range(-1, ROUNDS):
                for style in rng.sample(list(turns), len(turns)):
                    timed = turns[style]()["host_cost"]
                    calls[style] += timed if number >= 0 else []
        for style, each in calls.items():
            blocks[style].append(datum(seconds_of(each)))
    return {"counts": subject.counts, "seconds": blocks}


def with_loss(step: Any, inputs: Any, targets: Any) -> tuple[None, Any]:
    """Return what a turn expects of a step: something, then the loss."""
    return None, step(inputs, targets)


if __name__ == "__main__":
    from bench.worker.session import use_cache

    library, kind, depth, seed, cache = sys.argv[1:]
    use_cache(cache)
    print(json.dumps(work(Model(library, kind, int(depth)), int(seed))))
