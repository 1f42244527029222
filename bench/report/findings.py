"""Findings of a run: most are a phrase, and the arms to which it applies.

They come from the estimates alone. Terminal, Markdown and page show the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bench.cells import BASELINE, PURE, Arm, Cell
from bench.estimates import Estimate, EstimateTable, Verdict
from bench.metrics import HOST, STEP, TINY
from bench.report import wording
from bench.report.table import change, percent, ratio_words, words
from bench.report.wording import join_words, name_few
from bench.stats.verdicts import GROWTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bench.runfile import CellResult, Results

REFERENCE = str(BASELINE)
CHEAP_SECONDS = 1e-5
"""Seconds added to a call up to which a style costs next to nothing: 1 % of a step of a
millisecond."""
MOST_NUMBERED = 2
"""Most arms that a sentence names with their number; tables have the others."""
ORDER = (Verdict.EQUIVALENT, Verdict.SLOWER, Verdict.FASTER, Verdict.INCONCLUSIVE)
"""Order of the findings on steps, by verdict."""


@dataclass(frozen=True)
class View:
    """Results on one backend, by arm and workload."""

    backend: str
    backend_suffix: str
    """Text ` on gpu`, to follow a workload; empty if there is one backend."""
    margin: float
    """Fraction within which two times are equivalent."""
    cells: Mapping[Cell, CellResult]
    """Cell → its result, without cells that failed and without the control."""
    table: EstimateTable
    """All estimates of the run."""

    @cached_property
    def workloads(self) -> list[str]:
        """Workloads, the smallest model's first."""
        return wording.sort_workloads(cell.workload for cell in self.cells)

    @cached_property
    def compared_workloads(self) -> list[str]:
        """Workloads at which steps have a ratio; tiny ones only if there are no others."""
        places = [w for w in self.workloads if self.comparisons(w, STEP)]
        return [w for w in places if w not in TINY] or places

    @cached_property
    def main_workload(self) -> str:
        """The workload that sentences name first, among those with ratios of steps."""
        return wording.main_workload(self.compared_workloads)

    def place_words(self, workload: str) -> str:
        """Return a workload in words, with the backend if there are several."""
        return f"{wording.place(workload)}{self.backend_suffix}"

    def amount(self, arm: Arm, workload: str, metric: str) -> Estimate | None:
        """Return an arm's time, size or count; None if it has none, or has failed."""
        return self.table.amount(arm.make_cell(workload, self.backend), metric)

    def comparisons(self, workload: str, metric: str) -> dict[Arm, Estimate]:
        """Return arm → its ratio to the baseline, or the time that it adds."""
        arms = dict.fromkeys(cell.arm for cell in self.cells)
        rows = {
            arm: self.table.comparison(arm.make_cell(workload, self.backend), metric)
            for arm in arms
        }
        return {arm: row for arm, row in rows.items() if row}

    def host_costs(self) -> dict[Arm, Estimate]:
        """Return arm → time added to a call, at the smallest workload where that is known."""
        rows = (self.comparisons(workload, HOST) for workload in reversed(self.workloads))
        return {arm: host for row in rows for arm, host in row.items()}


def list_views(results: Results) -> Iterator[View]:
    """Yield a view of each backend."""
    good = [result for result in results.good_cells if not result.cell.is_control]
    backends, table = dict.fromkeys(result.cell.backend for result in good), results.table
    for backend in backends:
        suffix = f" on {backend}" if len(backends) > 1 else ""
        cells = {result.cell: result for result in good if result.cell.backend == backend}
        yield View(backend, suffix, results.options.margin, cells, table)


def list_findings(results: Results) -> list[str]:
    """Return a run's findings, the most important first, without capitals and full stops."""
    good = results.good_cells
    if not results.estimates and not any(result.proof for result in good):
        count = len(results.cells)
        failed = f": all of the {count} cells failed" if count and not good else ""
        return [f"nothing was measured{failed}"]
    # With several backends, equally important findings stand together.
    by_importance = zip(*map(_find_in_view, list_views(results)), strict=True)
    return [text for parts in by_importance for part in parts for text in part]


def _find_in_view(view: View) -> Iterator[Iterable[str]]:
    """Yield one backend's findings in groups, the most important first; some are empty."""
    main, places = view.main_workload, view.compared_workloads
    widest = places[-1] if places else main
    hosts, calls = view.host_costs(), f"added to each call of a tiny model{view.backend_suffix}"
    none_timed = f"steps are not compared{view.backend_suffix}: none was timed beside {REFERENCE}"
    cheap = {
        arm: row for arm, row in hosts.items() if row.high is not None and row.high <= CHEAP_SECONDS
    }
    dear = {arm: row for arm, row in hosts.items() if row.verdict is Verdict.SLOWER}
    yield [] if main else [none_timed]
    yield _advise(view)
    yield _find_steps(view, main, Verdict.EQUIVALENT)
    yield _find_steps(view, main, Verdict.SLOWER, Verdict.FASTER)
    yield _phrase_arms(f"at most {1e6 * CHEAP_SECONDS:.0f} µs {calls}", cheap)
    yield _phrase_arms(calls, dear, words)
    yield _find_steps(view, main, Verdict.INCONCLUSIVE)
    yield (
        [*_find_steps(view, widest, *ORDER), *_find_certain(view, widest)] if widest != main else []
    )
    yield _find_causes(view)
    yield _find_certain(view, main)


def _find_steps(view: View, workload: str, *verdicts: Verdict) -> Iterator[str]:
    """Yield the arms whose steps have these verdicts; those that differ with their ratio."""
    rows = view.comparisons(workload, STEP)
    for verdict in verdicts:
        differs = verdict in (Verdict.SLOWER, Verdict.FASTER)
        within = f"within ±{percent(view.margin)} of {REFERENCE}"
        what = within if verdict is Verdict.EQUIVALENT else verdict
        arms = {arm: row for arm, row in rows.items() if row.verdict is verdict}
        yield from _phrase_arms(
            f"{what} at {view.place_words(workload)}", arms, ratio_words if differs else None
        )


def _find_certain(view: View, workload: str) -> Iterator[str]:
    """Yield the arms whose steps certainly differ, but by too little to matter."""
    rows = view.comparisons(workload, STEP).items()
    arms = {arm: r for arm, r in rows if r.verdict is Verdict.EQUIVALENT and r.differs}
    what = f"certain, but within ±{percent(view.margin)} at {view.place_words(workload)}"
    yield from _phrase_arms(what, arms, change)


def _phrase_arms(
    what: str, rows: Mapping[Arm, Estimate], number: Callable[[Estimate], str] | None = None
) -> Iterator[str]:
    """Yield a phrase with its arms, if there are any; with numbers, the largest come first."""
    if not rows:
        return
    arms = name_few([*map(str, rows)])
    if number is not None:
        largest = sorted(rows.items(), key=lambda item: -abs(item[1].value - item[1].no_difference))
        arms = name_few([f"{arm} {number(row)}" for arm, row in largest], MOST_NUMBERED)
    yield f"{what}: {arms}"


def _advise(view: View) -> Iterator[str]:
    """Yield which libraries are equally fast: those whose `pure` steps certainly are."""
    rows = view.comparisons(view.main_workload, STEP)
    sure = {arm: row for arm, row in rows.items() if not row.is_preliminary}
    libraries = [arm for arm in sure if arm.style == PURE]
    level = [str(arm) for arm in libraries if sure[arm].verdict is Verdict.EQUIVALENT]
    if level:
        everybody = len(level) == len(libraries) > 1
        names = "all libraries" if everybody else join_words([REFERENCE, *level])
        styles = (row.verdict for arm, row in sure.items() if arm.style != PURE)
        mind = "; mind how you write steps" if Verdict.SLOWER in styles else ""
        place = view.place_words(view.main_workload)
        yield f"equally fast at {place}: {names}. Choose by API{mind}"


def _find_causes(view: View) -> Iterator[str]:
    """Yield why arms are slower or faster, those with the same reason together."""
    ratios = view.comparisons(view.main_workload, STEP)
    place = view.place_words(view.main_workload)
    for verdict in (Verdict.SLOWER, Verdict.FASTER):
        groups: dict[str, list[str]] = {}
        for arm, ratio in ratios.items():
            if ratio.verdict is verdict and (reason := find_cause(view, arm, ratio)):
                groups.setdefault(reason, []).append(str(arm))
        for reason, names in groups.items():
            verb = f"{'is' if len(names) == 1 else 'are'} {verdict}"
            yield f"why {name_few(names)} {verb} at {place}: {reason}"


def find_cause(view: View, arm: Arm, ratio: Estimate) -> str:
    """Return why an arm's step differs from the baseline's; empty where the run does not say.

    If the host cost was not measured, it is the likeliest reason, and another program is not given
    as one.
    """
    result = view.cells.get(arm.make_cell(view.main_workload, view.backend))
    proof = result.proof if result else None
    host = view.host_costs().get(arm)
    compiled = view.amount(arm, view.main_workload, "compilations_warm")
    calls, base_calls = (
        view.amount(a, view.main_workload, "python_calls") for a in (arm, BASELINE)
    )
    if compiled and compiled.value:
        return "it traces and compiles again when warm"
    if proof is None:
        return ""
    if not proof.jax:
        return "not written in JAX"
    if not proof.whole_step:
        return "a step is several programs, not one"
    if host and is_host_cause(host, ratio, view.amount(BASELINE, view.main_workload, STEP)):
        return "what the host does in each call (host cost)"
    if proof.same_program and calls and base_calls and calls.value > base_calls.value:
        return f"the same program, but more Python calls than {REFERENCE}"
    if proof.same_program or not host:
        return ""
    return f"another program ({wording.operations(proof.operations_beside_baseline)})"


def is_host_cause(host: Estimate, ratio: Estimate, base: Estimate | None) -> bool:
    """Tell whether an arm's host cost explains how much slower its step is.

    Between two calls of a larger program the host may take up to `GROWTH` times as long; on several
    cores, a part of its work overlaps with the step.
    """
    if base is None or host.low is None or host.high is None or ratio.low is None:
        return False
    return host.low > 0 and 0 < base.value * (ratio.low - 1) <= GROWTH * host.high
