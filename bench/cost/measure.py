"""Measures what styles add to a step of other models than the character RNN, a user's too.

Calls are timed as `bench.worker` times those of the character RNN: in turns, in random order, in
several processes that keep to one core each, and a process gives the same low quantile of calls.
"""

from __future__ import annotations

import importlib
import json
import math
import random
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, pairwise
from queue import Queue
from statistics import median_low
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from bench.cells import Arm
from bench.cost import user_model
from bench.cost.models import PLAIN, data, rnn
from bench.cost.table import Checked
from bench.engine.cores import one_core_lanes
from bench.engine.machine import only_one
from bench.estimates import datum
from bench.report import wording
from bench.stats.law import Range, along, mean_of_workers
from bench.worker.settings import environment, threads
from common.errors import BakeoffError, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cost.models import ModelSteps
    from bench.cost.table import CostTable
    from bench.samples import Cores

WORKERS, CHECK_WORKERS = 4, 6
"""Processes for each library: for a user's model, and to check predictions."""
SECONDS, ROUNDS = 10.0, 10
"""For how long each model is timed in a process, and how many rounds, at least."""
ON_CPU = {"JAX_PLATFORMS": "cpu", "JAX_TRACEBACK_FILTERING": "off"}
"""Variables of a process: as the table's own runs, with an error in its last line."""


class ModelSpec(NamedTuple):
    """A model, in whichever library."""

    kind: str
    """`RNN`, one of those in `bench.cost.models`, or `FILE.py:FUNCTION` of a user's."""
    depth: int = 0
    """Blocks, or layers of the RNN."""
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
        if self.kind == RNN:
            return rnn.whole(library, self.depth)
        module = importlib.import_module(f"bench.cost.models.{library}")
        if self.whole:
            return module.whole(self.kind, self.depth)
        return module.like(module.model(self.kind, self.depth))


RNN = "rnn"
DEPTHS = (3, 12, 24, 48)
"""Layers of the RNN that other models are predicted from."""
CHECKED = tuple(ModelSpec(RNN, layers, whole=True) for layers in DEPTHS) + tuple(
    ModelSpec(kind, depth, whole=whole)
    for kind, depths in (("mlp", (8, 24)), ("transformer", (2, 6)), ("convnet", (12,)))
    for depth in depths
    for whole in (False, True)
)
MODELS = dict.fromkeys(("equinox", "flax_linen", "flax_nnx"), CHECKED)
"""By library."""


class MeasuredCost(NamedTuple):
    """What a style was measured to add to a call of a model's step."""

    library: str
    model: ModelSpec
    arrays: int
    style: str
    lines: int | None = None
    """Lines of Python that run beyond those of plain JAX's step; None where they vary."""
    added: tuple[float, ...] = ()
    """Seconds, in each worker."""
    failure: str = ""
    """Why the style cannot take the model."""

    @property
    def seconds(self) -> Range:
        """What it adds, with its interval."""
        return mean_of_workers(self.added)

    @property
    def name(self) -> str:
        """The library, and its style where that needs a name."""
        return wording.name(Arm(self.library, self.style))


def measured(
    chosen: Mapping[str, Sequence[ModelSpec]], told: Callable[[str], None], workers: int = WORKERS
) -> Iterator[MeasuredCost]:
    """Yield what was measured, library by library.

    Args:
        chosen: Models by library.
        told: Called with what is done.
        workers: Processes for each library.

    Raises:
        BakeoffError: a worker failed.
    """
    lanes: Queue[Cores] = Queue()
    for lane in one_core_lanes():
        lanes.put(lane)
    number, total = count(1), workers * len(chosen)
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
        rounds = [{lib: pool.submit(worker, lib, n) for lib in chosen} for n in range(workers)]
        try:
            for library, models in chosen.items():
                answers = [asked[library].result() for asked in rounds]
                for model, found in zip(models, zip(*answers, strict=True), strict=True):
                    yield from summary(library, model, found)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()


def started(
    library: str, models: Sequence[ModelSpec], seconds: float, cores: Cores, seed: int, cache: str
) -> subprocess.Popen[str]:
    """Start a process that measures models; it shares compiled programs with others in a folder.

    With no seconds to measure, it counts lines of Python only.
    """
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


def counted(library: str, model: ModelSpec) -> list[MeasuredCost]:
    """Return the lines of Python that a model's step runs in each style of a library, untimed.

    Raises:
        BakeoffError: its plain step failed, or a style computes something else.
    """
    with TemporaryDirectory() as cache, started(library, [model], 0.0, (), 0, cache) as process:
        [found] = answer_of(process, library)
    return list(summary(library, model, [found]))


def summary(
    library: str, model: ModelSpec, workers: Sequence[dict[str, Any]]
) -> Iterator[MeasuredCost]:
    """Yield what each style adds, from what workers measured of a model."""
    first, *_ = workers
    plain_lines = usual_lines(workers, PLAIN)
    failed = {style: why for worker in workers for style, why in worker["failed"].items()}
    for style in first["lines"]:
        if style != PLAIN and style not in failed:
            lines = usual_lines(workers, style)
            beyond = None if lines is None or plain_lines is None else lines - plain_lines
            seconds = tuple(
                datum(w["seconds"][style]) - datum(w["seconds"][PLAIN])
                for w in workers
                if w["seconds"]
            )
            yield MeasuredCost(library, model, first["arrays"], style, beyond, seconds)
    for style, why in failed.items():
        yield MeasuredCost(library, model, first["arrays"], style, failure=why)


def usual_lines(workers: Sequence[dict[str, Any]], style: str) -> int | None:
    """Return the lines that workers have counted in a style; None where they varied.

    NNX's caches depend on what a process has done before, so some workers may count a few more.
    """
    counts = [worker["lines"].get(style) for worker in workers]
    return None if None in counts else median_low(counts)


def with_check(costs: CostTable, found: Sequence[MeasuredCost], machine: str) -> CostTable:
    """Return a table with how far its predictions are off, and with the lines that the RNN runs.

    Args:
        costs: The table.
        found: What was measured of all models, the RNN's depths among them.
        machine: Where.
    """
    lines = {(e.library, e.style, e.arrays): e.lines for e in found if e.model.kind == RNN}
    styles = (
        replace(
            style,
            measured=tuple(
                replace(point, lines=lines.get((style.entrant, style.style, point.arrays)))
                for point in style.measured
            ),
        )
        for style in costs.styles
    )
    checked = tuple(beside_rnn(found))
    return replace(costs, styles=tuple(styles), checked=checked, checked_machine=machine)


def beside_rnn(found: Sequence[MeasuredCost]) -> Iterator[Checked]:
    """Yield how far predictions are off that the RNN's costs give in the same processes.

    Args:
        found: What was measured of all models. A style that costs next to nothing, so that a
            process may not tell it from plain JAX, is left out, and so is a model that is predicted
            to cost nothing.
    """
    by_style: dict[tuple[str, str], list[MeasuredCost]] = defaultdict(list)
    for each in found:
        by_style[each.library, each.style].append(each)
    for (library, style), own in by_style.items():
        if min(seconds for each in own for seconds in each.added) <= 0:
            continue
        depths = [each for each in own if each.model.kind == RNN]
        arrays = [each.arrays for each in depths]
        ran = [each.lines for each in depths if each.lines is not None]
        grow = len(ran) == len(depths) and all(a < b for a, b in pairwise(ran))
        costs = list(zip(*(each.added for each in depths), strict=True))
        for each in own:
            if each.model.kind != RNN:
                straight = [line(each.arrays, arrays, worker) for worker in costs]
                curves = (
                    [along(each.lines, ran, worker) for worker in costs]
                    if grow and each.lines is not None
                    else None
                )
                if min(*straight, *(curves or straight)) <= 0:
                    continue
                yield Checked(
                    *each.model,
                    library,
                    style,
                    each.arrays,
                    each.lines,
                    float(np.mean(each.added)),
                    by_lines=None if curves is None else off(curves, each.added),
                    by_arrays=off(straight, each.added),
                )


def line(size: float, sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return a cost on the line through those of other sizes, as the law of a run has one."""
    return float(np.polyval(np.polyfit(sizes, costs, 1, w=1 / np.array(costs)), size))


def off(predicted: Sequence[float], measured: Sequence[float]) -> Range:
    """Return predicted over measured costs, less one: the geometric mean over workers."""
    logs = [math.log(p / m) for p, m in zip(predicted, measured, strict=True)]
    return Range(*(math.exp(each) - 1 for each in mean_of_workers(logs)))


class Timed:
    """A model in a process: its styles, ready to be timed in turns."""

    def __init__(self, library: str, model: ModelSpec, rng: random.Random) -> None:
        """Compile all styles, see that they have the same losses, and count their lines."""
        from bench.worker.counts import python_lines
        from bench.worker.turns import WARM_CALLS, StepTurn

        made = model.steps(library)
        self.arrays = made.arrays
        inputs, targets = data(model.kind)
        self.turns: dict[str, StepTurn] = {}
        self.lines: dict[str, int | None] = {}
        self.failed: dict[str, str] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
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
            self.lines[style] = python_lines(partial(step, inputs, targets))
            self.turns[style] = StepTurn(partial(with_loss, step), inputs, targets)  # type: ignore[arg-type]
        for style, found in losses.items():
            if not np.allclose(found, losses[PLAIN], rtol=1e-5):
                raise BakeoffError(f"{style} has the losses {found}, the same step {losses[PLAIN]}")

    def turn(self, style: str) -> None:
        """Time some calls of a style."""
        self.seconds[style] += [call.seconds for call in self.turns[style]()["step"]]


def work(
    library: str, models: Sequence[ModelSpec], seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Time all styles of some models in this process, each for some seconds, at least.

    Returns:
        By model, its arrays; by style, lines of Python and the seconds of timed calls; and why
        styles failed.
    """
    from bench.worker.counts import collector_off
    from bench.worker.turns import CLOCK

    rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
    timed = [Timed(library, model, rng) for model in models]
    places = [(each, style) for each in timed for style in each.turns]
    end, rounds = CLOCK() + seconds * len(models), 0
    while seconds and (CLOCK() < end or rounds < ROUNDS):
        with collector_off():
            for each, style in rng.sample(places, len(places)):
                each.turn(style)
        rounds += 1
    return [
        {"arrays": t.arrays, "lines": t.lines, "seconds": t.seconds, "failed": t.failed}
        for t in timed
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
