"""What a run found: most findings are a predicate over estimates and a phrase.

Nothing is found that the estimates do not hold. Terminal, Markdown and page say the same, from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE, PURE
from bench.estimates import Verdict
from bench.metrics import HOST, STEP, TINY
from bench.report import wording
from bench.report.table import change, percent, timed, words
from bench.report.wording import few, joined
from bench.stats.verdicts import GROWTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bench.cells import Arm, Cell
    from bench.estimates import Estimate, EstimateTable
    from bench.runfile import CellResult, Results

REFERENCE = BASELINE.words
CHEAP = 1e-5
"""Seconds added to a call up to which a style costs next to nothing: 1 % of a step of a
millisecond."""
NUMBERED, NAMED = 2, 3
"""Arms that a sentence names with their number, and without; tables have the others."""


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
    def arms(self) -> list[Arm]:
        """All arms but the baseline."""
        return [a for a in dict.fromkeys(cell.arm for cell in self.cells) if a != BASELINE]

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
        rows = {a: self.table.comparison(a.at(workload, self.backend), metric) for a in self.arms}
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


class Rule(NamedTuple):
    """Which estimates make a finding together, and how that is told."""

    phrase: str
    """With `{place}`, `{margin}` and `{arms}`."""
    holds: Callable[[Estimate, float], bool]
    """Whether an estimate belongs to it, by the run's margin."""
    number: Callable[[Estimate], str] | None = None
    """How an arm's number is written; None where arms are named alone."""


EQUAL = Rule(
    f"within ±{{margin}} of {REFERENCE} at {{place}}: {{arms}}",
    lambda row, margin: row.within(margin),
)
SLOWER = Rule(
    "slower at {place}: {arms}",
    lambda row, margin: row.verdict is Verdict.SLOWER and not row.within(margin),
    timed,
)
FASTER = Rule(
    "faster at {place}: {arms}",
    lambda row, margin: row.verdict is Verdict.FASTER and not row.within(margin),
    timed,
)
OPEN = Rule(
    "inconclusive at {place}: {arms}",
    lambda row, _: row.verdict in (None, Verdict.INCONCLUSIVE),
)
CERTAIN = Rule(
    "certain, but within ±{margin} at {place}: {arms}",
    lambda row, margin: row.within(margin) and row.differs,
    change,
)
CHEAP_CALLS = Rule(
    f"at most {1e6 * CHEAP:.0f} µs added to each call of a tiny model{{place}}: {{arms}}",
    lambda row, _: row.high is not None and row.high <= CHEAP,
)
DEAR_CALLS = Rule(
    "added to each call of a tiny model{place}: {arms}",
    lambda row, _: row.verdict is Verdict.SLOWER,
    words,
)


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
    steps = partial(_told, view, view.comparisons(view.main, STEP), view.main)
    calls = partial(_told, view, view.hosts(), "")
    widest = view.compared[-1] if view.compared else view.main
    elsewhere = view.comparisons(widest, STEP) if widest != view.main else {}
    none_timed = f"steps are not compared{view.on}: none was timed beside {REFERENCE}'s"
    yield [] if view.main else [none_timed]
    yield _advice(view)
    yield steps(EQUAL)
    yield steps(SLOWER, FASTER)
    yield calls(CHEAP_CALLS)
    yield calls(DEAR_CALLS)
    yield steps(OPEN)
    yield _told(view, elsewhere, widest, EQUAL, SLOWER, FASTER, OPEN, CERTAIN)
    yield _causes(view)
    yield steps(CERTAIN)


def _told(view: View, rows: Mapping[Arm, Estimate], workload: str, *rules: Rule) -> Iterator[str]:
    """Yield what rules say of some estimates, those that hold for any."""
    for rule in rules:
        matches = {arm.words: row for arm, row in rows.items() if rule.holds(row, view.margin)}
        if rule.number is None:
            arms = few(list(matches), NAMED)
        else:
            largest = sorted(matches.items(), key=lambda item: -_distance(item[1]))
            arms = few([f"{name} {rule.number(row)}" for name, row in largest], NUMBERED)
        if matches:
            place, margin = view.at(workload), percent(view.margin)
            yield rule.phrase.format(place=place, margin=margin, arms=arms)


def _distance(row: Estimate) -> float:
    """Return how far an estimate is from no difference."""
    return abs(row.value - (1.0 if row.form == "ratio" else 0.0))


def _advice(view: View) -> Iterator[str]:
    """Yield that libraries are equally fast where their `pure` steps are, for certain."""
    rows = view.comparisons(view.main, STEP)
    sure = {arm: row for arm, row in rows.items() if not row.preliminary}
    libraries = [arm for arm in sure if arm.style == PURE]
    level = [arm.words for arm in libraries if sure[arm].within(view.margin)]
    if level:
        everybody = len(level) == len(libraries) > 1
        names = "all libraries" if everybody else joined([REFERENCE, *level])
        costly = any(SLOWER.holds(row, view.margin) for a, row in sure.items() if a.style != PURE)
        mind = "; mind how you write steps" if costly else ""
        yield f"equally fast at {view.at(view.main)}: {names}. Choose by API{mind}"


def _causes(view: View) -> Iterator[str]:
    """Yield why arms are slower or faster, those with the same reason together."""
    ratios = view.comparisons(view.main, STEP)
    for rule in (SLOWER, FASTER):
        groups: dict[str, list[str]] = {}
        for arm, ratio in ratios.items():
            if rule.holds(ratio, view.margin) and (reason := cause(view, arm, ratio)):
                groups.setdefault(reason, []).append(arm.words)
        for reason, names in groups.items():
            verb = f"{'is' if len(names) == 1 else 'are'} {rule.phrase.split()[0]}"
            yield f"why {few(names, NAMED)} {verb} at {view.at(view.main)}: {reason}"


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
        return f"the same program, but more Python calls than {REFERENCE}'s"
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
