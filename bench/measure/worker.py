"""A worker: a fresh interpreter that reads one job as JSON and writes what it finds as JSON lines.

`python -m bench.measure.worker < job.json`. It imports the standard library, numpy, jax, optax
and the entrants of its job, nothing else.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.config import Workload
    from common.contract import Chunk, TrainStep
    from common.equality import Case

FINAL_STEPS = 200
FINAL_MEAN = 20
"""Steps at the end whose mean is the final loss: one chunk's loss depends on its text."""
OWN_SEEDS = 3
EPOCH_CHUNKS = 39
"""As many whole chunks as the blog's epoch has."""
EPOCH_ROUNDS = 6
SAMPLE_LENGTH = 500
SAMPLE_ROUNDS = 10
WARM_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""


def main() -> None:
    """Do the job that standard input holds."""
    job = json.load(sys.stdin)
    # Entrants may print; what they print must not get between the lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(record: dict[str, Any]) -> None:
        print(json.dumps(record), file=out, flush=True)

    JOBS[job.pop("job")](emit, **job)
    emit({"done": True})


type Emit = Callable[[dict[str, Any]], None]


def describe(emit: Emit) -> None:
    """Say what this environment offers."""
    import jax

    import impls
    from common.errors import BakeoffError
    from common.versions import versions

    styles, problems = {}, {}
    for name in impls.names():
        try:
            styles[name] = list(impls.load(name).styles)
        except BakeoffError as error:
            problems[name] = str(error)
        except Exception:
            problems[name] = f"import failed: {last_line()}"
    devices = {}
    for backend in ("cpu", "gpu", "tpu"):
        try:
            devices[backend] = str(jax.devices(backend)[0].device_kind)
        except RuntimeError:
            continue
    emit(
        {
            "styles": styles,
            "problems": problems,
            "backends": list(devices),
            "devices": devices,
            "versions": versions(),
        }
    )


def setting(workload: str, backend: str) -> tuple[Workload, Case, Any, float | None]:
    """Return a workload, the case it is judged at, its corpus as tokens, and their entropy."""
    import jax

    from common import corpus as corpora
    from common.config import WORKLOADS
    from common.equality import Case
    from common.vocab import Vocab

    jax.config.update("jax_default_device", jax.devices(backend)[0])
    chosen = WORKLOADS[workload]
    corpus = corpora.load(chosen.corpus)
    vocab = Vocab.of(corpus.text)
    case = Case(chosen.model(len(vocab)), chosen.chunk, chosen.batch)
    return chosen, case, vocab.encode(corpus.text), corpus.entropy


def cold(emit: Emit, *, entrant: str, style: str, workload: str, backend: str) -> None:
    """Time tracing, lowering and compiling once, in this fresh process."""
    import jax

    import impls
    from common.contract import fresh_checkpoint
    from common.equality import make, random_chunk, random_hidden, random_weights

    events: list[tuple[str, float]] = []
    hits: list[str] = []

    def took(event: str, duration_secs: float, **_: str | int) -> None:
        events.append((event, duration_secs))

    def happened(event: str, **_: str | int) -> None:
        if event.endswith("cache_hits"):
            hits.append(event)

    jax.monitoring.register_event_duration_secs_listener(took)
    jax.monitoring.register_event_listener(happened)
    _, case, _, _ = setting(workload, backend)
    step = make(impls.load(entrant).style(style), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    program = step.program(random_hidden(case), random_chunk(case, 1))
    seconds: dict[str, float] = {}
    with quiet():
        start = time.perf_counter()
        if program.trace is not None:
            traced = program.trace()
            seconds["trace"] = time.perf_counter() - start
            start = time.perf_counter()
            lowered = traced.lower()
            seconds["lower"] = time.perf_counter() - start
        else:
            events.clear()
            lowered = program.lower()
            both = time.perf_counter() - start
            seconds["lower"] = sum(s for e, s in events if "jaxpr_to_mlir_module" in e)
            seconds["trace"] = both - seconds["lower"]
        start = time.perf_counter()
        lowered.compile()
        seconds["compile"] = time.perf_counter() - start
    if hits:
        raise RuntimeError(
            "the persistent compilation cache was used; compile times would be wrong"
        )
    cell = [entrant, style, workload, backend]
    for metric, value in seconds.items():
        emit({"cell": cell, "metric": metric, "seconds": [value]})


def warm(
    emit: Emit,
    *,
    cells: list[tuple[str, str]],
    workload: str,
    backend: str,
    metrics: list[str],
    blocks: int,
    rounds: int,
    seed: int,
) -> None:
    """Prove all cells of a workload equal, then time their steps interleaved, then train them."""
    rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
    _, case, tokens, entropy = setting(workload, backend)
    steps = prove(emit, cells, case, workload, backend)

    def tag(name: tuple[str, str]) -> list[str]:
        return [*name, workload, backend]

    if "step" in metrics:
        for _ in range(blocks):
            for name, seconds in measure_block(steps, case, tokens, rounds, rng).items():
                emit({"cell": tag(name), "metric": "step", "seconds": seconds})
    pure = [name for name in steps if name[1] == "pure"]
    if {"epoch_by_chunk", "epoch_by_scan"}.intersection(metrics):
        for (name, metric), (seconds, facts) in measure_epochs(pure, case, tokens, rng).items():
            emit({"cell": tag(name), "metric": metric, "seconds": seconds, "facts": facts})
    if "sample" in metrics:
        for name, seconds in measure_samples(pure, case, rng).items():
            facts = {"characters": SAMPLE_LENGTH}
            emit({"cell": tag(name), "metric": "sample", "seconds": seconds, "facts": facts})
    if "final_loss" in metrics:
        for name, step in steps.items():
            seconds, facts = final_loss(name, step, case, tokens)
            facts["entropy"] = entropy
            emit({"cell": tag(name), "metric": "final_loss", "seconds": seconds, "facts": facts})


def prove(
    emit: Emit, cells: list[tuple[str, str]], case: Case, workload: str, backend: str
) -> dict[tuple[str, str], TrainStep]:
    """Return the steps that compute what they should; say of each how near it is, or what fails."""
    from dataclasses import asdict

    import impls
    from bench.measure.cells import BASELINE
    from bench.measure.program import ProgramFacts, difference, facts
    from common.contract import fresh_checkpoint
    from common.equality import (
        deviation,
        make,
        random_chunk,
        random_hidden,
        random_weights,
        trajectory,
    )
    from common.errors import BakeoffError

    def compiled(step: TrainStep) -> ProgramFacts:
        step.load(fresh_checkpoint(random_weights(case.model)))
        return facts(step.program(random_hidden(case), random_chunk(case, 1)))

    baseline = make(impls.load(BASELINE[0]).style(BASELINE[1]), case)
    losses, program = trajectory(baseline, case), compiled(baseline)
    steps = {}
    for entrant, style in cells:
        name = (entrant, style)
        record: dict[str, Any] = {"cell": [*name, workload, backend]}
        try:
            step = make(impls.load(entrant).style(style), case)
            away = deviation(step, case, losses)
            away.require()
            ours = compiled(step)
            record["facts"] = asdict(away) | {
                "program": asdict(ours),
                "same_program_as_baseline": ours.fingerprint == program.fingerprint,
                "operations_beside_baseline": difference(ours.operations, program.operations),
            }
            record["metric"] = "proof"
            steps[name] = step
        except BakeoffError as error:
            record["failure"] = str(error)
        except Exception:
            traceback.print_exc()
            record["failure"] = f"raised {last_line()}"
        emit(record)
    return steps


def measure_block(
    steps: dict[tuple[str, str], TrainStep],
    case: Case,
    tokens: Any,
    rounds: int,
    rng: random.Random,
) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of `rounds` synchronised calls of each step, in random order.

    Everybody gets fresh buffers at new offsets, allocated and warmed in a random order.
    """
    import jax
    import numpy as np

    from common.contract import fresh_checkpoint, zero_hidden
    from common.equality import random_weights

    chunk = next(stream(case, tokens))
    hidden = zero_hidden(case.model, case.batch)
    names, padding = list(steps), []
    for name in rng.sample(names, len(names)):
        padding.append(jax.device_put(np.zeros(rng.randrange(1, 1 << 14), np.float32)))
        steps[name].load(fresh_checkpoint(random_weights(case.model)))
        for _ in range(WARM_CALLS):
            jax.block_until_ready(steps[name](hidden, chunk))
    return interleave({name: partial(steps[name], hidden, chunk) for name in names}, rounds, rng)


def interleave[Name](
    calls: Mapping[Name, Callable[[], Any]], rounds: int, rng: random.Random
) -> dict[Name, list[float]]:
    """Return the seconds of `rounds` synchronised calls of each, every round in another order."""
    import jax

    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    with quiet():
        for _ in range(rounds):
            for name in rng.sample(list(calls), len(calls)):
                start = time.perf_counter()
                jax.block_until_ready(calls[name]())
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure_epochs(
    names: list[tuple[str, str]], case: Case, tokens: Any, rng: random.Random
) -> dict[tuple[tuple[str, str], str], tuple[list[float], dict[str, Any]]]:
    """Return seconds and losses of whole epochs, chunk by chunk and as one jitted scan."""
    import impls
    from common.chunker import chunks
    from common.contract import fresh_checkpoint, zero_hidden
    from common.equality import make, random_weights
    from common.steps import FunctionalStep
    from common.train import by_chunk, by_scan

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


def measure_samples(
    names: list[tuple[str, str]], case: Case, rng: random.Random
) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of writing `SAMPLE_LENGTH` characters, compiled beforehand."""
    import impls
    from common.equality import random_weights
    from common.sample import sample
    from common.vocab import Vocab

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
    import jax

    from common.chunker import chunks
    from common.contract import Chunk

    per_chunk = case.chunk * case.batch
    whole = (len(tokens) - 1) // per_chunk * per_chunk
    epoch = chunks(tokens[: whole + 1], case.chunk, case.batch)
    while True:
        for arrays in zip(*epoch, strict=True):
            yield jax.device_put(Chunk(*arrays))


def final_loss(
    name: tuple[str, str], step: TrainStep, case: Case, tokens: Any
) -> tuple[list[float], dict[str, Any]]:
    """Return the seconds and the final losses of training runs of `FINAL_STEPS` steps.

    The first run starts from weights that are the same for all; the others, in the `pure` styles,
    from the library's own initialisers.
    """
    import jax

    import impls
    from bench.measure.cells import BASELINE
    from common.contract import fresh_checkpoint, zero_hidden
    from common.steps import on_host

    def run(entrant: str, seed: int) -> tuple[float, float]:
        model = impls.load(entrant).build(case.model)
        step.load(fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed))))))
        hidden, losses = zero_hidden(case.model, case.batch), []
        start = time.perf_counter()
        for _, chunk in zip(range(FINAL_STEPS), stream(case, tokens), strict=False):
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


def last_line() -> str:
    """Return the exception being handled, on one line."""
    return " ".join("".join(traceback.format_exception_only(*sys.exc_info()[:2])).split())


JOBS: dict[str, Callable[..., None]] = {"describe": describe, "cold": cold, "warm": warm}

if __name__ == "__main__":
    main()
