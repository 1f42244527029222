"""Findings in words: terminal, Markdown and page say the same, from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.metrics import label
from bench.report import wording
from bench.report.findings import AGREE, REFERENCE, Finding, Topic, findings
from bench.report.table import amount, percent
from bench.report.wording import few, joined

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report.wording import Facts

__all__ = ["AGREE", "sentence", "sentences"]

NAMED = 2
"""Styles that are named with their number; the table has the others."""
LISTED = 6
"""Styles that are named without one."""

type Values = Any
"""What a finding holds, by name."""


def sentences(section: Facts) -> list[str]:
    """Return what a run found, one sentence an item.

    Args:
        section: The `bakeoff` section of a run file.
    """
    return [sentence(finding) for finding in findings(section)]


def sentence(finding: Finding) -> str:
    """Return a finding in words."""
    text = SAID[finding.kind](finding.arms, finding.values)
    return f"{text[0].upper()}{text[1:]}."


def place(values: Values, workload: str | None = None) -> str:
    """Return where something was found; the backend only if there are several."""
    where = wording.sized(values["workload"] if workload is None else workload)
    return f"{where} on {values['backend']}" if values["backend"] else where


def numbered(arms: tuple[str, ...], numbers: Values) -> str:
    """Return styles with their numbers, the first of them if they are many."""
    return few([f"{name} {numbers[name]}" for name in arms], NAMED)


def nothing(_: tuple[str, ...], values: Values) -> str:
    """Return that there is no number at all."""
    count = values["cells"]
    if values["good"] or not count:
        return "nothing was measured"
    return f"nothing was measured: all of the {count} cells failed"


def not_compared(_: tuple[str, ...], values: Values) -> str:
    """Return why there is no ratio of steps."""
    where = f" on {values['backend']}" if values["backend"] else ""
    return {
        "untimed": f"steps were not timed in this run{where}",
        "no baseline": f"steps are not compared{where}: {REFERENCE}, which ratios refer to, has no "
        "step time in this run",
        "alone": f"no step was timed beside {REFERENCE}'s in this run{where}",
    }[values["reason"]]


def equal(arms: tuple[str, ...], values: Values) -> str:
    """Return whose step is as fast as the baseline's."""
    limit = percent(values["margin"])
    return f"within ±{limit} of {REFERENCE} at {place(values)}: {few(arms, LISTED)}"


def unsure(arms: tuple[str, ...], values: Values) -> str:
    """Return whose step could not be told apart, and what could have been."""
    limit = values["detectable"]
    missed = "" if limit is None else f" (differences under {percent(limit)} may be missed)"
    return f"inconclusive at {place(values)}{missed}: {few(arms, LISTED)}"


def different(arms: tuple[str, ...], values: Values) -> str:
    """Return whose step is slower, or faster, and at which sizes it is not."""
    kind, workloads = values["until"]
    places = [place(values, workload) for workload in workloads]
    until = {
        "within": " (within the margin from {} on)",
        "not": " (not from {} on)",
        "open": " (inconclusive at {})",
        "except": " (not at {})",
        "larger": " and at every larger size measured",
    }.get(kind, "")
    where = f"{values['verdict']} at {place(values)}{until.format(joined(places or ['']))}"
    return f"{where}: {numbered(arms, values['ratios'])}"


def added(arms: tuple[str, ...], values: Values) -> str:
    """Return what styles add to a call."""
    where = f" on {values['backend']}" if values["backend"] else ""
    return f"added to each call of a tiny model{where}: {numbered(arms, values['added'])}"


def advice(arms: tuple[str, ...], values: Values) -> str:
    """Return what there is to choose by, where the libraries' own steps are equally fast."""
    who = "the libraries" if values["every"] else joined([REFERENCE, *arms])
    where = f" on {values['backend']}" if values["backend"] else ""
    mind = ", and mind how steps are written" if values["slower"] else ""
    return f"{who} are equally fast{where}: choose by API{mind}"


def cores(arms: tuple[str, ...], values: Values) -> str:
    """Return who uses more cores than the others do."""
    used = few([f"{name} {values['used'][name]:.1f}" for name in arms], NAMED)
    return f"cores used at {place(values)}: {used}, the others about {values['usual']:.1f}"


def cause(arms: tuple[str, ...], values: Values) -> str:
    """Return why styles differ."""
    counts, fixed = values["calls"], values["fixed"]
    calls = programs = ""
    if counts:
        ends = dict.fromkeys(str(ours) for ours, _ in (counts[0], counts[-1]))
        calls = f"{' to '.join(ends)} Python calls, not {counts[0][1]}"
    if values["programs"]:
        programs = f" ({'; '.join(values['programs'])})"
    evidence = [calls] if calls else []
    if fixed and len(fixed) == len(arms) and len({workloads for _, workloads in fixed}) == 1:
        ends = dict.fromkeys(amount(seconds, "s") for seconds, _ in (fixed[0], fixed[-1]))
        evidence.insert(0, f"{' to '.join(ends)} a step, the same at {joined(fixed[0][1])}")
    why = {
        "dispatch": f"Python dispatch ({'; '.join(evidence)})",
        "calls": f"the same program, but {calls}",
        "parts": "a step is several programs, not one",
        "program": f"another program{programs}",
        "both": f"another program{programs}, more Python dispatch ({calls}), or both",
        "compiles": "it traces and compiles again when warm",
        "outside": "not written in JAX",
        "unknown": "this run does not say",
    }[values["cause"]]
    are = "is" if len(arms) == 1 else "are"
    return f"why {joined(arms)} {are} {values['verdict']} at {place(values)}: {why}"


def initialiser(arms: tuple[str, ...], values: Values) -> str:
    """Return that training depends on the initialiser."""
    same = " to ".join(dict.fromkeys(amount(end, "nats") for end in values["same"]))
    low, high = (f"{amount(n, 'nats')} ({arm})" for n, arm in zip(values["own"], arms, strict=True))
    return (
        "where training gets to depends on the initialiser, not on the library: after "
        f"{values['steps']} steps at {place(values)} the loss is {same} from the same weights, and "
        f"{low} to {high} from the libraries' own"
    )


def startup(arms: tuple[str, ...], values: Values) -> str:
    """Return what differs most before the second step."""
    times = f"{arms[0]} takes {values['ratio']} times {REFERENCE}'s {values['reference']}"
    stage = label(values["metric"])
    return f"what differs most before training is {stage}: at {place(values)}, {times}"


def choice(arms: tuple[str, ...], values: Values) -> str:
    """Return what to take in a situation: one style, or any of some that do not differ."""
    situation, best, after = SITUATIONS[values["situation"]], values["best"], values["next"]
    where = situation.format(place(values))
    behind = f"; next: {after[0]} {after[1]}" if after else ""
    if len(arms) == 1:
        return f"{where}: {arms[0]}, {best}{behind}"
    limit = values["limit"]
    alike = {
        "within": f"all within ±{limit} of {REFERENCE}",
        "certain": f"they do not differ by more than {limit}",
        "open": f"none is shown to be worse by more than {limit}",
    }[values["alike"]]
    cheap = values["cheapest"]
    cheapest = f"; cheapest per call: {cheap[0]} {cheap[1]}" if cheap else ""
    return f"{where}: any of {few(arms, NAMED)}; {alike}{cheapest}{behind}"


SITUATIONS = {
    "call": "small models, many short calls",
    "step": "training at {}",
    "startup": "short runs and recompilations, from a fresh process to the second step at {}",
    "memory": "memory at {}",
}
"""What a choice can be for."""
SAID: dict[Topic, Callable[[tuple[str, ...], Values], str]] = {
    Topic.NOTHING: nothing,
    Topic.CONTROL: lambda arms, values: (
        f"do not trust differences of this size: the control, a second copy of {REFERENCE}, "
        f"differs from it ({numbered(arms, values['ratios'])})"
    ),
    Topic.NO_CONTROL: lambda *_: (
        f"there is no control (a second copy of {REFERENCE}), so the noise of this run is not known"
    ),
    Topic.NOT_COMPARED: not_compared,
    Topic.EQUAL: equal,
    Topic.OPEN: unsure,
    Topic.DIFFERENT: different,
    Topic.ELSEWHERE: different,
    Topic.ADDED: added,
    Topic.ADVICE: advice,
    Topic.CORES: cores,
    Topic.UNPREDICTED: lambda arms, _: (
        "the same program as the baseline, but slower or faster than its host cost explains: "
        f"{few(arms, NAMED)}"
    ),
    Topic.PREDICTED: lambda arms, _: (
        "the same program as the baseline, and their host cost explains the difference: "
        f"{few(arms, LISTED)}"
    ),
    Topic.SAME_PROGRAM: lambda arms, _: (
        f"compiled to the very same program as {REFERENCE}: {few(arms, LISTED)}"
    ),
    Topic.CAUSE: cause,
    Topic.INITIALISER: initialiser,
    Topic.STARTUP: startup,
    Topic.CHOICE: choice,
}
"""How each kind of finding is said."""
