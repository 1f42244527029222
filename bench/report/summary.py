"""The answer of a run, for terminal, page, Markdown and README: a headline, and one table.

Both come from the estimates alone. The headline is true of whatever was measured: a single style,
nothing settled, or nothing at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import impls
from bench import wording
from bench.cells import BASELINE, PURE, Arm, Cell
from bench.estimates import Estimate, EstimateTable, Verdict, group_by_key
from bench.metrics import HOST, METRICS, STARTUP, STEP, TINY
from bench.numbers import percent, words
from bench.report import sentences
from bench.report.run_tables import compare
from bench.report.sentences import NOTHING_SETTLED
from bench.report.table import COLOURED_SIZE, Column, Row, Table, measure_size
from bench.stats.verdicts import GROWTH
from bench.wording import MOST_NAMED, name_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.report.table import Content
    from bench.runfile import CellResult, Results
    from bench.samples import Proof

MOST_SLOW = 2
"""Largest number of slow ways to write a step that the headline names."""
WHOLE_PERCENTS = 0.05
"""Size of a difference from which a bound has whole per cents: a tenth of one decides nothing."""
CAUSES = RETRACES, PROGRAMS, HOST_WORK, MORE_CALLS, OTHER_PROGRAM = (
    *("it traces and compiles again when warm", "a step is several programs, not one"),
    *("the host's work in each call", "the same program, but more Python calls"),
    "a different program",
)
"""Words for why a step is slower or faster, each explained in docs/why.md."""
ONCE = ("compile", STARTUP, "peak_rss")
"""Metrics of what happens once in a process, not in each step."""


@dataclass(frozen=True)
class View:
    """Results on one backend, by arm and workload."""

    backend: str
    backend_suffix: str
    """Text ` on gpu`, to follow a workload; empty if there is one backend."""
    margin: float
    """Fraction within which two times are equivalent."""
    cells: Mapping[Cell, CellResult]
    """Cell → its result, without the control."""
    table: EstimateTable
    """All estimates of the run."""

    @cached_property
    def arms(self) -> list[Arm]:
        """Arms, the baseline first."""
        arms = dict.fromkeys(cell.arm for cell in self.cells)
        return sorted(arms, key=lambda arm: arm != BASELINE)

    @cached_property
    def workloads(self) -> list[str]:
        """Workloads, the smallest model's first."""
        return wording.sort_workloads(cell.workload for cell in self.cells)

    @cached_property
    def compared_workloads(self) -> list[str]:
        """Workloads at which steps have a ratio; tiny ones only if there are no others."""
        places = [w for w in self.workloads if self.comparisons(w, STEP)]
        return [w for w in places if w not in TINY] or places

    @cached_property
    def main_workload(self) -> str:
        """The workload that sentences name first, among those with ratios of steps."""
        return wording.main_workload(self.compared_workloads)

    @cached_property
    def steps(self) -> dict[Arm, Estimate]:
        """Ratios of steps at the main workload."""
        return self.comparisons(self.main_workload, STEP)

    @cached_property
    def call_workload(self) -> str:
        """The smallest workload at which calls are compared; or else the smallest one."""
        places = (w for w in self.workloads if self.comparisons(w, HOST))
        return next(places, "".join(self.workloads[:1]))

    @cached_property
    def host_costs(self) -> dict[Arm, Estimate]:
        """Arm → time added to a call, at the smallest workload where that is known."""
        return self.comparisons(self.call_workload, HOST)

    def place_words(self, workload: str) -> str:
        """Return a workload in words, with the backend if there are several."""
        return f"{wording.name_workload(workload)}{self.backend_suffix}"

    def amount(self, arm: Arm, workload: str, metric: str) -> Estimate | None:
        """Return an arm's time, size or count; None if it has none, or has failed."""
        return self.table.amount(arm.make_cell(workload, self.backend), metric)

    def comparisons(self, workload: str, metric: str) -> dict[Arm, Estimate]:
        """Return arm → its ratio to the baseline, or the time that it adds."""
        rows = (
            (arm, self.table.comparison(arm.make_cell(workload, self.backend), metric))
            for arm in self.arms
        )
        return {arm: row for arm, row in rows if row}


def list_views(results: Results) -> list[View]:
    """Return a view of each backend."""
    rows = [result for result in results.cells if not result.cell.is_control]
    by_backend = group_by_key((row.cell.backend, (row.cell, row)) for row in rows)
    suffixed, table = len(by_backend) > 1, results.table
    return [
        View(backend, f" on {backend}" * suffixed, results.options.margin, dict(cells), table)
        for backend, cells in by_backend.items()
    ]


# the headline


def make_headline(results: Results) -> str:
    """Return the answer in a few sentences, of at most three numbers each."""
    views = list_views(results)
    parts = [text for view in views for text in (*_state_steps(view),) or _state_calls(view)]
    absent = [text for view in views for text in _name_absent(view)]
    if parts:
        parts += [*absent, *name_device(results)]
        return " ".join(map(wording.sentence, parts))
    proven = [row for row in results.good_cells if row.proof and not row.cell.is_control]
    if proven:
        proofs = wording.pluralise(len(proven), "proof")
        nothing = f"No time was compared with that of {BASELINE}. {proofs} passed."
        return " ".join([nothing, *map(wording.sentence, absent)])
    failed = bool(results.cells) and all(row.failure for row in results.cells)
    return "Nothing was measured" + (": every cell failed." if failed else ".")


def _state_steps(view: View) -> Iterator[str]:
    """Yield how much slower libraries and slow styles are, and what differs at another size.

    A library is judged by its `pure` style, as that step is written in the same way in all of them.
    """
    rows = {arm: row for arm, row in view.steps.items() if arm != BASELINE}
    libraries = {arm.entrant: row for arm, row in rows.items() if _is_library(arm)}
    ways = {name_arm(arm): row for arm, row in rows.items() if not _is_library(arm)}
    place = view.place_words(view.main_workload)
    if not rows:
        return
    if not any(map(_is_settled, rows.values())):
        yield f"at {place}, {NOTHING_SETTLED}"
        return
    if libraries:
        yield f"under one `jax.jit`, {_bound_rows(libraries, 'libraries', place, view.margin)}"
    slow = {n: row for n, row in ways.items() if row.verdict is Verdict.SLOWER}
    slow = {n: row for n, row in slow.items() if measure_size(row) >= COLOURED_SIZE}
    slowest = sorted(slow, key=lambda name: slow[name].value)[-MOST_SLOW:]
    if slowest:
        (how, beside), *others = (_compare_speed(slow[name].value) for name in slowest)
        is_known = any(map(_is_settled, libraries.values()))  # plain JAX and the place were named
        where = f" {beside} plain JAX at {place}" * (not is_known)
        repeated = " slower" if how.endswith(" slower") else ""  # `22 % slower; …, 66 %`
        rest = "".join(
            f"; {name}, {more.removesuffix(repeated)}"
            for name, (more, _) in zip(slowest[1:], others, strict=True)
        )
        yield f"{slowest[0]} is {how}{where}{rest}"
    elif ways:
        yield _bound_rows(ways, f"{'other ' * bool(libraries)}styles", place, view.margin)
    yield from _find_reversal(view)


def _name_absent(view: View) -> Iterator[str]:
    """Yield which styles have no ratio of steps at the main workload, and which failed there."""
    main = view.main_workload or wording.main_workload(view.workloads)
    rows = [row for cell, row in view.cells.items() if cell.workload == main]
    failed = [str(row.cell.arm) for row in rows if row.failure is not None]
    absent = [str(r.cell.arm) for r in rows if r.cell.arm not in view.steps and not r.failure]
    unmeasured = [name for name in absent if name != str(BASELINE)]
    if unmeasured and view.steps:
        yield f"not measured{view.backend_suffix}: {name_few(unmeasured)}"
    if failed:
        yield f"failed{view.backend_suffix}: {name_few(failed)}"


def _is_settled(row: Estimate) -> bool:
    return row.verdict is not Verdict.INCONCLUSIVE


def name_arm(arm: Arm) -> str:
    """Return a style as sentences name it: `nnx.jit`, or `haiku/transform`."""
    return impls.find_declaration(arm.entrant).names.get(arm.style, str(arm))


def _is_library(arm: Arm) -> bool:
    """Tell whether an arm is a library's shared step, in JAX."""
    return arm.style == PURE and impls.find_declaration(arm.entrant).jax


def _bound_rows(rows: Mapping[str, Estimate], what: str, place: str, margin: float) -> str:
    """Return how much slower settled rows are at most, and which rows are open.

    If there is a single settled row and it differs, it is described by its own ratio. `what` is
    the subject if there are many rows.
    """
    ends = {name: row.limits[1] for name, row in rows.items() if _is_settled(row)}
    highs = {name: high for name, high in ends.items() if high is not None}
    rest = [name for name in rows if name not in highs]
    still = f"; undecided: {name_few(rest)}" if rest else ""
    if not highs:
        return f"{name_few(rest)} {'is' if len(rest) == 1 else 'are'} undecided at {place}"
    most, verdicts = max(highs.values()), {rows[name].verdict for name in highs}
    if len(highs) == 1 and Verdict.EQUIVALENT not in verdicts:
        how, beside = _compare_speed(next(rows[name].value for name in highs))
    elif most > 1 or verdicts == {Verdict.FASTER}:
        how, beside = _compare_speed(most, bound=True)
        how = f"{'at most' if most > 1 else 'at least'} {how}"
    else:  # what is marked as equal is not called faster
        how, beside = f"within {percent(margin)}", "of"
    names, verb = wording.join_words([*highs]), "is" if len(highs) == 1 else "are"
    if len(highs) >= MOST_NAMED:
        names, verb = f"each of {len(highs)} {what}", "is"
    return f"{names} {verb} {how} {beside} plain JAX at {place}{still}"


def _compare_speed(ratio: float, *, bound: bool = False) -> tuple[str, str]:
    """Return a ratio in words, `22 % slower`, with the word that follows.

    A bound is rounded to the side of slower; from 5 % on, to a whole number.
    """
    if ratio >= 2:
        digits = 1 if ratio < 10 else 0
        ratio = math.ceil(ratio * 10**digits) / 10**digits if bound else ratio
        return f"{ratio:.{digits}f} times as slow", "as"
    size, is_slower = abs(ratio - 1), ratio >= 1
    if bound:
        parts = 100 if size >= WHOLE_PERCENTS else 1000
        size = (math.ceil if is_slower else math.floor)(round(parts * size, 6)) / parts
    return f"{percent(size)} {'slower' if is_slower else 'faster'}", "than"


def _find_reversal(view: View) -> Iterator[str]:
    """Yield the library that differs most at another size, with another verdict at the main one."""
    others = [w for w in view.compared_workloads if w != view.main_workload]
    rows = [
        (workload, arm, row)
        for workload in others
        for arm, row in view.comparisons(workload, STEP).items()
        if _is_library(arm) and arm != BASELINE and row.verdict in (Verdict.SLOWER, Verdict.FASTER)
        if arm in view.steps and view.steps[arm].verdict is not row.verdict
        if measure_size(row) >= COLOURED_SIZE
    ]
    if rows:
        workload, arm, row = max(rows, key=lambda change: abs(math.log(change[2].value)))
        twin = describe_twin(view.cells[arm.make_cell(workload, view.backend)].proof)
        how = _compare_speed(row.value)[0] + f": {twin}" * bool(twin)
        yield f"at {view.place_words(workload)}, {arm.entrant} is {how}"


def describe_twin(proof: Proof | None) -> str:
    """Return in words that a style's program is a reference's; empty if it is not."""
    if proof is None or not proof.twin:
        return ""
    reference = name_arm(Arm.parse(proof.twin))
    return f"its program is that of {reference}, so the library makes no difference"


def name_device(results: Results) -> Iterator[str]:
    """Yield that a run used only the CPU, and its number of cores."""
    if {row.cell.backend for row in results.cells} == {"cpu"}:
        cores = len(results.conditions.affinity or ())
        yield f"CPU only{f', {cores} cores' * bool(cores)}; not measured on a GPU"


def _state_calls(view: View) -> list[str]:
    """Return what styles add to a call, where no steps are compared; nothing if that is unknown."""
    costs = {arm: row for arm, row in view.host_costs.items() if arm != BASELINE}
    if not costs:
        return []
    if not any(map(_is_settled, costs.values())):
        return [f"time added to a call{view.backend_suffix}: {NOTHING_SETTLED}"]
    rest = [name_arm(arm) for arm, row in costs.items() if not _is_settled(row)]
    still = f"; undecided: {name_few(rest)}" if rest else ""
    slower = {arm: row for arm, row in costs.items() if row.verdict is Verdict.SLOWER}
    if not slower:
        names = name_few([*map(str, costs)])
        return [f"no style is known to add time to a call{view.backend_suffix}: {names}"]
    dearest = max(slower, key=lambda arm: slower[arm].value)
    among = "of the settled styles, " if rest else ""
    added = words(slower[dearest]).removeprefix("+")
    return [f"{among}{name_arm(dearest)} adds most to a call{view.backend_suffix}: {added}{still}"]


# the table


def make_summary_table(view: View) -> Table:
    """Return a row for each arm, the cheapest first, with the numbers that people ask for."""
    main = view.main_workload or wording.main_workload(view.workloads)
    others = [workload for workload in view.compared_workloads if workload != main]
    places = [
        *((STEP, main), (HOST, view.call_workload)),
        *((STEP, workload) for workload in others),
        *((metric, main) for metric in ONCE),
    ]
    columns = [Column("style"), *(_make_column(view, *place) for place in places)]
    rows = []
    for arm in sorted(view.arms, key=lambda arm: _rank(view, arm)):
        failed = any(view.cells[cell].failure for cell in view.cells if cell.arm == arm)
        contents = (_find_content(view, arm, *place) for place in places)
        rows.append(Row((f"{arm}{' failed' * failed}", *contents)))
    title = f"On {view.backend}" if view.backend_suffix else ""
    made = Table(tuple(columns), tuple(rows), title, margin=view.margin)
    return made.drop_empty_columns()


def _make_column(view: View, metric: str, workload: str) -> Column:
    if metric == HOST:
        return Column("added to a call", help="at a tiny size; each call is waited for")
    about, first = METRICS[metric], metric == STEP and workload == view.main_workload
    head = about.label if metric != STEP else f"step at {wording.name_workload(workload)}"
    return Column(head, help=about.help, needed=first or not view.main_workload)


def _rank(view: View, arm: Arm) -> tuple[bool, float, float]:
    """Return the place of an arm in the table: by what it adds to a call, or else to a step."""
    host, step = view.host_costs.get(arm), view.steps.get(arm)
    return arm != BASELINE, host.value if host else math.inf, step.value if step else math.inf


def _find_content(view: View, arm: Arm, metric: str, workload: str) -> Content:
    """Return an arm's result of a metric at a workload, or nothing."""
    result = view.cells.get(arm.make_cell(workload, view.backend))
    return compare(view.table, result, metric) if result else ""


# surprises, and causes


def find_surprises(view: View) -> Iterator[str]:
    """Yield arms that are faster than plain JAX, and `pure` steps slower at other workloads.

    An arm is named once: at the main workload, or at the smallest other one. Styles that are only
    references are left out.
    """
    main = view.main_workload
    named = {a for a in view.arms if a.style in impls.find_declaration(a.entrant).references}
    for workload in sorted(view.compared_workloads, key=lambda workload: workload != main):
        groups: dict[tuple[Verdict, str], list[str]] = {}
        for arm, row in view.comparisons(workload, STEP).items():
            dearer = row.verdict is Verdict.SLOWER and _is_library(arm) and workload != main
            if arm not in named and row.verdict and (row.verdict is Verdict.FASTER or dearer):
                named.add(arm)
                cause = find_cause(view, arm, row, workload)
                groups.setdefault((row.verdict, cause), []).append(f"{arm} {words(row)}")
        for (verdict, cause), arms in groups.items():
            why = f"; {cause}" if cause else ""
            yield f"{verdict} at {view.place_words(workload)}: {name_few(arms)}{why}"


def find_causes(view: View) -> Iterator[str]:
    """Yield why arms are slower or faster at the main workload, those with one reason together."""
    place = view.place_words(view.main_workload)
    for verdict in (Verdict.SLOWER, Verdict.FASTER):
        reasons = group_by_key(
            (find_cause(view, arm, row, view.main_workload), str(arm))
            for arm, row in view.steps.items()
            if row.verdict is verdict
        )
        for reason, names in reasons.items():
            if reason:
                verb = f"{'is' if len(names) == 1 else 'are'} {verdict}"
                yield f"why {name_few(names)} {verb} at {place}: {reason}"


def find_cause(view: View, arm: Arm, ratio: Estimate, workload: str) -> str:
    """Return why an arm's step differs from the baseline's; empty if the run does not say.

    If the host cost was not measured, a different program is not given as the reason: the host cost
    is more likely.
    """
    result = view.cells.get(arm.make_cell(workload, view.backend))
    proof = result.proof if result else None
    host = view.host_costs.get(arm)
    compiled = view.amount(arm, workload, "compilations_warm")
    calls, base_calls = (view.amount(a, workload, "python_calls") for a in (arm, BASELINE))
    if compiled and compiled.value:
        return RETRACES
    if proof is None:
        return ""
    if proof.jax is False:
        return "not written in JAX"
    if not proof.whole_step:
        return PROGRAMS
    if host and is_host_cause(host, ratio, view.amount(BASELINE, workload, STEP)):
        return HOST_WORK
    if proof.same_program and calls and base_calls and calls.value > base_calls.value:
        return f"{MORE_CALLS} than {BASELINE}"
    if proof.same_program or not host:
        return ""
    if proof.twin:
        return describe_twin(proof)
    return f"{OTHER_PROGRAM} ({sentences.operations(proof.operations_beside_baseline)})"


def is_host_cause(host: Estimate, ratio: Estimate, base: Estimate | None) -> bool:
    """Tell whether an arm's host cost explains how much slower its step is.

    Between two calls of a larger program the host may take up to `GROWTH` times as long; on several
    cores, a part of its work overlaps with the step.
    """
    if base is None or host.low is None or host.high is None or ratio.low is None:
        return False
    return host.low > 0 and 0 < base.value * (ratio.low - 1) <= GROWTH * host.high
