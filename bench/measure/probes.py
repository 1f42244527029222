"""What a worker does with proven steps: rounds in random order, and whole trainings."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.measure.cells import BASELINE
from common.chunker import chunks
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import make, random_weights
from common.sample import sample
from common.steps import FunctionalStep, on_host
from common.train import by_chunk, by_scan
from common.vocab import Vocab

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from common.contract import TrainStep
    from common.equality import Case

FINAL_STEPS = 200
FINAL_MEAN = 20
"""Steps at the end whose mean is the final loss: one chunk's loss depends on its text."""
OWN_SEEDS = 3
EPOCH_CHUNKS = 39
"""As many whole chunks as the blog's epoch has, or as the text has."""
EPOCH_ROUNDS = 5
SAMPLE_LENGTH = 500
SAMPLE_ROUNDS = 10
WARM_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""

type Name = tuple[str, str]
"""Entrant and style."""


def measure_block(
    steps: dict[Name, TrainStep],
    case: Case,
    tokens: Any,
    rounds: int,
    rng: random.Random,
) -> dict[Name, list[float]]:
    """Return the seconds of `rounds` synchronised calls of each step, in random order.

    Everybody gets fresh buffers at new offsets, allocated and warmed in a random order.
    """
    chunk = next(stream(case, tokens))
    hidden = zero_hidden(case.model, case.batch)
    names, padding = list(steps), []
    for name in rng.sample(names, len(names)):
        padding.append(jax.device_put(np.zeros(rng.randrange(1, 1 << 14), np.float32)))
        steps[name].load(fresh_checkpoint(random_weights(case.model)))
        for _ in range(WARM_CALLS):
            jax.block_until_ready(steps[name](hidden, chunk))
    calls = {name: partial(steps[name], hidden, chunk) for name in names}
    return interleave(calls, rounds, rng, lead=1)


def interleave[Key](
    calls: Mapping[Key, Callable[[], Any]], rounds: int, rng: random.Random, lead: int = 0
) -> dict[Key, list[float]]:
    """Return the seconds of `rounds` synchronised calls of each, every round in another order.

    A call is over when what it returns is there: of a step, loss and hidden state, which come with
    the new parameters where one program makes them all. Only `blog` has updates in flight then.
    Before each timed call, `lead` untimed ones give it the caches that it has in a loop of its own:
    without them, a step of a tenth of a millisecond pays for what the others left behind.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in calls}
    with quiet():
        for _ in range(rounds):
            for name in rng.sample(list(calls), len(calls)):
                for _ in range(lead):
                    jax.block_until_ready(calls[name]())
                start = time.perf_counter()
                jax.block_until_ready(calls[name]())
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure_epochs(
    names: list[Name], case: Case, tokens: Any, rng: random.Random
) -> dict[tuple[Name, str], tuple[list[float], dict[str, Any]]]:
    """Return seconds and losses of whole epochs, chunk by chunk and as one jitted scan.

    They run as `bakeoff train` runs them: the text's way to the device is part of both.
    """
    size = EPOCH_CHUNKS * case.chunk * case.batch + 1
    epoch = chunks(tokens[:size], case.chunk, case.batch)
    hidden, start = (
        zero_hidden(case.model, case.batch),
        fresh_checkpoint(random_weights(case.model)),
    )
    calls, losses = {}, {}
    for name in names:
        for metric, mode in (("epoch_by_chunk", by_chunk), ("epoch_by_scan", by_scan)):
            step = make(impls.load(name[0]).style(name[1]), case)
            assert isinstance(step, FunctionalStep), "pure styles thread their state"
            step.load(start)
            run = mode(step)
            losses[name, metric] = run(hidden, epoch)
            calls[name, metric] = partial(run, hidden, epoch)
    seconds = interleave(calls, EPOCH_ROUNDS, rng)
    return {
        (name, metric): (
            seconds[name, metric],
            {
                "chunks": len(epoch.mask),
                "largest_loss_difference_to_chunk_by_chunk": float(
                    abs(losses[name, metric] - losses[name, "epoch_by_chunk"]).max()
                ),
            },
        )
        for name, metric in calls
    }


def measure_samples(names: list[Name], case: Case, rng: random.Random) -> dict[Name, list[float]]:
    """Return the seconds of writing `SAMPLE_LENGTH` characters, compiled beforehand."""
    vocab = Vocab("".join(map(chr, range(64, 64 + case.model.vocab_size))))
    calls = {}
    for name in names:
        model = impls.load(name[0]).build(case.model)
        params = model.from_weights(random_weights(case.model))
        calls[name] = partial(sample, model, params, case.model, vocab, "A", SAMPLE_LENGTH)
        calls[name]()
    return interleave(calls, SAMPLE_ROUNDS, rng)


def stream(case: Case, tokens: Any) -> Iterator[Chunk]:
    """Yield the corpus chunk by chunk, over and over; only whole chunks."""
    per_chunk = case.chunk * case.batch
    whole = (len(tokens) - 1) // per_chunk * per_chunk
    epoch = chunks(tokens[: whole + 1], case.chunk, case.batch)
    while True:
        for arrays in zip(*epoch, strict=True):
            yield jax.device_put(Chunk(*arrays))


def final_loss(
    name: Name, step: TrainStep, case: Case, tokens: Any
) -> tuple[list[float], dict[str, Any]]:
    """Return the seconds and the final losses of training runs of `FINAL_STEPS` steps.

    The first run starts from weights that are the same for all; the others, in the `pure` styles,
    from the library's own initialisers.
    """
    chunks_ready = list(islice(stream(case, tokens), FINAL_STEPS))

    def run(entrant: str, seed: int) -> tuple[float, float]:
        model = impls.load(entrant).build(case.model)
        step.load(fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed))))))
        hidden, losses = zero_hidden(case.model, case.batch), []
        start = time.perf_counter()
        for chunk in chunks_ready:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        values = [float(loss) for loss in jax.device_get(losses)]
        last = values[-FINAL_MEAN:]
        return time.perf_counter() - start, sum(last) / len(last)

    runs = [run(BASELINE[0], 0)]
    if name[1] == "pure":
        runs += [run(name[0], seed) for seed in range(OWN_SEEDS)]
    return [seconds for seconds, _ in runs], {
        "steps": FINAL_STEPS,
        "same_weights": runs[0][1],
        "own_initialiser": [loss for _, loss in runs[1:]],
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
