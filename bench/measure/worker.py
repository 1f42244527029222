"""A worker: a fresh interpreter that reads one job as JSON and writes what it finds as JSON lines.

`python -m bench.measure.worker < job.json`. It imports the standard library, numpy, jax, optax
and the entrants of its job, nothing else.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

import impls
from bench.measure import probes
from bench.measure.cells import BASELINE
from bench.measure.program import ProgramFacts, difference, facts
from common import corpus as corpora
from common.config import WORKLOADS
from common.contract import fresh_checkpoint
from common.equality import (
    Case,
    deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)
from common.errors import BakeoffError
from common.versions import versions
from common.vocab import Vocab

if TYPE_CHECKING:
    from common.contract import TrainStep
    from common.corpus import Corpus


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


class Setting(NamedTuple):
    """What a workload means on a backend."""

    case: Case
    corpus: Corpus
    tokens: Any


def setting(workload: str, backend: str) -> Setting:
    """Make `backend` the default, and return what `workload` is."""
    jax.config.update("jax_default_device", jax.devices(backend)[0])
    chosen = WORKLOADS[workload]
    corpus = corpora.load(chosen.corpus)
    vocab = Vocab.of(corpus.text)
    case = Case.of(chosen, len(vocab))
    return Setting(case, corpus, vocab.encode(corpus.text))


def cold(emit: Emit, *, entrant: str, style: str, workload: str, backend: str) -> None:
    """Time tracing, lowering and compiling once, in this fresh process."""
    events: list[tuple[str, float]] = []
    hits: list[str] = []

    def took(event: str, duration_secs: float, **_: str | int) -> None:
        events.append((event, duration_secs))

    def happened(event: str, **_: str | int) -> None:
        if event.endswith("cache_hits"):
            hits.append(event)

    jax.monitoring.register_event_duration_secs_listener(took)
    jax.monitoring.register_event_listener(happened)
    case = setting(workload, backend).case
    step = make(impls.load(entrant).style(style), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    program = step.program(random_hidden(case), random_chunk(case, 1))
    seconds: dict[str, float] = {}
    with probes.quiet():
        start = time.perf_counter()
        if program.trace is not None:
            traced = program.trace()
            seconds["trace"] = time.perf_counter() - start
            start = time.perf_counter()
            lowered = traced.lower()
            seconds["lower"] = time.perf_counter() - start
        else:
            # There is no clock between the two: JAX's own event says what lowering took.
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
        split = "clock" if program.trace is not None else "jax.monitoring event"
        facts = {"trace_and_lower_split_by": split}
        emit({"cell": cell, "metric": metric, "seconds": [value], "facts": facts})


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
    case, corpus, tokens = setting(workload, backend)
    steps = prove(emit, cells, case, workload, backend)
    text = {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "entropy": corpus.entropy}

    def tag(name: tuple[str, str]) -> list[str]:
        return [*name, workload, backend]

    if "step" in metrics:
        emit({"phase": f"timing steps, {blocks} blocks of {rounds} rounds"})
        for _ in range(blocks):
            for name, seconds in probes.measure_block(steps, case, tokens, rounds, rng).items():
                emit({"cell": tag(name), "metric": "step", "seconds": seconds})
    pure = [name for name in steps if name[1] == "pure"]
    if {"epoch_by_chunk", "epoch_by_scan"}.intersection(metrics):
        emit({"phase": "timing epochs"})
        for (name, metric), (seconds, facts) in probes.measure_epochs(
            pure, case, tokens, rng
        ).items():
            emit({"cell": tag(name), "metric": metric, "seconds": seconds, "facts": facts})
    if "sample" in metrics:
        emit({"phase": "sampling"})
        for name, seconds in probes.measure_samples(pure, case, rng).items():
            facts = {"characters": probes.SAMPLE_LENGTH}
            emit({"cell": tag(name), "metric": "sample", "seconds": seconds, "facts": facts})
    if "final_loss" in metrics:
        emit({"phase": "training"})
        for name, step in steps.items():
            emit({"cell": tag(name), "starts": True})
            seconds, facts = probes.final_loss(name, step, case, tokens)
            facts |= text
            emit({"cell": tag(name), "metric": "final_loss", "seconds": seconds, "facts": facts})


def prove(
    emit: Emit, cells: list[tuple[str, str]], case: Case, workload: str, backend: str
) -> dict[tuple[str, str], TrainStep]:
    """Return the steps that compute what they should; say of each how near it is, or what fails."""

    def compiled(step: TrainStep) -> ProgramFacts:
        step.load(fresh_checkpoint(random_weights(case.model)))
        return facts(step.program(random_hidden(case), random_chunk(case, 1)))

    emit({"phase": f"proving styles equal: {len(cells)}"})
    baseline = make(impls.load(BASELINE[0]).style(BASELINE[1]), case)
    losses, program = trajectory(baseline, case), compiled(baseline)
    steps = {}
    for entrant, style in cells:
        name = (entrant, style)
        record: dict[str, Any] = {"cell": [*name, workload, backend]}
        emit(record | {"starts": True})
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


def last_line() -> str:
    """Return the exception being handled, on one line."""
    return " ".join("".join(traceback.format_exception_only(*sys.exc_info()[:2])).split())


JOBS: dict[str, Callable[..., None]] = {"describe": describe, "cold": cold, "warm": warm}

if __name__ == "__main__":
    main()
