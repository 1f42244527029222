"""`bakeoff limit`: the least time that this machine needs for a step; `bakeoff tricks`: gains."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from bench.report.runs import Run
    from bench.tuned.limit import Counts, Limit
    from bench.tuned.rates import Sizes
    from bench.tuned.roofline import Roofline
    from common.config import ModelConfig, Workload

EXAMPLES = """Examples:\n
bakeoff limit\n
bakeoff limit --workload toy,seed,wide --json\n
bakeoff limit --run run.json"""
TRICKS_EXAMPLES = """Examples:\n
pytest bench --entrant pure_jax --entrant bench/tuned/tricks.py --benchmark-json tricks.json\n
bakeoff tricks tricks.json"""
MOST_SECONDS = 60.0


def limit(
    workload: Annotated[str, typer.Option(help="Names, with commas.")] = "seed,batched",
    seconds: Annotated[
        float, typer.Option(help="To look for the best of each rate, on one core and on all.")
    ] = 0.2,
    run: Annotated[
        Path | None,
        typer.Option(help="A run file of this machine, whose medians are put beside the limit."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Measure what this machine does at best, and work out the least time of a training step.

    The best of many repetitions counts, for a limit is a minimum. That on all cores is the lower
    bound: the work perfectly shared, or the longest wait if that is more. XLA runs the chain, the
    products that wait for each other, on one core: what it can reach is said beside it.
    """
    chosen = workloads(workload)
    if not 0 < seconds <= MOST_SECONDS:
        raise BakeoffError(
            f"--seconds is {seconds:g}; more than 0 and at most {MOST_SECONDS:g} are allowed: "
            "give another one"
        )
    opened = None if run is None else read(run)
    from bench.tuned.limit import counts, least
    from bench.tuned.roofline import measured, usable_cores

    models = {each.name: model_of(each) for each in chosen}
    rooflines, blas = measured([sizes(each, models[each.name]) for each in chosen], seconds)
    work = {w.name: counts(models[w.name], w.chunk, w.batch) for w in chosen}
    found = dict(zip(work, rooflines, strict=True))
    limits = {
        name: least(work[name], each.one, each.together, each.share_seconds)
        for name, each in found.items()
    }
    cores = len(usable_cores())
    if as_json:
        rows = {name: row(work[name], found[name], limits[name], opened, name) for name in work}
        print(json.dumps({"cores": cores, "blas": blas, "workloads": rows}, indent=2))
        return
    show(work, found, limits, cores, blas, opened)


def tricks(
    run: Annotated[
        Path, typer.Argument(metavar="RUN.json", help="A run that measured the tricks.")
    ],
) -> None:
    """Print what each trick of the tuned step gains on its own, as a table in Markdown."""
    from bench.report.runs import read
    from bench.tuned.table import table

    print(table(read(run, samples=False)))


def workloads(given: str) -> list[Workload]:
    """Return the workloads of a list with commas."""
    from common.config import WORKLOADS

    names = dict.fromkeys(name.strip() for name in given.split(","))
    for name in names:
        if name not in WORKLOADS:
            raise unknown("workload", name, WORKLOADS)
    return [WORKLOADS[name] for name in names]


def model_of(workload: Workload) -> ModelConfig:
    """Return the sizes of the network at a workload."""
    from common import corpus
    from common.config import ModelConfig
    from common.vocab import Vocab

    return ModelConfig(len(Vocab.of(corpus.load(workload.corpus).text)), workload.width)


def sizes(workload: Workload, model: ModelConfig) -> Sizes:
    """Return the sizes at which rates are measured."""
    from bench.tuned.rates import Sizes

    characters = workload.chunk * workload.batch
    return Sizes(model.width, workload.batch, characters, model.parameters)


def read(path: Path) -> Run:
    """Return a run, and say if it was made on another processor."""
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    from bench.report import runs

    found = runs.read(path, samples=False)
    theirs = runs.processor_model(found.machine)
    ours = runs.processor_model(pytest_benchmark_generate_machine_info())
    if theirs != ours:
        print(
            f"bakeoff: {path} was measured on {theirs or 'an unknown processor'}, and this is "
            f"{ours or 'an unknown one'}: the limit is not that machine's",
            file=sys.stderr,
        )
    return found


def row(
    work: Counts, roofline: Roofline, limit: Limit, run: Run | None, name: str
) -> dict[str, Any]:
    """Return what is known of a workload, as JSON has it; times are seconds, rates a second."""
    from dataclasses import asdict

    from bench.tuned.beside import steps

    totals = {
        "seconds": limit.seconds,
        "chain_on_one": limit.chain_on_one,
        "one_core_total": limit.one_core.total,
    }
    out = {
        "counts": asdict(work),
        "rates": {"one_core": asdict(roofline.one), "all_cores": asdict(roofline.together)},
        "limit": asdict(limit) | totals,
    }
    return out if run is None else out | {"run": asdict(steps(run, name))}


def show(
    work: Mapping[str, Counts],
    found: Mapping[str, Roofline],
    limits: Mapping[str, Limit],
    cores: int,
    blas: str,
    run: Run | None,
) -> None:
    """Print the table, and a sentence for each workload."""
    from rich.console import Console

    from bench.tuned.beside import sentence, steps

    console = Console(highlight=False, soft_wrap=True)
    console.print(table(work, found, limits, cores))
    console.print(f"matrix products by {blas}", markup=False)
    for name, limit in limits.items():
        beside = None if run is None else steps(run, name)
        console.print(sentence(name, limit, cores, beside), markup=False)


def table(
    work: Mapping[str, Counts],
    found: Mapping[str, Roofline],
    limits: Mapping[str, Limit],
    cores: int,
) -> Table:
    """Return rates and the parts of the limit of each workload, on one core and on all."""
    from rich.box import SIMPLE
    from rich.table import Table

    from bench.report.wording import seconds

    out = Table("workload", "", box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("one core", f"{cores} cores")[: min(cores, 2)]:
        out.add_column(head, justify="right", no_wrap=True)
    for name, roofline in found.items():
        least = limits[name]
        both = [(roofline.one, least.one_core, least.one_core.total)]
        both += [(roofline.together, least.all_cores, least.seconds)][: cores - 1]
        rows: dict[str, list[str]] = {
            "product of the chain": [seconds(rates.product_seconds) for rates, _, _ in both],
            "matrix products": [f"{rates.flops / 1e9:.3g} GFLOP/s" for rates, _, _ in both],
            "tanh": [f"{rates.tanh / 1e9:.3g} G/s" for rates, _, _ in both],
            "exp": [f"{rates.exp / 1e9:.3g} G/s" for rates, _, _ in both],
            "optimiser's arrays": [f"{rates.stream_bytes / 1e9:.3g} GB/s" for rates, _, _ in both],
            "memory beyond the caches": [
                f"{rates.memory_bytes / 1e9:.3g} GB/s" for rates, _, _ in both
            ],
            f"chain of {work[name].chain}": [seconds(parts.chain) for _, parts, _ in both],
            "other products": [seconds(parts.products) for _, parts, _ in both],
            "all tanh and exp": [seconds(parts.elementwise) for _, parts, _ in both],
            "optimiser": [seconds(parts.optimiser) for _, parts, _ in both],
            "least time of a step": [seconds(total) for _, _, total in both],
        }
        if cores > 1:
            rows["layers side by side, waiting"] = ["", seconds(least.waiting)]
            rows["chain on one core, rest on all"] = ["", seconds(least.chain_on_one)]
        for i, (label, texts) in enumerate(rows.items()):
            out.add_row("" if i else name, label, *texts, end_section=i == len(rows) - 1)
    return out
