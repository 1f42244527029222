"""The verdict of a run in a few sentences: what is the same, what differs, by how much, and why.

Nothing is said that the section does not hold; what could not be told apart is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE
from bench.metrics import STARTUP
from bench.report import wording
from bench.report.wording import Facts, joined, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

NAMED = 4
"""Styles that are named with their ratio; the table has the others."""
AGREE = 0.01
"""Nats per character within which losses from the same weights are the same."""
OPPOSITE = {"slower": "faster", "faster": "slower"}
REFERENCE = BASELINE[0]


@dataclass(frozen=True)
class Style:
    """One way of writing the step, at every workload that it was measured at."""

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

    def same_program(self, workload: str) -> bool:
        """Tell whether it compiles to the baseline's program."""
        proof = self.cells[workload]["proof"] if workload in self.cells else None
        return bool(proof and proof["whole_step"] and proof["same_program_as_baseline"])


@dataclass(frozen=True)
class View:
    """What was measured on one backend."""

    baseline: Style
    styles: list[Style]
    control: list[Facts]
    margin: float
    where: str
    """Added to places if there is more than one backend."""

    def place(self, workload: str) -> str:
        """Return a workload in words."""
        return wording.sized(workload) + self.where

    def detectable(self, workload: str) -> float | None:
        """Return the smallest difference of steps that could be seen at a workload."""
        for control in self.control:
            if (control["workload"], control["metric"]) == (workload, "step"):
                return control["detectable"]
        return None


@dataclass(frozen=True)
class Difference:
    """A style that is slower, or faster, than the baseline at some size."""

    style: Style
    verdict: str
    workload: str
    """Where it is spoken about."""
    cause: str
    """Kind of the reason."""
    until: str
    """From which size on it stops mattering, in words."""


def sentences(section: Facts) -> list[str]:
    """Return the verdict of a run, one sentence an item.

    Args:
        section: The `bakeoff` section of a run file.
    """
    good = [cell for cell in section["cells"] if cell["failure"] is None]
    if not good:
        count = len(section["cells"])
        every = "its only cell" if count == 1 else f"all of its {count} cells"
        return [f"Nothing was measured: {every} failed." if count else "Nothing was measured."]
    timed = any(measured(cell, metric) for cell in good for metric in cell["metrics"])
    if not timed and not any(cell["proof"] or cell["final_loss"] for cell in good):
        return ["Nothing was measured.", *_failed(section)]
    out = []
    backends = list(dict.fromkeys(cell["backend"] for cell in good))
    for backend in backends:
        view = _view(section, backend, "" if len(backends) == 1 else f" on {backend}")
        out += [*_steps(view), *_training(view), *_before(view)]
    return [*out, *_beware(section), *_failed(section)]


def brief(section: Facts) -> list[str]:
    """Return the verdict for somebody who has ten seconds: who is alike, who is not, what to do.

    It is about the first backend; empty where no step has a ratio.
    """
    good = [cell for cell in section["cells"] if cell["failure"] is None]
    if not good:
        return []
    backends = list(dict.fromkeys(cell["backend"] for cell in good))
    view = _view(section, backends[0], "" if len(backends) == 1 else f" on {backends[0]}")
    known = [cell for s in view.styles for w in s.steps() if (cell := s.cells.get(w)) is not None]
    if not known:
        return []
    main = wording.main_workload(known)
    at = {style.name: found for style in view.styles if (found := style.step(main)) is not None}
    even = [name for name, found in at.items() if wording.within(found, view.margin)]
    alike = [name for name, found in at.items() if name in even or wording.mark(found) == "?"]
    slower = {n: f for n, f in at.items() if n not in alike and f["verdict"] == "slower"}
    out = []
    unsure = [name for name in alike if name not in even]
    if even:
        verb = "is" if len(even) == 1 else "are"
        within = f"{joined(even)} {verb} within ±{wording.percent(view.margin)} of {REFERENCE}"
        out.append(f"At {view.place(main)}, {within}.")
    if unsure:
        out.append(f"Inconclusive at {view.place(main)}: {joined(unsure)}.")
    if slower:
        order = sorted(slower, key=lambda name: slower[name]["ratio"], reverse=True)
        said = [f"{name} {wording.ratio(slower[name])}" for name in order[:NAMED]]
        if len(order) > NAMED:
            said.append(f"{len(order) - NAMED} more")
        here = f"Slower at {view.place(main)}"
        out.append(f"{here}: {joined(said)}.")
    return [*out, *_advice(view, main, set(even), bool(slower))]


def _advice(view: View, main: str, even: set[str], slower: bool) -> Iterator[str]:
    """Yield who is faster at the widest model, and what to choose by, in one sentence."""
    faster: dict[str, list[str]] = {}
    for style in view.styles:
        for workload, found in [*style.steps().items()][-1:]:
            if found["verdict"] == "faster" and not wording.within(found, view.margin):
                faster.setdefault(workload, []).append(f"{style.name} {wording.ratio(found)}")
    said = [
        f"at {view.place(workload)}, {joined(names)} {'is' if len(names) == 1 else 'are'} faster"
        for workload, names in faster.items()
    ]
    pure = [style.name for style in view.styles if " " not in style.name and style.step(main)]
    level = [name for name in pure if name in even]
    if level:
        who = "the libraries" if level == pure else joined([REFERENCE, *level])
        mind = ", and mind how the step is written" if slower else ""
        said.append(f"the steps of {who} are equally fast: choose by API{mind}")
    if said:
        text = "; else ".join(said)
        yield f"{text[0].upper()}{text[1:]}."


def _view(section: Facts, backend: str, where: str) -> View:
    found: dict[tuple[str, str], dict[str, Facts]] = {}
    for cell in sorted(section["cells"], key=lambda cell: wording.size(cell["workload"])):
        if cell["backend"] == backend and cell["failure"] is None:
            found.setdefault((cell["entrant"], cell["style"]), {})[cell["workload"]] = cell
    order = dict.fromkeys((cell["entrant"], cell["style"]) for cell in section["cells"])
    return View(
        baseline=Style(REFERENCE, found.get(BASELINE, {})),
        styles=[
            Style(wording.name(next(iter(found[key].values()))), found[key])
            for key in order
            if key in found and key != BASELINE
        ],
        control=[control for control in section["control"] if control["backend"] == backend],
        margin=section["plan"]["margin"],
        where=where,
    )


def _steps(view: View) -> Iterator[str]:
    """Yield what there is to say about steps: who is tied, then who is not."""
    compared = [cell for style in view.styles for cell in map(style.cells.get, style.steps())]
    known = [cell for cell in compared if cell is not None]
    if not known:
        yield from _not_compared(view)
        return
    main = wording.main_workload(known)
    tied, differences = _tied(view, main), _differences(view, main)
    yield from tied
    if not tied and (limit := view.detectable(main)) is not None:
        yield (
            f"Differences in steps of {wording.percent(limit)} or more would be found at "
            f"{view.place(main)}."
        )
    yield from _differing(view, differences)
    verdicts = {found["verdict"] for style in view.styles for found in style.steps().values()}
    if verdicts == {"equivalent"}:
        yield "Their steps are equally fast: choose by API."


def _not_compared(view: View) -> Iterator[str]:
    every = [*view.styles, view.baseline]
    timed = any(measured(cell, "step") for style in every for cell in style.cells.values())
    if not timed:
        yield f"Steps were not timed in this run{view.where}."
    elif not any(measured(cell, "step") for cell in view.baseline.cells.values()):
        yield (
            f"Steps are not compared{view.where}: {REFERENCE}, which ratios refer to, "
            "has no step time in this run."
        )
    else:
        yield f"No step was timed beside {REFERENCE}'s in this run{view.where}."
    same = [s.name for s in view.styles if s.cells and all(map(s.same_program, s.cells))]
    if same:
        yield f"{_same_program(same)} as {REFERENCE}{view.where}."


def _same_program(names: Sequence[str]) -> str:
    return (
        f"{joined(names)} {'compiles' if len(names) == 1 else 'compile'} to the very same program"
    )


def _tied(view: View, main: str) -> list[str]:
    """Return the sentence about who is not shown to differ at the main workload."""
    at = [(style, found) for style in view.styles if (found := style.step(main)) is not None]
    even = [style for style, found in at if wording.within(found, view.margin)]
    unsure = [(s, f) for s, f in at if s not in even and wording.mark(f) == "?"]
    clauses = []
    limit = view.detectable(main)
    seen = "" if limit is None else f" (differences under {wording.percent(limit)} may be missed)"
    if even:
        names = [style.name for style in even]
        verb = "is" if len(names) == 1 else "are"
        clauses.append(
            f"{joined(names)} {verb} within ±{wording.percent(view.margin)} of {REFERENCE}"
        )
    if unsure:
        clauses.append(f"inconclusive: {joined([style.name for style, _ in unsure])}{seen}")
    if not clauses:
        return []
    level = [style for style, found in at if style in even or wording.mark(found) == "?"]
    same = [style.name for style in level if style.same_program(main)]
    if same and len(same) == len(level):
        every = "it compiles" if len(level) == 1 else "all compile"
        clauses.append(f"{every} to the very same program as {REFERENCE}")
    elif same:
        clauses.append(f"{_same_program(same)} as {REFERENCE}")
    return [f"At {view.place(main)}, {'; '.join(clauses)}."]


def _differences(view: View, main: str) -> list[Difference]:
    """Return where styles differ from the baseline by more than the margin."""
    out = []
    for style in view.styles:
        steps = style.steps()
        for verdict in ("slower", "faster"):
            at = [
                workload
                for workload, found in steps.items()
                if found["verdict"] == verdict and not wording.within(found, view.margin)
            ]
            if at:
                # A style that differs at the main size is spoken about there, and only there.
                workload = main if main in at else at[-1]
                cause = _cause(view, style, verdict, workload)
                until = _until(view, steps, verdict)
                out.append(Difference(style, verdict, workload, cause, until))
    return sorted(out, key=lambda d: (d.verdict != "slower", d.workload != main))


def _cause(view: View, style: Style, verdict: str, workload: str) -> str:
    """Return the kind of reason that this run shows for a difference; `outside`: it is not JAX.

    `both` stands for a program and Python calls that differ, neither of which can be ruled out;
    `calls` for the same program with more calls, whose cost is not shown to be all of it.
    """
    if verdict == "slower" and style.cells[workload]["exact"].get("compilations_warm"):
        return "compiles"
    proof = style.cells[workload]["proof"]
    if proof and not wording.written_in_jax(proof):
        return "outside"
    more_calls = verdict == "slower" and _calls(view, style, workload) is not None
    if proof and not proof["whole_step"]:
        return "parts"
    if verdict == "slower" and _fixed(view, style) is not None:
        return "dispatch"
    if proof is None or style.same_program(workload):
        return "calls" if proof and more_calls else "unknown"
    return "both" if more_calls else "program"


def _calls(view: View, style: Style, workload: str) -> tuple[int, int] | None:
    """Return the Python calls of a step and the baseline's, where there are more of them."""
    reference = view.baseline.cells.get(workload)
    ours = style.cells[workload]["exact"].get("python_calls")
    theirs = reference["exact"].get("python_calls") if reference else None
    return (ours, theirs) if ours is not None and theirs is not None and ours > theirs else None


class Fixed(NamedTuple):
    """A cost that does not grow with the model."""

    seconds: float
    """Of a step."""
    workloads: tuple[str, ...]
    """Where it is seen."""


def _fixed(view: View, style: Style) -> Fixed | None:
    """Return by how much a style is slower if that is alike at all sizes, or else None.

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
        if style.cells[workload]["exact"].get("python_calls") is not None and not _calls(
            view, style, workload
        ):
            return None
        median = reference["median"]
        extras[workload] = (median, median * (found["low"] - 1), median * (found["high"] - 1))
    if len(extras) < 2:
        return None
    (base_seconds, low, high), *others = extras.values()
    for other_seconds, other_low, other_high in others:
        if max(low, other_low) > min(high, other_high):
            return None
        if other_high >= low * other_seconds / base_seconds:
            return None
    return Fixed((low + high) / 2, tuple(extras))


def _until(view: View, steps: dict[str, Facts], verdict: str) -> str:
    """Return from which size on a difference stops mattering; nothing with one size alone."""
    if len(steps) < 2:
        return ""
    first = None
    for workload in reversed(steps):
        found = steps[workload]
        if not (wording.within(found, view.margin) or found["verdict"] == OPPOSITE[verdict]):
            break
        first = workload
    if first is not None:
        after = list(steps.values())[list(steps).index(first) :]
        within = (
            "within the margin" if all(wording.within(f, view.margin) for f in after) else "not"
        )
        return f" ({within} from {view.place(first)} on)"
    widest = list(steps)[-1]
    if steps[widest]["verdict"] != verdict:
        return f" (inconclusive at {view.place(widest)})"
    level = [view.place(w) for w, found in steps.items() if wording.within(found, view.margin)]
    if level:
        return f", though not at {joined(level)}"
    return " and at every larger size measured" if verdict == "slower" else ""


def _differing(view: View, differences: Sequence[Difference]) -> Iterator[str]:
    """Yield a sentence for those that are slower, or faster, at the same sizes."""
    by_size: dict[tuple[str, str, str], dict[str, list[Style]]] = {}
    for d in differences:
        causes = by_size.setdefault((d.verdict, d.workload, d.until), {})
        causes.setdefault(d.cause, []).append(d.style)
    for (verdict, workload, until), causes in by_size.items():
        clauses = [_clause(view, styles, workload, cause) for cause, styles in causes.items()]
        yield f"{verdict.capitalize()} at {view.place(workload)}{until}: {'; '.join(clauses)}."


def _clause(view: View, styles: Sequence[Style], workload: str, cause: str) -> str:
    """Return styles with their ratios, and why they differ."""
    found = {style.name: style.steps()[workload] for style in styles}
    order = sorted(found, key=lambda name: abs(found[name]["ratio"] - 1), reverse=True)
    named = [f"{name} {wording.ratio(found[name])}" for name in order[:NAMED]]
    if len(order) > NAMED:
        named.append(f"{len(order) - NAMED} more")
    many = len(styles) > 1
    programs = _programs([style.cells[workload]["proof"] for style in styles])
    calls = _call_counts(view, styles, workload)
    why = {
        "dispatch": _dispatch(view, styles, calls),
        "calls": f"the very same program, but {calls}",
        "parts": f"{'their steps are' if many else 'its step is'} several programs, not one",
        "program": f"{'their programs differ' if many else 'its program differs'} ({programs})",
        "both": f"by the program ({programs}), Python dispatch ({calls}) or both",
        "compiles": f"{'they trace and compile' if many else 'it traces and compiles'} again when "
        "warm",
        "outside": f"which {'are' if many else 'is'} not written in JAX",
        "unknown": "this run does not say why",
    }
    return f"{joined(named)}, {why[cause]}"


def _programs(proofs: Iterable[Facts | None]) -> str:
    """Return by which operations programs differ."""
    return "; ".join(
        dict.fromkeys(wording.operations(p["operations_beside_baseline"]) for p in proofs if p)
    )


def _call_counts(view: View, styles: Sequence[Style], workload: str) -> str:
    """Return how many Python calls a step makes, and how many the baseline's; or nothing."""
    pairs = [_calls(view, style, workload) for style in styles]
    known = sorted(pair for pair in pairs if pair is not None)
    if not known:
        return ""
    counts = " to ".join(dict.fromkeys(str(calls) for calls, _ in (known[0], known[-1])))
    return f"{counts} Python calls, not {known[0][1]}"


def _dispatch(view: View, styles: Sequence[Style], calls: str) -> str:
    """Return that it is Python's doing, and what shows it."""
    fixed = sorted(found for style in styles if (found := _fixed(view, style)) is not None)
    evidence = [calls] if calls else []
    if len(fixed) == len(styles) and len({found.workloads for found in fixed}) == 1:
        times = dict.fromkeys(wording.seconds(f.seconds) for f in (fixed[0], fixed[-1]))
        where = joined(fixed[0].workloads)
        evidence.insert(0, f"{' to '.join(times)} a step, alike at {where}")
    return "all of it Python dispatch" + (f" ({'; '.join(evidence)})" if evidence else "")


def _training(view: View) -> Iterator[str]:
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
    low, high = sorted({wording.loss(min(same)), wording.loss(max(same))} | {""})[-2:]
    steps = next(iter(final.values()))["steps"]
    yield (
        f"Where training gets to depends on the initialiser, not on the library: after {steps} "
        f"steps at {view.place(main)} the loss is {f'{low} to ' if low else ''}{high} from the "
        f"same weights, and from their own between {wording.loss(means[best])} ({best}) and "
        f"{wording.loss(means[worst])} ({worst})."
    )


def _before(view: View) -> Iterator[str]:
    """Yield the largest difference before the first step, in seconds."""
    cells = [cell for style in view.styles for cell in style.cells.values()]
    slower = []
    for metric in STARTUP:
        for cell in cells:
            found, base = measured(cell, metric), view.baseline.cells.get(cell["workload"])
            reference = measured(base, metric) if base else None
            if found and reference and found.get("verdict") == "slower":
                extra = (found["ratio"] - 1) * reference["median"]
                slower.append((extra, metric, cell, found, reference))
    if not slower:
        return
    main = wording.main_workload(cell for _, _, cell, _, _ in slower)
    largest = max((s for s in slower if s[2]["workload"] == main), key=lambda s: s[0])
    _, metric, cell, found, reference = largest
    yield (
        f"Before training, what differs most is {metric.replace('_', ' ')}: at "
        f"{view.place(main)}, {wording.name(cell)} takes {wording.ratio(found)} times "
        f"{REFERENCE}'s {wording.amount(reference['median'], reference['unit'])}."
    )


def _beware(section: Facts) -> Iterator[str]:
    """Yield a warning where the baseline differs from itself."""
    unlike = [
        f"{control['metric']} at {control['workload']}, {wording.ratio(control)}"
        for control in section["control"]
        if control["verdict"] in OPPOSITE
    ]
    if unlike:
        yield (
            f"The control, a second copy of {REFERENCE}, differs from it ({'; '.join(unlike)}): do "
            "not trust differences of this size."
        )
    compared = any(
        found.get("verdict") for cell in section["cells"] for found in cell["metrics"].values()
    )
    if compared and not section["control"]:
        yield (
            f"There is no control (a second copy of {REFERENCE}), so the noise of this run is not "
            "known."
        )


def _failed(section: Facts) -> Iterator[str]:
    """Yield who has no number."""
    failed: dict[str, list[str]] = {}
    for cell in section["cells"]:
        if cell["failure"] is not None:
            failed.setdefault(wording.name(cell), []).append(cell["workload"])
    if failed:
        names = [f"{name} at {joined(list(dict.fromkeys(at)))}" for name, at in failed.items()]
        yield f"Failed, and so without a number: {'; '.join(names)}."
