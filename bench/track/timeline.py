"""A history's estimates along time, their changes, and what differs where something changed."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

import impls
from bench.cells import BASELINE, Cell
from bench.estimates import Estimate, group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY, METRICS
from bench.runfile import find_differing_releases
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import LONG_SERIES, NO_SPREAD, compare_ratios, find_shifts, find_spread
from bench.track.comparison import (
    ORDER,
    find_exact_changes,
    is_costlier,
    is_exact,
    order_releases,
)
from bench.wording import name_workload, sort_workloads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from bench.cells import Arm
    from bench.runfile import EnvironmentInfo, Results, SearchRecord

LEFT_OVER = 0.2
"""Largest part of a change that a repair leaves, in logarithms."""


@dataclass(frozen=True)
class Change:
    """A change of one metric and place, at one time, in one direction; and what took it back."""

    rows: tuple[Estimate, ...]
    """The styles that changed."""
    repair: tuple[Estimate, ...] = ()
    """Their next change, if it brings back at least four fifths of this one."""

    @property
    def first(self) -> Estimate:
        """One of the rows: all have its metric, place and moments."""
        return self.rows[0]

    @property
    def factor(self) -> float:
        """Factor of the largest row, at least 1; 0 for exact numbers."""
        return max(max(r.value, 1 / r.value) if r.form == "ratio" else 0.0 for r in self.rows)

    def is_of(self, metric: str) -> bool:
        """Tell whether it is a change of this metric."""
        return self.first.metric == metric

    def is_repaired_by(self, later: Change) -> bool:
        """Tell whether the next change of the same metric and place takes this one back."""
        logs, back = ({r.cell: math.log(r.value) for r in c.rows} for c in (self, later))
        whole = sum(logs.values())
        left = whole + sum(back.get(cell, 0.0) for cell in logs)
        return logs.keys() <= back.keys() and abs(left) <= LEFT_OVER * abs(whole)


@dataclass(frozen=True)
class ReleaseEffect:
    """What a search found: the release, and the ratio of it to the one before."""

    release: str
    """Package and version: `jax 0.7.1`."""
    row: Estimate
    search: SearchRecord
    """The search that found it."""


class Timeline:
    """Views of the results of a history, and of searches for the releases of its changes."""

    def __init__(self, results: Results, searches: Iterable[SearchRecord] = ()) -> None:
        self.results, self.searches = results, tuple(searches)
        self.is_measured = bool(results.base)
        """Whether its days were measured beside a reference; if not, its moments are kept runs."""
        base, against = results.base, results.base or str(BASELINE)
        rows = [r for r in results.estimates if r.environment != base and not r.cell.is_control]
        self.series = sort_series(r for r in rows if r.against == against and r.form == "ratio")
        """Cell and metric → comparisons along time."""
        self.counts = sort_series(filter(is_exact, rows))
        """Cell and metric → exact numbers along time."""
        unsteady = {(row.cell, name) for row in results.cells for name in row.missing}
        self.untested = [
            key
            for key, rows in self.series.items()
            if not self.is_measured and key in unsteady and len(rows) < LONG_SERIES
        ]
        """Series too short to show how much runs of the same code differ, where errors do not."""
        points = [*self.series.values(), *self.counts.values()]
        present = {row.environment for rows in points for row in rows}
        self.moments = [name for name in results.environments if name in present]
        self.comparisons = sum(len(rows) - 1 for rows in points) - sum(
            len(self.series[key]) - 1 for key in self.untested
        )
        """Number of neighbours in time that are compared."""
        self.backends = {cell.backend for cell, _ in (*self.series, *self.counts)}

    @cached_property
    def differences(self) -> list[Estimate]:
        """Differences of neighbouring stretches of one level; p is corrected for all places."""
        of_runs = (lambda _: NO_SPREAD) if self.is_measured else find_spread
        margin = self.results.options.margin
        series = [rows for key, rows in self.series.items() if key not in self.untested]
        return find_shifts(series, of_runs, pooled=self.is_measured, margin=margin)

    @cached_property
    def last_to_first(self) -> list[Estimate]:
        """The last day's stack relative to the first one's, corrected for all that are compared."""
        first, last = self.moments[0], self.moments[-1]
        pairs = [
            (rows[0], rows[-1])
            for rows in self.series.values()
            if (rows[0].environment, rows[-1].environment) == (first, last)
        ]
        margin = self.results.options.margin
        return [
            compare_ratios([a], [b], comparisons=len(pairs), pooled=True, margin=margin)
            for a, b in pairs
        ]

    @cached_property
    def changes(self) -> list[Change]:
        """Changes, the largest first; in a history of runs, the newest.

        Exact numbers need no test. Metrics that decide nothing, such as the length of a program,
        are left out.
        """
        groups: dict[tuple[object, ...], list[Estimate]] = defaultdict(list)
        for row in (*self.differences, *find_exact_changes(self.counts.values())):
            if METRICS[row.metric].weight and not METRICS[row.metric].neutral:
                at = row.cell.workload if row.form == "ratio" else ""  # all sizes count alike
                what = row.metric, at, row.cell.backend
                groups[*what, row.against, row.environment, is_costlier(row)].append(row)
        changes = [Change(tuple(rows)) for rows in groups.values()]
        if self.is_measured:
            of_place = group_by_key((key[:3], c) for key, c in zip(groups, changes, strict=True))
            return sorted(self._pair_repairs(of_place), key=lambda change: -change.factor)
        return sorted(changes, key=lambda change: change.first.environment, reverse=True)

    @property
    def distinct_changes(self) -> list[Change]:
        """Changes without those of a call's time per array where the call itself changed."""
        calls = {(c.first.environment, c.first.cell.place) for c in self.changes if c.is_of(HOST)}
        places = ((c, (c.first.environment, c.first.cell.place)) for c in self.changes)
        return [c for c, place in places if not c.is_of(HOST_PER_ARRAY) or place not in calls]

    def _pair_repairs(self, changes: dict[tuple[object, ...], list[Change]]) -> Iterator[Change]:
        """Yield the changes of each metric and place; one that the next takes back, with that."""
        for here in changes.values():
            here.sort(key=lambda change: change.first.environment)
            while here:
                change, *later = here
                if later and later[0].factor and change.is_repaired_by(later[0]):
                    change = Change(change.rows, later.pop(0).rows)
                yield change
                here = later

    def find_effects(self, rows: Sequence[Estimate]) -> Iterator[ReleaseEffect]:
        """Yield what searches found of a change: the same metric, direction and release.

        The release lies between the change's days; the search was of one of its styles, or the
        package is shared by all. It may have been at another size.
        """
        if not rows:
            return
        before, after = self.list_sides(rows)
        differing = find_differing_releases(before.versions, after.versions)
        metric = HOST if rows[0].metric == HOST_PER_ARRAY else rows[0].metric  # as `write_search`
        arms = {row.cell.arm for row in rows}
        for search in self.searches:
            has_end = search.stopped is None and bool(search.steps)
            if not has_end or search.package not in differing or search.metric != metric:
                continue
            (_, new), row = order_releases(search.releases, search.steps[-1].row)
            is_here = search.cell.arm in arms or search.package in SHARED_PACKAGES
            is_alike = is_costlier(row) == is_costlier(rows[0])
            is_on = search.cell.backend == rows[0].cell.backend
            if is_here and is_on and is_alike and is_between(new, *differing[search.package]):
                yield ReleaseEffect(f"{search.package} {new}", row, search)

    def list_arms(self, metric: str, places: Collection[tuple[str, str]]) -> list[Arm]:
        """Return the arms that have a metric at one of these workloads and backends."""
        keys = (*self.series, *self.counts)
        arms = (c.arm for c, name in keys if name == metric and (c.workload, c.backend) in places)
        return list(dict.fromkeys(arms))

    def describe_place(self, cell: Cell) -> str:
        """Return a cell's workload in words, and its backend where there are several."""
        backend = f" on {cell.backend}" * (len(self.backends) > 1)
        return f"{name_workload(cell.workload)}{backend}"

    def list_sides(self, changes: Sequence[Estimate]) -> list[EnvironmentInfo]:
        """Return the environments before and after a change."""
        moments = changes[0].against, changes[0].environment
        return [self.results.environments[moment] for moment in moments]

    def find_differing(
        self, changes: Sequence[Estimate]
    ) -> dict[str, tuple[str | None, str | None]]:
        """Return package → its releases before and after a change, the likeliest cause first.

        If the styles of one library alone changed, that is the library, else JAX. The libraries of
        entrants without such a change come last.
        """
        before, after = self.list_sides(changes)
        pairs = find_differing_releases(before.versions, after.versions)
        changed = {_find_distribution(row.cell.entrant) for row in changes}

        def rank(name: str) -> tuple[bool, ...]:
            return self.is_no_cause(name, changes), {name} != changed, not name.startswith("jax")

        return {name: pairs[name] for name in sorted(pairs, key=rank)}

    def is_no_cause(self, package: str, changes: Sequence[Estimate]) -> bool:
        """Tell whether a package is a library whose entrants were measured without a change."""
        changed = {_find_distribution(row.cell.entrant) for row in changes}
        measured = {_find_distribution(cell.entrant) for cell, _ in (*self.series, *self.counts)}
        return package not in SHARED_PACKAGES and package in measured - changed

    def find_commits(self, changes: Sequence[Estimate]) -> str:
        """Return the commits before and after a change, if they differ."""
        before, after = (info.commit for info in self.list_sides(changes))
        return f"{before} → {after}" if before and after and before != after else ""


def is_between(release: str | None, first: str | None, last: str | None) -> bool:
    """Tell whether a release is later than a first one, and no later than a last one.

    What is no release, such as a commit, never is.
    """
    with suppress(InvalidVersion):
        return bool(first and release and last) and (
            Version(str(first)) < Version(str(release)) <= Version(str(last))
        )
    return False


def sort_series(rows: Iterable[Estimate]) -> dict[tuple[Cell, str], list[Estimate]]:
    """Return each cell's and metric's series along time: by metric, then by the model's size."""
    by_time = sorted(rows, key=lambda row: row.environment)
    series = group_by_key(((row.cell, row.metric), row) for row in by_time)
    sizes = sort_workloads(cell.workload for cell, _ in series)

    def rank(key: tuple[Cell, str]) -> tuple[object, ...]:
        cell, metric = key
        where = ORDER.index(metric), cell.backend, sizes.index(cell.workload)
        return *where, not cell.is_baseline, cell

    return {key: series[key] for key in sorted(series, key=rank)}


@cache
def _find_distribution(entrant: str) -> str:
    """Return the distribution of an entrant's library; its file is read once."""
    known = entrant in impls.names()
    return (impls.read_declaration(entrant).distribution if known else "") or entrant
