"""Types of the run file, which `pytest bench --benchmark-json` writes.

The file is pytest-benchmark's, with the two tables of the run under `bakeoff`: samples and
estimates. Runs, A/Bs, histories, bisections and costs are all such files. Times are in seconds,
memory in bytes; a number that is not known is null or left out. `bench.runfile.reader` reads such
files, `bench.runfile.writer` writes them.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from bench.cells import Cell
from bench.estimates import (
    Count,
    Estimate,
    EstimateTable,
    NotNegative,
    Positive,
    group_by_key,
)
from bench.options import Options
from bench.samples import Proof, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA: Literal[4] = 4
"""Version of these types; files of others are not read."""
PROJECT = "jax-bakeoff"
"""Name of this project among releases: its commits are compared, not its version."""

type Name = Annotated[str, msgspec.Meta(max_length=1_000)]
"""A name, a release or a SPEC: the longest in published files has 63 characters."""
LONGEST_TEXT = 10_000
"""Characters of a message that are kept: a file with 20 MB in one took 27 s to show."""
type Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
type FileKind = Literal["run", "ab", "bisect", "history", "cost"]
type SearchPhase = Literal["whole", "day", "package", "release", "commit", "confirm"]
type Conclusion = Literal["differs", "like good", "like bad", "undecided"]
DIFFERS: Conclusion = "differs"
LIKE_GOOD: Conclusion = "like good"
LIKE_BAD: Conclusion = "like bad"
UNDECIDED: Conclusion = "undecided"
NEEDED_SECONDS = re.compile(r"\babout (\d+) s\b")
"""Seconds in a reason why a number is missing, where time would help."""
DISTURBED = (
    "not known: other processes had the worker's cores, or each call sleeps; measure it again in a "
    "quieter hour"
)
"""Reason why a number is missing that was measured beside other processes."""


class CellResult(msgspec.Struct, kw_only=True):
    """Result of a cell, without its numbers."""

    cell: Cell
    environment: Name = ""
    failure: Text | None = None
    """Reason why it has no number: it is not equal, or its worker died twice in a row."""
    stderr: Text = ""
    """Last lines of its worker, if it failed."""
    proof: Proof | None = None
    losses: list[float] = []
    """Losses of ten training steps, in its proof."""
    program: Name = ""
    """Fingerprint of its program: cells with the same program share compile times."""
    missing: dict[Name, Text] = {}
    """Metric → why it was not measured."""


class EnvironmentInfo(msgspec.Struct, kw_only=True):
    """One environment that workers ran in."""

    spec: Name = "current"
    """SPEC as requested: `current`, a day, releases, a revision."""
    versions: dict[Name, Name] = {}
    """Releases of Python and of what was measured."""
    pins: dict[Name, Name] = {}
    """All packages with their releases, if the environment was built for this run."""
    commit: Name = ""
    """Commit of this project's code, where that is a revision."""
    gaps: dict[Name, Text] = {}
    """Library or style that it does not have → why."""


class Conditions(msgspec.Struct, kw_only=True):
    """Conditions that a run was made in."""

    devices: dict[Name, Name] = {}
    """Backend → kind of device."""
    device_details: dict[Name, dict[Name, Text | int | float | bool | None]] = {}
    """Backend → number of devices, the memory of one, the driver."""
    variables: dict[Name, Text] = {}
    """Environment variables that change what is measured."""
    affinity: list[Count] | None = None
    garbage_collector: Name = ""
    datum: Name = "10 % quantile of calls"
    """Statistic of an arm's calls that is its value in a block; the default is that of older
    runs."""
    threads: Name = ""


class TimeSpent(msgspec.Struct, kw_only=True):
    """Time and work of a run, and use of the machine by others."""

    wall_seconds: NotNegative = 0.0
    sampling_seconds: NotNegative = 0.0
    """Seconds of blocks, of trainings, and of the timed part of cold processes, divided by the
    number of lanes that work at the same time."""
    processes: Count = 0
    blocks: Count = 0
    others: NotNegative = 0.0
    """Fraction of the machine that other processes used meanwhile."""
    stolen: NotNegative = 0.0
    """Fraction of the processor time that the hypervisor gave to other guests."""
    busiest: Name = ""
    """Other process that used the machine most, if that is worth a sentence."""
    earlier_seconds: NotNegative = 0.0
    """Wall time of the runs that this one adds to (`--resume FILE`)."""
    earlier_processes: Count = 0
    """Number of processes of the runs that this one adds to."""
    precision: NotNegative = 0.0
    """Median half width of the ratios of steps when the last job was chosen; 0 if unknown."""


class SampleRow(NamedTuple):
    """A sample in a series: the fields that differ from row to row."""

    worker: Count
    block: Count
    at: float
    value: float
    calls: Count = 1
    median: float | None = None
    p95: float | None = None


class Series(msgspec.Struct, kw_only=True):
    """The samples of a metric of a cell: rows of `bench.samples.Sample`, packed."""

    environment: Name = ""
    cell: Cell
    metric: Name
    cores: Count = 0
    rows: list[SampleRow]


NO_ROW = Estimate(cell=Cell("", "", "", ""), metric="", form="ratio", value=1.0)
"""Row of a step in files of versions that had the rows elsewhere, up to commit a820d0c5."""


class SearchStep(msgspec.Struct, frozen=True):
    """One A/B of a bisection, and its conclusion."""

    phase: SearchPhase
    conclusion: Conclusion
    seconds: NotNegative
    row: Estimate = NO_ROW
    """Ratio of a stack (`environment`) to another one (`against`), with the interval that decided
    it."""
    samples: list[Series] = []
    """Samples of this A/B alone: another step may have workers with the same numbers."""


class SearchRecord(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Result of a search, or its state; empty in files of other commands."""

    cell: Cell = Cell("", "", "", "")
    metric: Name = ""
    good: Name = ""
    """SPEC of the last stack that is like the good end."""
    bad: Name = ""
    """SPEC of the first stack that is like the bad end."""
    package: Name | None = None
    releases: tuple[Name | None, Name | None] = (None, None)
    """Releases of the package: the last good one, and the first bad one."""
    moved_along: dict[Name, tuple[Name | None, Name | None]] = {}
    """Package → its two releases, for packages that had to change together with `package`."""
    stopped: Text | None = None
    """Reason why the search stopped early; None if it came to its end."""
    seconds: NotNegative = 0.0
    missing_seconds: NotNegative = 0.0
    """Estimated seconds that a stopped search needs to go on; 0 if time would not help."""
    steps: list[SearchStep] = []


class RunOptions(Options, frozen=True, kw_only=True, rename={"budget": "budget_seconds"}):
    """Options of the measurement: the fields of `Options`."""

    budget: Positive | None = None  # type: ignore[assignment]
    """Named `budget_seconds` in a file; null if files were compared."""


class Results(msgspec.Struct, kw_only=True):
    """Results of a run without its samples: the `bakeoff` object of a run file."""

    schema: Literal[4] = SCHEMA
    kind: FileKind = "run"
    base: Name = ""
    """Environment that others are compared with; empty where arms are compared."""
    arguments: list[Text] = []
    metrics: list[Name] = []
    """Metrics that an A/B was asked for by name; if any, counts do not decide its exit status."""
    options: RunOptions = msgspec.field(default_factory=RunOptions)
    environments: dict[Name, EnvironmentInfo] = {}
    """Name → environment. The name is empty for the shared environment of a run, an entrant's name
    for its own environment, `base`, `new`, or a day."""
    setup: dict[Name, Text] = {}
    """Part of the setup (code, releases, devices, cells, options) → digest. To go on with a run,
    all must be the same."""
    conditions: Conditions = msgspec.field(default_factory=Conditions)
    cells: list[CellResult] = []
    estimates: list[Estimate] = []
    warnings: Annotated[list[Text], msgspec.Meta(max_length=1_000)] = []
    """Reasons to doubt the numbers, in sentences."""
    notes: dict[Name, Text] = {}
    """Entrant → a remark."""
    left_out: dict[Name, Text] = {}
    """`entrant/style` that could not take part → why."""
    spent: TimeSpent = msgspec.field(default_factory=TimeSpent)
    search: SearchRecord = SearchRecord()
    """Steps and result of a bisection."""

    @property
    def table(self) -> EstimateTable:
        """The estimates, by cell and metric."""
        return EstimateTable(self.estimates)

    @property
    def good_cells(self) -> list[CellResult]:
        """The cells that have not failed."""
        return [row for row in self.cells if row.failure is None]

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the shared environment, or of the one that others are compared with."""
        info = self.environments.get(self.base) or next(iter(self.environments.values()), None)
        return info.versions if info else {}

    def make_command(self, *more: str) -> str:
        """Return the command line that measures it, with more words, as a shell reads it."""
        return shlex.join(["pytest" if self.kind == "run" else "bakeoff", *self.arguments, *more])


class ResultsWithSamples(Results, kw_only=True):
    """Results and samples of a run; msgspec makes a JSON schema of it."""

    samples: list[Series] = []


def pack_samples(samples: Iterable[Sample]) -> list[Series]:
    """Return samples as series."""
    series = group_by_key(
        (
            (s.environment, s.cell, s.metric, s.cores),
            SampleRow(s.worker, s.block, round(s.at, 2), s.value, s.calls, s.median, s.p95),
        )
        for s in samples
    )
    return [
        Series(environment=environment, cell=cell, metric=metric, cores=cores, rows=rows)
        for (environment, cell, metric, cores), rows in series.items()
    ]


def unpack_samples(series: Iterable[Series]) -> list[Sample]:
    """Return the samples of series; the inverse of `pack_samples`, but for their order."""
    return [
        Sample(
            environment=s.environment, cell=s.cell, metric=s.metric, cores=s.cores, **row._asdict()
        )
        for s in series
        for row in s.rows
    ]


def find_differing_releases(
    base: Mapping[str, str], new: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """Return the releases that differ; None where a side has none. jaxlib goes with jax."""
    names = [name for name in {**base, **new} if name != PROJECT]
    pairs = {name: (base.get(name), new.get(name)) for name in names}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differing.get("jaxlib") == differing.get("jax"):
        differing.pop("jaxlib", None)
    return differing


def find_needed_seconds(reason: str) -> float:
    """Return the seconds that a reason for a missing number asks for; 0 if it names none."""
    match = NEEDED_SECONDS.search(reason)
    return float(match[1]) if match else 0.0
