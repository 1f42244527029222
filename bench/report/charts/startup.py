"""What a process pays for before its second step, stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair

from bench.metrics import STARTUP, label
from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart, row_axis
from bench.report.palette import PALETTE
from bench.report.table import amount, percent
from bench.report.wording import Facts, measured

if TYPE_CHECKING:
    from collections.abc import Sequence


def startup(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return the medians of all that comes before the second step, of styles that have all."""
    costs: dict[str, dict[str, float]] = {}
    for cell in cells:
        found = {metric: measured(cell, metric) for metric in STARTUP}
        if all(found.values()):
            costs[wording.name(cell)] = {m: f["median"] for m, f in found.items() if f}
    if not costs:
        return None
    rows = [
        {"style": name, "stage": label(stage), "seconds": seconds, "i": i}
        for name, stages in costs.items()
        for i, (stage, seconds) in enumerate(stages.items())
    ]
    total = {name: sum(stages.values()) for name, stages in costs.items()}
    least, most = min(total, key=total.__getitem__), max(total, key=total.__getitem__)
    imports = sum(stages["import"] for stages in costs.values()) / sum(total.values())
    stages = [label(stage) for stage in STARTUP]
    made = (
        chart(rows)
        .mark_bar()
        .encode(
            x=altair.X("sum(seconds):Q", title="seconds (medians), stacked"),
            y=row_axis([cell for cell in cells if wording.name(cell) in costs]),
            color=altair.Color(
                "stage:N",
                title=None,
                scale=altair.Scale(domain=stages, range=list(PALETTE[: len(stages)])),
                legend=altair.Legend(orient="bottom"),
            ),
            order=altair.Order("i:Q"),
            tooltip=["style:N", "stage:N", altair.Tooltip("seconds:Q", format=".3f")],
        )
        .properties(width="container", height=ROW * len(costs))
    )
    title = (
        f"From a fresh process to the second step: {amount(total[least], 's')} with {least}, "
        f"{amount(total[most], 's')} with {most}; {percent(round(imports, 2))} of it are imports"
    )
    text = "; ".join(f"{name} {amount(seconds, 's')}" for name, seconds in total.items())
    said = f"Sums of the stages at {wording.sized(workload)}: {text}."
    return Figure("startup", title, said, made)
