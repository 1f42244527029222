"""A comparison as Markdown for a pull request: what changed in sight, all rows folded away.

Whatever comes from outside stands in code spans: there it is no Markdown, no HTML and no mention of
anybody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.compare import words
from bench.compare.comparison import Status
from bench.report import wording
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.compare.comparison import Comparison, Row

MARKER = "<!-- bakeoff comparison -->"
"""By which a later comment finds the one that it replaces."""
MOST = 60_000
"""Characters; GitHub takes 65 536 in a comment."""
MOST_ROWS = 60
"""Of the table in sight; what is worse comes first."""
SIGNS = {Status.NOT_WORSE: "✅", Status.WORSE: "❌", Status.CANNOT_SAY: "❔"}
MARKS = {Verdict.EQUIVALENT: "= ", Verdict.INCONCLUSIVE: "? "}
ACTIVE = re.compile(r"([\\`*_~\[\]<>|&$])")
LINKED = re.compile(r"(@|#|:(?=//)|www(?=\.))")
SPACE = "\u200b"
"""Between what would otherwise be a mention, a link or the number of an issue."""


def markdown(comparison: Comparison) -> str:
    """Return a comparison as a comment; where that is too long, without the folded rows."""
    head, tail = list(shown(comparison)), list(below(comparison))
    rows = list(folded(comparison))
    text = "\n".join([*head, *rows, *tail])
    if len(text) > MOST:
        left_out = "All rows are too many for a comment; `--format json` has them."
        text = "\n".join([*head, left_out, "", *tail])
        if len(text) > MOST:  # whole lines, and nothing that would have to be closed
            text = "\n".join([*head, left_out])[:MOST].rpartition("\n")[0]
    return text + "\n"


def shown(comparison: Comparison) -> Iterator[str]:
    """Yield what is in sight: what it comes to, and what changed."""
    yield MARKER
    yield f"{SIGNS[comparison.status]} **{words.outcome(comparison, code)}**"
    yield words.counts(comparison)
    yield ""
    rows = list(changes(comparison))
    if rows:
        yield "| | | base | new | new / base | |"
        yield "|---|---|--:|--:|--:|---|"
        yield from rows[:MOST_ROWS]
        if len(rows) > MOST_ROWS:
            yield f"| and {len(rows) - MOST_ROWS} more | | | | | |"
        yield ""


def changes(comparison: Comparison) -> Iterator[str]:
    """Yield table rows of what changed, what is worse first."""
    several = words.backends(comparison)
    out: list[tuple[bool, Sequence[str]]] = []
    for failure in comparison.failures:
        who = f"{cell(words.name(failure.cell))} at {cell(words.place(failure.cell, several))}"
        said = ["works" if why is None else "fails" for why in (failure.base, failure.new)]
        why = failure.new or failure.base or ""
        out.append((failure.worse, (who, "", *said, "", judged(failure.worse, "", cell(why)))))
    for row in comparison.rows:
        if row.changed:
            who = f"{cell(words.name(row.cell))} at {cell(words.place(row.cell, several))}"
            verdict = judged(row.worse, str(row.verdict), words.note(row, cell))
            ratio = f"**{words.ratio(row)}**" if row.worse else words.ratio(row)
            cells = who, words.metric(row.metric), *words.sides(row), ratio, verdict
            out.append((row.worse, cells))
    for number, workloads in words.counted(each for each in comparison.exact if each.changed):
        who = f"{cell(words.name(number.cell))} at {wording.joined(list(map(cell, workloads)))}"
        sides = (words.exact(value, number.metric) for value in (number.base, number.new))
        verdict = judged(number.worse, str(number.outcome), words.note(number, cell))
        metric = cell(words.metric(number.metric))
        out.append((number.worse, (who, metric, *sides, "exact", verdict)))
    for _, texts in sorted(out, key=lambda each: not each[0]):
        yield f"| {' | '.join(texts)} |"


def judged(worse: bool, verdict: str, note: str) -> str:
    """Return the last cell of a row that changed."""
    said = "**worse**" if worse and verdict in ("worse", "") else verdict
    if worse and verdict not in ("worse", ""):
        said = f"**worse**: {verdict}"
    return "; ".join(part for part in (said, note) if part)


def folded(comparison: Comparison) -> Iterator[str]:
    """Yield all rows that were compared, a table for each workload."""
    places = words.places(comparison)
    if not places:
        return
    yield "<details><summary>All rows: new / base</summary>"
    yield ""
    for workload, backend in places:
        here = [r for r in comparison.rows if r.ratio and r.cell[2:] == (workload, backend)]
        metrics = words.columns(here)
        titles = [metric.replace("_", " ") for metric in metrics]
        yield f"| {cell(f'{workload} on {backend}')} | {' | '.join(titles)} |"
        yield f"|---|{'--:|' * len(metrics)}"
        cells = sorted(dict.fromkeys(row.cell for row in here), key=lambda c: c[:2] != BASELINE)
        for one in cells:
            of = {row.metric: row for row in here if row.cell == one}
            texts = [cell_text(of.get(metric)) for metric in metrics]
            yield f"| {cell(words.name(one))} | {' | '.join(texts)} |"
        yield ""
    yield "</details>"
    yield ""


def cell_text(row: Row | None) -> str:
    """Return a ratio with its mark; bold where it is a finding."""
    if row is None:
        return ""
    if row.ignored:
        return f"· {words.ratio(row)}"
    if row.changed:
        return f"**{words.ratio(row)}**"
    return f"{MARKS[row.verdict or Verdict.INCONCLUSIVE]}{words.ratio(row)}"


def below(comparison: Comparison) -> Iterator[str]:
    """Yield how to read it, what is missing, and under which conditions it holds."""
    yield "<details><summary>How to read this</summary>"
    yield ""
    yield from (f"* {sentence(text)}" for text in comparison.reading)
    if precision := words.precision(comparison):
        yield f"* {sentence(precision)}."
    yield "* · is left out by the gate; **bold** is a finding."
    yield ""
    said = [*words.lacking(comparison, code), *map(sentence, comparison.warnings)]
    if said:
        yield from (f"* {text}" for text in said)
        yield ""
    yield "</details>"
    yield ""
    yield conditions(comparison)


def conditions(comparison: Comparison) -> str:
    """Return what was compared under which conditions, on one line."""
    base, new = comparison.base, comparison.new
    bases = wording.joined([words.described(side, code) for side in comparison.bases])
    about = [f"Base: {bases}; new: {words.described(new, code)}"]
    machines = [side.machine for side in (base, new) if side.machine]
    about += [code(machine) for machine in dict.fromkeys(machines)]
    same = [n for n, v in new.versions.items() if base.versions.get(n) == v and n != "jax-bakeoff"]
    if same:
        about.append(", ".join(code(f"{name} {new.versions[name]}") for name in same))
    if comparison.differences:
        told = "; ".join(code(str(difference)) for difference in comparison.differences)
        about.append(f"differs: {told}")
    return f"<sub>{'. '.join(about)}.</sub>"


def code(text: str) -> str:
    """Return a text as a code span."""
    line = " ".join(wording.printable(text).split())
    if not line:
        return ""
    fence = "`" * (max(map(len, re.findall(r"`+", line)), default=0) + 1)
    room = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{room}{line}{room}{fence}"


def cell(text: str) -> str:
    """Return a text as a code span in a table, which a bar would end."""
    return code(text).replace("|", r"\|")


def sentence(text: str) -> str:
    """Return a sentence that may hold names from outside; its code spans stay code."""
    parts = re.split(r"(`[^`]+`)", " ".join(wording.printable(text).split()))
    return "".join(part if i % 2 else plain(part) for i, part in enumerate(parts))


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is, and that mentions nobody."""
    return LINKED.sub(rf"\1{SPACE}", ACTIVE.sub(r"\\\1", text))
