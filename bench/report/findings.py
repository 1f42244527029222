"""What a run found: each finding is a predicate over estimates, a phrase and a priority.

Nothing is found that the estimates do not hold. Terminal, Markdown and page say the same, from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE, PURE
from bench.estimates import EstimateTable, Verdict
from bench.metrics import HOST, STEP, TINY
from bench.report import wording
from bench.report.table import change, percent, timed, words
from bench.report.wording import few, joined
from bench.stats.verdicts import GROWTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.cells import Arm, Cell
    from bench.estimates import Estimate
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
    """The estimates of these cells."""

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
        hosts: dict[Arm, Estimate] = {}
        for workload in reversed(self.workloads):
            hosts |= self.comparisons(workload, HOST)
        return hosts


def views(results: Results) -> Iterator[View]:
    """Yield a view of each backend."""
    good = [result for result in results.good if not result.cell.is_control]
    backends = list(dict.fromkeys(result.cell.backend for result in good))
    for backend in backends:
        on = f" on {backend}" if len(backends) > 1 else ""
        cells = {result.cell: result for result in good if result.cell.backend == backend}
        table = EstimateTable(row for row in results.estimates if row.cell in cells)
        yield View(backend, on, results.options.margin, cells, table)


class Topic(StrEnum):
    """What a finding is about, the most important first."""

    NOTHING = "nothing was measured"
    NOT_COMPARED = "steps have no ratio"
    ADVICE = "what to choose by"
    EQUAL = "steps within the margin"
    DIFFERENT = "steps that are slower or faster"
    CHEAP = "calls that cost the host next to nothing"
    ADDED = "what a call costs the host"
    OPEN = "steps that are inconclusive"
    ELSEWHERE = "steps at the widest workload"
    CAUSE = "why a step differs"
    CERTAIN = "steps that differ by less than the margin"


class Finding(NamedTuple):
    """One thing that a run found."""

    topic: Topic
    text: str
    """In words, without capital and full stop."""


class Rule(NamedTuple):
    """Which estimates make a finding together, and how that is told."""

    topic: Topic
    holds: Callable[[Estimate, float], bool]
    """Whether an estimate belongs to it, by the run's margin."""
    phrase: str
    """With `{place}`, `{margin}` and `{arms}`."""
    number: Callable[[Estimate], str] | None = None
    """How an arm's number is written; None where arms are named alone."""


SLOWER = Rule(
    Topic.DIFFERENT,
    lambda row, margin: row.verdict is Verdict.SLOWER and not row.within(margin),
    "slower at {place}: {arms}",
    timed,
)
FASTER = Rule(
    Topic.DIFFERENT,
    lambda row, margin: row.verdict is Verdict.FASTER and not row.within(margin),
    "faster at {place}: {arms}",
    timed,
)
OF_STEPS = (
    Rule(
        Topic.EQUAL,
        lambda row, margin: row.within(margin),
        f"within ±{{margin}} of {REFERENCE} at {{place}}: {{arms}}",
    ),
    SLOWER,
    FASTER,
    Rule(
        Topic.OPEN,
        lambda row, _: row.verdict in (None, Verdict.INCONCLUSIVE),
        "inconclusive at {place}: {arms}",
    ),
    Rule(
        Topic.CERTAIN,
        lambda row, margin: row.within(margin) and row.differs,
        "certain, but within ±{margin} at {place}: {arms}",
        change,
    ),
)
OF_CALLS = (
    Rule(
        Topic.CHEAP,
        lambda row, _: row.high is not None and row.high <= CHEAP,
        f"at most {1e6 * CHEAP:.0f} µs added to each call of a tiny model{{place}}: {{arms}}",
    ),
    Rule(
        Topic.ADDED,
        lambda row, _: row.verdict is Verdict.SLOWER,
        "added to each call of a tiny model{place}: {arms}",
        words,
    ),
)


def findings(results: Results) -> list[Finding]:
    """Return what a run found, the most important first."""
    good = results.good
    if not results.estimates and not any(result.proof for result in good):
        count = len(results.cells)
        failed = f": all of the {count} cells failed" if count and not good else ""
        return [Finding(Topic.NOTHING, f"nothing was measured{failed}")]
    order = list(Topic)
    several = [finding for view in views(results) for finding in _of_view(view)]
    return sorted(several, key=lambda finding: order.index(finding.topic))


def _of_view(view: View) -> Iterator[Finding]:
    """Yield what was found on one backend."""
    if not view.main:
        text = f"steps are not compared{view.on}: none was timed beside {REFERENCE}'s"
        yield Finding(Topic.NOT_COMPARED, text)
    for workload in dict.fromkeys((view.main, *view.compared[-1:])) if view.main else ():
        for rule in OF_STEPS:
            if workload != view.main:
                rule = rule._replace(topic=Topic.ELSEWHERE)
            yield from _applied(rule, view.comparisons(workload, STEP), view, workload)
    for rule in OF_CALLS:
        yield from _applied(rule, view.hosts(), view)
    yield from _advice(view)
    yield from _causes(view)


def _applied(
    rule: Rule, rows: Mapping[Arm, Estimate], view: View, workload: str = ""
) -> Iterator[Finding]:
    """Yield the finding of a rule, if there are estimates that it holds for."""
    matches = {arm.words: row for arm, row in rows.items() if rule.holds(row, view.margin)}
    if not matches:
        return
    if rule.number is None:
        arms = few(list(matches), NAMED)
    else:
        largest = sorted(matches.items(), key=lambda item: -_distance(item[1]))
        arms = few([f"{name} {rule.number(row)}" for name, row in largest], NUMBERED)
    text = rule.phrase.format(
        place=view.at(workload),
        margin=percent(view.margin),
        arms=arms,
    )
    yield Finding(rule.topic, text)


def _distance(row: Estimate) -> float:
    """Return how far an estimate is from no difference."""
    return abs(row.value - (1.0 if row.form == "ratio" else 0.0))


def _advice(view: View) -> Iterator[Finding]:
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
        text = f"equally fast at {view.at(view.main)}: {names}. Choose by API{mind}"
        yield Finding(Topic.ADVICE, text)


def _causes(view: View) -> Iterator[Finding]:
    """Yield why arms are slower or faster, those with the same reason together."""
    ratios = view.comparisons(view.main, STEP)
    for rule in (SLOWER, FASTER):
        groups: dict[str, list[str]] = {}
        for arm, ratio in ratios.items():
            if rule.holds(ratio, view.margin) and (reason := cause(view, arm, ratio)):
                groups.setdefault(reason, []).append(arm.words)
        for reason, names in groups.items():
            verb = f"{'is' if len(names) == 1 else 'are'} {rule.phrase.split()[0]}"
            text = f"why {few(names, NAMED)} {verb} at {view.at(view.main)}: {reason}"
            yield Finding(Topic.CAUSE, text)


def cause(view: View, arm: Arm, ratio: Estimate) -> str:
    """Return why an arm's step differs from the baseline's; nothing where the run does not say.

    Where the host cost was not measured, it is the likeliest reason, and another program is not
    given as one.
    """
    proof = view.cells[arm.at(view.main, view.backend)].proof
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

    Between two calls of a larger program the host may take up to `GROWTH` times as long.
    """
    if base is None or host.low is None or host.high is None:
        return False
    if ratio.low is None or ratio.high is None:
        return False
    least, most = (base.value * (end - 1) for end in (ratio.low, ratio.high))
    return host.low > 0 and least <= GROWTH * host.high and most >= host.low
