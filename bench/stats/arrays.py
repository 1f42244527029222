"""Host cost of one more parameter array in an environment, relative to another environment.

A call costs the host a fixed part, and a part for each array of parameters. The second part alone
is the difference between two depths, divided by the difference in their arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.estimates import group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY
from bench.stats.changes import difference
from bench.stats.components import sum_variances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.estimates import Estimate
    from bench.stats.estimate import Key


def estimate_array_costs(rows: Sequence[Estimate], base: str, margin: float) -> Iterator[Estimate]:
    """Yield host costs per array, in seconds and as ratios to `base`, at the deepest workload.

    Intervals are corrected for all rows together (Bonferroni). The errors of two depths count as
    independent: noise that a process has at both would make the error of the difference smaller.
    """
    amounts = {(row.environment, row.cell, row.metric): row for row in rows if row.form == "amount"}
    # Each arm's depths: arrays, seconds of a call in the base environment, and the ratio to these
    depths = group_by_key(
        ((row.environment, row.cell.backend, row.cell.arm), (arrays.value, call.value, row))
        for row in rows
        if row.metric == HOST and row.against == base and row.df > 0
        if (arrays := amounts.get((row.environment, row.cell, "parameter_arrays")))
        if (call := amounts.get((base, row.cell, HOST)))
    )
    seconds: dict[Key, Estimate] = {}
    ratios: list[Estimate] = []
    for several in depths.values():
        few, many = (choose(several, key=lambda depth: depth[0]) for choose in (min, max))
        more, before = many[0] - few[0], many[1] - few[1]
        after = many[1] * many[2].value - few[1] * few[2].value
        if not more or before <= 0 or after <= 0:
            continue
        parts = [  # variances of the logarithm of what more arrays cost
            ((call * row.value * (row.standard_error or 0.0) / after) ** 2, row.df)
            for _, call, row in (few, many)
        ]
        variance, df = sum_variances(parts, pooled=False)
        ratio = replace(
            many[2],
            metric=HOST_PER_ARRAY,
            value=after / before,
            standard_error=math.sqrt(variance),
            df=df,
            workers=min(few[2].workers, many[2].workers),
            blocks=min(few[2].blocks, many[2].blocks),
        )
        none = replace(ratio, environment=base, value=1.0, standard_error=0.0)
        ratios.append(difference([none], [ratio], comparisons=len(depths), margin=margin))
        cell = ratio.cell
        for name, cost in ((base, before), (ratio.environment, after)):
            seconds[name, cell] = replace(
                amounts[name, cell, HOST],
                metric=HOST_PER_ARRAY,
                value=cost / more,
                low=None,
                high=None,
                standard_error=None,
                df=0.0,
            )
    yield from (*seconds.values(), *ratios)
