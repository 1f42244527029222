"""From samples to estimates: the only way from the one table to the other.

A *family* is a metric at a workload on a backend: its comparisons are made together, with intervals
that hold for all of them at the same time (`bench.stats.ratios`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from scipy import special

from bench.cells import BASELINE, CONTROL, REFERENCE, Cell
from bench.estimates import MARGIN, MIN_COLD, PROGRAM, Estimate, grouped
from bench.metrics import METRICS, Kind, Metric
from bench.stats import ratios
from bench.stats.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.samples import Sample
    from bench.stats.ratios import Contrasts

    type Key = tuple[str, Cell]
    """Environment and cell: what a column of data is of."""

LEAST_WEIGHT = 0.3
"""Weight of a metric that only comes with another one's turns: that of cold metrics."""


def estimate(
    samples: Iterable[Sample],
    base: str = "",
    *,
    margin: float = MARGIN,
    programs: Mapping[Cell, str] | None = None,
    least_cold: int = MIN_COLD,
) -> list[Estimate]:
    """Return what samples say: of each family its comparisons, and of each cell its amounts.

    Args:
        samples: All of them, of cells that have not failed.
        base: Environment that others are compared with; empty where arms are compared with the
            baseline.
        margin: Fraction within which two times are equivalent.
        programs: Fingerprint of what each cell compiles, where it is known: cells of one program
            share compile times.
        least_cold: Cold samples of a cell with fewer of which it has no estimate.
    """
    groups = grouped(((s.metric, s.cell.place), s) for s in samples)
    cells = grouped((s.cell.place, (s.environment, s.cell)) for g in groups.values() for s in g)
    estimates = []
    for (metric, place), together in groups.items():
        columns = pooled(together, programs or {}, cells[place])
        own = grouped(((s.environment, s.cell), s) for s in together)
        own = {key: own.get(key, []) for key in columns}
        if METRICS[metric].kind is Kind.COLD:
            own = columns = {key: rows for key, rows in columns.items() if len(rows) >= least_cold}
        if METRICS[metric].compared and METRICS[metric].varies:
            known = (programs or {}) if METRICS[metric].of_program else {}
            if base:
                estimates += between_environments(metric, base, own, margin, known)
            else:
                estimates += beside_baseline(metric, own, margin, known)
        estimates += [amount(key, metric, rows) for key, rows in columns.items()]
    return estimates


def pooled(
    samples: Sequence[Sample], programs: Mapping[Cell, str], cells: Iterable[Key]
) -> dict[Key, list[Sample]]:
    """Return the samples of a metric by environment and cell, with those that cells share.

    All cells of a library, or of a program, have one list of samples; of a library, one of each
    process. Of a program, cells that have samples of other metrics alone have that list, too. The
    control shares with no cell.
    """
    columns = grouped(((s.environment, s.cell), s) for s in samples)
    metric = METRICS[samples[0].metric]

    def pool_of(key: Key) -> tuple[str, str]:
        environment, cell = key
        if cell.is_control or not (metric.of_library or metric.of_program):
            return environment, ""
        return environment, cell.entrant if metric.of_library else programs.get(cell, "")

    pools: dict[tuple[str, str], dict[tuple[int, Cell | None], Sample]] = defaultdict(dict)
    for key, rows in columns.items():
        cell = None if metric.of_library else key[1]
        pools[pool_of(key)].update({(sample.block, cell): sample for sample in rows})
    lists = {pool: list(rows.values()) for pool, rows in pools.items() if pool[1]}
    if metric.of_program:
        columns |= {key: [] for key in cells if key not in columns and pool_of(key) in lists}
    return {key: lists.get(pool_of(key), rows) for key, rows in columns.items()}


def table_of(
    columns: Mapping[Key, Sequence[Sample]],
) -> tuple[Float[np.ndarray, "blocks columns"], Int[np.ndarray, " blocks"]]:
    """Return the logs of some columns' data, a row for each block, and each block's worker.

    They are NaN where a column took no part in a block.
    """
    workers = {s.block: s.worker for samples in columns.values() for s in samples}
    rows = {block: row for row, block in enumerate(workers)}
    logs = np.full((len(rows), len(columns)), np.nan)
    for column, samples in enumerate(columns.values()):
        for sample in samples:
            logs[rows[sample.block], column] = math.log(sample.value)
    return logs, np.array(list(workers.values()), int)


def across_environments(
    columns: Mapping[Key, list[Sample]], *, cold: bool
) -> dict[Key, list[Sample]]:
    """Return one column for each cell of a run, in whichever environments it was measured.

    Ratios of warm metrics are formed within a block, so all blocks of a baseline count. Cold
    samples of a baseline in another environment count where there are no others.
    """
    merged: dict[Key, list[Sample]] = {}
    by_cell = grouped((key[1], key) for key in sorted(columns, key=lambda key: key[0]))
    for first, *others in by_cell.values():
        merged[first] = columns[first]  # the same list, for those that share it
        if others and not cold:
            merged[first] = [sample for key in (first, *others) for sample in columns[key]]
    return merged


def of_one_program(keys: Iterable[Key], programs: Mapping[Cell, str]) -> list[list[int]]:
    """Return the columns of each program that is known."""
    groups = grouped((programs.get(cell, ""), i) for i, (_, cell) in enumerate(keys))
    return [columns for program, columns in groups.items() if program]


def beside_baseline(
    name: str, columns: Mapping[Key, list[Sample]], margin: float, programs: Mapping[Cell, str]
) -> list[Estimate]:
    """Return each cell's comparison with the baseline: Dunnett's many-to-one test.

    Both copies of the baseline together are what others are compared with, and all cells of its
    program where these share samples; the control is compared with the baseline alone.
    """
    metric = METRICS[name]
    columns = across_environments(columns, cold=metric.kind is Kind.COLD)
    keys = list(columns)
    arms = [cell.arm for _, cell in keys]
    if BASELINE not in arms:
        return []
    references = [i for i, arm in enumerate(arms) if arm in REFERENCE]
    others = [i for i, arm in enumerate(arms) if arm not in REFERENCE]
    control = [i for i in references if arms[i] == CONTROL]
    estimates: list[Estimate] = []
    for members, against in ((others, references), (control, [arms.index(BASELINE)])):
        if not members:
            continue
        level = None
        if metric.kind is Kind.COLD:
            contrasts = cold_contrasts(list(columns.values()), against, members)
        else:
            logs, worker = table_of(columns)
            if metric.added:
                contrasts, level = ratios.added(np.exp(logs), worker, against, members)
            else:
                shared = of_one_program(keys, programs if members is others else {})
                contrasts = ratios.many_to_one(logs, worker, against, members, shared)
        cells = [keys[i] for i in members]
        estimates += of_contrasts(cells, metric, str(BASELINE), contrasts, margin, level)
    return estimates


def cold_contrasts(
    lists: Sequence[list[Sample]], against: Sequence[int], members: Sequence[int]
) -> Contrasts:
    """Return contrasts of samples that are one a process; columns may share a list of them.

    A column that shares the reference's list is of the same library: its ratio is 1, exactly.
    """

    def logs(*pools: list[Sample]) -> Float[np.ndarray, " samples"]:
        return np.log([sample.value for samples in pools for sample in samples])

    reference = {id(lists[i]): lists[i] for i in against}
    others = {id(lists[i]): lists[i] for i in members if id(lists[i]) not in reference}
    place = dict.fromkeys(reference, 0) | {key: i for i, key in enumerate(others, 1)}
    samples = [logs(*reference.values()), *map(logs, others.values())]
    return ratios.cold(samples, [place[id(lists[i])] for i in members])


def between_environments(
    metric: str,
    base: str,
    columns: Mapping[Key, list[Sample]],
    margin: float,
    programs: Mapping[Cell, str],
) -> list[Estimate]:
    """Return each cell's ratio, environment to environment: pairs of workers are the unit.

    All columns share one model of noise, so that a visit or two of each of many environments tell
    what a pair varies by.
    """
    place = {key: i for i, key in enumerate(columns)}
    sides = {key: (base, key[1]) for key in columns if key[0] != base}
    new = [key for key, side in sides.items() if side in columns]
    if not new:
        return []
    logs, pair = table_of(columns)  # blocks of a pair have one number
    difference = logs[:, [place[key] for key in new]] - logs[:, [place[sides[key]] for key in new]]
    contrasts = ratios.paired(difference, pair, programs=of_one_program(new, programs))
    return of_contrasts(new, METRICS[metric], base, contrasts, margin)


def of_contrasts(
    keys: Sequence[Key],
    metric: Metric,
    against: str,
    contrasts: Contrasts,
    margin: float,
    level: float | None = None,
) -> list[Estimate]:
    """Return contrasts as estimates; every answer is a property of the one interval.

    `level` are the reference's seconds, where the time that is added is what people read.
    """
    estimates = []
    for (environment, cell), *numbers, blocks, workers in zip(keys, *contrasts, strict=True):
        log_ratio, error, df, log_low, log_high, p = map(float, numbers)
        if math.isnan(log_ratio):
            continue
        value, low, high = exp(log_ratio), exp(log_low), exp(log_high)
        if level is not None:
            error *= level * value
            value, low, high = (level * (ratio - 1) for ratio in (value, low, high))
        estimates.append(
            Estimate(
                cell=cell,
                environment=environment,
                against=against,
                metric=metric.name,
                unit="" if level is None else metric.unit,
                form="ratio" if level is None else "added",
                level=level,
                value=value,
                low=finite(low) if log_low > -math.inf else None,
                high=finite(high),
                standard_error=finite(error),
                df=df,
                p=p,
                verdict=verdict(log_ratio, log_low, log_high, margin),
                workers=int(workers),
                blocks=int(blocks),
                settled_by=PROGRAM if error == 0 else "",  # or of one library
            )
        )
    return estimates


def all_together(rows: Sequence[Estimate], margin: float) -> list[Estimate]:
    """Return an A/B's rows with intervals that hold for all metrics and workloads together.

    Each has the part of the odds that its weight is of all weights (Bonferroni, weighted as in Holm
    1979), and what people ask first has most. Otherwise, of twenty metrics that do not differ, one
    does by chance.
    """
    families = {(row.metric, row.place) for row in rows if row.form == "ratio"}
    weights = {metric: max(METRICS[metric].weight, LEAST_WEIGHT) for metric, _ in families}
    total = sum(weights[metric] for metric, _ in families)

    def widened(row: Estimate) -> Estimate:
        if row.form != "ratio" or not row.standard_error or not math.isfinite(row.half_width):
            return row
        times = total / weights[row.metric]
        odds = float(special.stdtr(row.df, -row.half_width / row.standard_error))
        half = -float(special.stdtrit(row.df, odds / times)) * row.standard_error
        middle = math.log(row.value)
        return replace(
            row,
            low=exp(middle - half),
            high=finite(exp(middle + half)),
            p=min(1.0, times * (row.p or 0.0)),
            verdict=verdict(middle, middle - half, middle + half, margin),
        )

    return [widened(row) for row in rows]


def amount(key: Key, metric: str, samples: Sequence[Sample]) -> Estimate:
    """Return the median of a cell's samples; its interval is that of the mean over workers.

    The interval is Student's over the workers' mean logarithms; None with fewer than two workers,
    and of exact metrics.
    """
    environment, cell = key
    by_worker = grouped((sample.worker, sample.typical) for sample in samples)
    values = [sample.typical for sample in samples]
    middle, df = float(np.median(values)), 0
    low = high = error = None
    if METRICS[metric].varies and len(by_worker) > 1 and min(values) > 0:
        means = [float(np.mean(np.log(several))) for several in by_worker.values()]
        spread, df = float(np.std(means, ddof=1)) / math.sqrt(len(means)), len(means) - 1
        half = float(special.stdtrit(df, 0.975)) * spread
        low, high, error = middle * math.exp(-half), middle * math.exp(half), middle * spread
    return Estimate(
        cell=cell,
        environment=environment,
        metric=metric,
        unit=METRICS[metric].unit,
        form="amount",
        value=middle,
        low=low,
        high=high,
        standard_error=error,
        df=float(df),
        workers=len(by_worker),
        blocks=len({sample.block for sample in samples}),
    )


def finite(value: float) -> float | None:
    """Return a number, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None


def exp(value: float) -> float:
    """Return the exponential; infinite where that is too large for a float."""
    return math.exp(value) if value < 709 else math.inf
