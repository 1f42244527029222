"""Turns: what an arm does when it is its turn in a round, and how long it took."""

from __future__ import annotations

import gc
import math
import time
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.cells import BASELINE
from common.chunker import chunks
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import make, random_weights
from common.errors import BakeoffError
from common.sample import sample
from common.steps import FunctionalStep, on_host
from common.train import by_chunk, by_scan
from common.vocab import Vocab

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from bench.worker.session import Opened
    from common.contract import Hidden, TrainStep
    from common.equality import Case

    type Unit = Callable[[], dict[str, list[float]]]
    """One turn: it takes its own times, and returns its samples in seconds, by metric."""
    type Fresh = Callable[[], Unit]
    """Gives a turn over buffers of its own, warm."""

CALLS = 4
"""Timed calls of a step in a turn."""
DISPATCHED = 10
"""Calls of a step without waiting, and with."""
FINAL_STEPS = 200
FINAL_MEAN = 20
"""Steps whose mean is a point of a curve, the last of them the final loss: one chunk's loss depends
on its text."""
OWN_SEEDS = 3
EPOCH_CHUNKS = 39
"""As many whole chunks as the blog's epoch has, or as the text has."""
SAMPLE_LENGTH = 500


def interleave[Name: Hashable](
    units: Mapping[Name, Unit],
    rounds: int,
    rng: random.Random,
    at: Callable[[Name], None] = lambda _: None,
    untimed: int = 0,
) -> dict[Name, dict[str, list[float]]]:
    """Return the samples of `rounds` turns of each, every round in another order.

    `at` is told whose turn it is; of the first `untimed` rounds, which come in addition, samples
    are dropped.
    """
    found: dict[Name, dict[str, list[float]]] = {name: {} for name in units}
    with quiet():
        for number in range(-untimed, rounds):
            for name in rng.sample(list(units), len(units)):
                at(name)
                samples = units[name]()
                if number < 0:
                    continue
                for metric, seconds in samples.items():
                    found[name].setdefault(metric, []).extend(seconds)
    return found


def step_turn(step: TrainStep, hidden: Hidden, chunk: Chunk) -> Unit:
    """Return a turn of synchronised calls, one of them untimed.

    A call is over when what it returns is there: loss and hidden state, which come with the new
    parameters where one program makes them all. Where a step is several, as in `blog`, updates
    are in flight then. The untimed
    call gives the others the caches that they have in a loop of their own: without it, a step of a
    tenth of a millisecond pays for what the other arms left behind.
    """

    def turn() -> dict[str, list[float]]:
        clock, wait, seconds = time.perf_counter, jax.block_until_ready, []
        wait(step(hidden, chunk))
        for _ in range(CALLS):
            start = clock()
            wait(step(hidden, chunk))
            seconds.append(clock() - start)
        return {"step": seconds}

    return turn


def dispatch_turn(step: TrainStep, hidden: Hidden, chunk: Chunk) -> Unit:
    """Return a turn of calls that are each waited for, then of calls that are not.

    `dispatch` is the host's time for a call that nobody waits for, `dispatch_pipelined` the time of
    a call when the last of them is waited for, `dispatch_synchronised` when each one is. Where a
    library's own jit waits on every call, all three are the same.
    """

    def turn() -> dict[str, list[float]]:
        clock, wait = time.perf_counter, jax.block_until_ready
        wait(step(hidden, chunk))
        start = clock()
        for _ in range(DISPATCHED):
            wait(step(hidden, chunk))
        synchronised = clock() - start
        start = clock()
        for _ in range(DISPATCHED):
            last = step(hidden, chunk)
        returned = clock() - start
        wait(last)
        done = clock() - start
        return {
            "dispatch": [returned / DISPATCHED],
            "dispatch_synchronised": [synchronised / DISPATCHED],
            "dispatch_pipelined": [done / DISPATCHED],
        }

    return turn


OF_STEPS = {"step": step_turn, "dispatch": dispatch_turn}
"""Turns that need nothing but the arms' steps; each block gives them fresh buffers."""


def epoch_turn(entrant: str, style: str, opened: Opened) -> Fresh:
    """Return what gives turns of one epoch chunk by chunk and one as a jitted scan, compiled.

    They run as `bakeoff train` runs them: the text's way to the device is part of both.
    """
    case = opened.case
    size = EPOCH_CHUNKS * case.chunk * case.batch + 1
    epoch = chunks(opened.tokens[:size], case.chunk, case.batch)
    steps, runs, losses = {}, {}, {}
    for metric, mode in (("epoch_by_chunk", by_chunk), ("epoch_by_scan", by_scan)):
        step = make(impls.load(entrant).style(style), case)
        assert isinstance(step, FunctionalStep), "these styles thread their state"
        step.load(fresh_checkpoint(opened.weights))
        steps[metric], runs[metric] = step, mode(step)
        losses[metric] = runs[metric](zero_hidden(case.model, case.batch), epoch)
    away = float(np.max(np.abs(losses["epoch_by_scan"] - losses["epoch_by_chunk"])))
    if not away <= EPOCH_TOLERANCE:
        raise BakeoffError(f"an epoch as one scan is off by {away:.2g} nats from chunk by chunk")

    def fresh() -> Unit:
        hidden = zero_hidden(case.model, case.batch)
        for step in steps.values():
            step.load(jax.tree.map(np.copy, fresh_checkpoint(opened.weights)))
        return lambda: {
            metric: [timed(partial(run, hidden, epoch))] for metric, run in runs.items()
        }

    return fresh


EPOCH_TOLERANCE = 1e-3
"""In nats per character: rounding that an unstable training has blown up stays below it."""


def sample_turn(entrant: str, style: str, opened: Opened) -> Fresh:
    """Return what gives turns of writing `SAMPLE_LENGTH` characters, compiled."""
    del style
    config = opened.case.model
    vocab = Vocab("".join(map(chr, range(64, 64 + config.vocab_size))))
    model = impls.load(entrant).build(config)

    def fresh() -> Unit:
        params = model.from_weights(random_weights(config))
        call = partial(sample, model, params, config, vocab, "A", SAMPLE_LENGTH)
        call()
        return lambda: {"sample": [timed(call)]}

    fresh()
    return fresh


PREPARED: dict[str, Callable[[str, str, Opened], Fresh]] = {
    "epoch": epoch_turn,
    "sample": sample_turn,
}
"""Turns that compile programs of their own first, and then have fresh buffers in each block."""


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call whose result is on the host, or is waited for."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def stream(case: Case, tokens: Any) -> Iterator[Chunk]:
    """Yield the corpus chunk by chunk, over and over; only whole chunks."""
    per_chunk = case.chunk * case.batch
    whole = (len(tokens) - 1) // per_chunk * per_chunk
    epoch = chunks(tokens[: whole + 1], case.chunk, case.batch)
    while True:
        for arrays in zip(*epoch, strict=True):
            yield jax.device_put(Chunk(*arrays))


def final_loss(entrant: str, style: str, step: TrainStep, opened: Opened) -> dict[str, Any]:
    """Return the seconds and the final losses of training runs of `FINAL_STEPS` steps.

    The first run starts from weights that are the same for all; the others, in the `pure` styles,
    from the library's own initialisers.

    Raises:
        BakeoffError: a final loss is not a number.
    """
    case = opened.case
    chunks_ready = list(islice(stream(case, opened.tokens), FINAL_STEPS))

    def run(initialised_by: str, seed: int) -> tuple[float, list[float]]:
        model = impls.load(initialised_by).build(case.model)
        step.load(fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed))))))
        hidden, losses = zero_hidden(case.model, case.batch), []
        start = time.perf_counter()
        for chunk in chunks_ready:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        values = [float(loss) for loss in jax.device_get(losses)]
        seconds = time.perf_counter() - start
        means = [
            sum(part) / FINAL_MEAN
            for part in (values[i : i + FINAL_MEAN] for i in range(0, FINAL_STEPS, FINAL_MEAN))
        ]
        if not math.isfinite(means[-1]):
            raise BakeoffError(f"the loss became {means[-1]} in {FINAL_STEPS} training steps")
        return seconds, means

    runs = [run(BASELINE[0], 0)]
    if style == "pure":
        runs += [run(entrant, seed) for seed in range(OWN_SEEDS)]
    return {
        "seconds": [seconds for seconds, _ in runs],
        "steps": FINAL_STEPS,
        "mean_of_steps": FINAL_MEAN,
        "same_weights": runs[0][1][-1],
        "own_initialiser": [losses[-1] for _, losses in runs[1:]],
        "curve_same_weights": runs[0][1],
        "curves_own_initialiser": [losses for _, losses in runs[1:]],
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
