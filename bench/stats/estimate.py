"""From samples to estimates: the only way from the one table to the other.

A *family* is a metric at a workload on a backend: its comparisons are made together, with intervals
that hold for all of them at the same time (`bench.stats.ratios`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from bench.cells import BASELINE, CONTROL, REFERENCE, Arm, Cell
from bench.estimates import MARGIN, MIN_COLD, PROGRAM, TIMING, Estimate
from bench.metrics import METRICS, Kind
from bench.stats import ratios
from bench.stats.ratios import Contrasts
from bench.stats.verdicts import Verdict, verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.metrics import Metric
    from bench.samples import Sample


class Family(NamedTuple):
    """Comparisons that are made together."""

    metric: str
    workload: str
    backend: str
    against: str
    """An arm of the same samples, or the name of an environment."""


class _Table(NamedTuple):
    """The data of a family."""

    columns: list[tuple[str, Cell]]
    """Environment and cell."""
    logs: Float[np.ndarray, "blocks columns"]
    """Log of each datum; NaN where a column took no part."""
    worker: Int[np.ndarray, " blocks"]


def families_of_run(samples: Iterable[Sample], against: Arm = BASELINE) -> list[Family]:
    """Return a family for each metric, workload and backend, compared with an arm."""
    groups = dict.fromkeys(
        (s.metric, s.cell.workload, s.cell.backend) for s in samples if METRICS[s.metric].compared
    )
    return [Family(*group, str(against)) for group in groups if is_sampled(group[0])]


def families_of_environments(samples: Iterable[Sample], base: str) -> list[Family]:
    """Return a family for each metric, workload and backend, compared with an environment."""
    return [family._replace(against=base) for family in families_of_run(samples)]


def is_sampled(metric: str) -> bool:
    """Tell whether a metric varies from sample to sample, so that it is compared by statistics."""
    return METRICS[metric].kind in (Kind.WARM, Kind.COLD)


def estimate(
    samples: Sequence[Sample],
    families: Iterable[Family],
    *,
    margin: float = MARGIN,
    programs: Mapping[Cell, str] | None = None,
    least_cold: int = MIN_COLD,
) -> list[Estimate]:
    """Return what samples say: of each family its comparisons, and of each cell its amounts.

    Args:
        samples: All of them, of cells that have not failed.
        families: Comparisons to make.
        margin: Fraction within which two times are equivalent.
        programs: Fingerprint of what each cell compiles, where it is known: cells of one program
            share compile times.
        least_cold: Cold samples of a cell with fewer of which it has no estimate.
    """
    groups: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.metric, sample.cell.workload, sample.cell.backend].append(sample)
    shared = {group: pooled(rows, programs or {}) for group, rows in groups.items()}
    by_group: dict[tuple[str, str, str], list[Family]] = defaultdict(list)
    for family in families:
        by_group[family[:3]].append(family)
    estimates = []
    for group, columns in shared.items():
        if METRICS[group[0]].kind is Kind.COLD:
            columns = {key: rows for key, rows in columns.items() if len(rows) >= least_cold}
        for family in by_group[group]:
            if family.against in {environment for environment, _ in columns}:
                estimates += between_environments(family, columns, margin)
            else:
                estimates += beside_arm(family, columns, margin)
        estimates += [amount(key, group[0], rows) for key, rows in columns.items()]
    return estimates


def pooled(
    samples: Iterable[Sample], programs: Mapping[Cell, str]
) -> dict[tuple[str, Cell], list[Sample]]:
    """Return the samples of a group by environment and cell, with those that cells share.

    All cells of a library, or of a program, have one list of samples, one of each process. The
    control shares with no cell.
    """
    columns: dict[tuple[str, Cell], list[Sample]] = defaultdict(list)
    for sample in samples:
        columns[sample.environment, sample.cell].append(sample)
    if not columns:
        return {}
    metric = METRICS[next(iter(columns.values()))[0].metric]
    if not (metric.of_library or metric.of_program):
        return columns
    pools: dict[tuple[str, str], dict[int, Sample]] = defaultdict(dict)

    def pool_of(column: tuple[str, Cell]) -> tuple[str, str]:
        environment, cell = column
        return environment, cell.entrant if metric.of_library else programs.get(cell, "")

    for column, rows in columns.items():
        if pool_of(column)[1] and not column[1].is_control:
            pools[pool_of(column)].update({sample.worker: sample for sample in rows})
    lists = {key: list(pool.values()) for key, pool in pools.items()}
    return {
        column: rows if column[1].is_control else lists.get(pool_of(column), rows)
        for column, rows in columns.items()
    }


def table_of(columns: Mapping[tuple[str, Cell], Sequence[Sample]]) -> _Table:
    """Return the data of some columns, a row for each block."""
    rows: dict[int, int] = {}
    worker: dict[int, int] = {}
    for samples in columns.values():
        for sample in samples:
            rows.setdefault(sample.block, len(rows))
            worker[sample.block] = sample.worker
    logs = np.full((len(rows), len(columns)), np.nan)
    for column, samples in enumerate(columns.values()):
        for sample in samples:
            logs[rows[sample.block], column] = math.log(sample.value)
    return _Table(list(columns), logs, np.array([worker[block] for block in rows], int))


def across_environments(
    columns: Mapping[tuple[str, Cell], list[Sample]], *, cold: bool
) -> dict[tuple[str, Cell], list[Sample]]:
    """Return one column for each cell of a run, in whichever environments it was measured.

    Ratios of warm metrics are formed within a block, so all blocks of a baseline count. Cold
    samples of a baseline in another environment count where there are no others.
    """
    merged: dict[tuple[str, Cell], list[Sample]] = {}
    for (environment, cell), samples in sorted(columns.items(), key=lambda item: item[0][0]):
        known = [key for key in merged if key[1] == cell]
        if not known:
            merged[environment, cell] = samples  # the same list, for those that share it
        elif not cold:
            merged[known[0]] = [*merged[known[0]], *samples]
    return merged


def beside_arm(
    family: Family, columns: Mapping[tuple[str, Cell], list[Sample]], margin: float
) -> list[Estimate]:
    """Return each cell's comparison with an arm: Dunnett's many-to-one test.

    Both copies of the baseline together are what others are compared with; the control is compared
    with the baseline alone.
    """
    metric, arm = METRICS[family.metric], Arm.of(family.against)
    columns = across_environments(columns, cold=metric.kind is Kind.COLD)
    arms = [cell.arm for _, cell in columns]
    references = REFERENCE if arm == BASELINE else (arm,)
    if arm not in arms:
        return []
    alone = [i for i, other in enumerate(arms) if other == arm]
    together = [i for i, other in enumerate(arms) if other in references]
    others = [i for i, other in enumerate(arms) if other not in (*references, CONTROL)]
    control = [i for i, other in enumerate(arms) if other == CONTROL and arm == BASELINE]
    estimates: list[Estimate] = []
    for members, against in ((others, together), (control, alone)):
        if members:
            contrasts, level = compared(metric, columns, against, members)
            estimates += of_contrasts(
                list(columns), family, contrasts, margin, level=level, members=members
            )
    return estimates


def compared(
    metric: Metric,
    columns: Mapping[tuple[str, Cell], list[Sample]],
    against: Sequence[int],
    members: Sequence[int],
) -> tuple[Contrasts, float]:
    """Return the contrasts of some columns with others.

    Returns:
        The contrasts, and the reference's seconds where what is added to them is what people read;
        else NaN.
    """
    if metric.kind is Kind.COLD:
        return cold_contrasts(list(columns.values()), members, against), math.nan
    table = table_of(columns)
    if metric.added:
        return ratios.added(np.exp(table.logs), table.worker, against, members=members)
    return ratios.many_to_one(table.logs, table.worker, against, members=members), math.nan


def cold_contrasts(
    lists: Sequence[list[Sample]], members: Sequence[int], against: Sequence[int]
) -> Contrasts:
    """Return contrasts of samples that are one a process; columns may share a list of them.

    A column that shares the reference's list is the same program: its ratio is 1, exactly.
    """
    reference = {id(lists[i]): lists[i] for i in against}
    others = {id(lists[i]): lists[i] for i in members if id(lists[i]) not in reference}

    def logs(*several: list[Sample]) -> Float[np.ndarray, " samples"]:
        return np.log([sample.value for samples in several for sample in samples])

    first = logs(*reference.values())
    pools = ratios.cold([first, *(logs(samples) for samples in others.values())], 0)
    place = {key: i + 1 for i, key in enumerate(others)}
    contrasts = Contrasts(*(field[[0] * len(lists)].copy() for field in pools))
    for i in members:
        if id(lists[i]) in reference:
            exact = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, first.size, first.size)
            for field, value in zip(contrasts, exact, strict=True):
                field[i] = value
        else:
            for field, pool in zip(contrasts, pools, strict=True):
                field[i] = pool[place[id(lists[i])]]
    return contrasts


def between_environments(
    family: Family, columns: Mapping[tuple[str, Cell], list[Sample]], margin: float
) -> list[Estimate]:
    """Return each cell's ratio, environment to environment: pairs of workers are the unit.

    All columns share one model of noise, so that a visit or two of each of many environments tell
    what a pair varies by.
    """
    base = {cell: rows for (name, cell), rows in columns.items() if name == family.against}
    new = [key for key in columns if key[0] != family.against and key[1] in base]
    if not new:
        return []
    table = table_of(columns)  # blocks of a pair have one number
    place = {key: i for i, key in enumerate(table.columns)}
    before = table.logs[:, [place[family.against, cell] for _, cell in new]]
    after = table.logs[:, [place[key] for key in new]]
    return of_contrasts(new, family, ratios.paired_sides(before, after, table.worker), margin)


def of_contrasts(
    columns: Sequence[tuple[str, Cell]],
    family: Family,
    contrasts: Contrasts,
    margin: float,
    *,
    level: float = math.nan,
    members: Collection[int] | None = None,
) -> list[Estimate]:
    """Return contrasts as estimates; every answer is a property of the one interval.

    Args:
        columns: Environment and cell of each.
        family: Metric, and what it is compared with.
        contrasts: Log-ratios and intervals.
        margin: Fraction within which two times are equivalent.
        level: Seconds of the reference, where the time that is added is what people read.
        members: Columns to return; all that have a contrast if None.
    """
    unit = METRICS[family.metric].unit
    estimates = []
    for i in np.flatnonzero(contrasts.known).tolist():
        if members is not None and i not in members:
            continue
        middle, error, df, low, high, p = (float(field[i]) for field in contrasts[:6])
        result = verdict(middle, low, high, margin)
        value, ends = exp(middle), (exp(low), exp(high))
        if not math.isnan(level):
            error *= level * value
            value, ends = level * (value - 1), (level * (ends[0] - 1), level * (ends[1] - 1))
        environment, cell = columns[i]
        estimates.append(
            Estimate(
                cell=cell,
                environment=environment,
                against=family.against,
                metric=family.metric,
                unit="" if math.isnan(level) else unit,
                form="ratio" if math.isnan(level) else "added",
                value=value,
                low=finite(ends[0]) if low > -math.inf else None,
                high=finite(ends[1]),
                standard_error=finite(error),
                df=df,
                p=p,
                verdict=result,
                workers=int(contrasts.workers[i]),
                blocks=int(contrasts.blocks[i]),
                settled_by=settled_by(result, error),
            )
        )
    return estimates


def settled_by(result: Verdict, error: float) -> str:
    """Return how a verdict was reached; an exact ratio of cold metrics is that of one program."""
    if error == 0:
        return PROGRAM
    return "" if result is Verdict.INCONCLUSIVE else TIMING


def amount(key: tuple[str, Cell], metric: str, samples: Sequence[Sample]) -> Estimate:
    """Return the median of a cell's samples; its interval is that of the mean over workers.

    The interval is Student's over the workers' mean logarithms; None with fewer than two workers,
    and of exact metrics.
    """
    environment, cell = key
    by_worker: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        by_worker[sample.worker].append(sample.typical)
    values = [value for several in by_worker.values() for value in several]
    low = high = error = None
    if is_sampled(metric) and len(by_worker) > 1 and min(values) > 0:
        means = [float(np.mean(np.log(several))) for several in by_worker.values()]
        spread = float(np.std(means, ddof=1)) / math.sqrt(len(means))
        half = float(special.stdtrit(len(means) - 1, 0.975)) * spread
        middle = float(np.median(values))
        low, high, error = middle * math.exp(-half), middle * math.exp(half), middle * spread
    return Estimate(
        cell=cell,
        environment=environment,
        metric=metric,
        unit=METRICS[metric].unit,
        form="amount",
        value=float(np.median(values)),
        low=low,
        high=high,
        standard_error=error,
        df=float(len(by_worker) - 1) if error is not None else 0.0,
        workers=len(by_worker),
        blocks=len(samples),
    )


def finite(value: float) -> float | None:
    """Return a number, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None


def exp(value: float) -> float:
    """Return the exponential; infinite where that is too large for a float."""
    return math.exp(value) if value < 709 else math.inf
