"""A history's estimates along time, their changes, and what differs where something changed."""

from __future__ import annotations

from collections import defaultdict
from functools import cache, cached_property
from typing import TYPE_CHECKING

import impls
from bench.cells import BASELINE, Cell
from bench.estimates import Estimate, group_by_key
from bench.metrics import METRICS
from bench.runfile import find_differing_releases
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import LONG_SERIES, NO_SPREAD, compare_ratios, find_shifts, find_spread
from bench.track.comparison import ORDER, find_exact_changes, is_costlier, is_exact
from bench.wording import name_workload, sort_workloads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bench.cells import Arm
    from bench.runfile import EnvironmentInfo, Results


class Timeline:
    """Views of the results of a history."""

    def __init__(self, results: Results) -> None:
        self.results = results
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
    def changes(self) -> list[list[Estimate]]:
        """Changes in groups: of one metric and place, at one time, in one direction.

        The largest come first; in a history of runs, the newest. Exact numbers need no test.
        Metrics that decide nothing, such as the length of a program, are left out.
        """
        groups: dict[tuple[object, ...], list[Estimate]] = defaultdict(list)
        for row in (*self.differences, *find_exact_changes(self.counts.values())):
            if METRICS[row.metric].weight and not METRICS[row.metric].neutral:
                at = row.cell.workload if row.form == "ratio" else ""  # all sizes count alike
                what = row.metric, at, row.cell.backend
                groups[*what, row.against, row.environment, is_costlier(row)].append(row)
        if self.is_measured:
            return sorted(groups.values(), key=lambda rows: -max(map(find_factor, rows)))
        return sorted(groups.values(), key=lambda rows: rows[0].environment, reverse=True)

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


def find_factor(row: Estimate) -> float:
    """Return the factor of a change, at least 1; 0 for exact numbers, which come last."""
    return max(row.value, 1 / row.value) if row.form == "ratio" else 0.0


@cache
def _find_distribution(entrant: str) -> str:
    """Return the distribution of an entrant's library; its file is read once."""
    known = entrant in impls.names()
    return (impls.read_declaration(entrant).distribution if known else "") or entrant
