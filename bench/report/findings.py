"""What a run found: each finding is a predicate over estimates, a phrase and a priority.

Nothing is found that the estimates do not hold. Terminal, Markdown and page say the same, from
here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE, PURE
from bench.estimates import detectable
from bench.metrics import STEP
from bench.report import wording
from bench.report.table import amount, change, percent, timed, words
from bench.report.view import views
from bench.report.wording import few, joined
from bench.stats.settle import GROWTH
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.cells import Arm
    from bench.estimates import Estimate
    from bench.report.view import View
    from bench.runfile import Results

REFERENCE = BASELINE.words
SAME_LOSS = 0.01
"""Difference of final losses, in nats per character, within which they are the same."""
OTHER_LOSS = 0.6
"""Difference of median losses, in nats per character, from which on initialisers matter: the losses
of three seeds of one initialiser were seen to differ by up to 0.52."""
NUMBERED, NAMED = 2, 3
"""Arms that a sentence names with their number, and without; tables have the others."""


class Topic(StrEnum):
    """What a finding is about, the most important first."""

    NOTHING = "nothing was measured"
    NOT_COMPARED = "steps have no ratio"
    ADVICE = "what to choose by"
    EQUAL = "steps within the margin"
    DIFFERENT = "steps that are slower or faster"
    ADDED = "what a call costs the host"
    OPEN = "steps that are inconclusive"
    ELSEWHERE = "steps at the widest workload"
    CAUSE = "why a step differs"
    CERTAIN = "steps that differ by less than the margin"
    INITIALISER = "where training gets to"


@dataclass(frozen=True)
class Finding:
    """One thing that a run found."""

    topic: Topic
    text: str
    """In words, without capital and full stop."""
    arms: tuple[str, ...] = ()
    """Names of the arms that it is about."""
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    """Of those arms, where it has numbers."""

    def __str__(self) -> str:
        """Return it as a sentence."""
        return wording.sentence(self.text)


class Rule(NamedTuple):
    """Which estimates make a finding together, and how that is told."""

    topic: Topic
    holds: Callable[[Estimate, float], bool]
    """Whether an estimate belongs to it, by the run's margin."""
    phrase: str
    """With `{place}`, `{margin}`, `{detects}` and `{arms}`."""
    number: Callable[[Estimate], str] | None = None
    """How an arm's number is written; None where arms are named alone."""


EQUAL = Rule(
    Topic.EQUAL,
    lambda row, margin: row.within(margin),
    f"within ±{{margin}} of {REFERENCE} at {{place}}: {{arms}}",
)
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
OPEN = Rule(
    Topic.OPEN,
    lambda row, _: row.verdict in (None, Verdict.INCONCLUSIVE),
    "inconclusive at {place}{detects}: {arms}",
)
CERTAIN = Rule(
    Topic.CERTAIN,
    lambda row, margin: row.within(margin) and row.differs,
    "certain, but within ±{margin} at {place}: {arms}",
    change,
)
HOST_RULE = Rule(
    Topic.ADDED,
    lambda row, _: row.verdict is Verdict.SLOWER,
    "added to each call of a tiny model{place}: {arms}",
    words,
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


def sentences(results: Results) -> list[str]:
    """Return what a run found, one sentence an item."""
    return list(map(str, findings(results)))


def _of_view(view: View) -> Iterator[Finding]:
    """Yield what was found on one backend."""
    if not view.main:
        text = f"steps are not compared{view.on}: none was timed beside {REFERENCE}'s"
        yield Finding(Topic.NOT_COMPARED, text)
    for workload in dict.fromkeys((view.main, *view.compared[-1:])) if view.main else ():
        ratios = view.comparisons(workload, STEP)
        for rule in (EQUAL, SLOWER, FASTER, OPEN, CERTAIN):
            if workload == view.main:
                yield from _applied(rule, ratios, view, workload)
            else:
                yield from _applied(rule._replace(topic=Topic.ELSEWHERE), ratios, view, workload)
    yield from _advice(view)
    yield from _causes(view)
    yield from _applied(HOST_RULE, view.hosts(), view)
    yield from _initialisers(view)


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
        matches = dict(sorted(matches.items(), key=lambda item: -_distance(item[1])))
        arms = few([f"{name} {rule.number(row)}" for name, row in matches.items()], NUMBERED)
    least = detectable(rows.values())
    text = rule.phrase.format(
        place=view.at(workload),
        margin=percent(view.margin),
        detects=f" (this run detects {percent(least)} or more)" if math.isfinite(least) else "",
        arms=arms,
    )
    yield Finding(rule.topic, text, tuple(matches), matches)


def _distance(row: Estimate) -> float:
    """Return how far an estimate is from no difference."""
    return abs(row.value - (1.0 if row.form == "ratio" else 0.0))


def _advice(view: View) -> Iterator[Finding]:
    """Yield that libraries are equally fast where their `pure` steps are, for certain."""
    ratios = {
        arm: ratio
        for arm, ratio in view.comparisons(view.main, STEP).items()
        if not ratio.preliminary
    }
    libraries = {arm.words: ratio for arm, ratio in ratios.items() if arm.style == PURE}
    level = [name for name, ratio in libraries.items() if ratio.within(view.margin)]
    if level:
        everybody = len(level) == len(libraries) > 1
        names = "all libraries" if everybody else joined([REFERENCE, *level])
        costly = any(SLOWER.holds(r, view.margin) for arm, r in ratios.items() if arm.style != PURE)
        mind = "; mind how you write steps" if costly else ""
        text = f"equally fast at {view.at(view.main)}: {names}. Choose by API{mind}"
        yield Finding(Topic.ADVICE, text, tuple(level))


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
            yield Finding(Topic.CAUSE, text, tuple(names))


def cause(view: View, arm: Arm, ratio: Estimate) -> str:
    """Return why an arm's step differs from the baseline's; nothing where the run does not say.

    Where the host cost was not measured, it is the likeliest reason, and another program is not
    given as one.
    """
    proof, host = view.proof(arm, view.main), view.hosts().get(arm)
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


def _initialisers(view: View) -> Iterator[Finding]:
    """Yield what initialisers do, where training from the same weights leads to the same loss."""
    arms = [BASELINE, *view.arms]
    trained = [w for w in view.workloads if any(view.amount(a, w, "final_loss_own") for a in arms)]
    main = wording.main_workload(trained)
    same = [loss.value for arm in arms if (loss := view.amount(arm, main, "final_loss"))]
    own = {arm.words: loss for arm in arms if (loss := view.amount(arm, main, "final_loss_own"))}
    if len(own) < 2 or not same or max(same) - min(same) > SAME_LOSS:
        return
    best, *_, worst = sorted(own, key=lambda name: own[name].value)
    if own[worst].value - own[best].value >= OTHER_LOSS:
        text = (
            f"where training gets to depends on the initialiser: at {view.at(main)}, the loss ends "
            f"at {amount(same[0], 'nats')} from the same weights, and between {words(own[best])} "
            f"({best}) and {words(own[worst])} ({worst}) from the libraries' own"
        )
        yield Finding(Topic.INITIALISER, text, (best, worst), own)
