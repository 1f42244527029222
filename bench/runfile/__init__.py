"""The run file: what `pytest bench --benchmark-json` writes, as types.

    python -m bench.runfile

prints its JSON schema, which is made of these types. The file is pytest-benchmark's, with what the
run says as a whole under `bakeoff`. Times are in seconds, memory in bytes, ratios are to the
baseline's, and a number that is not known is null or left out. `bench.runfile.reader` reads such
files, `bench.runfile.writer` writes them.
"""

from __future__ import annotations

from statistics import mean
from typing import Annotated, Any, Literal

import msgspec

from bench.cells import Arm, Cell
from bench.stats.verdicts import Verdict

SCHEMA: Literal[3] = 3
"""Files of others are not read."""

type Positive = Annotated[float, msgspec.Meta(gt=0)]
type NotNegative = Annotated[float, msgspec.Meta(ge=0)]
type Part = Annotated[float, msgspec.Meta(ge=0, le=1)]
type Count = Annotated[int, msgspec.Meta(ge=0)]
type Number = Annotated[int, msgspec.Meta(ge=1)]
NANOSECONDS = 10**9
"""In a second: calls of warm blocks are whole numbers of them, which are short."""
MARGIN = 0.02
"""Where a file does not say its own."""
NO_NUMBER = "the file has no number"
"""Why a metric is missing, where a file does not say."""


class CellName(msgspec.Struct, kw_only=True):
    """A cell: an entrant's style at a workload on a backend, over devices where there are some."""

    entrant: str
    style: str
    workload: str
    backend: str
    devices: Count = 0
    """That share the streams of a batch; 0: the step knows of no mesh."""
    weak: bool = False
    """Each device has as many streams as there are without others (weak scaling)."""

    @property
    def cell(self) -> Cell:
        """Its name."""
        arm = Arm(self.entrant, self.style, self.devices, self.weak)
        return arm.at(self.workload, self.backend)

    @property
    def is_baseline(self) -> bool:
        """Whether ratios refer to this cell."""
        return self.cell.is_baseline

    @property
    def place(self) -> str:
        """Its workload and backend, in words."""
        return f"{self.workload} on {self.backend}" if self.backend else self.workload


class Added(msgspec.Struct, kw_only=True):
    """Seconds that a style adds to a call."""

    seconds: float
    low: float | None = None
    high: float | None = None


class Metric(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is said of a metric of a cell: its numbers, or why there are none."""

    missing: str = ""
    """Why there is no number."""
    unit: str = ""
    median: NotNegative = 0.0
    """0 where there is no number."""
    p95: NotNegative = 0.0
    """95 % quantile."""
    low_quantile: NotNegative = 0.0
    """The quantile that blocks are compared by."""
    samples: Count = 0
    blocks: Count = 0
    """Of cold metrics, as many as samples."""
    processes: Count = 0
    cores: Literal["one", "all"] | None = None
    """That its workers kept to."""
    preliminary: bool | None = None
    """Measured in fewer than three workers."""
    detectable: NotNegative | None = None
    """Smallest difference that is called in four runs of five, as a fraction."""
    ratio: Positive | None = None
    """To the baseline; null for the baseline itself."""
    low: NotNegative | None = None
    """Of the 95 % interval, corrected for all arms of the metric at the workload (Dunnett)."""
    high: Positive | None = None
    standard_error: NotNegative | None = None
    """Of the ratio's logarithm."""
    df: NotNegative | None = None
    """Degrees of freedom of the interval."""
    p: Part | None = None
    """Of no difference, corrected in the same way."""
    verdict: Verdict | None = None
    differs: bool | None = None
    """The interval leaves out 1."""
    settled_by: str | None = None
    """How the verdict was reached: `TIMING` or `PROGRAM` of `bench.stats.verdicts`."""
    bound: NotNegative | None = None
    """By which fraction a step of the baseline's program can differ, by its host cost."""
    cores_used: NotNegative | None = None
    """Of a step: seconds of processors for each second, where it might use all cores."""
    added: Added | None = None

    def __post_init__(self) -> None:
        if not self.median and not self.missing:
            self.missing = NO_NUMBER


class Proof(msgspec.Struct, kw_only=True):
    """How a style was shown to compute what the baseline does."""

    loss: float
    gradient: float
    trajectory: float
    whole_step: bool = True
    same_program_as_baseline: bool = False
    operations_beside_baseline: dict[str, int] = {}
    donates: bool | None = None
    """Null for a program that is not JAX's."""
    jax: bool = True
    """False for an outside reference."""
    settings: dict[str, Any] = {}
    """That an outside reference ran with."""

    @property
    def same_program(self) -> bool:
        """Whether the whole step is the baseline's program."""
        return self.whole_step and self.same_program_as_baseline


class FinalLoss(msgspec.Struct, kw_only=True):
    """Where a short training gets to, in nats per character."""

    steps: Count = 0
    same_weights: float
    own_initialiser: list[float] = []
    entropy: float | None = None
    seconds: list[Positive] = []
    corpus_sha256: str | None = None

    @property
    def own(self) -> float | None:
        """The mean of the losses from the library's own initialiser, if there are any."""
        return mean(self.own_initialiser) if self.own_initialiser else None


class Result(CellName, kw_only=True):
    """A cell with all that was found of it."""

    failure: str | None = None
    stderr: str = ""
    proof: Proof | None = None
    exact: dict[str, int | float | None] = {}
    final_loss: FinalLoss | None = None
    metrics: dict[str, Metric] = {}

    def measured(self, metric: str) -> Metric | None:
        """Return a metric, or None where there is no number."""
        found = self.metrics.get(metric)
        return found if found and found.median and self.failure is None else None

    def compared(self, metric: str) -> Metric | None:
        """Return a metric, or None where it has no ratio to the baseline."""
        found = self.measured(metric)
        return found if found and found.ratio is not None else None


class Entry(CellName, kw_only=True):
    """What an entry of pytest-benchmark says in addition; the rest stands in its cell."""

    metric: str
    unit: str
    ratio: Positive | None = None
    low: NotNegative | None = None
    high: Positive | None = None
    verdict: Verdict | None = None
    trace_and_lower_split_by: str | msgspec.UnsetType = msgspec.UNSET


class Benchmark(msgspec.Struct, kw_only=True):
    """An entry of pytest-benchmark; its samples stand in the section."""

    group: str
    name: str
    fullname: str
    stats: dict[str, Any]
    extra_info: Entry
    params: dict[str, Any] | None = None
    param: str = ""
    options: dict[str, Any] = {}


class Control(Metric, kw_only=True):
    """What is said of the control, which is the baseline under another name."""

    metric: str
    workload: str
    backend: str


class Ties(msgspec.Struct, kw_only=True):
    """Arms of a group from fast to slow; any two of a list are tied."""

    metric: str
    workload: str
    backend: str
    groups: list[list[str]]


class Additivity(CellName, kw_only=True):
    """Of a step with the baseline's program: seconds that its host cost predicts, and measured."""

    predicted_seconds: float
    predicted_low: float | None
    predicted_high: float | None
    measured_seconds: float
    measured_low: float | None
    measured_high: float | None


class Scaling(CellName, kw_only=True):
    """What devices are worth to a style."""

    seconds: Positive
    ratio: Positive
    """To the same style over one device; of one, to the style that knows of no devices."""
    low: NotNegative | None = None
    high: Positive | None = None
    compile_seconds: float | None = None

    def efficiency(self, ratio: float | None) -> float | None:
        """Return which part of a device's time is of use, at a ratio or an end of its interval."""
        times = 1 if self.weak else self.devices
        return 1 / (times * ratio) if ratio else None


class BlockSamples(msgspec.Struct, kw_only=True):
    """What one worker measured in one go."""

    number: Number
    process: Number
    side: str
    workload: str
    backend: str
    kind: str
    cores: list[int]
    at: NotNegative
    rounds: Number
    unit: Number = 1
    """Nanoseconds in one of the numbers below: more where calls are so long that digits would be
    noise."""
    nanoseconds: dict[str, dict[str, Annotated[list[Number], msgspec.Meta(min_length=1)]]]
    """By metric and arm, in the order they were taken, in that unit."""
    cpu_seconds: dict[str, float] = {}
    """By arm: processor seconds per second of wall time."""


class ColdSamples(CellName, kw_only=True):
    """What one fresh process measured."""

    process: Number
    cores: list[int]
    values: dict[str, Positive]
    program: str = ""
    """Fingerprint of what it compiled: arms that share it share its samples."""


class AllSamples(msgspec.Struct, kw_only=True):
    """Every sample of the run, in the one place where they stand."""

    blocks: list[BlockSamples] = []
    cold: list[ColdSamples] = []


class PlanOfRun(msgspec.Struct, kw_only=True):
    """How the budget was shared out."""

    margin: Positive = MARGIN
    budget_seconds: Positive | None = None
    seed: int | None = None
    backends: dict[str, Any] = {}


class TimeSpent(msgspec.Struct, kw_only=True):
    """Where the time went."""

    wall_seconds: float
    sampling_seconds: float
    sampling_share: Part
    processes: Count


class RunConditions(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the run was made in."""

    versions: dict[str, str] = {}
    devices: dict[str, str] = {}
    device_details: dict[str, dict[str, Any]] = {}
    """By backend: how many, the memory of one, the driver."""
    environment: dict[str, str] | None = None
    """Variables that change what is measured."""
    xla_flags: str | None = None
    affinity: list[int] | None = None
    load_average: list[float] | None = None
    donation: bool | None = None
    """Whether every style donates its state."""
    garbage_collector: str | None = None
    threads: str | None = None
    own_environments: dict[str, dict[str, str | None]] = {}
    """By entrant that has one: the versions that are in it."""


class BakeoffSection(msgspec.Struct, kw_only=True):
    """What the run says as a whole, but for its samples."""

    schema: Literal[3] = SCHEMA
    arguments: list[str] = []
    environment: RunConditions = msgspec.field(default_factory=RunConditions)
    plan: PlanOfRun = msgspec.field(default_factory=PlanOfRun)
    spent: TimeSpent | None = None
    comparisons: Count = 0
    quantile: Part = 0.0
    """Of an arm's calls in a block: what is compared."""
    control: list[Control] = []
    ties: list[Ties] = []
    additivity: list[Additivity] = []
    cells: list[Result]
    warnings: list[str] = []
    verdict: list[str] = []
    notes: dict[str, str] = {}
    """Remarks on entrants."""
    left_out: dict[str, str] = {}
    """Styles that could not take part, as `entrant/style`, and why."""
    scaling: list[Scaling] = []
    spec: str | msgspec.UnsetType = msgspec.UNSET
    """Only a side of an A/B has it."""
    history: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """Only a stack of a history has it."""

    @property
    def good(self) -> list[Result]:
        """The cells that have not failed."""
        return [cell for cell in self.cells if cell.failure is None]

    @property
    def backends(self) -> list[str]:
        """In the order of the cells."""
        return list(dict.fromkeys(cell.backend for cell in self.cells))


class SectionWithSamples(BakeoffSection, kw_only=True):
    """All that the run says."""

    samples: AllSamples = msgspec.field(default_factory=AllSamples)


class RunFile(msgspec.Struct, kw_only=True):
    """A whole file."""

    machine_info: dict[str, Any]
    commit_info: dict[str, Any]
    benchmarks: list[Benchmark]
    datetime: str
    version: str
    bakeoff: SectionWithSamples


def schema() -> dict[str, Any]:
    """Return the JSON schema of a run file."""
    made = msgspec.json.schema(RunFile)
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, "title": "A run of jax-bakeoff", **made}
