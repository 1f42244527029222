"""Estimates from samples: every command makes them here.

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
from bench.stats.amounts import estimate_amount
from bench.stats.verdicts import exp, finite_or_none, make_bounds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.samples import Sample
    from bench.stats.ratios import Contrast

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
    programs = programs or {}
    families = group_by_key(((s.metric, s.cell.place), s) for s in samples)
    keys = group_by_key(
        (s.cell.place, (s.environment, s.cell)) for family in families.values() for s in family
    )
    estimates = []
    for (name, place), family in families.items():
        metric = METRICS[name]
        columns = pool_samples(family, programs, keys[place])
        by_cell = group_by_key(((s.environment, s.cell), s) for s in family)
        compared = {key: by_cell.get(key, []) for key in columns}
        if metric.kind is Kind.COLD:
            columns = {key: rows for key, rows in columns.items() if len(rows) >= least_cold}
            compared = columns
        if metric.compared and metric.varies:
            shared = programs if metric.of_program else {}
            if base:
                estimates += compare_environments(metric, base, compared, margin, shared)
            else:
                estimates += compare_with_baseline(metric, compared, margin, shared)
        estimates += [estimate_amount(*key, metric, rows) for key, rows in columns.items()]
    return estimates


def pool_samples(
    samples: Sequence[Sample], programs: Mapping[Cell, str], keys: Iterable[Key]
) -> dict[Key, list[Sample]]:
    """Return the samples of a metric by environment and cell, with those that cells share.

    All cells of a library, or of a program, have one list of samples. That of a library has one
    sample of each process. That of a program is also for its cells that have samples of other
    metrics only. The control shares with no cell.
    """
    columns = group_by_key(((s.environment, s.cell), s) for s in samples)
    metric = METRICS[samples[0].metric]
    if not (metric.of_library or metric.of_program):
        return columns

    def find_pool(key: Key) -> tuple[str, str]:
        environment, cell = key
        shared = cell.entrant if metric.of_library else programs.get(cell, "")
        return environment, "" if cell.is_control else shared

    pools: dict[tuple[str, str], dict[tuple[int, Cell | None], Sample]] = defaultdict(dict)
    for key, rows in columns.items():
        cell = None if metric.of_library else key[1]
        pools[find_pool(key)].update({(sample.block, cell): sample for sample in rows})
    lists = {pool: list(rows.values()) for pool, rows in pools.items() if pool[1]}
    if metric.of_program:
        columns |= {key: [] for key in keys if key not in columns and find_pool(key) in lists}
    return {key: lists.get(find_pool(key), rows) for key, rows in columns.items()}


def tabulate_samples(
    columns: Collection[Sequence[Sample]],
) -> tuple[Float[np.ndarray, "blocks columns"], Int[np.ndarray, " blocks"]]:
    """Return a table of samples, blocks x columns, and each block's worker.

    A value is NaN where its column took no part in the block.
    """
    workers = {s.block: s.worker for samples in columns for s in samples}
    rows = {block: row for row, block in enumerate(workers)}
    values = np.full((len(rows), len(columns)), np.nan)
    for column, samples in enumerate(columns):
        for sample in samples:
            values[rows[sample.block], column] = sample.value
    return values, np.array(list(workers.values()), int)


def merge_environments(
    columns: Mapping[Key, list[Sample]], *, cold: bool
) -> dict[Key, list[Sample]]:
    """Return one column for each cell of a run, in whichever environments it was measured.

    Ratios of warm metrics are formed within a block, so all blocks of a baseline count. Cold
    samples of a baseline in another environment count where there are no others. The first
    environment by name gives a row its name. Shared lists stay one object, by which cold pools are
    told apart.
    """
    merged: dict[Key, list[Sample]] = {}
    by_cell = group_by_key((key[1], key) for key in sorted(columns, key=lambda key: key[0]))
    for first, *others in by_cell.values():
        if cold or not others:
            merged[first] = columns[first]
        else:
            merged[first] = [sample for key in (first, *others) for sample in columns[key]]
    return merged


def group_by_program(keys: Iterable[Key], programs: Mapping[Cell, str]) -> list[list[int]]:
    """Return columns grouped by environment and program, where that is known."""
    groups = group_by_key(((key[0], programs.get(key[1], "")), i) for i, key in enumerate(keys))
    return [columns for (_, program), columns in groups.items() if program]


def compare_with_baseline(
    metric: Metric, columns: Mapping[Key, list[Sample]], margin: float, programs: Mapping[Cell, str]
) -> list[Estimate]:
    """Return each cell's comparison with the baseline: Dunnett's many-to-one test.

    The reference is both copies of the baseline together, and all cells of its program where these
    share samples; the control is compared with the baseline alone.
    """
    columns = merge_environments(columns, cold=metric.kind is Kind.COLD)
    keys, lists = list(columns), list(columns.values())
    arms = [cell.arm for _, cell in keys]
    if BASELINE not in arms:
        return []
    references = [i for i, arm in enumerate(arms) if arm in REFERENCE]
    others = [i for i, arm in enumerate(arms) if arm not in REFERENCE]
    control = [i for i in references if arms[i] == CONTROL]
    estimates: list[Estimate] = []
    for members, against, known in (
        (others, references, programs),
        (control, [arms.index(BASELINE)], {}),
    ):
        if members:
            merged = [("", cell) for _, cell in keys]  # all environments have this jax
            shared = group_by_program(merged, known)
            contrasts = contrast_columns(metric, lists, against, members, shared)
            cells = [keys[i] for i in members]
            estimates += convert_contrasts(cells, metric, str(BASELINE), contrasts, margin)
    return estimates


def contrast_columns(
    metric: Metric,
    columns: Sequence[list[Sample]],
    reference: Sequence[int],
    members: Sequence[int],
    programs: Sequence[Sequence[int]],
) -> list[Contrast]:
    """Return members' contrasts with the reference: log-ratios, or seconds for an added metric."""
    if metric.kind is Kind.COLD:
        return contrast_cold_columns(columns, reference, members)
    values, worker = tabulate_samples(columns)
    if metric.added:
        return ratios.contrast_added_time(values, worker, reference, members)
    logs = np.log(values)
    return ratios.contrast_with_references(logs, worker, reference, members, programs)


def contrast_cold_columns(
    columns: Sequence[list[Sample]], reference: Sequence[int], members: Sequence[int]
) -> list[Contrast]:
    """Return contrasts of cold samples, one per process; columns may share a list of them.

    A column that shares the reference's list is of the same library: its ratio is 1, exactly.
    """

    def take_logs(*pools: list[Sample]) -> Float[np.ndarray, " samples"]:
        return np.log([sample.value for samples in pools for sample in samples])

    first = {id(columns[i]): columns[i] for i in reference}
    others = {id(columns[i]): columns[i] for i in members if id(columns[i]) not in first}
    index = dict.fromkeys(first, 0) | {key: i for i, key in enumerate(others, 1)}
    samples = [take_logs(*first.values()), *map(take_logs, others.values())]
    return ratios.contrast_cold_samples(samples, [index[id(columns[i])] for i in members])


def compare_environments(
    metric: Metric,
    base: str,
    columns: Mapping[Key, list[Sample]],
    margin: float,
    programs: Mapping[Cell, str],
) -> list[Estimate]:
    """Return each cell's ratio of an environment to the base: pairs of workers are the unit.

    All columns share one model of noise, so that a visit or two of each of many environments show
    how much pairs vary.
    """
    index = {key: i for i, key in enumerate(columns)}
    new = [key for key in columns if key[0] != base and (base, key[1]) in columns]
    if not new:
        return []
    values, pair = tabulate_samples(columns.values())  # blocks of a pair have one number
    logs = np.log(values)
    sides = [[index[key] for key in new], [index[base, cell] for _, cell in new]]
    difference = logs[:, sides[0]] - logs[:, sides[1]]
    contrasts = ratios.contrast_pairs(difference, pair, programs=group_by_program(new, programs))
    return convert_contrasts(new, metric, base, contrasts, margin)


def convert_contrasts(
    keys: Iterable[Key], metric: Metric, against: str, contrasts: Iterable[Contrast], margin: float
) -> list[Estimate]:
    """Return the contrasts that are known as estimates."""

    def convert(key: Key, contrast: Contrast) -> Estimate:
        is_ratio = contrast.level is None
        return Estimate(
            environment=key[0],
            cell=key[1],
            against=against,
            metric=metric.name,
            unit="" if is_ratio else metric.unit,
            form="ratio" if is_ratio else "added",
            level=contrast.level,
            value=exp(contrast.difference) if is_ratio else contrast.difference,
            standard_error=finite_or_none(contrast.standard_error),
            df=contrast.df,
            p=contrast.p,
            workers=contrast.workers,
            blocks=contrast.blocks,
            settled_by="" if contrast.standard_error else PROGRAM,  # or by the library
            **make_bounds(contrast.low, contrast.high, margin, contrast.level),
        )

    pairs = zip(keys, contrasts, strict=True)
    return [convert(*pair) for pair in pairs if not math.isnan(pair[1].difference)]


def widen_intervals(rows: Sequence[Estimate], margin: float) -> list[Estimate]:
    """Return an A/B's rows with intervals that hold for all metrics and workloads together.

    Each metric has a share of `ALPHA` in proportion to its weight (Bonferroni, weighted as in Holm
    1979); the metrics that people ask for first have most. Without this, one of twenty metrics that
    do not differ would seem to differ by chance.
    """
    families = {(row.metric, row.place) for row in rows if row.form == "ratio"}
    weights = {metric: max(METRICS[metric].weight, LEAST_WEIGHT) for metric, _ in families}
    total = sum(weights[metric] for metric, _ in families)

    def widen(row: Estimate) -> Estimate:
        if row.form != "ratio" or not row.standard_error or not math.isfinite(row.half_width):
            return row
        divisor = total / weights[row.metric]
        # The tail probability of the half width, which holds for its family, is divided
        tail = float(special.stdtr(row.df, -row.half_width / row.standard_error))
        half = -float(special.stdtrit(row.df, tail / divisor)) * row.standard_error
        middle = math.log(row.value)
        bounds = make_bounds(middle - half, middle + half, margin)
        return replace(row, p=min(1.0, divisor * (row.p or 0.0)), **bounds)

    return [widen(row) for row in rows]
