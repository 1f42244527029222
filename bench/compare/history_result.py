"""The result of a history: its data, as `history.json` has them, and what they say."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bench.cells import Cell
from bench.compare import trends
from bench.compare.series import (
    Moment,
    Point,
    Series,
    SeriesChange,
    SeriesKey,
    Timeline,
    moves,
    order,
)
from bench.compare.windows import ALPHA
from bench.report.table import Document, Section, percent

if TYPE_CHECKING:
    from pathlib import Path


class SeriesName(msgspec.Struct, kw_only=True):
    """A metric of a cell; histories are of one machine, without meshes of devices."""

    entrant: str
    style: str
    workload: str
    backend: str
    metric: str

    @property
    def key(self) -> SeriesKey:
        """Its series."""
        cell = Cell(self.entrant, self.style, self.workload, self.backend)
        return SeriesKey.of(cell, self.metric)


class RatioSeries(SeriesName, kw_only=True):
    """A sampled metric, stack by stack; null where one has no number."""

    unit: str
    ratio: list[float | None]
    """To the last stack that has one."""
    low: list[float | None]
    """Ends of the 95 % interval of the ratio."""
    high: list[float | None]
    visits: list[int] = []
    median: list[float | None]
    """Of all samples, in the unit."""
    sd_of_visit: float | None = None
    """Of the logarithm of one visit."""
    df: int = 0
    """Degrees of freedom of that."""

    @property
    def series(self) -> Series:
        """The stacks that have a ratio."""
        columns = zip(self.median, self.ratio, self.low, self.high, strict=True)
        return Series(self.key, {at: Point(*row) for at, row in enumerate(columns) if row[1]})


class ExactSeries(SeriesName, kw_only=True):
    """An exact metric, stack by stack; null where one has no number."""

    value: list[float | None]

    @property
    def series(self) -> Series:
        """The stacks that have a number."""
        known = {at: Point(value) for at, value in enumerate(self.value) if value is not None}
        return Series(self.key._replace(exact=True), known)


class Change(SeriesName, kw_only=True):
    """A change between two stacks; numbers are those of `SeriesChange`."""

    before: str
    after: str
    width: int = 1
    ratio: float
    low: float
    high: float
    p: float


class Day(msgspec.Struct, kw_only=True):
    """A day, what its stack is, and what that lacks."""

    day: str
    stack: str = ""
    """Its name: the first day that has it."""
    versions: dict[str, str] = {}
    python: str | None = None
    gaps: dict[str, str] = {}
    """Cells of the reference that it has not got, and why."""
    missing: str | None = None
    """Why there is no stack."""


class HistoryTime(msgspec.Struct, kw_only=True):
    """What a history took."""

    wall_seconds: float
    sampling_seconds: float
    processes: int


class HistoryFile(msgspec.Struct, kw_only=True):
    """What `history.json` holds."""

    kind: Literal["history"] = "history"
    schema: Literal[1] = 1
    since: str
    until: str
    every: str
    reference: str
    """The day whose stack all others took turns with."""
    arguments: list[str]
    seed: int
    reference_versions: dict[str, str] = {}
    when: str
    machine: str
    warnings: list[str]
    days: list[Day]
    stacks: list[str]
    sweeps: int
    plan: dict[str, Any] = {}
    alpha: float = ALPHA
    """Odds of any false change."""
    comparisons: int
    """That changes are corrected for."""
    series: list[RatioSeries]
    exact: list[ExactSeries]
    """Those that are not the same on all days."""
    changes: list[Change]
    """The largest first."""
    spent: HistoryTime
    sentences: list[str] = []
    """The changes in words."""


def read(path: Path) -> HistoryFile:
    """Return what a `history.json` holds."""
    return msgspec.json.decode(path.read_bytes(), type=HistoryFile)


def timeline(data: HistoryFile) -> Timeline:
    """Return the series of a history."""
    versions = {day.stack: day.versions for day in data.days}
    return Timeline(
        name="",
        moments=tuple(Moment(day, f"{day}T12:00:00", versions.get(day, {})) for day in data.stacks),
        series=tuple(sorted((s.series for s in data.series), key=lambda each: order(each.key))),
        moves=moves(each.series for each in data.exact),
        changes=tuple(
            SeriesChange(
                change.key,
                before=data.stacks.index(change.before),
                after=data.stacks.index(change.after),
                **{name: getattr(change, name) for name in SeriesChange._fields[3:]},
            )
            for change in data.changes
        ),
        base="the newest day",
    )


def document(data: HistoryFile, *, figures: bool = False) -> Document:
    """Return what a history says; with charts for a page."""
    found = timeline(data)
    days = [(day.day, day.versions, lacks(day)) for day in data.days]
    lacking = trends.versions_table(days, "The days, and what they lack", folded=False)
    return Document(
        title=f"{data.since} to {data.until}: what became slower, and when",
        subtitle=(
            f"{len(data.stacks)} stacks, every {data.every}, measured {data.when[:10]} on "
            f"{data.machine} in turns with the stack of {data.reference}"
        ),
        headline=headline(len(list(trends.sentences(found))), data.comparisons),
        warnings=tuple(data.warnings),
        sections=(
            *trends.sections(found, names="" if figures else None, folded=True),
            Section("Days", tables=(lacking,), folded=True),
        ),
        fine_print=(
            "A change is a difference between neighbouring days, or in a long history between the "
            "means of several days before and after, that remains after Holm's correction: the "
            f"odds of any false one are {percent(data.alpha)}, as far as all days vary alike.",
            f"Days were visited in {data.sweeps} sweeps, each in random order, in turns with a "
            "worker of the reference. Values are relative to the newest day.",
            f"It took {data.spent.wall_seconds:.0f} s, {data.spent.sampling_seconds:.0f} s of it "
            f"for samples, in {data.spent.processes} processes; seed {data.seed}.",
            f"To repeat it: `bakeoff {shlex.join(data.arguments)}`",
        ),
    )


def headline(count: int, comparisons: int) -> str:
    """Return how many changes were found."""
    if not comparisons:
        return "Nothing could be tested: that takes two stacks, and two visits of each."
    found = trends.counted(count, "change") if count else "No change"
    return f"{found} found in {comparisons} comparisons."


def lacks(day: Day) -> str:
    """Return what a day lacks, in words."""
    if day.missing:
        return f"could not be built: {day.missing}"
    same = defaultdict(list)
    for name, why in day.gaps.items():
        same[why].append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())
