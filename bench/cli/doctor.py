"""`bakeoff doctor`: can this machine be measured on? It looks at what a run warns of."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.engine.machine import Usage
    from bench.report.table import Document
    from bench.worker.gpus import Gpu

LEAST_FREE = 2 << 30
"""Bytes that a worker with all libraries needs while it compiles."""
IN_USE = 0.05
"""Fraction of a GPU's time or memory from which on another process uses it."""
EXAMPLES = """Examples:\n
bakeoff doctor\n
bakeoff doctor --seconds 30\n
bakeoff doctor --strict && pytest bench --benchmark-json=run.json"""


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    seen: str
    advice: str = ""
    """What to do about it; empty where nothing has to be done."""


def doctor(
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Time to watch the machine for.")
    ] = 3.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if there is a warning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Say which backends jax has here, and what makes timings on this machine unreliable.

    Nothing is changed. Other programs that run meanwhile are reported.
    """
    from rich.console import Console

    from bench.cli.documents import show

    with Console(stderr=True).status(f"watching this machine for {seconds:g} s", spinner="line"):
        findings = list(probed(seconds))
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        show(document(findings))
    return int(strict and any(finding.advice for finding in findings))


def probed(seconds: float) -> Iterator[Finding]:
    """Watch this machine for so many seconds, then ask a worker what jax has here."""
    import psutil

    from bench.engine.machine import Watch
    from bench.engine.process import WorkerFailedError, ask_once
    from bench.worker.gpus import gpus

    watch, cards = Watch(), gpus() or []
    time.sleep(seconds)
    yield from activity(watch.usage(), psutil.virtual_memory().available)
    try:
        offer = ask_once({"do": "describe", "entrants": ["pure_jax"], "outside": {}})
    except WorkerFailedError as error:
        advice = "Nothing can be measured; `python -c 'import jax; print(jax.devices())'` says why."
        yield Finding("jax", f"{error.reason}: {error.stderr or 'nothing on stderr'}", advice)
    else:
        yield from backends(offer, cards)


def activity(usage: Usage, free: int) -> Iterator[Finding]:
    """Yield what other processes and guests used, and how much memory, in bytes, is free."""
    from bench.report.table import amount, percent
    from bench.runfile.warnings import OTHERS, STOLEN

    seen = f"{percent(usage.others)} of the machine" + f"; {usage.busiest}" * bool(usage.busiest)
    advice = "Stop other programs; `top` lists them." * (usage.others > OTHERS)
    yield Finding("other processes", seen, advice)
    advice = "Measure at another time, or on a dedicated machine." * (usage.stolen > STOLEN)
    yield Finding("other guests", f"{percent(usage.stolen)} of the machine", advice)
    advice = "Close other programs: a worker that swaps is slow." * (free < LEAST_FREE)
    yield Finding("free memory", amount(free, "B"), advice)


def backends(offer: Mapping[str, Any], cards: Sequence[Gpu]) -> Iterator[Finding]:
    """Yield what a worker has described, and the state of the GPUs that the driver lists."""
    from bench.runfile.warnings import uncached

    yield Finding("jax", f"{offer['versions']['jax']}, jaxlib {offer['versions']['jaxlib']}")
    for backend, kind in offer["devices"].items():
        about = offer["details"][backend]
        yield Finding(f"backend {backend}", f"{about['count']} × {kind} {about['driver']}".rstrip())
    for advice in uncached(offer["uncached"]):
        yield Finding("bytecode", f"{offer['uncached']} modules without", advice)
    if cards and "gpu" not in offer["devices"]:
        advice = "pip install --editable '.[cuda13]', or [cuda12] with a driver before 580."
        yield Finding("jax on the GPU", f"{cards[0].name}, for which jax has no backend", advice)
    for number, card in enumerate(cards):
        used = card.used / card.memory
        seen = f"{card.name}, {card.busy:.0%} busy, {used:.0%} of its memory taken"
        in_use = card.busy > IN_USE or used > IN_USE
        advice = "Wait for others, which nvidia-smi lists, or set CUDA_VISIBLE_DEVICES. " * in_use
        advice += "It is slowed down by heat or a limit of power: let it cool." * card.slowed
        yield Finding(f"GPU {number}", seen + ", a part of it (MIG)" * card.divided, advice)


def document(findings: Sequence[Finding]) -> Document:
    """Return the report: whether to measure now, what is here, and a warning for each problem."""
    from bench.report.table import Column, Document, Row, Section, Table

    warnings = tuple(f"{name}: {advice}" for name, _, advice in findings if advice)
    rows = tuple(Row((name, seen)) for name, seen, _ in findings)
    table = Table((Column("this machine"), Column("state")), rows)
    return Document(
        "This machine",
        headline="Look at the warnings before a run." if warnings else "Ready to measure.",
        status="bad" if warnings else "good",
        sections=(Section("Probes", tables=(table,)),),
        warnings=warnings,
    )
