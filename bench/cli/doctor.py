"""`bakeoff doctor`: can this machine be measured on?"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import typer

from bench.cells import REFERENCE
from bench.cli.output import publish
from bench.numbers import percent
from bench.report.table import Column, Document, Row, Section, Table
from bench.runfile.warnings import MOST_OTHERS, MOST_STOLEN, warn_of_imports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.runfile import TimeSpent
    from bench.samples import Sample

EXAMPLES = """\
bakeoff doctor
bakeoff doctor --seconds 30
bakeoff doctor --strict && pytest bench --benchmark-json=run.json"""

P95_SDS = 1.645
"""Standard deviations of a normal variable between its median and its 95 % quantile."""
ROUNDS = 16
"""Rounds of plain JAX's two copies in a block: half a second."""
DETECTED_FRACTION = 0.2
"""Ratio of the difference that a default run detects to the variation of calls: with 20 arms whose
steps take four milliseconds."""


class Probe(NamedTuple):
    """One line of the report."""

    name: str
    state: str
    advice: str = ""
    """Advice on a problem; empty if there is none."""


def doctor(
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Time to watch the machine for.")
    ] = 3.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if there is a warning.")
    ] = False,
) -> int:
    """List jax's backends on this machine, and what makes timings on it unreliable.

    It changes nothing. It reports other programs that run meanwhile.
    """
    from rich.console import Console

    from bench.engine.machine import Watch
    from bench.engine.process import WorkerFailedError, ask_once
    from bench.worker.protocol import Describe

    watch = Watch()
    with Console(stderr=True).status(f"watching this machine for {seconds:g} s", spinner="line"):
        time.sleep(seconds)
        probes = list(describe_usage(watch.usage()))
        try:
            offer = ask_once(Describe(["pure_jax"]))
            probes += [*describe_backends(offer), time_steps(seconds)]
        except WorkerFailedError as error:
            advice = "Nothing can be measured: `python -c 'import jax; jax.devices()'` says why."
            state = f"{error.reason}: {error.stderr or 'nothing on stderr'}"
            probes.append(Probe("jax", state, advice))
    warnings = tuple(f"{probe.name}: {probe.advice}" for probe in probes if probe.advice)
    rows = tuple(Row((probe.name, probe.state)) for probe in probes)
    table = Table((Column("this machine"), Column("state")), rows)
    document = Document(
        "This machine",
        headline="Look at the warnings before a run." if warnings else "Ready to measure.",
        status="bad" if warnings else "good",
        sections=(Section("Probes", tables=(table,)),),
        warnings=warnings,
    )
    publish([document])
    return int(strict and bool(warnings))


def describe_usage(usage: TimeSpent) -> Iterator[Probe]:
    """Yield the use of the machine by other processes and guests."""
    state = f"{percent(usage.others)} of the machine" + f"; {usage.busiest}" * bool(usage.busiest)
    advice = "Stop other programs; `top` lists them."
    yield Probe("other processes", state, advice * (usage.others > MOST_OTHERS))
    advice = "Measure at another time, or on a dedicated machine."
    state = f"{percent(usage.stolen)} of the machine"
    yield Probe("other guests", state, advice * (usage.stolen > MOST_STOLEN))


def time_steps(seconds: float) -> Probe:
    """Return how much single steps vary, and the difference that a default run can detect."""
    from bench.engine.process import Worker
    from bench.worker.protocol import Load, Open, TimeBlock, Timed

    names, place = [str(arm) for arm in REFERENCE], ("seed", "cpu")
    samples: list[Sample] = []
    with Worker() as worker:
        worker.start()
        worker.ask(Load(names, seed=0))
        for name in names:
            worker.ask(Open(*place, name))
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            answer = worker.ask(TimeBlock(*place, "step", names, ROUNDS, seed=len(samples)))
            timed = msgspec.convert(answer, Timed)
            samples += [sample for sample in timed.samples if sample.metric == "step"]
    varies = estimate_variation(samples)
    can = f"`pytest bench` can detect about {percent(DETECTED_FRACTION * varies)} at width 128"
    return Probe("calls of a step", f"vary by {percent(varies)}: {can}")


def estimate_variation(samples: Sequence[Sample]) -> float:
    """Return how much single calls vary: the standard deviation of their logarithm.

    It is estimated from the median and the 95 % quantile of each block's calls, so that a rare long
    call does not count; then the median over blocks and arms is taken.
    """
    ratios = [s.p95 / s.median for s in samples if s.p95 and s.median]
    return math.log(statistics.median(ratios)) / P95_SDS if ratios else 0.0


def describe_backends(offer: Mapping[str, Any]) -> Iterator[Probe]:
    """Yield the versions and backends that a worker has described."""
    yield Probe("jax", f"{offer['versions']['jax']}, jaxlib {offer['versions']['jaxlib']}")
    for backend, kind in offer["devices"].items():
        about = offer["details"][backend]
        yield Probe(f"backend {backend}", f"{about['count']} × {kind} {about['driver']}".rstrip())
    for advice in warn_of_imports(offer["uncached"]):
        yield Probe("bytecode", f"{offer['uncached']} modules without", advice)
    if shutil.which("nvidia-smi") and "gpu" not in offer["devices"]:
        advice = "uv pip install --editable '.[cuda13]', or [cuda12] with a driver before 580."
        yield Probe("jax on the GPU", "there is a driver, and jax has no backend for it", advice)
