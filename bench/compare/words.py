"""A comparison in words, for a terminal and for Markdown alike.

What comes from outside, names and reasons, goes through `quote` of whoever shows it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.compare.comparison import ExactRow, Failure, Outcome, Row, Status
from bench.metrics import label
from bench.report import wording
from bench.report.terminal import COMPARED
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.cells import Cell
    from bench.compare.comparison import Comparison, Side

    type Quote = Callable[[str], str]

NAMED = 3
"""Of what is worse, what the headline names."""
LISTED = 8
"""Cells that are named one by one."""


class Counted(NamedTuple):
    """Exact rows that say the same, of one style at several workloads."""

    row: ExactRow
    """The first of them."""
    workloads: tuple[str, ...]


def name(cell: Cell) -> str:
    """Return a cell's entrant and style."""
    return wording.name(cell._asdict())


def place(cell: Cell, several: bool = False) -> str:
    """Return where a cell is: its workload, and its backend if there are several."""
    return f"{cell.workload} on {cell.backend}" if several else cell.workload


def backends(comparison: Comparison) -> bool:
    """Tell whether there is more than one backend."""
    cells = [row.cell for row in comparison.rows]
    cells += [row.cell for row in comparison.exact]
    cells += [failure.cell for failure in comparison.failures]
    return len({cell.backend for cell in cells}) > 1


def metric(name: str) -> str:
    """Return a metric's name in a sentence."""
    return label(name)


def ratio(row: Row) -> str:
    """Return new to base with its interval."""
    return wording.ratio({"ratio": row.ratio, "low": row.low, "high": row.high})


def sides(row: Row) -> tuple[str, str]:
    """Return what is compared on each side: ratios to the baseline, or amounts."""
    values = row.values
    if values is None:
        return "", ""
    if values.base_ratio is not None and values.new_ratio is not None:
        return beside(values.base_ratio), beside(values.new_ratio)
    return wording.amount(values.base, row.unit), wording.amount(values.new, row.unit)


def beside(value: float) -> str:
    """Return a ratio to the baseline with the digits that a change of some per cent needs."""
    return f"{value:.{3 if value < 2 else 2 if value < 10 else 1}f}"


def exact(value: float, of: str) -> str:
    """Return an exact number."""
    if of in ("final_loss", "final_loss_own"):
        return wording.loss(value)
    return f"{value:,.0f}".replace(",", " ") if value == int(value) else f"{value:g}"


def counted(rows: Iterable[ExactRow]) -> list[Counted]:
    """Return exact rows with those of one style that say the same put together."""
    found: dict[tuple[object, ...], list[ExactRow]] = {}
    for row in rows:
        cell = row.cell
        key = (cell.entrant, cell.style, cell.backend, row.metric, row.base, row.new, row.note)
        found.setdefault(key, []).append(row)
    return [Counted(r[0], tuple(row.cell.workload for row in r)) for r in found.values()]


def versions(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return the packages that differ between the sides, with both versions."""
    base, new = comparison.base.versions, comparison.new.versions
    names = [n for n in dict.fromkeys([*base, *new]) if base.get(n) != new.get(n)]
    return [(n, base.get(n, "none"), new.get(n, "none")) for n in names] if base and new else []


def headline(comparison: Comparison, quote: Quote = str) -> str:
    """Return what a comparison comes to, and how many rows there are."""
    return f"{outcome(comparison, quote)} {counts(comparison)}".rstrip()


def outcome(comparison: Comparison, quote: Quote = str) -> str:
    """Return what a comparison comes to, in a sentence that begins with what was changed."""
    changed = [
        f"{quote(package)} {quote(base)} → {quote(new)}"
        for package, base, new in versions(comparison)
    ]
    subject = f"{', '.join(changed)}: " if changed else ""
    if comparison.status is Status.CANNOT_SAY:
        return f"{subject}Cannot say whether anything is worse: no time could be settled."
    if comparison.status is Status.NOT_WORSE:
        known = "known to be " if unsettled(comparison) else ""
        return f"{subject}Nothing is {known}worse."
    several, worse = backends(comparison), _grouped(comparison.worse)
    said = [_short(row, quote, several=several) for row in worse[:NAMED]]
    more = len(worse) - len(said)
    return f"{subject}Worse: {wording.joined([*said, f'{more} more'] if more else said)}."


def unsettled(comparison: Comparison) -> int:
    """Return how many rows may be worse by more than is allowed, for all that is known."""
    return sum(not row.settled for row in comparison.judged)


def _grouped(worse: Sequence[Row | ExactRow | Failure]) -> list[Row | Failure | Counted]:
    """Return failures, then what is slowest, then counts."""
    rows = [row for row in worse if isinstance(row, Row)]
    return [
        *(row for row in worse if isinstance(row, Failure)),
        *sorted(rows, key=lambda row: -(row.ratio or 0.0)),
        *counted(row for row in worse if isinstance(row, ExactRow)),
    ]


def _short(row: Row | Failure | Counted, quote: Quote, *, several: bool) -> str:
    if isinstance(row, Counted):
        first = row.row
        numbers = f"{exact(first.base, first.metric)} → {exact(first.new, first.metric)}"
        return f"{quote(name(first.cell))} {quote(metric(first.metric))} {numbers}"
    who, where = quote(name(row.cell)), f"at {quote(place(row.cell, several))}"
    if isinstance(row, Row):
        return f"{who} {metric(row.metric)} {where} {ratio(row)}"
    return f"{who} {where} fails"


def counts(comparison: Comparison) -> str:
    """Return how many rows there are of each verdict."""
    verdicts = Counter(row.verdict for row in comparison.judged)
    many = len(comparison.judged)
    words = {
        Verdict.SLOWER: "slower",
        Verdict.FASTER: "faster",
        Verdict.EQUIVALENT: f"within ±{wording.percent(comparison.margin)}",
    }
    said = [f"{verdicts[verdict]} {word}" for verdict, word in words.items() if verdicts[verdict]]
    if open_ := verdicts[Verdict.INCONCLUSIVE]:
        allowed = open_ - unsettled(comparison)
        also = f" ({allowed} of them surely not slower by more than is allowed)" if allowed else ""
        said.append(f"{open_} not told apart{also}")
    out = [f"{many} {'row' if many == 1 else 'rows'}: {wording.joined(said)}"] if said else []
    numbers = [row for row in comparison.exact if not row.ignored]
    if numbers:
        outcomes = Counter(row.outcome for row in numbers)
        others = [f"{outcomes[o]} {o}" for o in Outcome if outcomes[o] and o is not Outcome.EQUAL]
        every = f"all {len(numbers)} exact counts are the same"
        out.append(
            f"exact counts: {outcomes[Outcome.EQUAL]} the same, {', '.join(others)}"
            if others
            else every
        )
    text = "; ".join(out)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def note(row: Row | ExactRow, quote: Quote = str) -> str:
    """Return why a row is worse or is not; what the gate's author wrote is quoted."""
    before, colon, reason = row.note.partition(": ")
    return f"{before}: {quote(reason)}" if colon else before


def lacking(comparison: Comparison, quote: Quote = str) -> Iterator[str]:
    """Yield what is not compared and why."""
    missing: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.missing and not row.ignored:
            missing.setdefault(row.missing, []).append(row)
    for reason, rows in missing.items():
        metrics = wording.joined([metric(m) for m in dict.fromkeys(row.metric for row in rows)])
        many = len(rows)
        verb = "row is" if many == 1 else "rows are"
        yield f"{many} {verb} not compared ({metrics}): {quote(reason)}"
    ignored = sum(r.ignored for r in comparison.rows) + sum(r.ignored for r in comparison.exact)
    if ignored:
        yield f"{ignored} {'row is' if ignored == 1 else 'rows are'} left out by the gate"
    for cells, where in ((comparison.only_base, "base"), (comparison.only_new, "new")):
        if cells:
            yield f"Only in the {where} run: {_listed(cells, quote)}"


def _listed(cells: Sequence[Cell], quote: Quote) -> str:
    """Return cells one by one, or how many there are of each workload."""
    if len(cells) <= LISTED:
        return wording.joined([quote(f"{name(cell)} at {place(cell, True)}") for cell in cells])
    found = Counter(place(cell, True) for cell in cells)
    return wording.joined([f"{many} cells at {quote(where)}" for where, many in found.items()])


def failed(failure: Failure, quote: Quote = str) -> str:
    """Return what is said of a cell that failed."""
    where = f"{quote(name(failure.cell))} at {quote(place(failure.cell, True))}"
    if failure.new is None:
        return f"{where} no longer fails: it did ({quote(failure.base or '')})"
    which = "fails now" if failure.base is None else "fails on both sides"
    return f"{where} {which}: {quote(failure.new)}"


def precision(comparison: Comparison) -> str:
    """Return how narrow the intervals are."""
    halves: dict[bool, list[float]] = {}
    for row in comparison.judged:
        if row.ratio and row.low is not None and row.high is not None and not absolute(row):
            half = (row.high - row.low) / 2 / row.ratio
            halves.setdefault(row.metric == "step", []).append(half)
    said = [
        f"half of the {'steps' if step else 'other rows'} are known to ±"
        f"{wording.percent(float(np.median(found)))}"
        for step, found in sorted(halves.items(), reverse=True)
    ]
    return f"{wording.joined(said)[:1].upper()}{wording.joined(said)[1:]}" if said else ""


def absolute(row: Row) -> bool:
    """Tell whether a row compares seconds of different hours."""
    return row.values is not None and row.values.absolute


def described(side: Side, quote: Quote = str) -> str:
    """Return a side in words."""
    about = [quote(text) for text in (side.when, side.commit and f"commit {side.commit}") if text]
    return quote(side.name) + (f" ({', '.join(about)})" if about else "")


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the metrics of rows in the order of the report's tables."""
    having = {row.metric for row in rows}
    return [m for m in COMPARED if m in having]


def places(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the workloads and backends that have rows that are compared."""
    return list(
        dict.fromkeys((r.cell.workload, r.cell.backend) for r in comparison.rows if r.ratio)
    )
