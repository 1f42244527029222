"""Charts of a run: each says what it found in its title, and in words what can be seen in it.

One definition gives the interactive page and the SVG and PNG pictures.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import altair
import numpy as np

from bench.cells import BASELINE, TOGETHER, Cell
from bench.estimates import Group, stored, table
from bench.metrics import STARTUP, label
from bench.report import scaling, wording
from bench.report.charts.figure import (
    MOST_STYLES,
    PALETTE,
    ROW,
    Figure,
    chart,
    coloured,
    dashed,
    few,
    lines,
    picture,
)
from bench.report.findings import view
from bench.report.table import Value, amount, percent
from bench.stats.crossing import Crossing, crossing
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.runfile import Metric, Result
    from bench.runfile.reader import Run

__all__ = ["Figure", "figures", "picture"]

MOST = 4
"""Charts of a run: one for each question."""
TICKS = 100
"""Blocks of a style that are drawn at most; of more, it is every second, third and so on."""
THROUGHOUT = "at every width"
STREAMS = {False: "the same streams, shared", True: "as many streams on each"}
"""By whether a style scales weakly."""


def figures(run: Run, others: Sequence[Run] = ()) -> list[Figure]:
    """Return the charts that a run has the data for, each question's for every backend.

    Widths are those of a sweep, if the run or one of the others is one.
    """
    backends, found = list(dict.fromkeys(cell.backend for cell in run.section.good)), []
    with altair.utils.schemapi.debug_mode(False):  # our own charts, which tests have looked at
        for question in (blocks, partial(widths, others=others), devices, startup):
            for backend in backends:
                figure = question(run, backend)
                if figure is not None and len(backends) > 1:
                    name, title = f"{figure.name}-{backend}", f"On {backend}: {figure.title}"
                    figure = replace(figure, name=name, title=title)
                if figure is not None:
                    found.append(figure)
    return found[:MOST]


def living(run: Run, backend: str) -> list[Result]:
    """Return the cells of a run on one backend that have not failed."""
    return [cell for cell in run.section.good if cell.backend == backend]


def at_main(run: Run, backend: str) -> tuple[str, list[Result]]:
    """Return the main workload, and the cells there that a chart has room for."""
    cells = living(run, backend)
    main = wording.main_workload([c for c in cells if c.measured("step")] or cells)
    here = [cell for cell in cells if cell.workload == main]
    here.sort(key=lambda c: (not c.is_baseline, c.style != BASELINE[1]))
    kept = {cell.cell for cell in here[:MOST_STYLES]}
    return main, [cell for cell in cells if cell.workload == main and cell.cell in kept]


def row_axis(cells: Sequence[Result]) -> Any:
    """Return the axis of a chart with a row for each style, in the order of the tables."""
    return altair.Y("style:N", title=None, sort=list(dict.fromkeys(map(wording.name, cells))))


def blocks(run: Run, backend: str) -> Figure | None:
    """Return the ratio of each block and the intervals, over the band of the A/A control."""
    workload, cells = at_main(run, backend)
    ends = [
        {
            "style": wording.name(cell),
            "entrant": cell.entrant,
            "ratio": found.ratio,
            "low": found.low,
            "high": found.high,
            "interval": str(Value.of(found)),
            "verdict": found.verdict,
        }
        for cell in cells
        if (found := cell.compared("step")) and found.low is not None and found.high is not None
    ]
    if not ends:
        return None
    ticks = block_ratios(run, cells, Group("step", workload, backend))
    smallest = view(run.section, backend).detectable(workload)
    others = [cell for cell in cells if not cell.is_baseline]
    colour = coloured(cell.entrant for cell in others)
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
    if ticks:
        tips = ["style:N", altair.Tooltip("ratio:Q", format=".4f"), "process:Q"]
        drawn = chart(ticks).mark_tick(opacity=0.35, thickness=1.5, height=14)
        layers.append(drawn.encode(x=x, y=row_axis(others), color=colour, tooltip=tips))
    base = chart(ends).encode(
        y=row_axis(others), color=colour, tooltip=["style:N", "interval:N", "verdict:N"]
    )
    layers += [
        base.mark_rule(strokeWidth=3).encode(x=altair.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x),
    ]
    findings = [str(i["style"]) for i in ends if i["verdict"] in ("slower", "faster")]
    title = f"At {wording.sized(workload)}, {few(findings, 'no step')} "
    title += f"{'differs' if len(findings) < 2 else 'differ'} from {BASELINE[0]}'s"
    seen = ""
    if smallest is not None:
        seen = f"; grey: differences under {percent(smallest)} would not be found"
    text = "; ".join(f"{i['style']} {i['interval']}, {i['verdict']}" for i in ends)
    return Figure(
        "blocks",
        title,
        f"Ratios of steps with their 95 % intervals, ticks are blocks{seen}. {text}.",
        altair.layer(*layers).properties(width="container", height=ROW * len(others)),
    )


def block_ratios(run: Run, cells: Sequence[Result], group: Group) -> list[dict[str, Any]]:
    """Return the ratio of each block of each style to the baseline's datum in it."""
    kept = {cell.cell: cell for cell in cells}
    arms = {cell: arm for cell, arm in run.samples.get(group, {}).items() if cell in kept}
    baseline = Cell(*BASELINE, group.workload, group.backend)
    if baseline not in arms:
        return []
    whole = table(arms)
    ratios = np.exp(whole.logs - whole.logs[:, [whole.cells.index(baseline)]])
    rows = []
    for cell, column in zip(whole.cells, ratios.T, strict=True):
        [good] = np.nonzero(~np.isnan(column))
        rows += [
            {
                "style": wording.name(kept[cell]),
                "entrant": cell.entrant,
                "ratio": round(float(column[k]), 5),
                "process": int(whole.worker[k]),
            }
            for k in good[:: max(1, math.ceil(len(good) / TICKS))]
            if cell != baseline
        ]
    return rows


def steps_by_width(cells: Sequence[Result]) -> dict[str, dict[int, Metric]]:
    """Return the steps of a sweep that have a ratio, by style and width."""
    at: dict[str, dict[int, Metric]] = {}
    for cell in cells:
        found = cell.compared("step")
        if cell.workload in TOGETHER["sweep"] and found:
            at.setdefault(wording.name(cell), {})[WORKLOADS[cell.workload].width] = found
    return {name: dict(sorted(found.items())) for name, found in at.items()}


def widths(run: Run, backend: str, others: Sequence[Run] = ()) -> Figure | None:
    """Return the overhead of a step against the width of the model, of a sweep.

    Other workloads differ in more than their width.
    """
    sweeps = [each for each in (run, *others) if steps_by_width(living(each, backend))]
    sweep = next(iter(sweeps), run)
    cells = living(sweep, backend)
    at = steps_by_width(cells)
    if not any(len(found) > 1 for found in at.values()):
        return None
    margin = sweep.section.plan.margin
    named = {wording.name(cell): cell for cell in cells}
    rows = [
        {
            "style": name,
            "entrant": named[name].entrant,
            "way": named[name].style,
            "width": width,
            "ratio": found.ratio,
            "low": found.low,
            "high": found.high,
            "interval": str(Value.of(found)),
        }
        for name, steps in at.items()
        for width, found in steps.items()
    ]
    ends = [{"low": 1 - margin, "high": 1 + margin}]
    y = altair.Y(
        "ratio:Q", title=f"step, ratio to {BASELINE[0]}", scale=altair.Scale(type="log", nice=False)
    )
    x = altair.X("width:Q", title="width of the layers", scale=altair.Scale(type="log", base=2))
    colour = coloured(cell.entrant for cell in cells)
    base = chart(rows).encode(x=x, color=colour, tooltip=["style:N", "interval:N"])
    made = altair.layer(
        chart(ends).mark_rect(opacity=0.18, color="#888").encode(y="low:Q", y2="high:Q"),
        *lines(base, y, "style:N", dashed(rows)),
    ).properties(width="container", height=320)
    title, every = about_widths(at, margin)
    measured_at = {name: ", ".join(map(str, steps)) for name, steps in at.items()}
    text = "; ".join(f"{name}: {widths}" for name, widths in measured_at.items())
    if len(set(measured_at.values())) == 1:
        text = next(iter(measured_at.values()))
    source = "" if sweep is run else f" From the run {sweep.name}."
    return Figure("widths", title, f"Widths measured: {text}. {every}{source}", made)


def about_widths(at: Mapping[str, Mapping[int, Metric]], margin: float) -> tuple[str, str]:
    """Return from which width on differences do not matter: in a title, and of every style."""
    said = {}
    for name, steps in at.items():
        estimates = {width: e for width, f in steps.items() if (e := stored(f)) is not None}
        if len(estimates) > 1:
            found = crossing(list(estimates), list(estimates.values()), margin)
            said[name] = where(found, min(estimates))
    limit = percent(margin)
    differ = [f"{name} {text}" for name, text in said.items() if text != THROUGHOUT]
    title = f"A step differs by less than {limit}: " + few(differ, "all of them at every width")
    return title, f"By less than {limit}: {'; '.join(f'{n} {t}' for n, t in said.items())}."


def where(found: Crossing, smallest: float) -> str:
    """Return from which width on a difference is within the margin, with the interval of that."""

    def end(width: float) -> str:
        return "beyond the widest" if math.isinf(width) else f"{width:.0f}"

    if found.high <= smallest * 1.001:
        return THROUGHOUT
    if math.isinf(found.at):
        low = "" if math.isinf(found.low) else f" ({found.low:.0f} at best)"
        return f"beyond the widest measured{low}"
    return f"from width {found.at:.0f} on ({end(found.low)} to {end(found.high)})"


def devices(run: Run, backend: str) -> Figure | None:
    """Return the efficiency of each style over devices, strong and weak."""
    known = [row for row in run.section.scaling if row.backend == backend]
    most = max((row.devices for row in known), default=0)
    if most < 2:
        return None
    rows: list[dict[str, Any]] = [
        {
            "style": scaling.name(row),
            "entrant": row.entrant,
            "where": f"{row.workload}: {STREAMS[row.weak]}",
            "line": f"{scaling.name(row)} {row.workload} {row.weak}",
            "devices": row.devices,
            "efficiency": row.efficiency(row.ratio),
            "low": row.efficiency(row.high),
            "high": row.efficiency(row.low),
            "interval": str(scaling.efficiency(row)),
        }
        for row in known
    ]
    y = altair.Y("efficiency:Q", title="efficiency", scale=altair.Scale(domainMin=0))
    x = altair.X("devices:O", title="devices", axis=altair.Axis(labelAngle=0))
    colour = coloured(cell.entrant for cell in living(run, backend))
    base = chart(rows).encode(x=x, color=colour, tooltip=["style:N", "where:N", "interval:N"])
    way = altair.StrokeDash(
        "where:N", title=None, legend=altair.Legend(orient="bottom", columns=2, labelLimit=400)
    )
    made = altair.layer(*lines(base, y, "line:N", way)).properties(width="container", height=280)
    last = [row["efficiency"] for row in rows if row["devices"] == most]
    ends = dict.fromkeys(f"{end:.2f}" for end in (min(last), max(last)))
    title = f"Efficiency of {most} devices: {' to '.join(ends)}"
    return Figure("devices", title, scaling.LEGEND, made)


def startup(run: Run, backend: str) -> Figure | None:
    """Return the medians of all that comes before the second step, of styles that have all."""
    workload, cells = at_main(run, backend)
    costs: dict[str, dict[str, float]] = {}
    for cell in cells:
        found = {metric: f.median for metric in STARTUP if (f := cell.measured(metric))}
        if len(found) == len(STARTUP):
            costs[wording.name(cell)] = found
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
