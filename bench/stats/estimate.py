"""Estimates from samples: the only way from the one table to the other.

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
from bench.estimates import MARGIN, MIN_COLD, PROGRAM, Estimate, group_by_key
from bench.metrics import METRICS, Kind, Metric
from bench.stats import ratios
from bench.stats.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.samples import Sample
    from bench.stats.ratios import Contrasts

    type Key = tuple[str, Cell]
    """Environment and cell of a column of data."""

LEAST_WEIGHT = 0.3
"""Weight of a metric that is only measured in another one's turns: that of cold metrics."""


def estimate(
    samples: Iterable[Sample],
    base: str = "",
    *,
    margin: float = MARGIN,
    programs: Mapping[Cell, str] | None = None,
    least_cold: int = MIN_COLD,
) -> list[Estimate]:
    """Return estimates from samples: comparisons of each family, and amounts of each cell.

    Args:
        samples: All samples of cells that have not failed.
        base: Environment that others are compared with; empty where arms are compared with the
            baseline.
        margin: Fraction within which two times are equivalent.
        programs: Cell → fingerprint of the program that it compiles, where it is known: cells of
            one program share compile times.
        least_cold: Number of cold samples below which a cell has no estimate.
    """
    groups = group_by_key(((s.metric, s.cell.place), s) for s in samples)
    cells = group_by_key(
        (s.cell.place, (s.environment, s.cell)) for g in groups.values() for s in g
    )
    estimates = []
    for (metric, place), together in groups.items():
        columns = pool_samples(together, programs or {}, cells[place])
        by_cell = group_by_key(((s.environment, s.cell), s) for s in together)
        cell_samples = {key: by_cell.get(key, []) for key in columns}
        if METRICS[metric].kind is Kind.COLD:
            columns = {key: rows for key, rows in columns.items() if len(rows) >= least_cold}
            cell_samples = columns
        if METRICS[metric].compared and METRICS[metric].varies:
            known = (programs or {}) if METRICS[metric].of_program else {}
            if base:
                estimates += compare_environments(metric, base, cell_samples, margin, known)
            else:
                estimates += compare_with_baseline(metric, cell_samples, margin, known)
        estimates += [amount(key, metric, rows) for key, rows in columns.items()]
    return estimates


def pool_samples(
    samples: Sequence[Sample], programs: Mapping[Cell, str], cells: Iterable[Key]
) -> dict[Key, list[Sample]]:
    """Return the samples of a metric by environment and cell, with those that cells share.

    All cells of a library, or of a program, have one list of samples. That of a library has one
    sample of each process. That of a program is also for its cells that have samples of other
    metrics only. The control shares with no cell.
    """
    columns = group_by_key(((s.environment, s.cell), s) for s in samples)
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


def tabulate_logs(
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


def merge_environments(
    columns: Mapping[Key, list[Sample]], *, cold: bool
) -> dict[Key, list[Sample]]:
    """Return one column for each cell of a run, in whichever environments it was measured.

    Ratios of warm metrics are formed within a block, so all blocks of a baseline count. Cold
    samples of a baseline in another environment count where there are no others.
    """
    merged: dict[Key, list[Sample]] = {}
    by_cell = group_by_key((key[1], key) for key in sorted(columns, key=lambda key: key[0]))
    for first, *others in by_cell.values():
        merged[first] = columns[first]  # the same list, for those that share it
        if others and not cold:
            merged[first] = [sample for key in (first, *others) for sample in columns[key]]
    return merged


def group_programs(keys: Iterable[Key], programs: Mapping[Cell, str]) -> list[list[int]]:
    """Return the columns of each program that is known."""
    groups = group_by_key((programs.get(cell, ""), i) for i, (_, cell) in enumerate(keys))
    return [columns for program, columns in groups.items() if program]


def compare_with_baseline(
    name: str, columns: Mapping[Key, list[Sample]], margin: float, programs: Mapping[Cell, str]
) -> list[Estimate]:
    """Return each cell's comparison with the baseline: Dunnett's many-to-one test.

    The reference is both copies of the baseline together, and all cells of its program where these
    share samples; the control is compared with the baseline alone.
    """
    metric = METRICS[name]
    columns = merge_environments(columns, cold=metric.kind is Kind.COLD)
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
            contrasts = contrast_cold_columns(list(columns.values()), against, members)
        else:
            logs, worker = tabulate_logs(columns)
            if metric.added:
                contrasts, level = ratios.contrast_added_time(
                    np.exp(logs), worker, against, members
                )
            else:
                shared = group_programs(keys, programs if members is others else {})
                contrasts = ratios.contrast_with_references(logs, worker, against, members, shared)
        cells = [keys[i] for i in members]
        estimates += convert_contrasts(cells, metric, str(BASELINE), contrasts, margin, level)
    return estimates


def contrast_cold_columns(
    lists: Sequence[list[Sample]], against: Sequence[int], members: Sequence[int]
) -> Contrasts:
    """Return contrasts of cold samples, one per process; columns may share a list of them.

    A column that shares the reference's list is of the same library: its ratio is 1, exactly.
    """

    def logs(*pools: list[Sample]) -> Float[np.ndarray, " samples"]:
        return np.log([sample.value for samples in pools for sample in samples])

    reference = {id(lists[i]): lists[i] for i in against}
    others = {id(lists[i]): lists[i] for i in members if id(lists[i]) not in reference}
    place = dict.fromkeys(reference, 0) | {key: i for i, key in enumerate(others, 1)}
    samples = [logs(*reference.values()), *map(logs, others.values())]
    return ratios.contrast_cold_samples(samples, [place[id(lists[i])] for i in members])


def compare_environments(
    metric: str,
    base: str,
    columns: Mapping[Key, list[Sample]],
    margin: float,
    programs: Mapping[Cell, str],
) -> list[Estimate]:
    """Return each cell's ratio of an environment to the base: pairs of workers are the unit.

    All columns share one model of noise, so that a visit or two of each of many environments show
    how much pairs vary.
    """
    place = {key: i for i, key in enumerate(columns)}
    sides = {key: (base, key[1]) for key in columns if key[0] != base}
    new = [key for key, side in sides.items() if side in columns]
    if not new:
        return []
    logs, pair = tabulate_logs(columns)  # blocks of a pair have one number
    difference = logs[:, [place[key] for key in new]] - logs[:, [place[sides[key]] for key in new]]
    contrasts = ratios.contrast_pairs(difference, pair, programs=group_programs(new, programs))
    return convert_contrasts(new, METRICS[metric], base, contrasts, margin)


def convert_contrasts(
    keys: Sequence[Key],
    metric: Metric,
    against: str,
    contrasts: Contrasts,
    margin: float,
    level: float | None = None,
) -> list[Estimate]:
    """Return contrasts as estimates; every verdict follows from the one interval.

    `level` is the reference's time in seconds, if estimates are the time added to it.
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
                low=finite_or_none(low) if log_low > -math.inf else None,
                high=finite_or_none(high),
                standard_error=finite_or_none(error),
                df=df,
                p=p,
                verdict=verdict(log_ratio, log_low, log_high, margin),
                workers=int(workers),
                blocks=int(blocks),
                settled_by=PROGRAM if error == 0 else "",  # or of one library
            )
        )
    return estimates


def widen_intervals(rows: Sequence[Estimate], margin: float) -> list[Estimate]:
    """Return an A/B's rows with intervals that hold for all metrics and workloads together.

    Each has a share of the odds in proportion to its weight (Bonferroni, weighted as in Holm 1979);
    the metrics that people ask for first have most. Otherwise, one of twenty metrics that do not
    differ would seem to, by chance.
    """
    families = {(row.metric, row.place) for row in rows if row.form == "ratio"}
    weights = {metric: max(METRICS[metric].weight, LEAST_WEIGHT) for metric, _ in families}
    total = sum(weights[metric] for metric, _ in families)

    def widen(row: Estimate) -> Estimate:
        if row.form != "ratio" or not row.standard_error or not math.isfinite(row.half_width):
            return row
        times = total / weights[row.metric]
        odds = float(special.stdtr(row.df, -row.half_width / row.standard_error))
        half = -float(special.stdtrit(row.df, odds / times)) * row.standard_error
        middle = math.log(row.value)
        return replace(
            row,
            low=exp(middle - half),
            high=finite_or_none(exp(middle + half)),
            p=min(1.0, times * (row.p or 0.0)),
            verdict=verdict(middle, middle - half, middle + half, margin),
        )

    return [widen(row) for row in rows]


def amount(key: Key, metric: str, samples: Sequence[Sample]) -> Estimate:
    """Return the median of a cell's samples; its interval is that of the mean over workers.

    The interval is Student's over the workers' mean logarithms; None with fewer than two workers,
    and of exact metrics.
    """
    environment, cell = key
    by_worker = group_by_key((sample.worker, sample.typical) for sample in samples)
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


def finite_or_none(value: float) -> float | None:
    """Return a number, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None


def exp(value: float) -> float:
    """Return the exponential; infinite where that is too large for a float."""
    return math.exp(value) if value < 709 else math.inf
