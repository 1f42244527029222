"""The run file: what `pytest bench --benchmark-json` writes, as types.

    python -m bench.runfile

prints its JSON schema, which is made of these types. The file is pytest-benchmark's, with what the
run says as a whole under `bakeoff`. Times are in seconds, memory in bytes, ratios are to the
baseline's, and a number that is not known is null. `bench.runfile.reader` reads such files,
`bench.runfile.writer` writes them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

SCHEMA = 3
"""Files of others are not read."""

type Positive = Annotated[float, msgspec.Meta(gt=0)]
type NotNegative = Annotated[float, msgspec.Meta(ge=0)]
type Part = Annotated[float, msgspec.Meta(ge=0, le=1)]
type Count = Annotated[int, msgspec.Meta(ge=0)]
type Number = Annotated[int, msgspec.Meta(ge=1)]
NANOSECONDS = 10**9
"""In a second: calls of warm blocks are whole numbers of them, which are short."""
ENTRY = (
    *("entrant", "style", "workload", "backend", "devices", "weak", "metric", "unit"),
    *("ratio", "low", "high", "verdict", "trace_and_lower_split_by"),
)
"""What is said of a metric in pytest-benchmark's entry, beside its own statistics."""

type Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]


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


class Added(msgspec.Struct, kw_only=True):
    """Seconds that a style adds to a call."""

    seconds: float
    low: float | None
    high: float | None


class Measured(msgspec.Struct, kw_only=True):
    """What is said of a metric of a cell that has samples."""

    unit: str
    median: Positive
    mean: NotNegative
    p95: NotNegative
    """95 % quantile."""
    low_quantile: NotNegative
    """The quantile that blocks are compared by."""
    samples: Number
    blocks: Number
    """Of cold metrics, as many as samples."""
    processes: Number
    cores: Literal["one", "all"]
    """That its workers kept to."""
    preliminary: bool
    """Measured in fewer than three workers."""
    detectable: NotNegative | None
    """Smallest difference that is called in four runs of five, as a fraction."""
    ratio: Positive | None
    """To the baseline; null for the baseline itself."""
    low: NotNegative | None
    """Of the 95 % interval, corrected for all arms of the metric at the workload (Dunnett)."""
    high: Positive | None
    standard_error: NotNegative | None
    """Of the ratio's logarithm."""
    df: NotNegative | None
    """Degrees of freedom of the interval."""
    p: Part | None
    """Of no difference, corrected in the same way."""
    verdict: Verdict | None
    differs: bool = False
    """The interval leaves out 1."""
    settled_by: Literal["timing", "same program"] | None = None
    """How the verdict was reached."""
    bound: NotNegative | None = None
    """By which fraction a step of the baseline's program can differ, by its host cost."""
    cores_used: NotNegative | None = None
    """Of a step: seconds of processors for each second, where it might use all cores."""
    added: Added | None = None


class Missing(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why a metric has no number."""

    missing: str


class Proof(msgspec.Struct, kw_only=True):
    """How a style was shown to compute what the baseline does."""

    loss: float
    gradient: float
    trajectory: float
    whole_step: bool
    same_program_as_baseline: bool
    operations_beside_baseline: dict[str, int]
    donates: bool | None = False
    """Null for a program that is not JAX's."""


class FinalLoss(msgspec.Struct, kw_only=True):
    """Where a short training gets to, in nats per character."""

    steps: Number
    same_weights: float
    own_initialiser: list[float]
    entropy: float | None
    seconds: list[Positive]


class Result(CellName, kw_only=True):
    """A cell with all that was found of it."""

    failure: str | None
    stderr: str
    proof: Proof | None
    exact: dict[str, float | None]
    final_loss: FinalLoss | None
    metrics: dict[str, dict[str, Any]]
    """`Measured` or `Missing`, by name."""


class GroupName(msgspec.Struct, kw_only=True):
    """A metric at a workload on a backend."""

    metric: str
    workload: str
    backend: str


class Entry(CellName, kw_only=True):
    """What an entry of pytest-benchmark says in addition; the rest stands in its cell."""

    metric: str
    unit: str
    ratio: Positive | None
    low: NotNegative | None
    high: Positive | None
    verdict: Verdict | None


class Benchmark(msgspec.Struct, kw_only=True):
    """An entry of pytest-benchmark; its samples stand in the section."""

    group: str
    name: str
    fullname: str
    stats: dict[str, Any]
    extra_info: Entry


class Control(Measured, kw_only=True):
    """What is said of the control, which is the baseline under another name."""

    metric: str
    workload: str
    backend: str


class Ties(GroupName, kw_only=True):
    """Arms from fast to slow; any two of a group are tied."""

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
    efficiency: float | None = None
    efficiency_low: float | None = None
    efficiency_high: float | None = None
    compile_seconds: float | None = None


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


class ColdSamples(CellName, kw_only=True):
    """What one fresh process measured."""

    process: Number
    cores: list[int]
    values: dict[str, Positive]
    program: str = ""
    """Fingerprint of what it compiled: arms that share it share its samples."""


class AllSamples(msgspec.Struct, kw_only=True):
    """Every sample of the run, in the one place where they stand."""

    blocks: list[BlockSamples]
    cold: list[ColdSamples]


class PlanOfRun(msgspec.Struct, kw_only=True):
    """How the budget was shared out."""

    budget_seconds: Positive
    margin: Positive
    seed: int
    backends: dict[str, Any]


class TimeSpent(msgspec.Struct, kw_only=True):
    """Where the time went."""

    wall_seconds: float
    sampling_seconds: float
    sampling_share: Part
    processes: Count


class RunConditions(msgspec.Struct, kw_only=True):
    """What the run was made in."""

    versions: dict[str, str]
    devices: dict[str, str]
    environment: dict[str, str]
    affinity: list[int] | None


class BakeoffSection(msgspec.Struct, kw_only=True):
    """What the run says as a whole."""

    schema: Literal[3]
    arguments: list[str]
    environment: RunConditions
    plan: PlanOfRun
    spent: TimeSpent
    comparisons: Count
    quantile: Part
    """Of an arm's calls in a block: what is compared."""
    control: list[Control]
    ties: list[Ties]
    additivity: list[Additivity]
    cells: list[Result]
    samples: AllSamples
    warnings: list[str]
    verdict: list[str]
    notes: dict[str, str] = {}
    scaling: list[Scaling] = []


class RunFile(msgspec.Struct, kw_only=True):
    """A whole file."""

    machine_info: dict[str, Any]
    commit_info: dict[str, Any]
    benchmarks: list[Benchmark]
    datetime: str
    version: str
    bakeoff: BakeoffSection


def check(data: Any) -> None:
    """Raise msgspec.ValidationError unless data of JSON are a whole run file of this schema."""
    found = msgspec.convert(data, RunFile)
    for cell in found.bakeoff.cells:
        for metric in cell.metrics.values():
            msgspec.convert(metric, Missing if "missing" in metric else Measured)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a run file."""
    (reference,), components = msgspec.json.schema_components(
        [RunFile], ref_template="#/$defs/{name}"
    )
    (_, _), more = msgspec.json.schema_components(
        [Measured, Missing], ref_template="#/$defs/{name}"
    )
    either = {"anyOf": [{"$ref": "#/$defs/Measured"}, {"$ref": "#/$defs/Missing"}]}
    found = {**components, **more}
    found["Result"]["properties"]["metrics"] |= {"additionalProperties": either}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run of jax-bakeoff",
        **reference,
        "$defs": found,
    }
