"""The page of a history, in the style of a run's page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bench.compare.pages.history_charts import figures
from bench.report import wording
from bench.report.page.parts import filled, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report.wording import Facts

HERE = Path(__file__).parent
PACKAGES = ("jax", "flax", "dm-haiku", "equinox", "optax", "numpy")
MOST_STEPS = 6
"""Of an exact metric, that are listed."""


def page(history: Facts) -> str:
    """Return the HTML of a history."""
    drawn = list(figures(history))
    title = f"{history['since']} to {history['until']}: what became slower, and when"
    return filled(
        "history.html.jinja",
        figures=drawn,
        folders=[HERE],
        js=script("charts.js"),
        skip=("changes", "To what changed"),
        title=title,
        subtitle=(
            f"{len(history['stacks'])} stacks, every {history['every']}, measured "
            f"{history['when'][:10]} on {history['machine']} in turns with the stack of "
            f"{history['reference']}"
        ),
        sections=[
            ("changes", "Changes"),
            ("charts", "Charts"),
            ("days", "Days"),
            ("repeat", "Repeat"),
        ],
        history=history,
        packages=PACKAGES,
        gaps=gaps,
        exact=list(exact(history)),
        how=how(history),
        command=shlex.join(map(str, history["arguments"])),
        spent=spent(history),
    )


def gaps(day: Facts) -> str:
    """Return what a day lacks, in words."""
    if day["missing"]:
        return f"could not be built: {day['missing']}"
    same: dict[str, list[str]] = {}
    for name, why in day["gaps"].items():
        same.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())


def exact(history: Facts) -> Iterator[tuple[str, str, str]]:
    """Yield exact metrics that moved, and where; cells that moved alike in one row."""
    found: dict[tuple[str, str], list[str]] = {}
    for series in history["exact"]:
        steps, last = [], None
        for day, value in zip(history["stacks"], series["value"], strict=True):
            if value is not None and last is not None and value != last[1]:
                steps.append(f"{last[1]:g} → {value:g} ({last[0]} to {day})")
            last = (day, value) if value is not None else last
        more = f"; {len(steps) - MOST_STEPS} more" if len(steps) > MOST_STEPS else ""
        said = "; ".join(steps[:MOST_STEPS]) + more
        cell = f"{wording.name(series)} at {series['workload']}"
        found.setdefault((series["metric"].replace("_", " "), said), []).append(cell)
    for (metric, said), cells in found.items():
        yield metric, ", ".join(cells), said


def how(history: Facts) -> str:
    """Return how the sentences are to be read."""
    if not history["comparisons"]:
        return "Nothing could be tested: that takes two visits of each day at least."
    return (
        f"A change is a difference between two neighbouring days, or in a long history between "
        f"the means of several days before and after, that is left after a correction (Holm) for "
        f"all {history['comparisons']} comparisons: odds of any false one "
        f"{history['alpha']:.0%}, as far as all days vary alike. Days were visited in "
        f"{history['sweeps']} sweeps, each in random order, "
        "and its times are ratios to those of the reference's worker, which took turns with it."
    )


def spent(history: Facts) -> str:
    """Return where the time went."""
    spent = history["spent"]
    return (
        f"{spent['wall_seconds']:.0f} s of wall time, {spent['sampling_seconds']:.0f} s of it "
        f"taking samples, in {spent['processes']} processes; seed {history['seed']}. Each stack's "
        "own run lies beside this page as a file."
    )
