"""What a run found: who is equal, slower or faster, by how much, and why; as data and in words.

Terminal, Markdown and page say the same, from here. Nothing is found that the section does not
hold; what could not be told apart is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Arm
from bench.metrics import HOST, STARTUP, TINY, label
from bench.report import wording
from bench.report.table import Value, amount, percent
from bench.report.wording import few, joined
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.runfile import Additivity, BakeoffSection, Control, Metric, Result

AGREE = 0.01
"""Nats per character within which losses from the same weights are the same."""
MORE_CORES = 1.5
"""A step that uses so many times as many cores as the others is no fair comparison."""
NAMED = 2
"""Styles that are named with their number; the table has the others."""
LISTED = 6
"""Styles that are named without one."""
REFERENCE = BASELINE[0]
OPPOSITE = {Verdict.SLOWER: Verdict.FASTER, Verdict.FASTER: Verdict.SLOWER}


class Topic(StrEnum):
    """What a finding is about, the most important first."""

    NOTHING = "nothing was measured"
    CONTROL = "the baseline differs from itself"
    NO_CONTROL = "how noisy the run is cannot be known"
    NOT_COMPARED = "steps have no ratio"
    EQUAL = "steps within the margin"
    DIFFERENT = "steps that are slower or faster"
    OPEN = "steps that could not be told apart"
    ADDED = "what a call costs the host"
    ADVICE = "what to choose by"
    ELSEWHERE = "steps that are slower or faster at another size than the main one"
    CORES = "a step uses more cores than others"
    UNPREDICTED = "a host cost and the time of a step contradict each other"
    PREDICTED = "host costs and the time of steps agree"
    SAME_PROGRAM = "the very same program"
    CAUSE = "why a step differs"
    INITIALISER = "where training gets to"
    STARTUP = "what differs before the second step"
    CHOICE = "what to take"


@dataclass(frozen=True)
class Finding:
    """One thing that a run found."""

    kind: Topic
    arms: tuple[str, ...]
    """Names of the styles that it is about."""
    text: str
    """In words, without capital and full stop."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Of what the words say, what a program can use: see where it is made."""

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.text[0].upper()}{self.text[1:]}."


@dataclass(frozen=True)
class StyleCells:
    """One way of writing the step."""

    name: str
    cells: Mapping[str, Result]
    """Cells without a failure by workload, the smallest model's first."""

    def step(self, workload: str) -> Metric | None:
        """Return the step at a workload where it has a ratio to the baseline."""
        return self.cells[workload].compared("step") if workload in self.cells else None

    def steps(self) -> dict[str, Metric]:
        """Return the steps that have a ratio, by workload."""
        return {w: found for w in self.cells if (found := self.step(w)) is not None}

    def measured(self, workload: str, metric: str) -> Metric | None:
        """Return a metric at a workload, or None where there is no number."""
        return self.cells[workload].measured(metric) if workload in self.cells else None

    def host(self) -> Metric | None:
        """Return what it adds to a call at a tiny size, where that is known."""
        found = (self.measured(workload, HOST) for workload in TINY)
        return next((each for each in found if each and each.added), None)

    def same_program(self, workload: str) -> bool:
        """Tell whether it compiles to the baseline's program."""
        proof = self.cells[workload].proof if workload in self.cells else None
        return proof is not None and proof.same_program


@dataclass(frozen=True)
class View:
    """What was measured on one backend."""

    baseline: StyleCells
    styles: list[StyleCells]
    control: list[Control]
    additivity: list[Additivity]
    margin: float
    on: str
    """` on BACKEND`; empty if there is no other."""

    @property
    def main(self) -> str:
        """The workload that is spoken about first, among those with ratios of steps."""
        cells = [style.cells[w] for style in self.styles for w in style.steps()]
        return wording.main_workload(cells) if cells else ""

    def at(self, workload: str) -> str:
        """Return a workload in words, with the backend if there are several."""
        return wording.sized(workload) + self.on

    def detectable(self, workload: str) -> float | None:
        """Return the smallest difference of steps that could be seen at a workload."""
        found = (c for c in self.control if (c.workload, c.metric) == (workload, "step"))
        return next((control.detectable for control in found), None)


def sentences(section: BakeoffSection) -> list[str]:
    """Return what a run found, one sentence an item."""
    return list(map(str, findings(section)))


def findings(section: BakeoffSection) -> list[Finding]:
    """Return what a run found, the most important first."""
    good = section.good
    timed = (metric for cell in good for metric in cell.metrics.values() if metric.median)
    if not any(timed) and not any(cell.proof or cell.final_loss for cell in good):
        count = len(section.cells)
        all_failed = f": all of the {count} cells failed" if count and not good else ""
        return [Finding(Topic.NOTHING, (), f"nothing was measured{all_failed}")]
    backends = list(dict.fromkeys(cell.backend for cell in good))
    views = [view(section, backend, several=len(backends) > 1) for backend in backends]
    found = [*controls(section), *(one for each in views for one in of_view(each))]
    order = list(Topic)
    return sorted(found, key=lambda finding: order.index(finding.kind))


def view(section: BakeoffSection, backend: str, *, several: bool = False) -> View:
    """Return what was measured on a backend, which is named in sentences if there are several."""
    found: dict[Arm, dict[str, Result]] = {}
    for cell in section.good:
        if cell.backend == backend:
            found.setdefault(cell.cell.arm, {})[cell.workload] = cell
    styles = {
        key: StyleCells(
            wording.name(next(iter(cells.values()))),
            dict(sorted(cells.items(), key=lambda item: wording.size(item[0]))),
        )
        for key, cells in found.items()
    }
    return View(
        baseline=styles.pop(Arm(*BASELINE), StyleCells(REFERENCE, {})),
        styles=list(styles.values()),
        control=[c for c in section.control if c.backend == backend],
        additivity=[a for a in section.additivity if a.backend == backend],
        margin=section.plan.margin,
        on=f" on {backend}" if several else "",
    )


def of_view(view: View) -> Iterator[Finding]:
    """Yield what was found on one backend."""
    if view.main:
        yield from steps(view)
    else:
        yield not_compared(view)
    same = [s.name for s in view.styles if s.cells and all(map(s.same_program, s.cells))]
    if same:
        text = f"compiled to the very same program as {REFERENCE}: {few(same, LISTED)}"
        yield Finding(Topic.SAME_PROGRAM, tuple(same), text)
    yield from hosts(view)
    yield from cores(view)
    yield from predictions(view)
    yield from training(view)
    yield from startup(view)


def not_compared(view: View) -> Finding:
    """Return why no step has a ratio: `untimed`, `no baseline` or `alone`."""
    timed = {
        style.name
        for style in [*view.styles, view.baseline]
        if any(style.measured(workload, "step") for workload in style.cells)
    }
    if not timed:
        reason, text = "untimed", f"steps were not timed in this run{view.on}"
    elif view.baseline.name not in timed:
        reason, text = (
            "no baseline",
            f"steps are not compared{view.on}: {REFERENCE}, which ratios refer to, has no step "
            "time in this run",
        )
    else:
        reason, text = "alone", f"no step was timed beside {REFERENCE}'s in this run{view.on}"
    return Finding(Topic.NOT_COMPARED, (), text, {"reason": reason})


def steps(view: View) -> Iterator[Finding]:
    """Yield who is as fast as the baseline, who is not and why, and what could not be seen."""
    main = view.main
    at = {style.name: found for style in view.styles if (found := style.step(main)) is not None}
    equal = [name for name, found in at.items() if wording.within(found, view.margin)]
    unsure = [n for n, f in at.items() if f.verdict in (None, Verdict.INCONCLUSIVE)]
    if equal:
        text = f"within ±{percent(view.margin)} of {REFERENCE} at {view.at(main)}"
        yield Finding(Topic.EQUAL, tuple(equal), f"{text}: {few(equal, LISTED)}")
    if unsure:
        limit = view.detectable(main)
        missed = "" if limit is None else f" (differences under {percent(limit)} may be missed)"
        text = f"inconclusive at {view.at(main)}{missed}: {few(unsure, LISTED)}"
        yield Finding(Topic.OPEN, tuple(unsure), text, {"detectable": limit})
    different = differences(view)
    yield from different
    for each in different:
        yield from causes(view, each)
    libraries = [style.name for style in view.styles if " " not in style.name and style.step(main)]
    level = [name for name in libraries if name in equal]
    if level:
        slower = any(each.values["verdict"] == Verdict.SLOWER for each in different)
        every = level == libraries
        who = "the libraries" if every else joined([REFERENCE, *level])
        mind = ", and mind how steps are written" if slower else ""
        text = f"{who} are equally fast{view.on}: choose by API{mind}"
        yield Finding(Topic.ADVICE, tuple(level), text, {"every": every, "slower": slower})


def differences(view: View) -> list[Finding]:
    """Return where styles differ from the baseline by more than the margin.

    A style that differs at the main size is spoken about there, and only there. The values are
    the verdict, the workload, `until` (see there), and the ratio of each style.
    """
    groups: dict[tuple[Any, ...], dict[str, Value]] = {}
    for style in view.styles:
        steps = style.steps()
        for verdict in OPPOSITE:
            at = [
                workload
                for workload, found in steps.items()
                if found.verdict == verdict and not wording.within(found, view.margin)
            ]
            if at:
                workload = view.main if view.main in at else at[-1]
                key = verdict, workload, until(steps, workload, view.margin)
                groups.setdefault(key, {})[style.name] = Value.of_ratio(steps[workload])

    def away(ratio: Value) -> float:
        return abs((ratio.number or 1) - 1)

    out = []
    for (verdict, workload, (how, places)), ratios in groups.items():
        order = sorted(ratios, key=lambda name: away(ratios[name]), reverse=True)
        said = UNTIL[how].format(joined([view.at(place) for place in places] or [""]))
        text = f"{verdict} at {view.at(workload)}{said}: {numbered(order, ratios)}"
        values = {"verdict": verdict, "workload": workload, "until": (how, places)}
        kind = Topic.DIFFERENT if workload == view.main else Topic.ELSEWHERE
        out.append(Finding(kind, tuple(order), text, values | {"ratios": ratios}))

    def place(found: Finding) -> tuple[bool, float]:
        return found.values["verdict"] != Verdict.SLOWER, -away(
            found.values["ratios"][found.arms[0]]
        )

    return sorted(out, key=place)


UNTIL = {
    "": "",
    "within": " (within the margin from {} on)",
    "not": " (not from {} on)",
    "open": " (inconclusive at {})",
    "except": " (not at {})",
    "larger": " and at every larger size measured",
}
"""How a difference at one workload goes on at others."""


def until(steps: Mapping[str, Metric], at: str, margin: float) -> tuple[str, tuple[str, ...]]:
    """Return how the difference at a workload goes on at others, and those that show it.

    `within`, `not`: from that one on it is within the margin, or the other way round; `open`: it
    is not known there; `except`: but not at those; `larger`: so at all larger ones.
    """
    if len(steps) < 2:
        return "", ()
    first, verdict = None, steps[at].verdict
    for workload in reversed(list(steps)):
        found = steps[workload]
        if not (wording.within(found, margin) or {found.verdict, verdict} == {*OPPOSITE}):
            break
        first = workload
    if first is not None:
        after = list(steps.values())[list(steps).index(first) :]
        return ("within" if all(wording.within(f, margin) for f in after) else "not"), (first,)
    widest = list(steps)[-1]
    if steps[widest].verdict != verdict:
        return "open", (widest,)
    level = tuple(w for w, found in steps.items() if wording.within(found, margin))
    if level:
        return "except", level
    return ("larger" if verdict == Verdict.SLOWER and widest != at else ""), ()


def causes(view: View, difference: Finding) -> Iterator[Finding]:
    """Yield why styles differ, those with the same reason together."""
    workload, verdict = difference.values["workload"], difference.values["verdict"]
    styles = {style.name: style for style in view.styles}
    groups: dict[str, list[str]] = {}
    for name in difference.arms:
        groups.setdefault(cause(view, styles[name], verdict, workload), []).append(name)
    for reason, names in groups.items():
        arms = [styles[name] for name in names]
        counts = sorted(pair for s in arms if (pair := calls(view, s, workload)) is not None)
        extra = sorted(f for s in arms if (f := fixed(view, s)) is not None)
        proofs = [style.cells[workload].proof for style in arms]
        kinds = [wording.operations(p.operations_beside_baseline) for p in proofs if p]
        programs = f" ({'; '.join(dict.fromkeys(kinds))})" if kinds else ""
        more = evidence = ""
        if counts:
            ends = dict.fromkeys(str(ours) for ours, _ in (counts[0], counts[-1]))
            evidence = more = f"{' to '.join(ends)} Python calls, not {counts[0][1]}"
        if extra and len(extra) == len(arms) and len({workloads for _, workloads in extra}) == 1:
            ends = dict.fromkeys(amount(seconds, "s") for seconds, _ in (extra[0], extra[-1]))
            same = f"{' to '.join(ends)} a step, the same at {joined(extra[0][1])}"
            evidence = "; ".join(filter(None, [same, more]))
        why = {
            "dispatch": f"Python dispatch ({evidence})",
            "calls": f"the same program, but {more}",
            "parts": "a step is several programs, not one",
            "program": f"another program{programs}",
            "both": f"another program{programs}, more Python dispatch ({more}), or both",
            "compiles": "it traces and compiles again when warm",
            "outside": "not written in JAX",
            "unknown": "this run does not say",
        }[reason]
        are = "is" if len(arms) == 1 else "are"
        text = f"why {joined(names)} {are} {verdict} at {view.at(workload)}: {why}"
        values = {"cause": reason, "calls": counts, "fixed": extra}
        yield Finding(Topic.CAUSE, tuple(names), text, values)


def cause(view: View, style: StyleCells, verdict: str, workload: str) -> str:
    """Return the kind of reason that this run shows for a difference; `outside`: it is not JAX.

    `both` stands for a program and Python calls that differ, neither of which can be ruled out;
    `calls` for the same program with more calls, whose cost is not shown to be all of it.
    """
    slower = verdict == Verdict.SLOWER
    if slower and style.cells[workload].exact.get("compilations_warm"):
        return "compiles"
    proof = style.cells[workload].proof
    if proof and not proof.jax:
        return "outside"
    more_calls = slower and calls(view, style, workload) is not None
    if proof and not proof.whole_step:
        return "parts"
    if slower and fixed(view, style) is not None:
        return "dispatch"
    if proof is None or style.same_program(workload):
        return "calls" if proof and more_calls else "unknown"
    return "both" if more_calls else "program"


def calls(view: View, style: StyleCells, workload: str) -> tuple[float, float] | None:
    """Return the Python calls of a step and the baseline's, where there are more of them."""
    reference = view.baseline.cells.get(workload)
    ours = style.cells[workload].exact.get("python_calls")
    theirs = reference.exact.get("python_calls") if reference else None
    return (ours, theirs) if ours is not None and theirs is not None and ours > theirs else None


def fixed(view: View, style: StyleCells) -> tuple[float, tuple[str, ...]] | None:
    """Return the seconds by which a style is slower if those are alike at all sizes, and where.

    It takes two sizes at which the style is slower: the intervals of the time that it adds must
    overlap, and leave out a time that grows as the baseline's step does. Where Python calls were
    counted, there must be more of them.
    """
    extras: dict[str, tuple[float, float, float]] = {}
    for workload, found in style.steps().items():
        reference = view.baseline.measured(workload, "step")
        if found.verdict != Verdict.SLOWER or not reference:
            continue
        if found.low is None or found.high is None:
            continue
        counted = style.cells[workload].exact.get("python_calls") is not None
        if counted and not calls(view, style, workload):
            return None
        seconds = reference.median
        extras[workload] = seconds, seconds * (found.low - 1), seconds * (found.high - 1)
    if len(extras) < 2:
        return None
    (base_seconds, low, high), *others = extras.values()
    for other_seconds, other_low, other_high in others:
        if max(low, other_low) > min(high, other_high):
            return None
        if other_high >= low * other_seconds / base_seconds:
            return None
    return (low + high) / 2, tuple(extras)


def hosts(view: View) -> Iterator[Finding]:
    """Yield what styles add to a call, the dearest first; those that add nothing are left out."""
    found = {s.name: host for s in view.styles if (host := s.host()) is not None}
    dear = {n: Value.of(host) for n, host in found.items() if host.verdict == Verdict.SLOWER}
    if dear:
        order = sorted(dear, key=lambda name: dear[name].number or 0.0, reverse=True)
        text = f"added to each call of a tiny model{view.on}: {numbered(order, dear)}"
        yield Finding(Topic.ADDED, tuple(order), text, {"added": dear})


def cores(view: View) -> Iterator[Finding]:
    """Yield styles whose step uses far more cores than the others' at a workload."""
    for workload in dict.fromkeys(w for style in view.styles for w in style.cells):
        used = {
            style.name: found.cores_used
            for style in view.styles
            if (found := style.step(workload)) and found.cores_used
        }
        usual = median(used.values()) if used else 0.0
        more = {name: f"{n:.1f}" for name, n in used.items() if n > MORE_CORES * usual}
        if more:
            said = f"{numbered(list(more), more)}, the others about {usual:.1f}"
            text = f"cores used at {view.at(workload)}: {said}"
            yield Finding(Topic.CORES, tuple(more), text)


def predictions(view: View) -> Iterator[Finding]:
    """Yield whether host costs say the same as the time of steps that are the same program."""
    apart: list[str] = []
    known: list[str] = []
    for row in view.additivity:
        low, high = row.predicted_low, row.predicted_high
        least, most = row.measured_low, row.measured_high
        if low is not None and high is not None and least is not None and most is not None:
            overlap = low <= most and least <= high
            (known if overlap else apart).append(f"{wording.name(row)} at {row.workload}")
    same = "the same program as the baseline"
    if apart:
        text = f"{same}, but slower or faster than its host cost explains: {few(apart, NAMED)}"
        yield Finding(Topic.UNPREDICTED, tuple(apart), text)
    if known:
        text = f"{same}, and their host cost explains the difference: {few(known, LISTED)}"
        yield Finding(Topic.PREDICTED, tuple(known), text)


def training(view: View) -> Iterator[Finding]:
    """Yield what initialisers do, where training from the same weights leads to the same loss."""
    cells = [cell for style in [view.baseline, *view.styles] for cell in style.cells.values()]
    trained = [cell for cell in cells if cell.final_loss]
    if not trained:
        return
    main = wording.main_workload(trained)
    final = {wording.name(c): c.final_loss for c in trained if c.final_loss and c.workload == main}
    same = [found.same_weights for found in final.values()]
    own = {n: found.own_initialiser for n, found in final.items() if found.own_initialiser}
    if len(own) < 2 or max(same) - min(same) > AGREE:
        return
    means = {name: mean(losses) for name, losses in own.items()}
    best, worst = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    # Seeds differ as well: only what lies beyond all of the other's seeds is a difference.
    if max(own[best]) >= min(own[worst]) or means[worst] - means[best] <= AGREE:
        return
    level = " to ".join(dict.fromkeys(amount(end, "nats") for end in (min(same), max(same))))
    low, high = (f"{amount(means[name], 'nats')} ({name})" for name in (best, worst))
    text = (
        "where training gets to depends on the initialiser, not on the library: after "
        f"{next(iter(final.values())).steps} steps at {view.at(main)} the loss is {level} from the "
        f"same weights, and {low} to {high} from the libraries' own"
    )
    yield Finding(Topic.INITIALISER, (best, worst), text, {"own": (means[best], means[worst])})


def startup(view: View) -> Iterator[Finding]:
    """Yield the largest difference before the second step, in seconds."""
    slower: list[tuple[float, str, Result, Metric, float]] = []
    for style in view.styles:
        for workload, cell in style.cells.items():
            for metric in STARTUP:
                found = cell.compared(metric)
                reference = view.baseline.measured(workload, metric)
                if found and reference and found.verdict == Verdict.SLOWER:
                    extra = ((found.ratio or 1) - 1) * reference.median
                    slower.append((extra, metric, cell, found, reference.median))
    if not slower:
        return
    main = wording.main_workload(cell for _, _, cell, _, _ in slower)
    here = [each for each in slower if each[2].workload == main]
    _, metric, cell, found, seconds = max(here, key=lambda each: each[0])
    name, ratio = wording.name(cell), Value.of_ratio(found)
    text = (
        f"what differs most before training is {label(metric)}: at {view.at(main)}, {name} takes "
        f"{ratio} times {REFERENCE}'s {amount(seconds, 's')}"
    )
    yield Finding(Topic.STARTUP, (name,), text, {"metric": metric, "ratio": ratio})


def controls(section: BakeoffSection) -> Iterator[Finding]:
    """Yield a warning where the baseline differs from itself, or is not compared with itself."""
    unlike = {
        f"{c.metric} at {c.workload}": Value.of_ratio(c)
        for c in section.control
        if c.verdict in OPPOSITE
    }
    if unlike:
        text = (
            f"do not trust differences of this size: the control, a second copy of {REFERENCE}, "
            f"differs from it ({numbered(list(unlike), unlike)})"
        )
        yield Finding(Topic.CONTROL, tuple(unlike), text, {"ratios": unlike})
    metrics = (found for cell in section.cells for found in cell.metrics.values())
    if not section.control and any(found.verdict for found in metrics):
        text = (
            f"there is no control (a second copy of {REFERENCE}), so the noise of this run is not"
        )
        yield Finding(Topic.NO_CONTROL, (), f"{text} known")


def numbered(arms: Sequence[str], numbers: Mapping[str, object]) -> str:
    """Return styles with their numbers, the first of them if they are many."""
    return few([f"{name} {numbers[name]}" for name in arms], NAMED)
