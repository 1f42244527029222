"""From what was found to what can be said: the `bakeoff` section of a run file."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bench.cells import CONTROL, Cell
from bench.estimates import (
    QUANTILE,
    Group,
    added,
    beside,
    contrasts,
    control,
    differences,
    groups_of,
)
from bench.metrics import HOST, METRICS, TINY, Kind
from bench.runfile import (
    NANOSECONDS,
    Added,
    Additivity,
    AllSamples,
    BlockSamples,
    ColdSamples,
    Control,
    FinalLoss,
    Metric,
    Proof,
    Result,
    SectionWithSamples,
    Ties,
    TimeSpent,
)
from bench.samples import MIN_VISITS, STARVED
from bench.stats import ratios, verdicts
from bench.stats.verdicts import PROGRAM, TIMING, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.estimates import Arms
    from bench.runfile import PlanOfRun
    from bench.samples import Block, Samples, State
    from bench.stats.ratios import Estimate

GROWTH = 3.0
"""How many times as much a style may cost the host between two calls of a larger program as between
two of a tiny one: Python's own working set is evicted by it. On one core, NNX's split and merge was
seen to take 2.6 times as much at `seed`, `nnx.jit` 1.3 times (docs/measuring.md)."""


def section(
    state: State,
    needed: Mapping[Cell, set[str]],
    *,
    plan: PlanOfRun,
    fewest_cold: int = 1,
    **about: Any,
) -> SectionWithSamples:
    """Return all that a run says.

    Args:
        state: What was found.
        needed: The metrics that were asked for, by cell.
        plan: The margin inside of which two times are called equivalent, the seed and the budget.
        fewest_cold: Samples of a cold metric, with fewer of which nothing is said of it.
        about: Further fields.
    """
    groups = groups_of(state.cells)
    found = {  # weak scaling does more work, so that it is neither slower nor faster
        group: {c: e for c, e in beside(group, arms).items() if not (c.weak or c.is_control)}
        for group, arms in groups.items()
    }
    levels = {
        group: differences(arms)[1] for group, arms in groups.items() if METRICS[group.metric].added
    }
    asked = with_baselines(needed)
    proofs = {cell: msgspec.convert(state.cells[cell].proof, Proof | None) for cell in asked}
    hosts = {
        cell: host
        for cell, proof in proofs.items()
        if proof and proof.same_program and cell.workload not in TINY
        if (host := host_cost(cell, found, levels))
    }

    def said(group: Group, cell: Cell, estimate: Estimate | None) -> dict[str, Any]:
        out = measured(group.metric, groups[group][cell])
        out["detectable"] = number(ratios.detectable(list(found[group].values())))
        return out | (judged(estimate, plan.margin, levels.get(group)) if estimate else {})

    def result(cell: Cell, metric: str) -> Metric:
        group = Group.of(metric, cell)
        samples = groups.get(group, {}).get(cell)
        cold = METRICS[metric].kind is Kind.COLD
        if not samples or (cold and len(samples) < fewest_cold):
            return Metric(missing=state.missing.get((cell, metric), STARVED))
        estimate = found[group].get(cell) if not cell.is_baseline else None
        out = Metric(**said(group, cell, estimate))
        if estimate is not None:
            if metric == "step":
                out.cores_used = cores_used(cell, state)
                if cell in hosts:
                    settle(out, hosts[cell], differences(groups[group])[1], plan.margin)
            baseline = groups[group].get(cell.baseline)
            if METRICS[metric].of_program and samples is baseline:
                out.settled_by = PROGRAM
        return out

    def row_of(cell: Cell, metrics: set[str]) -> Result:
        row = state.cells[cell]
        names = [m for m in METRICS if m in metrics and METRICS[m].kind is not Kind.ONCE]
        names = [m for m in names if row.failure is None and METRICS[m].applies(cell)]
        return Result(
            **cell.facts,
            failure=row.failure,
            stderr=row.stderr,
            proof=proofs[cell],
            exact=row.exact,
            final_loss=msgspec.convert(row.training, FinalLoss | None),
            metrics={metric: result(cell, metric) for metric in names},
        )

    plan.backends, wall = state.plan, state.spent.wall
    return SectionWithSamples(
        **about,
        plan=plan,
        spent=TimeSpent(
            wall_seconds=wall,
            sampling_seconds=state.spent.sampling,
            sampling_share=state.spent.sampling / wall if wall else 0.0,
            processes=state.spent.processes,
        ),
        quantile=QUANTILE,
        comparisons=sum(len(each) for each in found.values()),
        control=[
            Control(**group._asdict(), **said(group, Cell(*CONTROL, *group[1:]), estimate))
            for group, arms in groups.items()
            if (estimate := control(group, arms))
        ],
        ties=[
            Ties(**group._asdict(), groups=tied)
            for group, arms in groups.items()
            if METRICS[group.metric].kind is Kind.WARM and found[group]
            if (tied := tie_names(group, arms))
        ],
        additivity=list(additivity(hosts, groups)),
        cells=[row_of(cell, metrics) for cell, metrics in asked.items()],
        samples=samples_of(state),
    )


def cores_used(cell: Cell, state: State) -> float | None:
    """Return the processor's seconds for each second of a step, where it might use all cores."""
    arm = str(cell.arm)
    found = [
        block.cpu_seconds[arm]
        for block in state.blocks
        if (block.kind, block.workload, block.backend) == Group.of("step", cell)
        and not block.cores
        and arm in block.cpu_seconds
    ]
    return float(np.median(found)) if found else None


def measured(metric: str, samples: Sequence[Samples]) -> dict[str, Any]:
    """Return the fields of a `Metric` that a cell's samples give, beside any comparison."""
    values = [value for each in samples for value in each.values]
    workers = len({each.process for each in samples})
    cold = METRICS[metric].kind is Kind.COLD
    return {
        "unit": METRICS[metric].unit,
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "low_quantile": float(np.quantile(values, QUANTILE)),
        "samples": len(values),
        "blocks": len(samples),
        "processes": workers,
        "cores": "one" if samples[0].cores else "all",
        "preliminary": not cold and workers < MIN_VISITS,
    }


def judged(estimate: Estimate, margin: float, level: float | None) -> dict[str, Any]:
    """Return the fields that an estimate gives; every one is a property of the one interval.

    Args:
        estimate: The ratio and its interval.
        margin: Inside of which, as a fraction, two times are called equivalent.
        level: Seconds of the reference, where what people read is the time that is added.
    """
    low, high = estimate.interval
    said = verdicts.verdict(estimate, margin)
    out: dict[str, Any] = {
        "ratio": estimate.ratio,
        "low": number(low) if estimate.low > -math.inf else None,
        "high": number(high),
        "standard_error": number(estimate.standard_error),
        "df": number(estimate.df),
        "p": estimate.p,
        "verdict": said,
        "differs": estimate.differs,
        "settled_by": None if said is Verdict.INCONCLUSIVE else TIMING,
    }
    if level is not None:
        seconds, least, most = added(estimate, level)
        out["added"] = Added(seconds=seconds, low=number(least), high=number(most))
    return out


def host_cost(
    cell: Cell, found: Mapping[Group, Mapping[Cell, Estimate]], levels: Mapping[Group, float]
) -> tuple[float, float, float] | None:
    """Return the seconds that an arm adds to a call at a tiny size, with its interval."""
    for workload in TINY:
        group = Group(HOST, workload, cell.backend)
        estimate = found.get(group, {}).get(replace(cell, workload=workload))
        if estimate is not None and math.isfinite(estimate.standard_error):
            return added(estimate, levels[group])
    return None


def settle(
    said: Metric, host: tuple[float, float, float], baseline_seconds: float, margin: float
) -> None:
    """Let a proof settle a step's verdict where timing leaves it open.

    Two arms that compile to the same program can differ by what they cost the host alone. Where
    that is too little to matter, they are equivalent by construction; direct timing has to agree.

    Args:
        said: What timing says of the step.
        host: Seconds that its style adds to a call, with their interval.
        baseline_seconds: The baseline's step.
        margin: Inside of which two times are equivalent.
    """
    said.bound = bound = GROWTH * max(map(abs, host[1:])) / baseline_seconds
    if bound > margin or said.verdict != Verdict.INCONCLUSIVE:
        return
    low, high = said.low or 0.0, math.inf if said.high is None else said.high
    if low <= 1 + bound and high >= 1 - bound:
        said.verdict, said.settled_by = Verdict.EQUIVALENT, PROGRAM


def additivity(
    hosts: Mapping[Cell, tuple[float, float, float]], groups: Mapping[Group, Arms]
) -> Iterator[Additivity]:
    """Yield what host costs predict for steps of the baseline's program, and what timing found.

    That is the check of what `settle` takes for granted.
    """
    for cell, host in hosts.items():
        found, level = differences(groups.get(Group.of("step", cell), {}))
        if cell in found:
            seconds, low, high = added(found[cell], level)
            yield Additivity(
                **cell.facts,
                predicted_seconds=host[0],
                predicted_low=number(host[1]),
                predicted_high=number(host[2]),
                measured_seconds=seconds,
                measured_low=number(low),
                measured_high=number(high),
            )


def tie_names(group: Group, arms: Arms) -> list[list[str]]:
    """Return the names of arms in groups of ties, the fastest first; the control is left out."""
    known = contrasts(group, arms)
    if known is None:
        return []
    cells, between = known
    return [[str(cells[i].arm) for i in tied] for tied in verdicts.ties(between)]


def samples_of(state: State) -> AllSamples:
    """Return all samples, in the one place of the file where they stand."""
    cold: dict[int, ColdSamples] = {}
    for cell, row in state.cells.items():
        for metric, samples in row.blocks.items():
            for each in samples if METRICS[metric].kind is Kind.COLD else ():
                if each.process not in cold:
                    cold[each.process] = ColdSamples(
                        **cell.facts,
                        process=each.process,
                        cores=list(each.cores),
                        program=row.facts.get("fingerprint", ""),
                        values={},
                    )
                if cold[each.process].cell == cell:  # else it is borrowed
                    cold[each.process].values[metric] = each.values[0]
    return AllSamples(blocks=list(map(block_samples, state.blocks)), cold=list(cold.values()))


def block_samples(block: Block) -> BlockSamples:
    """Return a block with its seconds as whole numbers."""
    about = {name: getattr(block, name) for name in block.__struct_fields__}
    seconds, used = about.pop("seconds"), about.pop("cpu_seconds")
    unit = unit_of(seconds)
    return BlockSamples(
        **about | {"cores": list(block.cores)},
        unit=unit,
        nanoseconds={
            metric: {
                arm: [round(v * NANOSECONDS / unit) for v in each] for arm, each in arms.items()
            }
            for metric, arms in seconds.items()
        },
        cpu_seconds={arm: round(v, 3) for arm, v in used.items()},
    )


def unit_of(seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> int:
    """Return the nanoseconds that the numbers of a block count: a power of ten.

    It is at most a ten-thousandth of the shortest call, a hundredth of what such calls vary by.
    """
    calls = [v for arms in seconds.values() for each in arms.values() for v in each]
    if not calls:  # every arm of the block has failed
        return 1
    shortest = min(calls)
    return int(10 ** max(0, math.floor(math.log10(NANOSECONDS * shortest / 10_000))))


def with_baselines(needed: Mapping[Cell, set[str]]) -> dict[Cell, set[str]]:
    """Return what is needed, and of each baseline whatever is needed beside it."""
    out: dict[Cell, set[str]] = {}
    for cell, metrics in needed.items():
        out.setdefault(cell.baseline, set()).update(metrics - {"final_loss"})
        out.setdefault(cell, set()).update(metrics)
    return out


def number(value: float | None) -> float | None:
    """Return what JSON can hold: None for what is infinite, or not there."""
    return value if value is not None and math.isfinite(value) else None
