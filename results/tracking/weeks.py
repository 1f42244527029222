"""Weeks that were tracked: what each has changed, and the chain of all of them.

A week is an A/B of the stack of its Monday beside that of the Monday before, on one machine. The
ratios of consecutive weeks multiply to that of the last stack to the first one; the variances of
their logarithms add up.
"""

from __future__ import annotations

import datetime
import math
import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
from scipy import special

import impls
from bench.estimates import Estimate, group_by_key
from bench.metrics import label
from bench.numbers import words
from bench.report.markdown import escape_text
from bench.report.sentences import describe_cells
from bench.runfile.reader import read
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import find_variance, log_ratio
from bench.stats.variances import sum_variances
from bench.stats.verdicts import make_bounds
from bench.track.comparison import BASE, NEW, ORDER, Comparison
from bench.wording import describe_releases, join_words, name_workload, pluralise
from bench.worker.settings import ROOT
from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bench.cells import Cell
    from bench.runfile.reader import Run

    type Number = tuple[Cell, str]
    """Cell and metric."""

FOLDER = ROOT / "results/tracking/weeks"
RECORDS = FOLDER / "weeks.json"
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
NAME = re.compile(r"\d{4}-\d{2}-\d{2}(-[a-z0-9_]+)*\.json")
"""Pattern of the files of a week: its A/B, and the searches."""
WHOLE = FOLDER / "whole.json"
"""A/B of the first stack and the last one, with which the chain is compared."""
WEEK = datetime.timedelta(7)
UPPER = 0.975
"""Probability below the upper end of a 95 % interval."""


class Week(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done for the week that ends with a Monday's stack."""

    monday: str
    releases: dict[str, tuple[str | None, str | None]] = {}
    """Package that takes part → its releases in both stacks, where they differ."""
    searches: list[str] = []
    """Files of the searches for a release."""
    problem: str = ""
    """Why it was not measured."""

    @property
    def path(self) -> Path:
        """The file of its A/B."""
        return FOLDER / f"{self.monday}.json"

    @property
    def is_kept(self) -> bool:
        """Whether there is nothing left to do for it."""
        return not self.problem and (not self.releases or self.path.exists())

    def affects(self, entrant: str) -> bool:
        """Tell whether a release that differs is part of an entrant."""
        if self.problem and not self.releases:  # nobody knows
            return True
        about = impls.read_declaration(entrant)
        return not {*SHARED_PACKAGES, about.distribution}.isdisjoint(self.releases)


def read_weeks(path: Path | None = None) -> list[Week]:
    """Return the tracked weeks, the oldest first.

    Raises:
        BakeoffError: the file is damaged: names in it would lead elsewhere.
    """
    path = RECORDS if path is None else path
    weeks = msgspec.json.decode(path.read_bytes(), type=list[Week]) if path.exists() else []
    for week in weeks:
        names = f"{week.monday}.json", *week.searches
        if not all(map(NAME.fullmatch, names)) or not DAY.fullmatch(week.monday):
            raise BakeoffError(f"{path} is damaged: {shorten(repr(names))} are no files of a week")
    return weeks


def read_runs(files: Iterable[Path]) -> Iterator[Run]:
    """Yield the run files among some."""
    for path in sorted(files):
        if path.name != RECORDS.name:
            yield read(path, samples=False)


def link(run: Run) -> str:
    """Return a link from a folder of `results/` to the page of a search."""
    folder = "weeks/" if run.name[:4].isdigit() else ""
    return f"[{run.name}](../tracking/{folder}{run.name}.json)"


def lines_of(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table in Markdown, whose cells are Markdown, too."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    yield from (f"| {' | '.join(cells)} |" for cells in rows)


@cache
def compare(path: Path) -> Comparison:
    """Return the comparison in the file of an A/B."""
    return Comparison(read(path, samples=False).results)


# a week


def make_weeks_table(weeks: Iterable[Week], folder: str = "weeks") -> Iterator[str]:
    """Return the lines of a table of the weeks in which a release differs, the newest first.

    Links lead to files in `folder`.
    """
    titles = "releases, week to", "certain effects", "release found"
    rows = []
    for week in reversed(list(weeks)):
        releases = describe_releases(week.releases)
        if week.problem or (week.releases and not week.path.exists()):
            why = escape_text(week.problem or "its file is missing")
            about = [*map(escape_text, releases), week.monday]
            rows.append((", ".join(about), f"not measured: {why}", ""))
        elif week.releases:
            it = compare(week.path)
            about = [*map(escape_text, releases), f"[{week.monday}]({folder}/{week.path.name})"]
            effects = {
                "": name_failures(it),
                "slower: ": name_changes(filter(it.is_worse, it.times)),
                "faster: ": name_changes(filter(it.is_faster, it.times)),
            }
            parts = [f"{kind}{text}" for kind, text in effects.items() if text]
            effect = ". ".join(parts) or "no certain change"
            searches = join_words([describe_search(file, folder) for file in week.searches])
            rows.append((", ".join(about), effect, searches))
    return lines_of(titles, rows)


def name_changes(rows: Iterable[Estimate]) -> str:
    """Return changes in words: of one metric and workload, the largest, and how many more."""
    changes = []
    by_metric = group_by_key(((row.metric, row.cell.workload), row) for row in rows)
    for (metric, workload), alike in by_metric.items():
        largest = max(alike, key=lambda row: abs(log_ratio(row)))
        others = f", and {pluralise(len(alike) - 1, 'more style')}" if len(alike) > 1 else ""
        what = f"{largest.cell.arm} {label(metric)} at {name_workload(workload)}"
        changes.append(escape_text(f"{what} {words(largest)}{others}"))
    return "; ".join(changes)


def name_failures(it: Comparison) -> str:
    """Return the styles that fail with the new stack and did not before; or nothing."""
    lost = [cell for side, cell in it.cells if side == BASE and (NEW, cell) not in it.cells]
    cells = [*(row.cell for row in it.failures), *lost]
    return f"**{escape_text(f'failed: {describe_cells(cells)}')}**" if cells else ""


def describe_search(file: str, folder: str) -> str:
    """Return the release that a search has found, as a link to its file."""
    record = read(FOLDER / file, samples=False).results.search
    before, after = record.releases
    is_known = record.package is not None and record.stopped is None
    release = f"{record.package} {after or before}" if is_known else "undecided"
    return f"[{escape_text(release)}]({folder}/{file})"


# the chain of all weeks


def make_chain_table(weeks: Sequence[Week]) -> Iterator[str]:
    """Yield a table of the numbers of which all factors are known, and the A/B of both ends."""
    weeks, whole = select_span(weeks), compare(WHOLE).times if WHOLE.exists() else []
    direct = {(row.cell, row.metric): row for row in whole}
    rows = []
    for cell, metric in list_numbers(weeks):
        factors = list_factors(weeks, (cell, metric))
        if factors and not (product := multiply(factors)).is_unknown:
            name = f"{cell.arm} {label(metric)} at {name_workload(cell.workload)}"
            row = direct.get((cell, metric))
            rows.append((name, words(product), words(row) if row else ""))
    ends = "last stack relative to the first"
    ends = f"[{ends}](weeks/{WHOLE.name})" if whole else ends
    return lines_of(("style and metric", "product of all weeks", ends), rows)


def describe_agreement(weeks: Sequence[Week]) -> str:
    """Return how many products differ from the A/B of both ends by no more than their errors."""
    agree = []
    for row in compare(WHOLE).times if WHOLE.exists() else []:
        factors = list_factors(select_span(weeks), (row.cell, row.metric))
        if factors and row.standard_error and row.df:
            product = multiply(factors)
            parts = [(find_variance(product), product.df), (find_variance(row), row.df)]
            variance, df = sum_variances(parts, pooled=False)
            distance = abs(log_ratio(product) - log_ratio(row)) / math.sqrt(variance)
            agree.append(distance <= special.stdtrit(df, UPPER) if df else True)
    if not agree:
        return ""
    return (
        f"{sum(agree)} of {len(agree)} products of weeks agree with the A/B of the first and the "
        "last stack, at 95 %."
    )


def select_span(weeks: Sequence[Week]) -> list[Week]:
    """Return the weeks between the ends of the A/B of the whole; all if there is none."""
    if not WHOLE.exists():
        return list(weeks)
    first, last = (side.spec.removeprefix("@") for side in compare(WHOLE).sides)
    return [week for week in weeks if first < week.monday <= last]


def list_numbers(weeks: Iterable[Week]) -> list[Number]:
    """Return the numbers that any week has compared, in the order of metrics."""
    files = [week.path for week in weeks if week.path.exists()]
    numbers = {(row.cell, row.metric) for file in files for row in compare(file).times}
    return sorted(numbers, key=lambda number: (ORDER.index(number[1]), number[0]))


def list_factors(weeks: Sequence[Week], number: Number) -> list[Estimate] | None:
    """Return a number's ratio in each week that affects it; None if it lacks one of them."""
    mondays = [datetime.date.fromisoformat(week.monday) for week in weeks]
    if any(later - earlier != WEEK for earlier, later in pairwise(mondays)):
        return None  # what a week between has changed is not known
    factors = []
    for week in weeks:
        rows = compare(week.path).times if week.path.exists() else []
        row = next((row for row in rows if (row.cell, row.metric) == number), None)
        if row is not None and row.standard_error:
            factors.append(row)
        elif week.affects(number[0].entrant):
            return None
    return factors


def multiply(factors: Sequence[Estimate]) -> Estimate:
    """Return the product of ratios, with its 95 % interval."""
    parts = [(find_variance(row), row.df) for row in factors]
    variance, df = sum_variances(parts, pooled=False)
    error, log = math.sqrt(variance), sum(map(log_ratio, factors))
    half = float(special.stdtrit(df, UPPER)) * error if df else 0.0
    return Estimate(
        cell=factors[0].cell,
        metric=factors[0].metric,
        form="ratio",
        value=math.exp(log),
        against=BASE,
        standard_error=error,
        df=df,
        **make_bounds(log - half, log + half, margin=0.02),
    )


def describe_weeks(weeks: Sequence[Week]) -> str:
    """Return how many weeks were tracked, and in how many of them no release differs."""
    if not weeks:
        return "No week was tracked yet."
    same = sum(not (week.releases or week.problem) for week in weeks)
    return (
        f"{pluralise(len(weeks), 'week')}, up to {weeks[-1].monday}. {same} of them have no "
        "release of JAX, NumPy, Optax or a library, and no row."
    )
