"""Costs of each style for a user's own training step, from its results, as a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import impls
from bench.cells import FLAT, PURE, REFERENCE
from bench.estimates import MARGIN, Estimate, group_by_key
from bench.metrics import HOST, METRICS, STEP
from bench.prepare.run import ASKED
from bench.report import wording
from bench.report.remedies import find_cheaper, write_change
from bench.report.table import (
    Column,
    Content,
    Document,
    Row,
    Section,
    Table,
    amount,
    percent,
    words,
)
from bench.report.wording import join_words
from bench.runfile import find_needed_seconds
from bench.stats.amounts import make_zero_cost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.runfile import CellResult, Results

CARRY_ADVICE = "If `loss` takes a `state` or `key`, pass it in and return it as `opt_state` is."
"""Sentence below the advised lines, as they show no state or key."""
COLUMNS = (
    Column("style"),
    Column("added to\na call", number=True, help="on one core, waited for, with a 95 % interval"),
    Column("step", number=True, help="on all cores or the accelerator, beside plain JAX's"),
    Column("step,\nin a row", number=True, help="50 calls, of which only the last is waited for"),
    Column("program", needed=False),
)
COUNTS = ("python_starts", "flattening_starts", "gc_pauses", "gc_longest", "gc_share")
"""Metrics that explain why a call is dear: functions of Python, and pauses for garbage."""
COUNT_COLUMNS = (
    Column("style"),
    *(Column(METRICS[name].label, number=True, help=METRICS[name].help) for name in COUNTS),
)


class Advice(NamedTuple):
    """What to write, or why that is not known."""

    text: str
    change: str = ""
    """Lines of code to change."""
    is_known: bool = True
    """Whether the styles that the results are about were compared."""


class OwnCost:
    """Views of the results of a step on one backend."""

    def __init__(self, results: Results) -> None:
        self.table, self.budget = results.table, results.options.budget or 0.0
        self.baseline = results.cells[0].cell.baseline
        """Plain JAX's cell."""
        self.step = self.table.amount(self.baseline, STEP) or self.table.amount(self.baseline, HOST)
        """Time of plain JAX's step, else of its call on one core."""
        cells = [row for row in results.cells if row.cell.arm not in REFERENCE]
        self.other_steps = [row for row in cells if row.proof and not row.proof.equal]
        """Results of whole steps that compute something else than the model."""
        self.cells = [row for row in cells if row not in self.other_steps]
        """All other results but the references'."""
        file, entrants = self.baseline.workload, (row.cell.entrant for row in self.cells)
        self.entrant = next((name for name in entrants if name != file), file)
        """The model's library; the file's name if that is plain JAX or there is no model."""
        rows = sorted(self.cells, key=lambda row: row.cell.entrant == self.entrant)
        self.plain, self.baseline_words = "jax.jit", "`jax.jit` over the model as it is"
        """Name of the baseline, and what it is."""
        if self.entrant != file:
            self.plain = f"{self.entrant}/{FLAT}"
            self.baseline_words = (
                f"`{self.plain}`: `jax.jit` over a list of the same model's arrays"
            )
        added = {row.cell.style: self.table.comparison(row.cell, HOST) for row in rows}
        self.costs = {style: row for style, row in added.items() if row is not None}
        """Style → seconds that it adds to a call, the file's own step first."""
        self.unknown = [
            f"`{row.cell.arm}`" for row in rows if row.failure is None and not added[row.cell.style]
        ]
        """Styles whose added time was not measured within the budget."""
        self.has_numbers = any(
            self.table.comparison(row.cell, metric) for row in self.cells for metric in ASKED
        )
        """Whether any style is compared with plain JAX's."""
        self.missing = [why for row in results.cells for why in row.missing.values()]
        """Reasons why numbers are missing."""
        self.missing_seconds = max(map(find_needed_seconds, self.missing), default=0.0)
        """Seconds that the missing numbers need, as far as the reasons say."""
        self.carries = any(row.proof and row.proof.state for row in cells)
        """Whether the model has a state."""


def document(results: Results) -> Document:
    """Return the costs of a step's styles, from the results of `bakeoff cost`."""
    it = OwnCost(results)
    file = f"{it.baseline.workload}.py"
    advice, calls = advise(it), count_calls(it)
    trained, state = (it.table.amount(it.baseline, f"{n}_arrays") for n in ("parameter", "state"))
    beside = f" and {amount(state.value, '')} of state" if state and state.value else ""
    versions = ", ".join(f"{n} {v}" for n, v in results.versions.items() if n != "jax-bakeoff")
    device = results.conditions.devices.get(it.baseline.backend, "")
    broken = (row for row in results.cells if row.failure and not row.cell.is_control)
    failed = group_by_key((row.failure, str(row.cell.arm)) for row in broken)
    failures = tuple(f"{join_words(arms)} failed: {why}" for why, arms in failed.items())
    return Document(
        title=f"What each style costs {file}",
        subtitle=f"{amount(trained.value, '')} parameter arrays{beside}; on {it.baseline.backend}"
        f"{f' ({device})' if device and device != it.baseline.backend else ''}"
        if trained
        else "",
        headline=advice.text,
        status="good" if advice.is_known and not failures else "open",
        warnings=(*results.warnings, *wording.name_constant_losses(results.cells)),
        sections=(
            Section("Failures", failures, status="bad"),
            Section("Cost of a step", tables=(make_table(it),) * (it.step is not None)),
            Section("Python and garbage", tables=(calls,) * bool(calls.rows)),
            Section("Change", tuple(advice.change.splitlines())),
            Section("Not compared", tuple(describe_other_steps(it))),
            Section("Not measured", tuple(wording.explain_missing(it.cells))),
        ),
        fine_print=(
            *(
                f"Compared with {it.baseline_words}. Each style with a number has the same losses "
                "and parameters in ten steps. In brackets: 95 % intervals.",
            )
            * it.has_numbers,
            f"{results.spent.wall_seconds:.0f} s, {results.spent.processes} processes; {versions}.",
            *wording.suggest_more(results.estimates),
        ),
    )


def find_status(results: Results) -> int:
    """Return the exit status: 1 if a style failed, 2 if no style could be compared in time."""
    it = OwnCost(results)
    if any(row.failure is not None for row in results.cells):
        return 1
    return 0 if it.has_numbers or not it.missing else 2


def advise(it: OwnCost) -> Advice:
    """Return what to write, as far as it is known."""
    if it.step is None:
        return Advice(explain_silence(it), is_known=False)
    at = f"At {amount(it.step.value, 's')} a step"
    plain, library = FLAT, it.entrant
    if library == it.baseline.workload:  # a plain JAX model, or no model
        plain, library = PURE, it.baseline.entrant
    about = impls.find_declaration(library)
    # What people change: their own step, or what most tutorials write
    style = next((s for s in it.costs if s not in (PURE, *about.references)), "")
    rest = f" Not measured yet: {join_words(it.unknown)}." if it.unknown else ""
    if not style:
        if it.unknown:
            text = f"There was no time for {join_words(it.unknown)}: {suggest_budget(it)}."
            return Advice(text, is_known=False)
        few = "plain JAX has one style" if plain == PURE else "no other style has a number"
        others = [f"`{row.cell.arm}`" for row in it.other_steps]
        if others:
            few += f", and {join_words(others)} cannot be compared"
        return Advice(f"{at}, there is nothing to choose: {few}.", is_known=not others)
    names = {row.cell.style: f"`{row.cell.arm}`" for row in it.cells}
    names[plain] = f"`{library}/{plain}`"
    usual, name = it.costs[style], names[style]
    if usual.high is not None and usual.high < MARGIN * it.step.value:
        part = percent(max(0.0, usual.value) / it.step.value)
        return Advice(
            f"{at}, no other style is worth it: {name} adds {part} ({words(usual)}).{rest}"
        )
    if usual.is_unknown:
        by_one = " (one process)" * (usual.workers == 1)
        return Advice(f"{at}, {name}: not known yet{by_one}.{rest}", is_known=False)
    better = find_cheaper(library, style, it.costs | {plain: make_zero_cost(it.baseline)})
    if not better:
        most = "" if usual.high else ", by one process, which has no interval"
        end = f".{rest}" if rest else "; no style certainly adds less."
        return Advice(f"{at}, {name} adds {unsigned_words(usual)}{most}{end}")
    lines = write_change(library, style, better)
    less = unsigned_words(it.costs[better]) if better in it.costs else "nothing"
    what = " (a list of arrays)" * (better == FLAT)
    where = " on one core" if it.baseline.backend == "cpu" else ""
    return Advice(
        f"{at}, write {names[better]}{what}: {name} adds {unsigned_words(usual)} to plain JAX's "
        f"call{where}, and {names[better]} {less}.{rest}",
        "\n".join(lines + [CARRY_ADVICE] * it.carries),
    )


def explain_silence(it: OwnCost) -> str:
    """Return that nothing was measured, and what would help unless all styles failed."""
    if not it.missing:
        return "Nothing was measured."
    needs = f": a first answer needs about {it.missing_seconds:.0f} s" if it.missing_seconds else ""
    within = f" in {it.budget:g} s" if it.budget else ""
    return f"Nothing could be measured{within}{needs}; {suggest_budget(it)}."


def suggest_budget(it: OwnCost) -> str:
    """Return the advice to give a larger budget: by what is missing, if known, else twice it."""
    if not it.budget:
        return "give a larger --budget"
    more = 10 * math.ceil((it.budget + it.missing_seconds) / 10)
    return f"give --budget {more if it.missing_seconds else 2 * it.budget:g}"


def describe_other_steps(it: OwnCost) -> Iterator[str]:
    """Yield a sentence on each whole step that computes something else than the model."""
    for row in it.other_steps:
        assert row.proof is not None
        step = it.table.amount(row.cell, STEP)
        took = f", and takes {words(step)}" if step else ""
        yield (
            f"{row.cell.arm} has other losses than the model's styles: they are off by "
            f"{percent(row.proof.trajectory)} in ten steps. It stands for itself{took}."
        )


def unsigned_words(added: Estimate) -> str:
    """Return an added time in words, without its sign."""
    return words(added).removeprefix("+")


def make_table(it: OwnCost) -> Table:
    """Return a row for each style, the cheapest first."""

    def cost(row: CellResult) -> float:
        host = it.table.comparison(row.cell, HOST)
        return host.value if host else math.inf

    rows = []
    for row in sorted(it.cells, key=cost):
        if row.failure is None:
            numbers = [it.table.comparison(row.cell, metric) or "" for metric in ASKED]
            numbers[-1] = step_content(numbers[-1])
            rows.append(Row((str(row.cell.arm), *numbers, wording.program(row.proof))))
    first = [it.table.amount(it.baseline, metric) or "" for metric in ASKED]
    plain = Row((f"{it.plain} (times)", *first, ""))
    notes = [
        f"`{row.cell.arm}` waits for the device in each call: nothing overlaps."
        for row in it.cells
        if row.cell.style in impls.find_declaration(row.cell.entrant).waits
    ]
    whole, least = (it.table.amount(it.baseline, name) for name in (HOST, "dispatch"))
    if whole and least:
        notes.append(
            f"{it.plain} takes {words(whole)}; a call of as many empty arrays, which computes "
            f"nothing, takes {words(least)}: about the least for any style."
        )
    return Table(COLUMNS, (plain, *rows), notes=tuple(notes)).drop_empty_columns()


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
    for cell, name in [(it.baseline, it.plain), *((r.cell, str(r.cell.arm)) for r in it.cells)]:
        numbers: list[Content] = [it.table.amount(cell, metric) or "" for metric in COUNTS]
        if isinstance(numbers[-1], Estimate):
            numbers[-1] = percent(numbers[-1].value)
        if any(numbers):
            rows.append(Row((name, *numbers)))
    note = (
        "Counted in one call. Pauses are those of 1,000 calls, or of one second, with all of the "
        "process's objects under garbage collection."
    )
    return Table(COUNT_COLUMNS, tuple(rows), notes=(note,) * bool(rows)).drop_empty_columns()
