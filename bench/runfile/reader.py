"""Run files, read back: what is in them, and in words what is not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import Arm, Cell
from bench.estimates import Group, pooled
from bench.metrics import METRICS
from bench.runfile import (
    NANOSECONDS,
    SCHEMA,
    AllSamples,
    BakeoffSection,
    Count,
    Metric,
    Positive,
    Result,
)
from bench.samples import Samples
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from bench.estimates import Arms

TIME = "time"
"""The metric of a file that says no more than how long something took."""


FEW = 3
"""So many names are listed."""


class NoRunError(BakeoffError):
    """A file is JSON that makes no claim to be a run."""


class PlainStats(msgspec.Struct):
    """What is read of the statistics of a file that pytest-benchmark wrote alone."""

    median: Positive | None = None
    rounds: Count | None = None


class PlainEntry(msgspec.Struct):
    """What is read of an entry of such a file."""

    stats: PlainStats
    name: str = "unnamed"
    group: str | None = None


class Outline(msgspec.Struct):
    """What all files say; the section of a run is read by its schema."""

    benchmarks: list[PlainEntry]
    bakeoff: msgspec.Raw = msgspec.Raw(b"null")
    machine_info: dict[str, Any] | None = None
    commit_info: dict[str, Any] | None = None
    datetime: str | None = None


class Claim(msgspec.Struct):
    """Which schema a section is of."""

    schema: Any = None


class Sampled(msgspec.Struct):
    """The samples of a section, where they are needed."""

    samples: AllSamples = msgspec.field(default_factory=AllSamples)


@dataclass(frozen=True)
class Run:
    """One run file."""

    name: str
    """Of the file, without its ending."""
    section: BakeoffSection
    """What it says of the bakeoff; of a plain pytest-benchmark file, as much as there is."""
    samples: dict[Group, Arms] = field(default_factory=dict)
    """The blocks of each cell; empty where a file has no samples."""
    machine: dict[str, Any] = field(default_factory=dict)
    commit: dict[str, Any] = field(default_factory=dict)
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
        BakeoffError: they are no run; the message names `path`. NoRunError: they are JSON without
            a list of benchmarks.
    """
    blocks: dict[Group, Arms] = {}
    try:
        raw.decode("utf-8")
        file = msgspec.json.decode(raw, type=Outline)
        if plain := bytes(file.bakeoff) == b"null":
            section, lacking = plain_section(file.benchmarks)
        else:
            require_schema(msgspec.json.decode(file.bakeoff, type=Claim).schema, path)
            section, lacking = msgspec.json.decode(file.bakeoff, type=BakeoffSection), []
            if samples:
                blocks = samples_in(msgspec.json.decode(file.bakeoff, type=Sampled).samples)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise unreadable(raw, path, error) from error
    timed = any(metric.median for cell in section.cells for metric in cell.metrics.values())
    if samples and timed and not blocks and not plain:
        lacking.append("The file has no samples: there is no baseline to pick, and no block.")
    return Run(
        name=path.stem,
        section=section,
        samples=blocks,
        machine=file.machine_info or {},
        commit=file.commit_info or {},
        when=(file.datetime or "")[:19],
        lacking=lacking,
    )


def unreadable(raw: bytes, path: Path, error: Exception) -> BakeoffError:
    """Return what is said of a file that cannot be decoded as a run."""
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
        raw.decode("utf-8")
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as problem:
        return BakeoffError(f"{path} is not JSON ({problem}); give a run file")
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:  # a list, a number
        parts = {}
    return (BakeoffError if {"benchmarks", "bakeoff"} & parts.keys() else NoRunError)(
        f"{path} is no run, or is damaged: {error}; give what "
        "`pytest bench --benchmark-json=RUN.json` wrote"
    )


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
        programs[cold.cell] = cold.program
        for metric, value in cold.values.items():
            take(cold.cell, metric, Samples(cold.process, cold.process, 0.0, [value]))
    return pooled(out, programs)


def plain_section(entries: list[PlainEntry]) -> tuple[BakeoffSection, list[str]]:
    """Return section and remarks of a file of pytest-benchmark alone: medians, by group."""
    cells: list[Result] = []
    first: dict[str, float] = {}
    for entry in entries:
        median, group = entry.stats.median, entry.group or "no group"
        if median is None:
            continue
        found = Metric(unit="s", median=median, samples=entry.stats.rounds or 0)
        if group in first:
            found.ratio = median / first[group]
        first.setdefault(group, median)
        cells.append(
            Result(entrant=entry.name, style="", workload=group, backend="", metrics={TIME: found})
        )
    lacking = [
        "This file was written by pytest-benchmark alone. It has no proof that its benchmarks "
        "compute the same, no intervals and no verdicts: they were timed one after the other, "
        "where identical programs differ by several per cent. Ratios are of medians, to the first "
        "of each group."
    ]
    if empty := [entry.name for entry in entries if entry.stats.median is None]:
        more = f" and {len(empty) - FEW} more" if len(empty) > FEW else ""
        lacking.append(f"Without a median: {', '.join(empty[:FEW])}{more}.")
    return BakeoffSection(cells=cells), lacking


def processor(run: Run) -> str:
    """Return the processor that a run was made on, and how many of its cores it had."""
    name = processor_model(run.machine) or run.machine.get("machine") or ""
    affinity = run.section.environment.affinity or []
    cores = len(affinity) or cpu_of(run.machine).get("count")
    return ", ".join(filter(None, [str(name), f"{cores} cores" if cores else ""]))


def processor_model(machine: dict[str, Any]) -> str:
    """Return what a processor is called, told from others of that name.

    Clouds have one name for several generations, and the clock that the system says may be the one
    of that moment.
    """
    cpu = cpu_of(machine)
    brand = cpu.get("brand_raw") or machine.get("processor") or ""
    known = [f"{name} {cpu[name]}" for name in ("family", "model", "stepping") if name in cpu]
    return f"{brand} ({', '.join(known)})" if brand and known else str(brand)


def cpu_of(machine: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says of the processor."""
    found = machine.get("cpu")
    return found if isinstance(found, dict) else {}
