"""What a run found, as data: who is equal, slower or faster, by how much, and why.

`bench.report.sentences` puts it into words. Nothing is found that the section does not hold; what
could not be told apart is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Arm, Cell
from bench.metrics import HOST, STARTUP, TINY
from bench.report import wording
from bench.report.table import RATIO, Value
from bench.report.wording import Facts, measured
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

AGREE = 0.01
"""Nats per character within which losses from the same weights are the same."""
MORE_CORES = 1.5
"""A step that uses so many times as many cores as the others is no fair comparison."""
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
    arms: tuple[str, ...] = ()
    """Names of the styles that it is about."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the sentence needs: see where it is made."""


@dataclass(frozen=True)
class StyleCells:
    """One way of writing the step."""

    name: str
    cells: Mapping[str, Facts]
    """Cells without a failure by workload, the smallest model's first."""

    def step(self, workload: str) -> Facts | None:
        """Return the step at a workload where it has a ratio to the baseline."""
        cell = self.cells.get(workload)
        found = None if cell is None else measured(cell, "step")
        return found if found and found.get("ratio") is not None else None

    def steps(self) -> dict[str, Facts]:
        """Return the steps that have a ratio, by workload."""
        return {w: found for w in self.cells if (found := self.step(w)) is not None}

    def host(self) -> Facts | None:
        """Return what it adds to a call at a tiny size, where that is known."""
        cells = (self.cells[w] for w in TINY if w in self.cells)
        found = (measured(cell, HOST) for cell in cells)
        return next((each for each in found if each and each.get("added")), None)

    def same_program(self, workload: str) -> bool:
        """Tell whether it compiles to the baseline's program."""
        proof = self.cells[workload]["proof"] if workload in self.cells else None
        return bool(proof and proof["whole_step"] and proof["same_program_as_baseline"])


@dataclass(frozen=True)
class View:
    """What was measured on one backend."""

    baseline: StyleCells
    styles: list[StyleCells]
    control: list[Facts]
    additivity: list[Facts]
    margin: float
    backend: str
    """Empty if there is no other."""

    @property
    def main(self) -> str:
        """The workload that is spoken about first, among those with ratios of steps."""
        cells = [style.cells[w] for style in self.styles for w in style.steps()]
        return wording.main_workload(cells) if cells else ""

    def finding(self, kind: Topic, arms: Iterable[str] = (), **values: Any) -> Finding:
        """Return a finding on this backend."""
        return Finding(kind, tuple(arms), {"backend": self.backend, **values})

    def detectable(self, workload: str) -> float | None:
        """Return the smallest difference of steps that could be seen at a workload."""
        found = (c for c in self.control if (c["workload"], c["metric"]) == (workload, "step"))
        return next((control["detectable"] for control in found), None)


def findings(section: Facts) -> list[Finding]:
    """Return what a run found, the most important first.

    Args:
        section: The `bakeoff` section of a run file.
    """
    good = [cell for cell in section["cells"] if cell["failure"] is None]
    if not any(has_number(cell) for cell in good):
        return [Finding(Topic.NOTHING, (), {"cells": len(section["cells"]), "good": len(good)})]
    backends = list(dict.fromkeys(cell["backend"] for cell in good))
    views = [view(section, backend, several=len(backends) > 1) for backend in backends]
    found = [*controls(section), *(one for each in views for one in of_view(each))]
    order = list(Topic)
    return sorted(found, key=lambda finding: order.index(finding.kind))


def has_number(cell: Facts) -> bool:
    """Tell whether anything was found for a cell."""
    timed = any(measured(cell, metric) for metric in cell["metrics"])
    return bool(timed or cell["proof"] or cell["final_loss"])


def view(section: Facts, backend: str, *, several: bool = False) -> View:
    """Return what was measured on a backend, which is named in sentences if there are several."""
    found: dict[Arm, dict[str, Facts]] = {}
    here = [c for c in section["cells"] if c["backend"] == backend and c["failure"] is None]
    for cell in here:
        found.setdefault(Cell.of(cell).arm, {})[cell["workload"]] = cell
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
        control=[c for c in section["control"] if c["backend"] == backend],
        additivity=[a for a in section.get("additivity") or [] if a["backend"] == backend],
        margin=section["plan"]["margin"],
        backend=backend if several else "",
    )


def of_view(view: View) -> Iterator[Finding]:
    """Yield what was found on one backend."""
    if view.main:
        yield from steps(view)
    else:
        yield not_compared(view)
    same = [s.name for s in view.styles if s.cells and all(map(s.same_program, s.cells))]
    if same:
        yield view.finding(Topic.SAME_PROGRAM, same)
    yield from hosts(view)
    yield from cores(view)
    yield from predictions(view)
    yield from training(view)
    yield from startup(view)


def not_compared(view: View) -> Finding:
    """Return why no step has a ratio: `untimed`, `no baseline` or `alone`."""
    every = [*view.styles, view.baseline]
    if not any(measured(cell, "step") for style in every for cell in style.cells.values()):
        reason = "untimed"
    elif not any(measured(cell, "step") for cell in view.baseline.cells.values()):
        reason = "no baseline"
    else:
        reason = "alone"
    return view.finding(Topic.NOT_COMPARED, reason=reason)


def steps(view: View) -> Iterator[Finding]:
    """Yield who is as fast as the baseline, who is not and why, and what could not be seen."""
    main = view.main
    at = {style.name: found for style in view.styles if (found := style.step(main)) is not None}
    equal = [name for name, found in at.items() if wording.within(found, view.margin)]
    unsure = [n for n, found in at.items() if n not in equal and wording.mark(found) == "?"]
    if equal:
        yield view.finding(Topic.EQUAL, equal, workload=main, margin=view.margin)
    if unsure:
        limit = view.detectable(main)
        yield view.finding(Topic.OPEN, unsure, workload=main, detectable=limit)
    different = differences(view)
    yield from different
    for each in different:
        yield from causes(view, each)
    libraries = [style.name for style in view.styles if " " not in style.name and style.step(main)]
    level = [name for name in libraries if name in equal]
    if level:
        slower = any(each.values["verdict"] == Verdict.SLOWER for each in different)
        every = level == libraries
        yield view.finding(Topic.ADVICE, level, workload=main, every=every, slower=slower)


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
                if found["verdict"] == verdict and not wording.within(found, view.margin)
            ]
            if at:
                workload = view.main if view.main in at else at[-1]
                key = verdict, workload, until(steps, workload, view.margin)
                groups.setdefault(key, {})[style.name] = ratio_of(steps[workload])
    out = []
    for (verdict, workload, ends), ratios in groups.items():
        order = sorted(ratios, key=lambda n: abs((ratios[n].number or 1) - 1), reverse=True)
        values = {"verdict": verdict, "workload": workload, "until": ends, "ratios": ratios}
        kind = Topic.DIFFERENT if workload == view.main else Topic.ELSEWHERE
        out.append(view.finding(kind, order, **values))
    return sorted(out, key=lambda each: (each.values["verdict"] != Verdict.SLOWER, -largest(each)))


def largest(difference: Finding) -> float:
    """Return by how much the first of some styles, the one that differs most, does so."""
    return abs((difference.values["ratios"][difference.arms[0]].number or 1) - 1)


def ratio_of(found: Facts) -> Value:
    """Return a ratio to the baseline, also where people read the time that is added."""
    ends = found.get("low"), found.get("high")
    return Value(found.get("ratio"), RATIO, *ends, str(found.get("verdict") or ""))


def until(steps: Mapping[str, Facts], at: str, margin: float) -> tuple[str, tuple[str, ...]]:
    """Return how the difference at a workload goes on at others, and those that show it.

    `within`, `not`: from that one on it is within the margin, or the other way round; `open`: it
    is not known there; `except`: but not at those; `larger`: so at all larger ones.
    """
    if len(steps) < 2:
        return "", ()
    first, verdict = None, steps[at]["verdict"]
    for workload in reversed(list(steps)):
        found = steps[workload]
        if not (wording.within(found, margin) or found["verdict"] == OPPOSITE[verdict]):
            break
        first = workload
    if first is not None:
        after = list(steps.values())[list(steps).index(first) :]
        return ("within" if all(wording.within(f, margin) for f in after) else "not"), (first,)
    widest = list(steps)[-1]
    if steps[widest]["verdict"] != verdict:
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
        proofs = [style.cells[workload]["proof"] for style in arms]
        programs = [wording.operations(p["operations_beside_baseline"]) for p in proofs if p]
        yield view.finding(
            Topic.CAUSE,
            names,
            cause=reason,
            verdict=verdict,
            workload=workload,
            programs=list(dict.fromkeys(programs)),
            calls=sorted(pair for s in arms if (pair := calls(view, s, workload)) is not None),
            fixed=sorted(f for s in arms if (f := fixed(view, s)) is not None),
        )


def cause(view: View, style: StyleCells, verdict: str, workload: str) -> str:
    """Return the kind of reason that this run shows for a difference; `outside`: it is not JAX.

    `both` stands for a program and Python calls that differ, neither of which can be ruled out;
    `calls` for the same program with more calls, whose cost is not shown to be all of it.
    """
    slower = verdict == Verdict.SLOWER
    if slower and style.cells[workload]["exact"].get("compilations_warm"):
        return "compiles"
    proof = style.cells[workload]["proof"]
    if proof and not wording.written_in_jax(proof):
        return "outside"
    more_calls = slower and calls(view, style, workload) is not None
    if proof and not proof["whole_step"]:
        return "parts"
    if slower and fixed(view, style) is not None:
        return "dispatch"
    if proof is None or style.same_program(workload):
        return "calls" if proof and more_calls else "unknown"
    return "both" if more_calls else "program"


def calls(view: View, style: StyleCells, workload: str) -> tuple[int, int] | None:
    """Return the Python calls of a step and the baseline's, where there are more of them."""
    reference = view.baseline.cells.get(workload)
    ours = style.cells[workload]["exact"].get("python_calls")
    theirs = reference["exact"].get("python_calls") if reference else None
    return (ours, theirs) if ours is not None and theirs is not None and ours > theirs else None


def fixed(view: View, style: StyleCells) -> tuple[float, tuple[str, ...]] | None:
    """Return the seconds by which a style is slower if those are alike at all sizes, and where.

    It takes two sizes at which the style is slower: the intervals of the time that it adds must
    overlap, and leave out a time that grows as the baseline's step does. Where Python calls were
    counted, there must be more of them.
    """
    extras: dict[str, tuple[float, float, float]] = {}
    for workload, found in style.steps().items():
        base = view.baseline.cells.get(workload)
        reference = measured(base, "step") if base else None
        if found["verdict"] != "slower" or not reference or None in (found["low"], found["high"]):
            continue
        counted = style.cells[workload]["exact"].get("python_calls") is not None
        if counted and not calls(view, style, workload):
            return None
        seconds = reference["median"]
        extras[workload] = seconds, seconds * (found["low"] - 1), seconds * (found["high"] - 1)
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
    dear = [name for name, host in found.items() if host["verdict"] == Verdict.SLOWER]
    if dear:
        dear.sort(key=lambda name: found[name]["added"]["seconds"], reverse=True)
        yield view.finding(Topic.ADDED, dear, added={n: Value.of(found[n]) for n in dear})


def cores(view: View) -> Iterator[Finding]:
    """Yield styles whose step uses far more cores than the others' at a workload."""
    for workload in dict.fromkeys(w for style in view.styles for w in style.cells):
        used = {
            style.name: found["cores_used"]
            for style in view.styles
            if (found := style.step(workload)) and found.get("cores_used")
        }
        usual = median(used.values()) if used else 0.0
        more = {name: n for name, n in used.items() if n > MORE_CORES * usual}
        if more:
            yield view.finding(Topic.CORES, more, workload=workload, used=more, usual=usual)


def predictions(view: View) -> Iterator[Finding]:
    """Yield whether host costs say the same as the time of steps that are the same program."""
    apart: list[str] = []
    known: list[str] = []
    for row in view.additivity:
        predicted, timed = (
            [row[f"{what}_{end}"] for end in ("low", "high")] for what in ("predicted", "measured")
        )
        if None not in (*predicted, *timed):
            overlap = predicted[0] <= timed[1] and timed[0] <= predicted[1]
            (known if overlap else apart).append(f"{wording.name(row)} at {row['workload']}")
    if apart:
        yield view.finding(Topic.UNPREDICTED, apart)
    if known:
        yield view.finding(Topic.PREDICTED, known)


def training(view: View) -> Iterator[Finding]:
    """Yield what initialisers do, where training from the same weights leads to the same loss."""
    cells = [cell for style in [view.baseline, *view.styles] for cell in style.cells.values()]
    trained = [cell for cell in cells if cell["final_loss"]]
    if not trained:
        return
    main = wording.main_workload(trained)
    final = {wording.name(c): c["final_loss"] for c in trained if c["workload"] == main}
    same = [found["same_weights"] for found in final.values()]
    own = {name: found["own_initialiser"] for name, found in final.items()}
    own = {name: losses for name, losses in own.items() if losses}
    if len(own) < 2 or max(same) - min(same) > AGREE:
        return
    means = {name: sum(losses) / len(losses) for name, losses in own.items()}
    best, worst = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    # Seeds differ as well: only what lies beyond all of the other's seeds is a difference.
    if max(own[best]) >= min(own[worst]) or means[worst] - means[best] <= AGREE:
        return
    yield view.finding(
        Topic.INITIALISER,
        (best, worst),
        workload=main,
        steps=next(iter(final.values()))["steps"],
        same=(min(same), max(same)),
        own=(means[best], means[worst]),
    )


def startup(view: View) -> Iterator[Finding]:
    """Yield the largest difference before the second step, in seconds."""
    slower = []
    for style in view.styles:
        for workload, cell in style.cells.items():
            base = view.baseline.cells.get(workload)
            for metric in STARTUP:
                found, reference = measured(cell, metric), measured(base, metric) if base else None
                if found and reference and found.get("verdict") == Verdict.SLOWER:
                    extra = (found["ratio"] - 1) * reference["median"]
                    slower.append((extra, metric, cell, found, reference["median"]))
    if not slower:
        return
    main = wording.main_workload(cell for _, _, cell, _, _ in slower)
    here = [each for each in slower if each[2]["workload"] == main]
    _, metric, cell, found, seconds = max(here, key=lambda each: each[0])
    yield view.finding(
        Topic.STARTUP,
        [wording.name(cell)],
        workload=main,
        metric=metric,
        ratio=ratio_of(found),
        reference=Value(seconds, "s"),
    )


def controls(section: Facts) -> Iterator[Finding]:
    """Yield a warning where the baseline differs from itself, or is not compared with itself."""
    unlike = [control for control in section["control"] if control["verdict"] in OPPOSITE]
    if unlike:
        values = {f"{c['metric']} at {c['workload']}": ratio_of(c) for c in unlike}
        yield Finding(Topic.CONTROL, tuple(values), {"ratios": values})
    cells: Sequence[Facts] = section["cells"]
    if not section["control"] and any(
        found.get("verdict") for cell in cells for found in cell["metrics"].values()
    ):
        yield Finding(Topic.NO_CONTROL)
