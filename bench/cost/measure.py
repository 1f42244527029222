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
from bench.cost import user_model
from bench.cost.models import PLAIN, data
from bench.cost.structure import STACKS
from bench.cost.table import Counts
from bench.engine.cores import one_core_lanes
from bench.engine.machine import only_one
from bench.estimates import datum
from bench.report import wording
from bench.stats.law import Range, mean_of_workers
from bench.worker.settings import environment, threads
from common.errors import BakeoffError, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cost.models import ModelSteps
    from bench.samples import Cores

WORKERS, SECONDS, BLOCKS, ROUNDS = 4, 6.0, 4, 4
"""Processes for each library; for how long each model is timed in one, at least, and how many
blocks; rounds of a block."""
ON_CPU = {"JAX_PLATFORMS": "cpu", "JAX_TRACEBACK_FILTERING": "off"}
"""Variables of a process: as the table's own runs, with an error in its last line."""


class ModelSpec(NamedTuple):
    """A model, in whichever library."""

    kind: str
    """One of a library's module in `bench.cost.models`, or `FILE.py:FUNCTION` of a user's."""
    depth: int = 0
    """Blocks."""
    whole: bool = False
    """Whether a step computes what the model does, or next to nothing: what the host does is the
    same."""

    @property
    def of_user(self) -> bool:
        """Whether it is a user's."""
        return user_model.is_function(self.kind)

    def steps(self, library: str) -> ModelSteps:
        """Return its steps in a library."""
        if self.of_user:
            return user_model.steps_of(self.kind)[1]
        module = importlib.import_module(f"bench.cost.models.{library}")
        if self.whole:
            return module.whole(self.kind, self.depth)
        return module.like(module.model(self.kind, self.depth))


STACKED = tuple(ModelSpec(kind, depth) for kind in STACKS for depth in (12, 40))
CHECKED = tuple(
    ModelSpec(kind, depth, whole=whole)
    for kind, depths in (("mlp", (8, 24)), ("transformer", (2, 6)))
    for depth in depths
    for whole in (False, True)
)
MODELS = {
    "equinox": (*STACKED, *CHECKED),
    "flax_linen": CHECKED,
    "flax_nnx": (*STACKED, *CHECKED),
}
"""By library; Linen's styles cost too little for a law of its own."""


class MeasuredCost(NamedTuple):
    """What a style was measured to add to a call of a model's step."""

    library: str
    model: ModelSpec
    counts: Counts
    style: str
    seconds: Range | None
    failure: str = ""
    """Why the style cannot take the model."""

    @property
    def name(self) -> str:
        """The library, and its style where that needs a name."""
        return wording.name(Arm(self.library, self.style))


def measured(
    chosen: Mapping[str, Sequence[ModelSpec]], told: Callable[[str], None]
) -> Iterator[MeasuredCost]:
    """Yield what was measured, library by library.

    A process times all models of a library in turns, so that a busy minute affects all alike.

    Args:
        chosen: Models by library.
        told: Called with what is done.

    Raises:
        BakeoffError: a worker failed.
    """
    lanes: Queue[Cores] = Queue()
    for lane in one_core_lanes():
        lanes.put(lane)
    number, total = count(1), WORKERS * len(chosen)
    running: set[subprocess.Popen[str]] = set()

    def worker(library: str, seed: int) -> list[dict[str, Any]]:
        cores = lanes.get()
        try:
            with started(library, chosen[library], SECONDS, cores, seed, cache) as process:
                running.add(process)
                found = answer_of(process, library)
        finally:
            lanes.put(cores)
        told(f"{next(number)}/{total} {library}")
        return found

    with (
        only_one(),
        TemporaryDirectory() as cache,
        ThreadPoolExecutor(lanes.qsize()) as pool,
    ):
        rounds = [{lib: pool.submit(worker, lib, n) for lib in chosen} for n in range(WORKERS)]
        try:
            for library, models in chosen.items():
                workers = [asked[library].result() for asked in rounds]
                for model, found in zip(models, zip(*workers, strict=True), strict=True):
                    yield from summary(library, model, found)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()


def started(
    library: str, models: Sequence[ModelSpec], seconds: float, cores: Cores, seed: int, cache: str
) -> subprocess.Popen[str]:
    """Start a process that measures models; it shares compiled programs with others in a folder."""
    options = library, json.dumps(models), str(seconds), str(seed), cache
    return subprocess.Popen(  # noqa: S603 -- this module, no shell
        [sys.executable, "-P", "-m", __name__, *options],
        env=environment() | (threads(cores) if cores else {}) | ON_CPU,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer_of(process: subprocess.Popen[str], library: str) -> list[dict[str, Any]]:
    """Return what a process has measured, once it ends.

    Raises:
        BakeoffError: it failed.
    """
    out, said = process.communicate()
    if process.returncode:
        [last] = said.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise BakeoffError(f"models in {library} could not be measured: {last}")
    return json.loads(out)


def summary(
    library: str, model: ModelSpec, workers: Sequence[dict[str, Any]]
) -> Iterator[MeasuredCost]:
    """Yield what each style adds, from what workers measured of a model."""
    plain = float(np.median(np.concatenate([w["seconds"][PLAIN] for w in workers])))
    counts = Counts(*workers[0]["counts"])
    failed = {style: why for worker in workers for style, why in worker["failed"].items()}
    for style in workers[0]["seconds"]:
        if style != PLAIN and style not in failed:
            ratios = [
                np.array(w["seconds"][style]) / np.array(w["seconds"][PLAIN]) - 1 for w in workers
            ]
            added = mean_of_workers([plain * float(np.median(ratio)) for ratio in ratios])
            yield MeasuredCost(library, model, counts, style, added)
    for style, why in failed.items():
        yield MeasuredCost(library, model, counts, style, None, why)


class Timed:
    """A model in a process: its styles, ready to be timed in turns."""

    def __init__(self, library: str, model: ModelSpec, rng: random.Random) -> None:
        """Compile all styles, and see that they have the same losses."""
        from bench.worker.turns import WARM_CALLS, HostCostTurn

        made = model.steps(library)
        self.counts, self.rng = made.counts, rng
        inputs, targets = data(model.kind)
        self.turns: dict[str, HostCostTurn] = {}
        self.failed: dict[str, str] = {}
        self.blocks: dict[str, list[float]] = defaultdict(list)
        losses = {}
        for style in rng.sample(list(made.steps), len(made.steps)):
            try:
                step = made.steps[style]()
                losses[style] = [float(step(inputs, targets)) for _ in range(WARM_CALLS)]
            except Exception as error:
                if not model.of_user or style == PLAIN:
                    raise
                self.failed[style] = f"{type(error).__name__}: {words_of(error)}"
                continue
            turn = HostCostTurn(partial(with_loss, step), inputs, targets)  # type: ignore[arg-type]
            self.turns[style] = turn
        for style, found in losses.items():
            if not np.allclose(found, losses[PLAIN], rtol=1e-5):
                raise BakeoffError(f"{style} has the losses {found}, the same step {losses[PLAIN]}")

    def block(self) -> None:
        """Time a block of rounds, in each of which all styles take a turn."""
        from bench.worker.block import seconds_of
        from bench.worker.counts import collector_off

        calls: dict[str, list[Any]] = defaultdict(list)
        with collector_off():
            for number in range(-1, ROUNDS):
                for style in self.rng.sample(list(self.turns), len(self.turns)):
                    timed = self.turns[style]()["host_cost"]
                    calls[style] += timed if number >= 0 else []
        for style, each in calls.items():
            self.blocks[style].append(datum(seconds_of(each)))


def work(
    library: str, models: Sequence[ModelSpec], seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Time all styles of some models in this process, each for some seconds, at least.

    Returns:
        By model, its counts, the datum of each block by style, and why styles failed.
    """
    from bench.worker.turns import CLOCK

    rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
    timed = [Timed(library, model, rng) for model in models]
    end, blocks = CLOCK() + seconds * len(models), 0
    while CLOCK() < end or blocks < BLOCKS:
        for each in rng.sample(timed, len(timed)):
            each.block()
        blocks += 1
    return [
        {"counts": each.counts, "seconds": each.blocks, "failed": each.failed} for each in timed
    ]


def with_loss(step: Any, inputs: Any, targets: Any) -> tuple[None, Any]:
    """Return what a turn expects of a step: something, then the loss."""
    return None, step(inputs, targets)


if __name__ == "__main__":
    from bench.worker.__main__ import begin
    from bench.worker.session import use_cache

    out = begin()
    _, library, given, seconds, seed, cache = sys.argv
    use_cache(cache)
    models = [ModelSpec(*each) for each in json.loads(given)]
    print(json.dumps(work(library, models, float(seconds), int(seed))), file=out, flush=True)
