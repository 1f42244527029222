"""The ratio of each block, and intervals, over the band of the A/A control."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import altair
import numpy as np

from bench.cells import BASELINE, Cell
from bench.estimates import Group, table
from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart, coloured, few, row_axis
from bench.report.findings import view
from bench.report.table import percent
from bench.report.wording import Facts, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runfile.reader import Run


TICKS = 100
"""Blocks of a style that are drawn at most; of more, it is every second, third and so on."""


def blocks(run: Run, cells: Sequence[Facts], workload: str, backend: str) -> Figure | None:
    """Return the ratio of each block and the intervals, over the band of the A/A control."""
    arms = run.samples.get(Group("step", workload, backend), {})
    baseline = Cell(*BASELINE, workload, backend)
    rows, ends = [], []
    kept = {Cell.of(c): c for c in cells}
    known = [cell for cell in arms if cell in kept]
    if baseline in known and len(known) > 1:
        whole = table({cell: arms[cell] for cell in known})
        ratios = np.exp(whole.logs - whole.logs[:, [known.index(baseline)]])
        for i, cell in enumerate(known):
            if cell == baseline:
                continue
            about = {"style": wording.name(kept[cell]), "entrant": cell.entrant}
            [good] = np.nonzero(~np.isnan(ratios[:, i]))
            rows += [
                about | {"ratio": round(float(ratios[k, i]), 5), "process": int(whole.worker[k])}
                for k in good[:: max(1, math.ceil(len(good) / TICKS))]
            ]
    for each in cells:
        found = measured(each, "step")
        if found and None not in (found.get("ratio"), found.get("low"), found.get("high")):
            about = {"style": wording.name(each), "entrant": each["entrant"]}
            said = {"interval": wording.ratio(found), "verdict": found["verdict"]}
            ends.append(about | {k: found[k] for k in ("ratio", "low", "high")} | said)
    if not ends:
        return None
    smallest = view(run.section, backend).detectable(workload)
    others = [cell for cell in cells if not wording.is_baseline(cell)]
    x = altair.X(
        "ratio:Q",
        title=f"step, ratio to {BASELINE[0]} (log scale)",
        scale=altair.Scale(type="log", nice=False, padding=10),
    )
    layers = []
    if smallest is not None:
        band = [{"low": 1 / (1 + smallest), "high": 1 + smallest}]
        layers.append(
            chart(band).mark_rect(opacity=0.18, color="#888").encode(x="low:Q", x2="high:Q")
        )
    layers.append(chart([{"ratio": 1}]).mark_rule(color="#888").encode(x="ratio:Q"))
    if rows:
        layers.append(
            chart(rows)
            .mark_tick(opacity=0.35, thickness=1.5, height=14)
            .encode(
                x=x,
                y=row_axis(others),
                color=coloured(others),
                tooltip=["style:N", altair.Tooltip("ratio:Q", format=".4f"), "process:Q"],
            )
        )
    base = chart(ends).encode(
        y=row_axis(others),
        color=coloured(others),
        tooltip=["style:N", "interval:N", "verdict:N"],
    )
    layers += [
        base.mark_rule(strokeWidth=3).encode(x=altair.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x),
    ]
    findings = [i["style"] for i in ends if i["verdict"] in ("slower", "faster")]
    title = f"At {wording.sized(workload)}, {few(findings, 'no step')} "
    title += f"{'differs' if len(findings) < 2 else 'differ'} from {BASELINE[0]}'s"
    seen = (
        ""
        if smallest is None
        else f"; grey: differences under {percent(smallest)} would not be found"
    )
    text = "; ".join(f"{i['style']} {i['interval']}, {i['verdict']}" for i in ends)
    return Figure(
        "blocks",
        title,
        f"Ratios of steps with their 95 % intervals, ticks are blocks{seen}. {text}.",
        altair.layer(*layers).properties(width="container", height=ROW * len(others)),
    )
