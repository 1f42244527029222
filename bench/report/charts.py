"""Charts of a run: each says what it found in its title, and in words what can be seen in it.

One definition gives the interactive page and the SVG and PNG pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import altair
import numpy as np

from bench.measure.cells import BASELINE, TOGETHER, Cell
from bench.measure.summary import Group, layout
from bench.report import wording
from bench.report.choose import BEFORE, sums
from bench.report.palette import PALETTE
from bench.report.tied import estimate_of, intervals
from bench.report.wording import Facts, joined, measured
from bench.stats.crossing import Crossing, crossing
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.runs import Run

DASHES = ([1, 0], [8, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 4], [1, 4], [12, 3, 2, 3, 2, 3])
MOST_STEPS = 1_000_000
WIDTH, ROW = 640, 26
"""Of pictures, in pixels; and the height of a row of a chart."""
MOST_STYLES = 24
"""A chart with more rows than that cannot be read; the table has all of them."""
NAMED = 3
THROUGHOUT = "at every width"
ONE_CURVE = 0.01
"""Nats within which losses from the same weights are one curve."""


@dataclass(frozen=True)
class Figure:
    """A chart, with what it shows in words."""

    name: str
    """Of its file, and of its place in the page."""
    title: str
    """What it found."""
    text: str
    """What somebody who cannot see it needs to know."""
    chart: Any
    """An altair chart as wide as what it is in."""


def figures(run: Run, backend: str) -> list[Figure]:
    """Return the charts that a run has the data for, on one backend."""
    cells = [c for c in run.section["cells"] if c["backend"] == backend and c["failure"] is None]
    if not cells:
        return []
    main = wording.main_workload([c for c in cells if measured(c, "step")] or cells)
    here = shown([cell for cell in cells if cell["workload"] == main])
    made = [
        blocks(run, here, main, backend),
        ledger(here, main),
        totals(run, here),
        widths(run, cells),
        curves(here, main),
        initialisers(here, main),
    ]
    return [figure for figure in made if figure is not None]


def shown(cells: Sequence[Facts]) -> list[Facts]:
    """Return the cells that a chart has room for: the baseline, and the pure styles first."""
    order = sorted(cells, key=lambda c: (not wording.is_baseline(c), c["style"] != BASELINE[1]))
    kept = {id(cell) for cell in order[:MOST_STYLES]}
    return [cell for cell in cells if id(cell) in kept]


def coloured(cells: Sequence[Facts]) -> Any:
    """Return the colours of entrants: the same in all charts of a page."""
    entrants = list(dict.fromkeys(cell["entrant"] for cell in cells))
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(entrants))]
    return altair.Color(
        "entrant:N",
        title=None,
        scale=altair.Scale(domain=entrants, range=colours),
        legend=altair.Legend(orient="bottom", symbolLimit=60, symbolOpacity=1),
    )


def dashed(rows: Sequence[dict[str, Any]]) -> Any:
    """Return how lines of one entrant differ: by how the step is written, `pure` being solid."""
    ways = sorted({row["way"] for row in rows}, key=lambda way: (way != BASELINE[1], way))
    dashes = [DASHES[i % len(DASHES)] for i in range(len(ways))]
    scale = altair.Scale(domain=ways, range=dashes)
    return altair.StrokeDash(
        "way:N", title=None, scale=scale, legend=altair.Legend(orient="bottom")
    )


def chart(values: list[dict[str, Any]]) -> Any:
    """Return a chart over rows of data."""
    return altair.Chart(altair.Data(values=values))


def way(name: str, entrant: str) -> str:
    """Return the style in a name."""
    return name.removeprefix(entrant).strip() or BASELINE[1]


def names(cells: Sequence[Facts]) -> list[str]:
    """Return the names of cells in the order of the tables."""
    return list(dict.fromkeys(wording.name(cell) for cell in cells))


def row_axis(cells: Sequence[Facts]) -> Any:
    """Return the axis of a chart with a row for each style."""
    return altair.Y("style:N", title=None, sort=names(cells))


def blocks(run: Run, cells: Sequence[Facts], workload: str, backend: str) -> Figure | None:
    """Return the ratio of each block and the intervals, over the band of the A/A control."""
    arms = run.samples.get(Group("step", workload, backend), {})
    baseline = Cell(*BASELINE, workload, backend)
    rows, ends = [], []
    kept = {Cell(*(c[n] for n in Cell._fields)): c for c in cells}
    known = [cell for cell in arms if cell in kept]
    if baseline in known and len(known) > 1:
        ratios, process = layout([arms[cell] for cell in known])
        column = known.index(baseline)
        for i, cell in enumerate(known):
            if cell == baseline:
                continue
            about = {"style": wording.name(kept[cell]), "entrant": cell.entrant}
            rows += [
                about | {"ratio": float(np.exp(r)), "process": int(p)}
                for r, p in zip(ratios[:, i, column], process, strict=True)
                if not np.isnan(r)
            ]
    for each in cells:
        found = measured(each, "step")
        if found and None not in (found.get("ratio"), found.get("low"), found.get("high")):
            about = {"style": wording.name(each), "entrant": each["entrant"]}
            said = {"interval": wording.ratio(found), "verdict": found["verdict"]}
            ends.append(about | {k: found[k] for k in ("ratio", "low", "high")} | said)
    if not ends:
        return None
    smallest = next(
        (
            c["detectable"]
            for c in run.section["control"]
            if (c["metric"], c["workload"], c["backend"]) == ("step", workload, backend)
        ),
        None,
    )
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
                color=coloured(cells),
                tooltip=["style:N", altair.Tooltip("ratio:Q", format=".4f"), "process:Q"],
            )
        )
    base = chart(ends).encode(
        y=row_axis(others),
        color=coloured(cells),
        tooltip=["style:N", "interval:N", "verdict:N"],
    )
    layers += [
        base.mark_rule(strokeWidth=3).encode(x=altair.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x),
    ]
    findings = [i["style"] for i in ends if i["verdict"] in ("slower", "faster")]
    title = f"At {wording.sized(workload)}, {few(findings, 'no step')} "
    title += f"{'differs' if len(findings) < 2 else 'differ'} from {BASELINE[0]}'s for sure"
    seen = "" if smallest is None else f"; grey: below {wording.percent(smallest)}, not to be seen"
    text = "; ".join(f"{i['style']} {i['interval']}, {i['verdict']}" for i in ends)
    return Figure(
        "blocks",
        title,
        f"Ratios of steps with their 95 % intervals, a tick for each block{seen}. {text}.",
        altair.layer(*layers).properties(width="container", height=ROW * len(others)),
    )


def few(items: Sequence[str], none: str) -> str:
    """Return some names in a sentence, and how many more there are."""
    if not items:
        return none
    if len(items) <= NAMED + 1:
        return joined(items)
    return joined([*items[:NAMED], f"{len(items) - NAMED} more"])


def before(cell: Facts) -> dict[str, float] | None:
    """Return the medians of all that comes before the second step, if all are there."""
    found = {metric: measured(cell, metric) for metric in BEFORE}
    if any(f is None for f in found.values()):
        return None
    return {metric: f["median"] for metric, f in found.items() if f is not None}


def ledger(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return what a process pays for before its second step, stacked."""
    costs = {id(cell): medians for cell in cells if (medians := before(cell)) is not None}
    kept = [cell for cell in cells if id(cell) in costs]
    if not kept:
        return None
    rows = [
        {"style": wording.name(cell), "stage": stage.replace("_", " "), "seconds": seconds, "i": i}
        for cell in kept
        for i, (stage, seconds) in enumerate(costs[id(cell)].items())
    ]
    total = {wording.name(cell): sum(costs[id(cell)].values()) for cell in kept}
    least, most = min(total, key=total.__getitem__), max(total, key=total.__getitem__)
    imports = sum(c["import"] for c in costs.values()) / sum(total.values())
    stages = [stage.replace("_", " ") for stage in BEFORE]
    made = (
        chart(rows)
        .mark_bar()
        .encode(
            x=altair.X("sum(seconds):Q", title="seconds, medians of fresh processes, stacked"),
            y=row_axis(kept),
            color=altair.Color(
                "stage:N",
                title=None,
                scale=altair.Scale(domain=stages, range=list(PALETTE[: len(stages)])),
                legend=altair.Legend(orient="bottom"),
            ),
            order=altair.Order("i:Q"),
            tooltip=["style:N", "stage:N", altair.Tooltip("seconds:Q", format=".3f")],
        )
        .properties(width="container", height=ROW * len(kept))
    )
    title = (
        f"From a fresh process to the first step: {wording.seconds(total[least])} with {least}, "
        f"{wording.seconds(total[most])} with {most}; imports are {wording.percent(imports)}"
    )
    text = "; ".join(f"{name} {wording.seconds(seconds)}" for name, seconds in total.items())
    return Figure(
        "ledger", title, f"Sums of the stages at {wording.sized(workload)}: {text}.", made
    )


def totals(run: Run, cells: Sequence[Facts]) -> Figure | None:
    """Return total time against the number of steps, and where lines cross."""
    lines: dict[str, tuple[float, float, str]] = {}
    for cell in cells:
        start, step = before(cell), measured(cell, "step")
        if start is not None and step is not None:
            name = wording.name(cell)
            lines[name] = (sum(start.values()), step["median"], cell["entrant"])
    if len(lines) < 2:
        return None
    counts = np.unique(np.logspace(0, math.log10(MOST_STEPS), 61).astype(int)).tolist()
    rows = [
        {
            "style": name,
            "entrant": entrant,
            "way": way(name, entrant),
            "steps": n,
            "seconds": start + n * step,
        }
        for name, (start, step, entrant) in lines.items()
        for n in counts
    ]
    crossed = break_evens(run, cells, lines)
    made = (
        chart(rows)
        .mark_line()
        .encode(
            x=altair.X(
                "steps:Q",
                title="training steps",
                scale=altair.Scale(type="log"),
                axis=altair.Axis(values=[10**n for n in range(7)], format="~s"),
            ),
            y=altair.Y(
                "seconds:Q",
                title="seconds in all",
                scale=altair.Scale(type="log"),
                axis=altair.Axis(values=[10**n for n in range(-1, 6)], format="~g"),
            ),
            color=coloured(cells),
            strokeDash=dashed(rows),
            detail="style:N",
            tooltip=["style:N", "steps:Q", altair.Tooltip("seconds:Q", format=".3s")],
        )
        .properties(width="container", height=320)
    )
    said = [
        f"{name} meets {BASELINE[0]} at {rounded(even.at)} steps "
        f"({rounded(even.low)} to {rounded(even.high)})"
        for name, even in crossed.items()
    ]
    even = [start / step for start, step, _ in lines.values()]
    title = (
        f"Up to about {rounded(float(np.median(even)))} steps, starting takes longer than training"
    )
    if said:
        title += f"; {few(said, '')}"
    text = "; ".join(
        f"{name}: {wording.seconds(start)} and {wording.seconds(step)} a step"
        for name, (start, step, _) in lines.items()
    )
    cross = f" Break-even points: {'; '.join(said)}." if said else " No sure break-even point."
    return Figure("totals", title, f"Start and step of each line: {text}.{cross}", made)


class Even(NamedTuple):
    """Where two lines cross, and the ends of where they may."""

    at: float
    low: float
    high: float


def break_evens(
    run: Run, cells: Sequence[Facts], lines: dict[str, tuple[float, float, str]]
) -> dict[str, Even]:
    """Return where a style's line crosses the baseline's, where both of its differences are sure.

    Sure is what an interval as wide as all comparisons ask for puts on one side of 1. The crossing
    is between the ones that the intervals' ends give.
    """
    base = lines.get(BASELINE[0])
    if base is None:
        return {}
    place = cells[0]["workload"], cells[0]["backend"]
    starts, _ = sums(run, BEFORE, *place)
    paces = intervals(run.section, cells, "step")
    out = {}
    for name in lines:
        if name == BASELINE[0] or name not in starts or name not in paces:
            continue
        start, pace = starts[name], paces[name]
        later, slower = start[1] > 1, pace[1] > 1
        if not ((later and pace[2] < 1) or (slower and start[2] < 1)):
            continue
        ends = [
            base[0] * abs(start[i] - 1) / (base[1] * abs(pace[k] - 1))
            for i in (1, 2)
            for k in (1, 2)
        ]
        at = base[0] * abs(start[0] - 1) / (base[1] * abs(pace[0] - 1))
        if at > 1:
            out[name] = Even(at, min(ends), max(ends))
    return out


def rounded(value: float) -> str:
    """Return a count with two digits that mean something."""
    scale = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return f"{round(value / scale) * scale:,}".replace(",", " ")


def by_width(cells: Sequence[Facts]) -> dict[str, dict[int, Facts]]:
    """Return the steps that have a ratio, by style and width; of a sweep, if there is one."""
    at: dict[str, dict[int, Facts]] = {}
    swept = any(c["workload"] in TOGETHER["sweep"] and measured(c, "step") for c in cells)
    for cell in cells:
        known, found = WORKLOADS.get(cell["workload"]), measured(cell, "step")
        if known is None or known.batch != 1 or found is None or found.get("ratio") is None:
            continue
        if not swept or cell["workload"] in TOGETHER["sweep"]:
            at.setdefault(wording.name(cell), {})[known.width] = found
    return {name: dict(sorted(found.items())) for name, found in at.items()}


def widths(run: Run, cells: Sequence[Facts]) -> Figure | None:
    """Return the overhead of a step against the width of the model."""
    at = by_width([cell for cell in cells if not wording.is_baseline(cell)])
    if not any(len(found) > 1 for found in at.values()):
        return None
    margin = run.section["plan"]["margin"]
    entrant = {wording.name(cell): cell["entrant"] for cell in cells}
    rows = [
        {
            "style": name,
            "entrant": entrant[name],
            "way": way(name, entrant[name]),
            "width": width,
            "ratio": found["ratio"],
            "low": found.get("low"),
            "high": found.get("high"),
            "interval": wording.ratio(found),
        }
        for name, steps in at.items()
        for width, found in steps.items()
    ]
    ends = [{"low": 1 - margin, "high": 1 + margin}]
    y = altair.Y(
        "ratio:Q", title=f"step, ratio to {BASELINE[0]}", scale=altair.Scale(type="log", nice=False)
    )
    x = altair.X("width:Q", title="width of the layers", scale=altair.Scale(type="log", base=2))
    base = chart(rows).encode(x=x, color=coloured(cells), tooltip=["style:N", "interval:N"])
    made = altair.layer(
        chart(ends).mark_rect(opacity=0.18, color="#888").encode(y="low:Q", y2="high:Q"),
        base.mark_line(opacity=0.7).encode(y=y, detail="style:N", strokeDash=dashed(rows)),
        base.mark_rule().encode(y=altair.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, opacity=1).encode(y=y),
    ).properties(width="container", height=320)
    swept = any(c["workload"] in TOGETHER["sweep"] and measured(c, "step") for c in cells)
    title, every = about_widths(at, margin, swept=swept)
    text = "; ".join(f"{name}: {', '.join(map(str, steps))}" for name, steps in at.items())
    return Figure("widths", title, f"Widths measured: {text}. {every}", made)


def about_widths(at: dict[str, dict[int, Facts]], margin: float, *, swept: bool) -> tuple[str, str]:
    """Return what widths show: in a title, and of every style.

    Crossings are told of a sweep alone: other workloads differ in more than their width.
    """
    sizes = sorted({width for steps in at.values() for width in steps})
    if not swept:
        most = []
        for width in (sizes[0], sizes[-1]):
            ratios = {style: steps[width]["ratio"] for style, steps in at.items() if width in steps}
            worst = max(ratios, key=ratios.__getitem__)
            times = wording.ratio({"ratio": ratios[worst]})
            most.append(f"{times} with {worst} at width {width}")
        return (
            f"Times {BASELINE[0]}'s step, at most: {', '.join(most)}",
            "These workloads differ in more than width; a sweep tells from which width on.",
        )
    said = {}
    for name, steps in at.items():
        estimates = {width: e for width, f in steps.items() if (e := estimate_of(f)) is not None}
        if len(estimates) > 1:
            found = crossing(list(estimates), list(estimates.values()), margin)
            said[name] = where(found, min(estimates))
    limit = wording.percent(margin)
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


def curves(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return the losses from the same weights on top of each other, over the text's entropy."""
    trained = [c for c in cells if (c["final_loss"] or {}).get("curve_same_weights")]
    if not trained:
        return None
    every = trained[0]["final_loss"]["mean_of_steps"]
    rows = [
        {
            "style": wording.name(cell),
            "entrant": cell["entrant"],
            "way": cell["style"],
            "steps": (i + 1) * every,
            "loss": loss,
        }
        for cell in trained
        for i, loss in enumerate(cell["final_loss"]["curve_same_weights"])
    ]
    points = list(zip(*(c["final_loss"]["curve_same_weights"] for c in trained), strict=False))
    spread = max(max(losses) - min(losses) for losses in points)
    entropy = trained[0]["final_loss"].get("entropy")
    layers = [
        chart(rows)
        .mark_line(point=True, opacity=0.6)
        .encode(
            x=altair.X("steps:Q", title=f"training steps, means of {every}"),
            y=altair.Y("loss:Q", title="loss, nats per character", scale=altair.Scale(zero=False)),
            color=coloured(cells),
            strokeDash=dashed(rows),
            detail="style:N",
            tooltip=["style:N", "steps:Q", altair.Tooltip("loss:Q", format=".4f")],
        )
    ]
    if entropy is not None:
        layers.append(
            chart([{"entropy": entropy, "what": "entropy of the text"}])
            .mark_rule(strokeDash=[4, 4], color="#888")
            .encode(y="entropy:Q", tooltip=["what:N", "entropy:Q"])
        )
    title = f"{wording.name(trained[0])}'s loss from the baseline's weights"
    if len(trained) > 1:
        how = "follow one curve, at most" if spread <= ONE_CURVE else "part: they end up to"
        title = f"From the same weights, {len(trained)} styles {how} {spread:.1g} nats apart"
    ends = "; ".join(f"{wording.name(c)} {c['final_loss']['same_weights']:.4f}" for c in trained)
    floor = "" if entropy is None else f" The text's entropy is {entropy:.3f}."
    return Figure(
        "curves",
        title,
        f"Loss at the end, at {wording.sized(workload)}: {ends}.{floor}",
        altair.layer(*layers).properties(width="container", height=300),
    )


def initialisers(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return the losses from libraries' own initialisers, a point for each seed."""
    trained = [c for c in cells if (c["final_loss"] or {}).get("own_initialiser")]
    if len(trained) < 2:
        return None
    rows = [
        {"style": wording.name(c), "entrant": c["entrant"], "loss": loss, "seed": seed}
        for c in trained
        for seed, loss in enumerate(c["final_loss"]["own_initialiser"])
    ]
    means = {wording.name(c): wording.own_loss(c["final_loss"]) or 0.0 for c in trained}
    best, worst = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    steps = trained[0]["final_loss"]["steps"]
    made = (
        chart(rows)
        .mark_point(filled=True, size=70, opacity=0.8)
        .encode(
            x=altair.X(
                "loss:Q", title="final loss, nats per character", scale=altair.Scale(zero=False)
            ),
            y=row_axis(trained),
            color=coloured(cells),
            tooltip=["style:N", "seed:Q", altair.Tooltip("loss:Q", format=".4f")],
        )
        .properties(width="container", height=ROW * len(trained))
    )
    title = (
        f"From their own initialisers, {steps} steps lead to {wording.loss(means[best])} "
        f"({best}) to {wording.loss(means[worst])} ({worst}), means of seeds"
    )
    text = "; ".join(f"{name} {wording.loss(mean)}" for name, mean in means.items())
    return Figure(
        "initialisers",
        title,
        f"Means over seeds at {wording.sized(workload)}, in nats per character: {text}.",
        made,
    )


def picture(figure: Figure) -> Any:
    """Return a chart as a picture has it: of a fixed width, with its title."""
    title = altair.TitleParams(figure.title, anchor="start", fontSize=13, limit=WIDTH + 180)
    whole = figure.chart.properties(width=WIDTH, title=title).configure(background="white")
    return whole.configure_axis(labelLimit=220).configure_legend(columns=6)
