"""A time line in sentences: what changed, where releases were, and what failed."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.compare.summaries import FAILURE
from bench.report import wording
from bench.report.runs import TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.compare.line import Change, Line, Moved, Series
    from bench.compare.summaries import Key

SHORT = 10
"""Digits of a commit."""
DAY, MINUTE = 10, 16
"""Characters of a time that is a day, or a minute."""
NAMED = 3
"""Cells, or libraries, that a sentence names."""


def label(metric: str) -> str:
    """Return a metric's name in words."""
    return metric.replace("_", " ")


def sentence(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return f"{text[:1].upper()}{text[1:]}"


def moment(line: Line, run: int) -> str:
    """Return when a run was made: the day, and the minute where a day has several runs."""
    days = [other.at[:DAY] for other in line.runs]
    at = line.runs[run].at
    return at[:DAY] if days.count(at[:DAY]) == 1 else at[:MINUTE].replace("T", " ")


def span(line: Line) -> str:
    """Return how many runs of which time."""
    first, last = line.runs[0].at[:DAY], line.runs[-1].at[:DAY]
    if len(line.runs) == 1:
        return f"1 run, {first}"
    return f"{len(line.runs)} runs, {first if first == last else f'{first} to {last}'}"


def several(line: Line) -> bool:
    """Tell whether a line is of several backends, so that each has to be named."""
    return len({series.key.backend for series in line.series}) > 1


def place(key: Key, *, backends: bool) -> str:
    """Return where a metric was measured."""
    if key.metric == TIME:
        return f"in {key.workload}"
    return f"at {key.workload}{f' on {key.backend}' if backends and key.backend else ''}"


def name(key: Key) -> str:
    """Return the entrant, and its style where that needs a name."""
    return wording.name({"entrant": key.entrant, "style": key.style})


def base(metric: str) -> str:
    """Return what ratios of a metric are to."""
    return "the first of each group" if metric == TIME else BASELINE[0]


def amount(series: Series, value: float) -> str:
    """Return a ratio, or a value with its unit; what is counted has all its digits."""
    if series.compared:
        return wording.ratio({"ratio": value})
    if series.key.exact and value == int(value):
        return f"{value:.0f}"
    return wording.amount(value, series.key.unit).strip()


def versions(changed: Mapping[str, tuple[str, str]], most: int = NAMED) -> str:
    """Return which libraries changed; jaxlib goes with jax."""
    together = changed.get("jax") == changed.get("jaxlib")
    names = [library for library in changed if not (together and library == "jaxlib")]
    said = [f"{library} {' → '.join(changed[library])}" for library in names[:most]]
    more = len(names) - most
    return wording.joined([*said, f"{more} more"] if more > 0 else said)


def between(line: Line, before: int, after: int) -> str:
    """Return two runs, and what is known to differ between them."""
    old, new = line.runs[before], line.runs[after]
    changed = {
        library: (old.versions[library], version)
        for library, version in new.versions.items()
        if old.versions.get(library, version) != version
    }
    causes = [versions(changed)] if changed else []
    if old.revision and new.revision and old.revision != new.revision:
        causes.append(f"commit {old.revision[:SHORT]} → {new.revision[:SHORT]}")
    about = f" ({'; '.join(causes)})" if causes else ""
    return f"between {moment(line, before)} and {moment(line, after)}{about}"


def changes(line: Line) -> Iterator[str]:
    """Yield the changes along a line in sentences, those of exact metrics first."""
    yield from map(sentence, moves(line))
    if not line.changes and len(line.runs) > 1:
        yield "No time changed by more than runs of the same code differ."
    by_key = {series.key: series for series in line.series}
    for change in line.changes:
        yield sentence(told(change, line, by_key[change.key]))


def told(change: Change, line: Line, series: Series) -> str:
    """Return a change in a sentence."""
    key, found = change.key, {"ratio": change.ratio, "low": change.low, "high": change.high}
    before, after = series.at[[change.before, change.after]].tolist()
    beside = f", beside {base(key.metric)}," if series.compared else ""
    return (
        f"{label(key.metric)} of {name(key)} {place(key, backends=several(line))}{beside} "
        f"{'rose' if change.ratio > 1 else 'fell'} to {wording.ratio(found)} times what it was "
        f"{between(line, before, after)}{wide(change.width, 'runs')}; p = {change.p:.2g}."
    )


def wide(width: int, what: str) -> str:
    """Return how many runs, or days, on either side tell a change, where that is not one."""
    return f", by the means of {width} {what} before and after" if width > 1 else ""


def moves(line: Line) -> Iterator[str]:
    """Yield where exact metrics changed, a sentence for each metric and pair of neighbours."""

    def together(moved: Moved) -> tuple[int, int, str]:
        return moved.after, moved.before, moved.key.metric

    for (after, before, metric), group in groupby(sorted(line.moved, key=together), together):
        said = [one(moved, line) for moved in group]
        more = len(said) - NAMED
        names = wording.joined([*said[:NAMED], f"{more} more cells"] if more > 1 else said)
        yield f"{label(metric)} changed {between(line, before, after)}: {names}."


def one(moved: Moved, line: Line) -> str:
    """Return which cell's metric changed, from what to what."""
    old, new = (f"{value:.0f}" if value == int(value) else f"{value:g}" for value in moved.values)
    return f"{name(moved.key)} {place(moved.key, backends=several(line))} {old} → {new}"


def releases(line: Line) -> Iterator[tuple[str, str]]:
    """Yield the times at which versions changed, and which."""
    for release in line.releases:
        yield moment(line, release.run), versions(release.changed, len(release.changed))


def failures(line: Line) -> Iterator[str]:
    """Yield which cells failed and have no newer number."""
    for series in line.failing:
        last = max(series.gaps)
        yield (
            f"{name(series.key)} {place(series.key, backends=several(line))} failed on "
            f"{moment(line, last)}: {series.gaps[last]}"
        )


def groups(line: Line) -> Iterator[list[Series]]:
    """Yield the series that are shown together: of one metric, backend and workload."""
    having = [s for s in line.series if s.key.metric != FAILURE and s.at.size]
    for _, group in groupby(having, lambda s: (s.key.metric, s.key.backend, s.key.workload)):
        yield list(group)


def title(group: Sequence[Series], line: Line) -> str:
    """Return what a group is of."""
    key = group[0].key
    where = key.workload if key.metric == TIME else wording.sized(key.workload)
    backend = f" on {key.backend}" if several(line) and key.backend else ""
    ratios = any(series.compared for series in group)
    to = f": ratios to {base(key.metric)}" if ratios else ""
    return f"{label(key.metric)}, {where}{backend}{to}"
