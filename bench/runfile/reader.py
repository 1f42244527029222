"""Run files, read back: what is in them, and in words what is not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import Arm, Cell
from bench.engine.state import Samples
from bench.estimates import Group, pooled
from bench.metrics import METRICS
from bench.runfile import NANOSECONDS, SCHEMA, AllSamples, CellName, Positive
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from bench.estimates import Arms

type Facts = dict[str, Any]
"""A section, one of its cells, or one metric of a cell, as JSON has it."""

TIME = "time"
"""The metric of a file that says no more than how long something took."""
MARGIN = 0.02
"""Where a file does not say its own."""
NO_NUMBER = "the file has no number"
"""Why a metric is missing, where a file does not say."""
FEW_NAMES = 3
"""So many are listed."""


class ReadMetric(msgspec.Struct):
    """What has to hold of a metric of a cell."""

    median: Positive | None = None
    ratio: Positive | None = None
    missing: str | None = None


class ReadProof(msgspec.Struct):
    """What has to hold of a proof."""

    loss: float
    gradient: float
    trajectory: float


class ReadLoss(msgspec.Struct):
    """What has to hold of a final loss."""

    same_weights: float


class ReadCell(CellName, kw_only=True):
    """What has to hold of a cell, and what stands for what it leaves out."""

    failure: str | None = None
    stderr: str = ""
    proof: ReadProof | None = None
    exact: dict[str, float | None] = msgspec.field(default_factory=dict)
    final_loss: ReadLoss | None = None
    metrics: dict[str, ReadMetric] = msgspec.field(default_factory=dict)


class ReadPlan(msgspec.Struct):
    """What has to hold of a plan."""

    margin: Positive = MARGIN


class ReadSection(msgspec.Struct):
    """What has to hold of a section, and what stands for what it leaves out."""

    cells: list[ReadCell]
    schema: int = SCHEMA
    arguments: list[str] = []
    environment: dict[str, Any] = {}
    plan: ReadPlan = msgspec.field(default_factory=ReadPlan)
    spent: dict[str, Any] = {}
    comparisons: int = 0
    control: list[dict[str, Any]] = []
    ties: list[dict[str, Any]] = []
    warnings: list[str] = []
    verdict: list[str] = []
    notes: dict[str, str] = {}


class PlainStats(msgspec.Struct):
    """What is read of the statistics of a file that pytest-benchmark wrote alone."""

    median: Positive | None = None
    rounds: int | None = None


class PlainEntry(msgspec.Struct):
    """What is read of an entry of such a file."""

    stats: PlainStats
    name: str = "unnamed"
    group: str | None = None


class Outline(msgspec.Struct):
    """The parts of a file, before they are looked at."""

    benchmarks: list[msgspec.Raw]
    machine_info: msgspec.Raw = msgspec.Raw(b"{}")
    commit_info: msgspec.Raw = msgspec.Raw(b"{}")
    datetime: msgspec.Raw = msgspec.Raw(b"null")
    bakeoff: msgspec.Raw = msgspec.Raw(b"null")


EMPTY: Facts = msgspec.to_builtins(ReadSection([]))
EMPTY_CELL: Facts = msgspec.to_builtins(ReadCell(entrant="", style="", workload="", backend=""))
del EMPTY_CELL["devices"], EMPTY_CELL["weak"]  # a cell that knows of no mesh says nothing of them


@dataclass(frozen=True)
class Run:
    """One run file."""

    name: str
    """Of the file, without its ending."""
    section: Facts
    """What it says of the bakeoff; of a plain pytest-benchmark file, as much as there is."""
    samples: dict[Group, Arms] = field(default_factory=dict)
    """The blocks of each cell; empty where a file has no samples."""
    machine: Facts = field(default_factory=dict)
    commit: Facts = field(default_factory=dict)
    when: str = ""
    lacking: list[str] = field(default_factory=list)
    """What a reader would look for in vain, in sentences."""


def read(path: Path, *, samples: bool = True) -> Run:
    """Return what a run file holds, without its samples if they are not needed.

    Raises:
        BakeoffError: it cannot be read, or is not what `pytest bench --benchmark-json` or
            pytest-benchmark wrote, or is of another schema.
    """
    try:
        raw = read_regular(path, MOST_JSON)
    except OSError as error:
        raise BakeoffError(f"{path} cannot be read ({error.strerror}); give a run file") from error
    return run_of(raw, path, samples=samples)


def run_of(raw: bytes, path: Path, *, samples: bool = True) -> Run:
    """Return the run that the bytes of a file are.

    Raises:
        BakeoffError: they are no run; the message names `path`.
    """
    try:
        raw.decode("utf-8")
        outline = msgspec.json.decode(raw, type=Outline)
    except UnicodeDecodeError as error:
        raise BakeoffError(f"{path} is not text; give a run file, which is JSON") from error
    except msgspec.ValidationError as error:
        raise BakeoffError(
            f"{path} is JSON, but no run: it has no list of benchmarks; give what "
            "`pytest bench --benchmark-json=RUN.json` wrote"
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BakeoffError(f"{path} is not JSON ({error}); give a run file") from error
    try:
        found: dict[str, Any] = {
            "name": path.stem,
            "machine": decoded(outline.machine_info, dict | None) or {},
            "commit": decoded(outline.commit_info, dict | None) or {},
            "when": (decoded(outline.datetime, str | None) or "")[:19],
        }
        section = decoded(outline.bakeoff, dict[str, msgspec.Raw] | None)
        if section is None:
            plain = [decoded(entry, PlainEntry) for entry in outline.benchmarks]
            return Run(**found, **plain_run(plain))
        require_schema(decoded(section.get("schema", msgspec.Raw(b"null")), Any), path)
        raw_samples = section.pop("samples", None)
        said = {name: msgspec.json.decode(part) for name, part in section.items()}
        msgspec.convert(said, ReadSection)
        blocks = {}
        if samples and raw_samples is not None:
            blocks = samples_in(decoded(raw_samples, AllSamples))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BakeoffError(
            f"{path} is damaged: {error}; measure it again, or give another file"
        ) from error
    whole = EMPTY | said
    whole["plan"] = {"margin": MARGIN} | whole["plan"]
    whole["cells"] = [EMPTY_CELL | cell for cell in whole["cells"]]
    for cell in whole["cells"]:
        cell["metrics"] = {
            name: found if found.get("median") else {"missing": found.get("missing", NO_NUMBER)}
            for name, found in cell["metrics"].items()
        }
    lacking = []
    timed = any("median" in m for c in whole["cells"] for m in c["metrics"].values())
    if samples and timed and not blocks:
        lacking.append("The file has no samples: there is no baseline to pick, and no block.")
    return Run(section=whole, samples=blocks, lacking=lacking, **found)


def decoded(raw: msgspec.Raw, type_: Any) -> Any:
    """Return a part of a file; raise ValidationError where it is of another type."""
    return msgspec.json.decode(raw, type=type_)


def require_schema(schema: Any, path: Path) -> None:
    """Raise BakeoffError if a file is not of this program's schema."""
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        raise BakeoffError(
            f"{path} is a run of schema {schema!r}; schema {SCHEMA} is read: "
            + ("install a newer jax-bakeoff" if newer else "measure it again")
            + ", or read it with the version that wrote it"
        )


def samples_in(found: AllSamples) -> dict[Group, Arms]:
    """Return the samples of each cell, by group."""
    out: dict[Group, dict[Cell, list[Samples]]] = defaultdict(dict)

    def take(cell: Cell, metric: str, samples: Samples) -> None:
        if metric in METRICS:
            group = Group(metric, cell.workload, cell.backend)
            out[group].setdefault(cell, []).append(samples)

    for block in found.blocks:
        about = block.process, block.number, block.at
        for metric, arms in block.nanoseconds.items():
            for arm, calls in arms.items():
                seconds = [block.unit * call / NANOSECONDS for call in calls]
                cell = Arm.of(arm).at(block.workload, block.backend)
                take(cell, metric, Samples(*about, seconds, block.rounds))
    programs = {}
    for cold in found.cold:
        cell = Cell.of(msgspec.structs.asdict(cold))
        programs[cell] = cold.program
        for metric, value in cold.values.items():
            take(cell, metric, Samples(cold.process, cold.process, 0.0, [value]))
    return pooled(out, programs)


def plain_run(entries: list[PlainEntry]) -> dict[str, Any]:
    """Return section and remarks of a file of pytest-benchmark alone: medians, by group."""
    cells: list[Facts] = []
    first: dict[str, float] = {}
    for entry in entries:
        median, group = entry.stats.median, entry.group or "no group"
        if median is None:
            continue
        found = {"unit": "s", "median": median, "samples": entry.stats.rounds, "verdict": None}
        if group in first:
            found["ratio"] = median / first[group]
        first.setdefault(group, median)
        cell = {"entrant": entry.name, "workload": group, "metrics": {TIME: found}}
        cells.append(EMPTY_CELL | cell)
    lacking = [
        "This file was written by pytest-benchmark alone. It has no proof that its benchmarks "
        "compute the same, no intervals and no verdicts: they were timed one after the other, "
        "where identical programs differ by several per cent. Ratios are of medians, to the first "
        "of each group."
    ]
    if empty := [entry.name for entry in entries if entry.stats.median is None]:
        more = f" and {len(empty) - FEW_NAMES} more" if len(empty) > FEW_NAMES else ""
        lacking.append(f"Without a median: {', '.join(empty[:FEW_NAMES])}{more}.")
    return {"section": EMPTY | {"cells": cells}, "lacking": lacking}


def processor(run: Run) -> str:
    """Return the processor that a run was made on, and how many of its cores it had."""
    name = processor_model(run.machine) or run.machine.get("machine") or ""
    affinity = run.section["environment"].get("affinity") or []
    cores = len(affinity) or cpu_of(run.machine).get("count")
    return ", ".join(filter(None, [str(name), f"{cores} cores" if cores else ""]))


def processor_model(machine: Facts) -> str:
    """Return what a processor is called, told from others of that name.

    Clouds have one name for several generations, and the clock that the system says may be the one
    of that moment.
    """
    cpu = cpu_of(machine)
    brand = cpu.get("brand_raw") or machine.get("processor") or ""
    known = [f"{name} {cpu[name]}" for name in ("family", "model", "stepping") if name in cpu]
    return f"{brand} ({', '.join(known)})" if brand and known else str(brand)


def cpu_of(machine: Facts) -> Facts:
    """Return what a file says of the processor."""
    found = machine.get("cpu")
    return found if isinstance(found, dict) else {}


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
