"""What a selftest says: tables in Markdown, and the power curve as a picture."""

from __future__ import annotations

from statistics import median, median_low
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy.stats import binomtest

from bench.selftest.calibration import as_asked, fit, points_of
from bench.selftest.trials import WAYS

if TYPE_CHECKING:
    from pathlib import Path

    type Records = list[dict[str, Any]]

NAMES = {"bakeoff": "`pytest bench`", "plain": "pytest-benchmark, `median:5%`"}


def rate(hits: int, total: int) -> str:
    """Return a share in per cent with its 95 % interval (Clopper and Pearson, 1934)."""
    if not total:
        return "–"
    low, high = binomtest(hits, total).proportion_ci(0.95, "exact")
    return f"{hits}/{total}: {100 * hits / total:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


class Planted(NamedTuple):
    """One size of what is planted, or nothing."""

    slowdown: float
    """As all runs on the idle machine have it, as a fraction; 0 is A/A."""
    percent: int
    """What was asked for."""
    iterations: tuple[int, ...]
    """That trials had."""

    @property
    def label(self) -> str:
        """Return the size in words."""
        return f"{100 * self.slowdown:.1f} %" if self.percent else "0 %"


class Kind(NamedTuple):
    """Who was asked, and where."""

    way: str
    loaded: bool


def trials(records: Records) -> dict[Planted, dict[Kind, Records]]:
    """Return the outcomes of the trials by what was planted, from nothing to much.

    Trials whose plant turned out to be of another size than asked for have a row of their own.
    """
    made = [record for record in records if record["part"] == "trial"]
    line = fit(points_of(records)) if any(record["percent"] for record in made) else None
    groups: dict[tuple[int, bool], Records] = {}
    for record in made:
        groups.setdefault((record["percent"], line is None or as_asked(record, line)), []).append(
            record
        )
    found: dict[Planted, dict[Kind, Records]] = {}
    for (percent, _), group in groups.items():
        iterations = sorted(record["iterations"] for record in group)
        slowdown = line.at(median_low(iterations))[0] if line and percent else 0.0
        planted = Planted(slowdown, percent, tuple(dict.fromkeys(iterations)))
        for record in group:
            kinds = found.setdefault(planted, {})
            kinds.setdefault(Kind(record["way"], record["loaded"]), []).append(record["found"])
    return dict(sorted(found.items()))


def hits(planted: Planted, outcomes: Records) -> int:
    """Return how many said that there is a difference: any for A/A, a slowdown where one is."""
    return sum(
        bool(outcome["called"]) if planted.percent == 0 else outcome["called"] == "slower"
        for outcome in outcomes
    )


def markdown(records: Records) -> str:
    """Return the report."""
    parts = [
        "# Selftest: does it see what is there, and nothing else?",
        "`bakeoff selftest` plants differences whose size is known, and counts how often runs call "
        "them. Made from `trials.jsonl`, which has every outcome; in brackets, 95 % intervals.",
        *about(records),
        *false_alarms_and_power(records),
        *calibration(records),
        *simulated(records),
        *caught(records),
        *precision(records),
        *kills(records),
    ]
    return "\n\n".join(parts) + "\n"


def of(records: Records, part: str) -> Records:
    """Return what was found in a part."""
    return [record["found"] for record in records if record["part"] == part]


def about(records: Records) -> list[str]:
    """Return where and when."""
    days = sorted({record["at"][:10] for record in records})
    found = of(records, "about")
    if not found:
        return []
    versions = ", ".join(f"{k} {v}" for k, v in found[-1]["versions"].items())
    cores = len(found[-1].get("affinity") or [])
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    named = sorted({record["cpu"] for record in records if record.get("cpu")})
    where = f"{cores} cores of shared machines ({', '.join(named) or 'of which none is named'}"
    if named and not all(record.get("cpu") for record in records):
        where += ", and others that are not named"
    return [f"{when}, on {where}), with {versions}."]


def false_alarms_and_power(records: Records) -> list[str]:
    """Return the table of both ways, idle and beside another process."""
    found = trials(records)
    if not found:
        return []
    budget = next(r["budget"] for r in records if r["part"] == "trial")
    lines = [
        "## Called a difference",
        f"Runs of `step` at `seed` with two entrants, {budget:g} s each, the usual way in the same "
        "time and in turns with ours. In the first row nothing is planted, and each call is a "
        "false alarm; below, the slowdown is work inside of the compiled program. *Loaded*: "
        "another process keeps one of the cores busy, on and off.",
        "\n".join(
            [
                "| planted | "
                + " | ".join(
                    f"{NAMES[way]}, {where}" for where in ("idle", "loaded") for way in WAYS
                )
                + " |",
                "|--:|" + "--:|" * 4,
                *(row(planted, kinds) for planted, kinds in found.items()),
            ]
        ),
    ]
    kinds = found.values()
    ours = [
        outcome
        for planted, kinds_ in found.items()
        if not planted.percent
        for outcome in kinds_.get(Kind("bakeoff", loaded=False), [])
    ]
    if ours:
        inside = sum(o["low"] <= 1 <= o["high"] for o in ours)
        inside += sum(o["control"]["low"] <= 1 <= o["control"]["high"] for o in ours)
        lines.append(
            f"Of the 95 % intervals of those A/A runs, the control's included, "
            f"{rate(inside, 2 * len(ours))} hold the true ratio."
        )
    every = [
        o["control"] for each in kinds for k, os in each.items() if k.way == "bakeoff" for o in os
    ]
    if every:
        alarms = sum(control["verdict"] in ("slower", "faster") for control in every)
        inside = sum(control["low"] <= 1 <= control["high"] for control in every)
        lines.append(
            "Each of our runs, whatever is planted, has its own A/A control: called different in "
            f"{rate(alarms, len(every))}, its interval holds the true ratio in "
            f"{rate(inside, len(every))}."
        )
    for loaded in (False, True):
        runs = [outcome for each in kinds for outcome in each.get(Kind("bakeoff", loaded), [])]
        if runs:
            half = median((o["high"] - o["low"]) / 2 for o in runs)
            where = "beside another process" if loaded else "on the idle machine"
            lines.append(
                f"Median half width of our intervals {where}: ±{100 * half:.2f} %, from "
                f"{median(o['blocks'] for o in runs):.0f} blocks of "
                f"{median(o['processes'] for o in runs):.0f} processes. What such a run says that "
                "it would have called four times in five is "
                f"{100 * median(o['detectable'] for o in runs):.1f} % in the median, "
                f"{100 * max(o['detectable'] for o in runs):.1f} % at most."
            )
    return lines


def row(planted: Planted, kinds: dict[Kind, Records]) -> str:
    """Return one row of the table."""
    cells = []
    for loaded in (False, True):
        for way in WAYS:
            outcomes = kinds.get(Kind(way, loaded), [])
            cells.append(rate(hits(planted, outcomes), len(outcomes)))
    return f"| {planted.label} | " + " | ".join(cells) + " |"


def calibration(records: Records) -> list[str]:
    """Return what all runs say that the planted work costs, beside what trials measured."""
    points = points_of(records)
    if not points:
        return []
    line = fit(points)
    lines = ["| asked for | characters | what they cost | our trials measured, median |"]
    lines.append("|--:|--:|--:|--:|")
    for planted, kinds in trials(records).items():
        outcomes = kinds.get(Kind("bakeoff", loaded=False), [])
        if planted.percent and outcomes:
            error = line.at(median_low(planted.iterations))[1]
            seen = median(outcome["ratio"] for outcome in outcomes)
            lines.append(
                f"| {planted.percent} % | {', '.join(map(str, planted.iterations))} | "
                f"{100 * planted.slowdown:.2f} % ± {196 * error:.2f} | {100 * (seen - 1):.2f} % |"
            )
    return [
        "## What was planted",
        "Characters read in addition, forward only, inside of the compiled program. What they cost "
        f"is a line through the {len(points)} runs on the idle machine that had some (weighted "
        f"least squares): {100 * line.slope:.3f} % of a step for each, and "
        f"{100 * line.base:.2f} % for their loop. It names the rows of the table above; what "
        "turned out to be more than a fifth off was asked for once more.",
        "\n".join(lines),
    ]


def simulated(records: Records) -> list[str]:
    """Return the table of simulated A/A runs."""
    found = of(records, "simulated")
    if not found:
        return []
    lines = ["| simulated machine | runs with a false alarm | intervals that hold the truth |"]
    lines.append("|---|--:|--:|")
    for each in found[-1]["worlds"]:
        alarms = rate(each["alarms"], each["runs"])
        covered = 100 * each["covered"] / each["intervals"]
        lines.append(f"| {each['name']} | {alarms} | {covered:.1f} % |")
    return [
        "## Simulated A/A runs",
        "Identical programs, with noise as it was measured and worse, through the same statistics.",
        "\n".join(lines),
    ]


def caught(records: Records) -> list[str]:
    """Return what the exact metrics caught, and what times of imports and dispatch did."""
    lines = []
    found = of(records, "exact")
    if found:
        names = list(found[0]["caught"])
        counts = {name: sum(each["caught"][name] for each in found) for name in names}
        lines.append("## Exact metrics")
        lines.append(
            f"In {len(found)} runs each, caught: "
            + ", ".join(f"{name} {count}/{len(found)}" for name, count in counts.items())
            + ". The same program under another name differed in "
            + (", ".join({d for f in found for d in f["same_differs_in"]}) or "none of them")
            + "."
        )
    found = of(records, "by_time")
    if found:
        for metric, what in (
            ("import", "An import slower by 0.3 s"),
            ("dispatch", "60 more layers"),  # as it was called in older trials
            ("host_cost", "60 more layers"),
        ):
            having = [each[metric] for each in found if metric in each]
            if having:
                called = sum(each.get("verdict") == "slower" for each in having)
                ratios = ", ".join(f"{each.get('ratio') or 0:.2f}" for each in having)
                slower = rate(called, len(having))
                lines.append(f"{what}: `{metric}` called slower {slower}; {ratios}.")
    return lines


def precision(records: Records) -> list[str]:
    """Return how wide intervals are at the default budget, and where the time goes."""
    found = of(records, "precision")
    if not found:
        return []
    widths = {
        name: median(e["half_widths"][name] for e in found if name in e["half_widths"])
        for name in dict.fromkeys(name for e in found for name in e["half_widths"])
    }
    worst = max(widths, key=lambda name: widths[name])
    shares = ", ".join(f"{100 * each['share']:.0f} %" for each in found)
    walls = ", ".join(f"{each['wall']:.0f} s" for each in found)
    lines = [
        "| entrant, style | half width of the 95 % interval, relative; median of the runs |",
        "|---|--:|",
    ]
    lines += [f"| {name} | ±{100 * width:.2f} % |" for name, width in widths.items()]
    return [
        "## The default budget",
        f"{len(found)} runs of `pytest bench` as it is. Ratios of `step` at `seed`; the widest is "
        f"{worst}'s, ±{100 * widths[worst]:.2f} %. Wall time {walls}; taking samples: {shares}.",
        "\n".join(lines),
    ]


def kills(records: Records) -> list[str]:
    """Return what killing a run cost."""
    found = of(records, "killed")
    if not found:
        return []
    total = sum(each["kills"] for each in found)
    return [
        "## Killed and resumed",
        f"SIGKILL at {total} random moments of {len(found)} run(s), each resumed: of "
        f"{sum(each['journalled'] for each in found)} journalled samples "
        f"{sum(each['lost'] for each in found)} were lost, and "
        f"{sum(each['cells_without_a_number'] for each in found)} cells had no number.",
    ]


def picture(records: Records, folder: Path) -> None:
    """Draw planted against detected, with intervals, as `power.svg` and `power.png`."""
    import altair

    if not trials(records):
        return
    rows = []
    for planted, kinds in trials(records).items():
        for (way, loaded), outcomes in kinds.items():
            called = hits(planted, outcomes)
            low, high = binomtest(called, len(outcomes)).proportion_ci(0.95, "exact")
            rows.append(
                {
                    "planted": round(100 * planted.slowdown, 1),
                    "called": called / len(outcomes),
                    "low": low,
                    "high": high,
                    "way": NAMES[way].replace("`", ""),
                    "where": "one core loaded" if loaded else "idle machine",
                }
            )
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("planted:O", title="planted slowdown, %", axis=altair.Axis(labelAngle=0)),
        color=altair.Color("way:N", title=None, scale=altair.Scale(range=["#1b6ca8", "#c2571a"])),
        xOffset="way:N",
    )
    bars = base.mark_rule().encode(
        y=altair.Y("low:Q", title="runs that called it", axis=altair.Axis(format="%")),
        y2="high:Q",
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(y="called:Q")
    chart = (
        altair.layer(bars, points)
        .properties(width=260, height=220)
        .facet(column=altair.Column("where:N", title=None))
        .properties(
            title="At 0 % every call is a false alarm; above it, every miss a slowdown lost"
        )
        .configure_legend(orient="bottom")
    )
    chart.save(str(folder / "power.svg"))
    chart.save(str(folder / "power.png"), ppi=144)
