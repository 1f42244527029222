"""What a run found: most findings are a phrase, and the arms of which it holds.

Nothing is found that the estimates do not hold. Terminal, Markdown and page say the same, from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bench.cells import BASELINE, PURE, Arm, Cell
from bench.estimates import Estimate, EstimateTable, Verdict
from bench.metrics import HOST, STEP, TINY
from bench.report import wording
from bench.report.table import change, percent, timed, words
from bench.report.wording import few, joined
from bench.stats.verdicts import GROWTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bench.runfile import CellResult, Results

REFERENCE = str(BASELINE)
CHEAP = 1e-5
"""Seconds added to a call up to which a style costs next to nothing: 1 % of a step of a
millisecond."""
NUMBERED = 2
"""Arms that a sentence names with their number; tables have the others."""
ORDER = (Verdict.EQUIVALENT, Verdict.SLOWER, Verdict.FASTER, Verdict.INCONCLUSIVE)
"""Order in which findings say how steps stand to the baseline's."""


@dataclass(frozen=True)
class View:
    """What was measured on one backend, by arm and workload."""

    backend: str
    on: str
    """The backend in words, as in ` on gpu`; nothing if there is no other."""
    margin: float
    """Fraction within which two times are equivalent."""
    cells: Mapping[Cell, CellResult]
    """Without those that have failed, and without the control."""
    table: EstimateTable
    """All estimates of the run."""

    @cached_property
    def workloads(self) -> list[str]:
        """The smallest model's first."""
        return wording.ordered(cell.workload for cell in self.cells)

    @cached_property
    def compared(self) -> list[str]:
        """Workloads at which steps have a ratio; tiny ones only if there are no others."""
        places = [w for w in self.workloads if self.comparisons(w, STEP)]
        return [w for w in places if w not in TINY] or places

    @cached_property
    def main(self) -> str:
        """The workload that is spoken about first, among those with ratios of steps."""
        return wording.main_workload(self.compared)

    def at(self, workload: str) -> str:
        """Return a workload in words, with the backend if there are several."""
        return f"{wording.place(workload)}{self.on}"

    def amount(self, arm: Arm, workload: str, metric: str) -> Estimate | None:
        """Return an arm's time, size or count; None if it has none, or has failed."""
        return self.table.amount(arm.at(workload, self.backend), metric)

    def comparisons(self, workload: str, metric: str) -> dict[Arm, Estimate]:
        """Return the arms' ratios to the baseline, or what they add to it."""
        arms = dict.fromkeys(cell.arm for cell in self.cells)
        rows = {arm: self.table.comparison(arm.at(workload, self.backend), metric) for arm in arms}
        return {arm: row for arm, row in rows.items() if row}

    def hosts(self) -> dict[Arm, Estimate]:
        """Return what arms add to a call, at the smallest workload where that is known."""
        rows = (self.comparisons(workload, HOST) for workload in reversed(self.workloads))
        return {arm: host for row in rows for arm, host in row.items()}


def views(results: Results) -> Iterator[View]:
    """Yield a view of each backend."""
    good = [result for result in results.good if not result.cell.is_control]
    backends, table = dict.fromkeys(result.cell.backend for result in good), results.table
    for backend in backends:
        on = f" on {backend}" if len(backends) > 1 else ""
        cells = {result.cell: result for result in good if result.cell.backend == backend}
        yield View(backend, on, results.options.margin, cells, table)


def findings(results: Results) -> list[str]:
    """Return what a run found, the most important first, without capitals and full stops."""
    good = results.good
    if not results.estimates and not any(result.proof for result in good):
        count = len(results.cells)
        failed = f": all of the {count} cells failed" if count and not good else ""
        return [f"nothing was measured{failed}"]
    # Of several backends, what is equally important stands together.
    by_importance = zip(*map(_of_view, views(results)), strict=True)
    return [text for parts in by_importance for part in parts for text in part]


def _of_view(view: View) -> Iterator[Iterable[str]]:
    """Yield what was found on one backend in parts, the most important first; some are empty."""
    main, widest = view.main, view.compared[-1] if view.compared else view.main
    hosts, calls = view.hosts(), f"added to each call of a tiny model{view.on}"
    none_timed = f"steps are not compared{view.on}: none was timed beside {REFERENCE}"
    cheap = {arm: row for arm, row in hosts.items() if row.high is not None and row.high <= CHEAP}
    dear = {arm: row for arm, row in hosts.items() if row.verdict is Verdict.SLOWER}
    yield [] if main else [none_timed]
    yield _advice(view)
    yield _steps(view, main, Verdict.EQUIVALENT)
    yield _steps(view, main, Verdict.SLOWER, Verdict.FASTER)
    yield _told(f"at most {1e6 * CHEAP:.0f} µs {calls}", cheap)
    yield _told(calls, dear, words)
    yield _steps(view, main, Verdict.INCONCLUSIVE)
    yield [*_steps(view, widest, *ORDER), *_certain(view, widest)] if widest != main else []
    yield _causes(view)
    yield _certain(view, main)


def _steps(view: View, workload: str, *verdicts: Verdict) -> Iterator[str]:
    """Yield the arms whose steps stand so to the baseline's; those that differ with their ratio."""
    rows = view.comparisons(workload, STEP)
    for verdict in verdicts:
        differs = verdict in (Verdict.SLOWER, Verdict.FASTER)
        within = f"within ±{percent(view.margin)} of {REFERENCE}"
        what = within if verdict is Verdict.EQUIVALENT else verdict
        arms = {arm: row for arm, row in rows.items() if row.verdict is verdict}
        yield from _told(f"{what} at {view.at(workload)}", arms, timed if differs else None)


def _certain(view: View, workload: str) -> Iterator[str]:
    """Yield the arms whose steps certainly differ, by too little to matter."""
    rows = view.comparisons(workload, STEP).items()
    arms = {arm: r for arm, r in rows if r.verdict is Verdict.EQUIVALENT and r.differs}
    what = f"certain, but within ±{percent(view.margin)} at {view.at(workload)}"
    yield from _told(what, arms, change)


def _told(
    what: str, rows: Mapping[Arm, Estimate], number: Callable[[Estimate], str] | None = None
) -> Iterator[str]:
    """Yield what holds for some arms, if for any; with their numbers, the largest come first."""
    if not rows:
        return
    arms = few([*map(str, rows)])
    if number is not None:
        largest = sorted(rows.items(), key=lambda item: -abs(item[1].value - item[1].no_difference))
        arms = few([f"{arm} {number(row)}" for arm, row in largest], NUMBERED)
    yield f"{what}: {arms}"


def _advice(view: View) -> Iterator[str]:
    """Yield that libraries are equally fast where their `pure` steps are, for certain."""
    rows = view.comparisons(view.main, STEP)
    sure = {arm: row for arm, row in rows.items() if not row.preliminary}
    libraries = [arm for arm in sure if arm.style == PURE]
    level = [str(arm) for arm in libraries if sure[arm].verdict is Verdict.EQUIVALENT]
    if level:
        everybody = len(level) == len(libraries) > 1
        names = "all libraries" if everybody else joined([REFERENCE, *level])
        styles = (row.verdict for arm, row in sure.items() if arm.style != PURE)
        mind = "; mind how you write steps" if Verdict.SLOWER in styles else ""
        yield f"equally fast at {view.at(view.main)}: {names}. Choose by API{mind}"


def _causes(view: View) -> Iterator[str]:
    """Yield why arms are slower or faster, those with the same reason together."""
    ratios = view.comparisons(view.main, STEP)
    for verdict in (Verdict.SLOWER, Verdict.FASTER):
        groups: dict[str, list[str]] = {}
        for arm, ratio in ratios.items():
            if ratio.verdict is verdict and (reason := cause(view, arm, ratio)):
                groups.setdefault(reason, []).append(str(arm))
        for reason, names in groups.items():
            verb = f"{'is' if len(names) == 1 else 'are'} {verdict}"
            yield f"why {few(names)} {verb} at {view.at(view.main)}: {reason}"


def cause(view: View, arm: Arm, ratio: Estimate) -> str:
    """Return why an arm's step differs from the baseline's; nothing where the run does not say.

    Where the host cost was not measured, it is the likeliest reason, and another program is not
    given as one.
    """
    result = view.cells.get(arm.at(view.main, view.backend))
    proof = result.proof if result else None
    host = view.hosts().get(arm)
    compiled = view.amount(arm, view.main, "compilations_warm")
    calls, base_calls = (view.amount(a, view.main, "python_calls") for a in (arm, BASELINE))
    if compiled and compiled.value:
        return "it traces and compiles again when warm"
    if proof is None:
        return ""
    if not proof.jax:
        return "not written in JAX"
    if not proof.whole_step:
        return "a step is several programs, not one"
    if host and explains(host, ratio, view.amount(BASELINE, view.main, STEP)):
        return "what the host does in each call (host cost)"
    if proof.same_program and calls and base_calls and calls.value > base_calls.value:
        return f"the same program, but more Python calls than {REFERENCE}"
    if proof.same_program or not host:
        return ""
    return f"another program ({wording.operations(proof.operations_beside_baseline)})"


def explains(host: Estimate, ratio: Estimate, base: Estimate | None) -> bool:
    """Tell whether what an arm costs the host explains by how much its step is slower.

    Between two calls of a larger program the host may take up to `GROWTH` times as long; on several
    cores, a part of what it does overlaps with the step.
    """
    if base is None or host.low is None or host.high is None or ratio.low is None:
        return False
    return host.low > 0 and 0 < base.value * (ratio.low - 1) <= GROWTH * host.high
