"""Host cost of one more parameter array in an environment, relative to another environment.

A call costs the host a fixed part, and a part for each array of parameters. The second part alone
is the difference between two depths, divided by the difference in their arrays.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.estimates import group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY
from bench.stats.changes import make_ratio
from bench.stats.variances import sum_variances

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
        ends = [choose(several, key=itemgetter(0)) for choose in (min, max)]
        (few, short, shallow), (many, long, deep) = ends
        before, after = long - short, long * deep.value - short * shallow.value
        if few == many or before <= 0 or after <= 0:
            continue
        parts = [  # variances of the logarithm of what more arrays cost
            ((call * row.value * (row.standard_error or 0.0) / after) ** 2, row.df)
            for _, call, row in ends
        ]
        row = replace(
            deep,
            metric=HOST_PER_ARRAY,
            workers=min(shallow.workers, deep.workers),
            blocks=min(shallow.blocks, deep.blocks),
        )
        log, variance = math.log(after / before), sum_variances(parts, pooled=False)
        ratios.append(make_ratio(row, log, *variance, comparisons=len(depths), margin=margin))
        for name, cost in ((base, before), (deep.environment, after)):
            unknown = {"low": None, "high": None, "standard_error": None, "df": 0.0}
            about = {"metric": HOST_PER_ARRAY, "value": cost / (many - few)}
            amount = amounts[name, deep.cell, HOST]
            seconds[name, deep.cell] = replace(amount, **about, **unknown)
    yield from (*seconds.values(), *ratios)
