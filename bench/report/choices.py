"""Which library for me: what to take in each situation, by a rule that the reader can check.

Considered are libraries that are maintained and that their authors recommend to new users. Those
that are not shown to be relevantly worse than the best are alike: none is named for noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import impls
from bench.cells import BASELINE
from bench.metrics import COLD, STEP
from bench.report import wording
from bench.report.findings import NUMBERED, REFERENCE
from bench.report.table import percent, words
from bench.report.wording import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.cells import Arm
    from bench.estimates import Estimate
    from bench.report.view import View

MAINTAINED = 4
"""Releases in a year from which on a library is called maintained."""
CHEAP = 1e-5
"""Difference of host costs, in seconds a call, that is never worth another library: 1 % of a step
of a millisecond."""
MOST = 4
"""Situations that are told, the first of those that were measured."""
RULE = (
    f"Considered: JAX libraries with {MAINTAINED} releases or more in a year that their authors "
    "recommend to new users. Alike: not shown to be worse than the best by more than the margin."
)


class Choice(NamedTuple):
    """What to take in a situation."""

    text: str
    alike: tuple[str, ...]
    """Names of the arms that are not shown to be relevantly worse than the best."""

    def __str__(self) -> str:
        """Return it as a sentence."""
        return wording.sentence(self.text)


def choices(view: View) -> list[Choice]:
    """Return what to take in each situation, the most important first."""
    several = (_choice(*situation, view) for situation in _situations(view))
    return [choice for choice in several if choice is not None][:MOST]


def is_candidate(arm: Arm) -> bool:
    """Tell whether an arm is for use, of a library that is maintained, recommended, and JAX's."""
    about = impls.readable(arm.entrant)
    maintained = about.releases.get("in_a_year", 0) >= MAINTAINED
    for_use = arm.style not in about.references and arm.entrant != BASELINE.entrant
    return maintained and about.recommended and about.jax and for_use


def _situations(view: View) -> Iterator[tuple[str, Mapping[Arm, Estimate]]]:
    """Yield what a choice is for, and what was measured of each arm for it; less is better."""
    yield "small models, many short calls", view.hosts()
    for workload in dict.fromkeys((view.main, *view.compared[-1:])):
        yield f"training at {view.at(workload)}", view.comparisons(workload, STEP)
    cold = [w for w in view.workloads if any(view.comparisons(w, metric) for metric in COLD)]
    for workload in cold[-1:]:
        place = view.at(workload)
        yield f"short runs and CI, up to a first step at {place}", view.startups(workload)
        yield f"memory at {place}", view.comparisons(workload, "peak_rss")


def _choice(situation: str, costs: Mapping[Arm, Estimate], view: View) -> Choice | None:
    """Return which arms are best, with all that are not shown to be relevantly worse."""
    known = {
        arm.words: (cost, cost.low, cost.high)
        for arm, cost in sorted(costs.items(), key=lambda item: item[1].value)
        if is_candidate(arm) and cost.low is not None and cost.high is not None
    }
    if len(known) < 2:
        return None
    best = next(iter(known.values()))[0]
    added = best.form == "added"
    limit = best.value + CHEAP if added else best.value * (1 + view.margin)
    near = f"{1e6 * CHEAP:.0f} µs" if added else percent(view.margin)
    alike = [name for name, (_, low, _) in known.items() if low <= limit]
    behind = [name for name in known if name not in alike]
    if len(alike) == 1:
        arms = f"{alike[0]}, {words(best)}"
    else:
        why = f"none is shown to be worse by more than {near}"
        if all(known[name][2] <= limit for name in alike):
            why = f"they do not differ by more than {near}"
        if best.form == "ratio" and all(known[name][0].within(view.margin) for name in alike):
            why = f"all are within ±{near} of {REFERENCE}"
        arms = f"any of {few(alike, NUMBERED)}; {why}"
    after = f"; next: {behind[0]}, {words(known[behind[0]][0])}" if behind else ""
    return Choice(f"{situation}: {arms}{after}", tuple(alike))
