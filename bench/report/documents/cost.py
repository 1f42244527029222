"""Costs of each style for a user's own training step, from its results, as a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import impls
from bench.cells import BASELINE, FLAT, PURE, WHOLE
from bench.estimates import MARGIN, Estimate, group_by_key
from bench.metrics import METRICS, OF_OUTLINE, STEP
from bench.numbers import amount, percent, words
from bench.report import sentences
from bench.report.code import write_change
from bench.report.table import Column, Content, Document, Row, Section, Table
from bench.runfile import DISTURBED
from bench.track.own_cost import OwnCost, find_better, find_real_difference, real_rows
from bench.wording import join_words, name_few, sentence
from common.config import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.cells import Arm
    from bench.runfile import Results

CARRY_ADVICE = "If `loss` takes a `state` or `key`, pass it in and return it as you do `opt_state`."
"""Sentence below the advised lines, which show no state or key."""
ADDED = Column(
    "added to\na call",
    number=True,
    help="on the model's skeleton, on one core; each call is waited for; with a 95 % interval",
)
COLUMNS = (
    Column("style"),
    ADDED,
    Column("write\ninstead", help="the library's cheapest style that is known to add less"),
    Column("step", number=True, help="on all cores or the accelerator, relative to plain JAX"),
    Column("step,\nin a row", number=True, help="50 calls; only the last is waited for"),
    Column("program", needed=False),
)
START_METRICS = ("trace", "lower", "compile", "peak_rss")
"""Metrics of what comes before the first step."""
COUNTS = ("python_starts", "flattening_starts", "gc_pauses", "gc_longest", "gc_share")
"""Metrics that explain why a call is slow: functions of Python, and pauses for garbage."""
COMPILATIONS = "compilations_warm"
"""Count that each counted step has. Counts of Python's functions are missing if they vary."""


class Advice(NamedTuple):
    """What to write, or why that is not known."""

    text: str
    change: str = ""
    """Lines of code to change."""
    is_known: bool = True
    """Whether the measured styles could be compared."""


def describe_costs(results: Results) -> Document:
    """Return the costs of a step's styles, from the results of `bakeoff cost`."""
    it = OwnCost(results)
    advice, calls, starts = advise(it), count_calls(it), make_starts_table(it)
    trained, state = (it.table.amount(it.light, f"{n}_arrays") for n in ("parameter", "state"))
    beside = f" and {amount(state.value, '')} of state" if state and state.value else ""
    versions = ", ".join(f"{n} {v}" for n, v in results.versions.items() if n != "jax-bakeoff")
    device = results.conditions.devices.get(it.baseline.backend, "")
    broken = (row for row in results.cells if row.failure and not row.cell.is_control)
    failed = group_by_key((row.failure, str(row.cell.arm)) for row in broken)
    failures = tuple(
        f"{join_words([*dict.fromkeys(arms)])} failed: {why}" for why, arms in failed.items()
    )
    return Document(
        title=f"What each style costs {it.file}{'' if it.is_generated else '.py'}",
        subtitle=f"{amount(trained.value, '')} parameter arrays{beside}; on {it.baseline.backend}"
        f"{f' ({device})' if device and device != it.baseline.backend else ''}"
        if trained
        else "",
        headline=advice.text,
        status="bad" if it.failure else "good" if advice.is_known and not failures else "open",
        warnings=(*results.warnings, *sentences.name_constant_losses(real_rows(it))),
        sections=(
            Section("Failures", failures, status="bad"),
            Section("Cost of a step", tables=(make_styles_table(it),) * bool(it.call or it.step)),
            Section("Before the first step", tables=(starts,) * bool(starts.rows)),
            Section("Python and garbage", tables=(calls,) * bool(calls.rows)),
            Section("Change", tuple(advice.change.splitlines())),
            Section("Not compared", tuple(describe_other_steps(it))),
            Section(
                "Not measured",
                (*sentences.explain_missing(it.rows or results.cells), *name_unchecked(it)),
            ),
        ),
        fine_print=(
            *(
                f"Relative to {it.baseline_words}, with 95 % intervals. Added times are those of "
                "the model's skeleton (the same trees, arrays of one element) on a quiet machine. "
                + "Real steps show about as much on two cores, and often a third more on one. "
                * (it.step is None)
                + "Styles with a step time have the same losses and parameters in ten real "
                "steps." * bool(it.step),
            )
            * it.has_numbers,
            "A device slower than Python hides added time, unless the style waits for it."
            + " Time that an accelerator's runtime adds for each array is only in its step times."
            * (Device.parse(it.baseline.backend).backend != "cpu"),
            f"{results.spent.wall_seconds:.0f} s, {results.spent.processes} processes; {versions}.",
            *sentences.suggest_more(it.compared, goes_on=not it.is_generated),
        ),
    )


def name_unchecked(it: OwnCost) -> Iterator[str]:
    """Yield which skeletons were not compared with their real steps, in a sentence.

    Of a generated stack, nobody has the real step.
    """
    arms = [arm for arm in it.arms if arm.style in it.costs and arm.style != WHOLE]
    arms *= not it.is_generated
    names = [str(arm) for arm in arms if it.table.amount(it.find_light(arm), COMPILATIONS) is None]
    if names:
        yield (
            f"There was no time to compare the skeletons of {name_few(names, 2)} with the trees "
            "of their real steps."
        )


def advise(it: OwnCost) -> Advice:
    """Return what to write, as far as it is known; a real step that fails comes first."""
    if it.failure:
        return Advice(sentence(f"Your real step fails: {it.failure}"), is_known=False)
    advice, text = compare_styles(it), ""
    for row in real_rows(it):
        if row.cell.style == WHOLE and row.failure:
            text = sentence(f"`{row.cell.arm}` fails: {row.failure}") + " "
    text += advice.text
    if it.call and not it.is_shown_to_work and not it.is_generated:
        text += " Your real step was not run, so it is not known whether it works."
    return advice._replace(text=text)


def compare_styles(it: OwnCost) -> Advice:
    """Return which style to write by what each adds to a call, as far as it is known."""
    if it.call is None and it.step is None:
        return Advice(explain_silence(it), is_known=False)
    at = f"At {amount(it.step.value, 's')} a step, " if it.step else ""
    library, plain = it.library, it.plain_style
    about = impls.find_declaration(library)
    styles = [s for s in it.costs if s not in (PURE, *about.references)]
    better = {s: find_better(it, s) for s in styles[:2]}
    # What people change: their own step, where that helps, or what most tutorials write
    style = next((s for s in better if s != WHOLE or better[s]), "".join(styles[:1]))
    unknown = [arm for arm in it.unknown if arm.style != style]
    named = join_words([f"`{arm}`" for arm in unknown])
    rest = f" Not measured yet: {named}." if unknown else ""
    if not style:
        if unknown:
            text = f"There was no time for {named}: {suggest_budget(it)}."
            return Advice(text, is_known=False)
        few = "plain JAX has one style" if plain == PURE else "no other style has a number"
        others = [f"`{row.cell.arm}`" for row in it.other_steps]
        if others:
            few += f", and {join_words(others)} cannot be compared"
        times = {"call": it.call, "step": it.step}
        takes = [f"a {n} takes {amount(row.value, 's')}" for n, row in times.items() if row]
        nothing = sentence(f"{join_words(takes)}; there is nothing to choose: {few}")
        return Advice(nothing, is_known=not others)
    names = {arm.style: f"`{arm}`" for arm in it.arms}
    names[plain] = f"`{library}/{plain}`"
    usual, name = it.costs[style], names[style]
    if it.step and usual.high is not None and usual.high < MARGIN * it.step.value:
        part = percent(max(0.0, usual.value) / it.step.value)
        real = describe_real_step(it, style, plain, names[plain])
        least = f"{at}no other style is worth it: {name} adds {part} ({words(usual)}){real}.{rest}"
        return Advice(least)
    if usual.is_unknown:
        by_one = " (one process)" * (usual.workers == 1)
        return Advice(f"{at}{name}: not known yet{by_one}.{rest}", is_known=False)
    advised = better[style]
    real = describe_real_step(it, style, advised or plain, names[advised or plain])
    if not advised:
        most = "" if usual.high else " (one process, so no interval)"
        end = "" if rest else "; no style is known to add less"
        text = f"{at}{name} adds {unsigned_words(usual)} to a call{most}{end}{real}.{rest}"
        return Advice(text)
    less = unsigned_words(it.costs[advised]) if advised in it.costs else "nothing"
    what = " (a list of arrays)" * (advised == FLAT)
    if {arm.style for arm in unknown} - {WHOLE, *about.references}:  # one of them may add less
        return Advice(
            f"So far, {names[advised]}{what} adds least to a call: {less}; {name} adds "
            f"{unsigned_words(usual)}{real}.{rest}",
            is_known=False,
        )
    lines = write_change(library, style, advised)
    return Advice(
        f"Write {names[advised]}{what}: it adds {less} to a call; {name} adds "
        f"{unsigned_words(usual)}{real}.{rest}",
        "\n".join(lines + [CARRY_ADVICE] * it.carries),
    )


def describe_real_step(it: OwnCost, usual: str, better: str, name: str) -> str:
    """Return what a real step shows of the difference of two styles, if steps were timed.

    On a CPU, it is more than a skeleton's where the model's own work has left the caches cold, and
    less where other threads hide it; so it is what to expect there. `name` is the better style's.
    """
    step, more = it.find_step(usual), find_real_difference(it, usual, better)
    if step is None:
        return ""
    takes = f". Your real step takes {amount(step.value, 's')} here"
    if more is None or more.is_unknown:
        return f"{takes}; how much the styles differ in it is not known yet"
    costs = {style: cost.value for style, cost in it.costs.items()} | {it.plain_style: 0.0}
    skeletons, (low, high) = costs[usual] - costs[better], more.limits
    is_unlike = low is None or high is None or not low <= skeletons <= high
    end = "expect that on this machine" if more.differs or is_unlike else "expect the times above"
    return f"{takes}, {words(more)} compared with {name}: {end}"


def explain_silence(it: OwnCost) -> str:
    """Return that nothing was measured, and what would help unless all styles failed."""
    if not it.missing:
        return "Nothing was measured."
    needs = f": a first answer needs about {it.missing_seconds:.0f} s" if it.missing_seconds else ""
    within = f" in {it.budget:g} s" if it.budget else ""
    return f"Nothing could be measured{within}{needs}; {suggest_budget(it)}."


def suggest_budget(it: OwnCost) -> str:
    """Return the advice to give a larger budget: by what is missing, if known, else twice it.

    Where others had the cores, a larger one would not help.
    """
    if DISTURBED in it.missing:
        return "other processes had the workers' cores, so measure again in a quieter hour"
    if not it.budget:
        return "give a larger --budget"
    more = 10 * math.ceil((it.budget + it.missing_seconds) / 10)
    return f"give --budget {more if it.missing_seconds else 2 * it.budget:g}"


def describe_other_steps(it: OwnCost) -> Iterator[str]:
    """Yield a sentence about each whole step that computes something else than the model."""
    for row in it.other_steps:
        assert row.proof is not None
        step = it.table.amount(row.cell, STEP)
        took = f" It takes {words(step)}." if step else ""
        yield (
            f"{row.cell.arm} is not compared with the model's styles, because its losses differ "
            f"from theirs by {percent(row.proof.trajectory)} in ten steps.{took}"
        )


def unsigned_words(added: Estimate) -> str:
    """Return an added time in words, without its sign."""
    return words(added).removeprefix("+")


def make_styles_table(it: OwnCost) -> Table:
    """Return a row for each style, the cheapest first."""

    def sort_by_cost(arm: Arm) -> float:
        added = it.costs.get(arm.style)
        return added.value if added else math.inf

    rows = []
    proofs = {row.cell: row.proof for row in real_rows(it)}
    failed = {row.cell for row in it.rows if row.failure is not None}
    for arm in sorted(it.arms, key=sort_by_cost):
        real = it.find_real(arm)
        if not {real, it.find_light(arm)} <= failed:
            steps = [it.table.comparison(real, name) or "" for name in (STEP, "step_pipelined")]
            steps[-1] = step_content(steps[-1])
            added = it.costs.get(arm.style) or ""
            better = find_better(it, arm.style) if added else ""
            rows.append(Row((str(arm), added, better, *steps, sentences.program(proofs.get(real)))))
    steps = [it.table.amount(it.baseline, name) or "" for name in (STEP, "step_pipelined")]
    plain = Row((f"{it.plain} (times)", it.call or "", "", *steps, ""))
    notes = [
        f"`{arm}` waits for the device in each call, so nothing overlaps."
        for arm in it.arms
        if arm.style in impls.find_declaration(arm.entrant).waits
    ]
    if it.is_generated:  # of a model, the styles that cannot train it are left out
        limits = group_by_key(
            (limit, f"`{arm}`")
            for arm in it.arms
            if (limit := impls.find_declaration(arm.entrant).limits.get(arm.style))
        )
        notes += [f"{join_words(arms)}: {limit}." for limit, arms in limits.items()]
    least = it.table.amount(it.light, "dispatch")
    if it.call and least and least.value < it.call.value:
        notes.append(
            f"{it.plain} takes {words(it.call)}. A call with as many empty arrays, which computes "
            f"nothing, takes {words(least)}; no style can take much less."
        )
    return Table(COLUMNS, (plain, *rows), notes=tuple(notes)).drop_empty_columns()


def make_starts_table(it: OwnCost) -> Table:
    """Return a row for each style: what comes before its first step."""
    rows = []
    names = {BASELINE: it.plain} | {arm: str(arm) for arm in it.arms}
    for arm, name in names.items():
        light, real = it.find_light(arm), it.find_real(arm)
        cells = {metric: light if metric in OF_OUTLINE else real for metric in START_METRICS}
        numbers = [it.table.amount(cell, metric) or "" for metric, cell in cells.items()]
        rows += [Row((name, *numbers))] * any(numbers)
    return Table(make_columns(START_METRICS), tuple(rows)).drop_empty_columns()


def make_columns(metrics: Iterable[str]) -> tuple[Column, ...]:
    """Return a column for each metric, after that of the style."""
    numbers = (Column(METRICS[n].label, number=True, help=METRICS[n].help) for n in metrics)
    return (Column("style"), *numbers)


def step_content(ratio: Content) -> Content:
    """Return a style's ratio of steps in a row; in words where it certainly adds nothing.

    The time that a style adds is hidden while the device works on the step before.
    """
    if isinstance(ratio, str) or ratio.high is None or ratio.high > 1 + MARGIN:
        return ratio
    return f"hidden (≤ {percent(max(0.0, ratio.high - 1))})"


def count_calls(it: OwnCost) -> Table:
    """Return a row for each style: why a call is dear, and how long its worst pauses are."""
    rows = []
    names = {BASELINE: it.plain} | {arm: str(arm) for arm in it.arms}
    for arm, name in names.items():
        cell = it.find_light(arm)
        numbers: list[Content] = [it.table.amount(cell, metric) or "" for metric in COUNTS]
        if isinstance(numbers[-1], Estimate):
            numbers[-1] = percent(numbers[-1].value)
        if any(numbers):
            rows.append(Row((name, *numbers)))
    note = (
        "Functions are counted in one call. Pauses are those in 1,000 calls, or in one second, "
        "while garbage collection covers all objects of the process."
    )
    return Table(make_columns(COUNTS), tuple(rows), notes=(note,) * bool(rows)).drop_empty_columns()
