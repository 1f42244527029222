"""Efficiency against the number of devices: how much of a device's time is of use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair

from bench.report import scaling
from bench.report.charts.drawn import Figure, chart, coloured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.wording import Facts
    from bench.runfile.reader import Run

STREAMS = {False: "the same streams, shared", True: "as many streams on each"}
"""By whether a style scales weakly."""


def devices(run: Run, cells: Sequence[Facts], backend: str) -> Figure | None:
    """Return the efficiency of each style over devices, strong and weak."""
    rows = [
        {
            "style": scaling.name(row),
            "entrant": row["entrant"],
            "where": f"{row['workload']}: {STREAMS[row.get('weak', False)]}",
            "line": f"{scaling.name(row)} {row['workload']} {row.get('weak', False)}",
            "devices": row["devices"],
            "efficiency": row["efficiency"],
            "low": row["efficiency_low"],
            "high": row["efficiency_high"],
            "interval": str(scaling.efficiency(row)),
        }
        for row in run.section.get("scaling", [])
        if row["backend"] == backend and row["efficiency"] is not None
    ]
    if not any(row["devices"] > 1 for row in rows):
        return None
    y = altair.Y("efficiency:Q", title="efficiency", scale=altair.Scale(domainMin=0))
    x = altair.X("devices:O", title="devices", axis=altair.Axis(labelAngle=0))
    base = chart(rows).encode(
        x=x, color=coloured(cells), tooltip=["style:N", "where:N", "interval:N"]
    )
    way = altair.StrokeDash(
        "where:N", title=None, legend=altair.Legend(orient="bottom", columns=2, labelLimit=400)
    )
    made = altair.layer(
        base.mark_line(opacity=0.7).encode(y=y, detail="line:N", strokeDash=way),
        base.mark_rule().encode(y=altair.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, opacity=1).encode(y=y),
    ).properties(width="container", height=280)
    return Figure("devices", title(rows), scaling.LEGEND, made)


def title(rows: Sequence[dict[str, Any]]) -> str:
    """Return what most devices are worth, at the least and at best."""
    most = max(row["devices"] for row in rows)
    last = [row["efficiency"] for row in rows if row["devices"] == most]
    ends = dict.fromkeys(f"{end:.2f}" for end in (min(last), max(last)))
    return f"Efficiency of {most} devices: {' to '.join(ends)}"
