"""Measures host costs of models that are not in the fit, beside what the law predicts for them.

Calls are timed as `bench.worker` times those of the character RNN: in turns, in random order, in
blocks, in several processes that keep to one core each.
"""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.cost.models import KINDS, LIBRARIES, PLAIN, data
from bench.engine.cores import one_core_lanes
from bench.engine.machine import only_one
from bench.estimates import datum
from bench.stats.law import Range, mean_of_workers
from bench.worker.settings import environment, threads
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.samples import Cores

DEPTHS = {"layers": (12, 40), "mlp": (8, 24), "transformer": (2, 6)}
"""Blocks of each kind of model: as many arrays as the fit's models have."""
WORKERS, SECONDS, BLOCKS, ROUNDS = 4, 8.0, 4, 4
"""Processes for each model; for how long each of them is timed, at least, and how many blocks;
rounds of a block."""


class Model(NamedTuple):
    """One model in one library."""

    library: str
    kind: str
    depth: int


class Found(NamedTuple):
    """What a style was measured to add to a call of a model's step."""

    model: Model
    arrays: int
    modules: int
    style: str
    seconds: Range
    plain: float
    """Seconds of the same step over plain tuples."""


def models() -> list[Model]:
    """Return all models."""
    return [Model(lib, kind, d) for kind in KINDS for d in DEPTHS[kind] for lib in LIBRARIES]


def measured(chosen: list[Model]) -> Iterator[Found]:
    """Yield what was measured, model by model.

    Raises:
        BakeoffError: a worker failed.
    """
    lanes: Queue[Cores] = Queue()
    for lane in one_core_lanes():
        lanes.put(lane)

    def worker(model: Model, seed: int) -> dict[str, Any]:
        cores = lanes.get()
        try:
            return ask(model, cores, seed)
        finally:
            lanes.put(cores)

    with only_one(), ThreadPoolExecutor(lanes.qsize()) as pool:
        asked = {model: [pool.submit(worker, model, n) for n in range(WORKERS)] for model in chosen}
        for model, futures in asked.items():
            yield from found(model, [future.result() for future in futures])


def ask(model: Model, cores: Cores, seed: int) -> dict[str, Any]:
    """Return what one process measures."""
    command = [sys.executable, "-m", __name__, *map(str, model), str(seed)]
    variables = environment() | (threads(cores) if cores else {})
    done = subprocess.run(  # noqa: S603 -- this module, no shell
        command, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise BakeoffError(f"{' '.join(map(str, model))} could not be measured: {' '.join(last)}")
    return json.loads(done.stdout)


def found(model: Model, workers: list[dict[str, Any]]) -> Iterator[Found]:
    """Yield what each style adds, from what workers measured."""
    plain = float(np.median(np.concatenate([w["seconds"][PLAIN] for w in workers])))
    for style in workers[0]["seconds"]:
        if style != PLAIN:
            ratios = [
                np.array(w["seconds"][style]) / np.array(w["seconds"][PLAIN]) - 1 for w in workers
            ]
            added = mean_of_workers([plain * float(ratio.mean()) for ratio in ratios])
            yield Found(model, workers[0]["arrays"], workers[0]["modules"], style, added, plain)


def work(model: Model, seed: int) -> dict[str, Any]:
    """Time all styles of a model in this process; return the datum of each block by style."""
    from bench.worker.__main__ import keep_to_cores
    from bench.worker.block import seconds_of
    from bench.worker.counts import collector_off
    from bench.worker.turns import CLOCK, WARM_CALLS, HostCostTurn

    keep_to_cores()
    subject = importlib.import_module(f"bench.cost.models.{model.library}").subject(*model[1:])
    rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
    inputs, targets = data(model.kind)
    turns, losses = {}, {}
    for style in rng.sample(list(subject.steps), len(subject.steps)):
        step = subject.steps[style]()
        losses[style] = [float(step(inputs, targets)) for _ in range(WARM_CALLS)]
        turns[style] = HostCostTurn(partial(with_loss, step), inputs, targets)  # type: ignore[arg-type]
    for style, own in losses.items():
        if not np.allclose(own, losses[PLAIN], rtol=1e-5):
            raise BakeoffError(f"{style} has the losses {own}, the same step {losses[PLAIN]}")
    blocks: dict[str, list[float]] = defaultdict(list)
    end = CLOCK() + SECONDS
    while time.perf_counter() < end or len(blocks[PLAIN]) < BLOCKS:
        calls: dict[str, list[Any]] = defaultdict(list)
        with collector_off():
            for number in range(-1, ROUNDS):
                for style in rng.sample(list(turns), len(turns)):
                    timed = turns[style]()["host_cost"]
                    calls[style] += timed if number >= 0 else []
        for style, each in calls.items():
            blocks[style].append(datum(seconds_of(each)))
    return {"arrays": subject.arrays, "modules": subject.modules, "seconds": blocks}


def with_loss(step: Any, inputs: Any, targets: Any) -> tuple[None, Any]:
    """Return what a turn expects of a step: something, then the loss."""
    return None, step(inputs, targets)


if __name__ == "__main__":
    library, kind, depth, seed = sys.argv[1:]
    print(json.dumps(work(Model(library, kind, int(depth)), int(seed))))
