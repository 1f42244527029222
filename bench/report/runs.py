"""Run files, read back: what is in them, and in words what is not."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import CONTROL, Cell
from bench.engine.state import Samples
from bench.estimates import Group, pooled
from bench.metrics import METRICS, Kind
from bench.runfile import NANOSECONDS, READABLE, SCHEMA, Readable
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.estimates import Arms
    from bench.report.wording import Facts

TIME = "time"
"""The metric of a file that says no more than how long something took."""
CELL: Facts = {
    "failure": None,
    "stderr": "",
    "proof": None,
    "exact": {},
    "final_loss": None,
    "metrics": {},
}
"""What a cell says at least."""
MARGIN = 0.02
"""Where a file does not say its own."""
SECTION: Facts = {
    "arguments": [],
    "environment": {},
    "spent": {},
    "comparisons": 0,
    "notes": {},
}
"""What a section says at least, beside its cells."""
RENAMED = {"dispatch_synchronised": "host_cost", "dispatch_pipelined": "host_cost_pipelined"}
"""What metrics of schema 2 are called now."""
GONE = ("dispatch",)
"""Metrics of schema 2 that are not measured any more."""
HUGE = re.compile(r"[0-9][eE]\+?[0-9]{3}")
"""A number that may be too large to be one."""
NO_NUMBER = "what the file says is no time or size"
FEW_CELLS = 3
"""Names of them are listed."""


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
    data = None if samples else without_samples(raw)
    if data is None:
        data = parsed(raw, path)
    if not isinstance(data, dict) or not isinstance(data.get("benchmarks"), list):
        raise BakeoffError(
            f"{path} is JSON, but no run: it has no list of benchmarks; give what "
            "`pytest bench --benchmark-json=RUN.json` wrote"
        )
    try:
        return run_of(data, path, samples=samples)
    except msgspec.ValidationError as error:
        raise BakeoffError(
            f"{path} is damaged: {error}; measure it again, or give another file"
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BakeoffError(
            f"{path} is damaged: {type(error).__name__} {error} where a run says more; measure it "
            "again, or give another file"
        ) from error


class Stats(msgspec.Struct):
    """What is read of a benchmark's statistics."""

    median: Any = None
    rounds: Any = None


class Benchmark(msgspec.Struct):
    """What is read of a benchmark."""

    name: Any = None
    group: Any = None
    stats: Stats | None = None


class Light(msgspec.Struct):
    """What is read of a file whose samples nobody asks for: the rest is skipped, not made."""

    benchmarks: list[Benchmark]
    machine_info: Any = None
    commit_info: Any = None
    datetime: Any = None
    bakeoff: dict[str, msgspec.Raw] | None = None


def without_samples(raw: bytes) -> Facts | None:
    """Return what a file holds beside its samples; None where it has to be read in full to tell."""
    try:
        found = msgspec.json.decode(raw, type=Light)
        parts = (found.bakeoff or {}).items()
        said = {name: msgspec.json.decode(part) for name, part in parts if name != "samples"}
    except (msgspec.MsgspecError, RecursionError):
        return None
    section, found.bakeoff = None if found.bakeoff is None else said, None
    return dict(msgspec.to_builtins(found)) | {"bakeoff": section}


def parsed(raw: bytes, path: Path) -> Any:
    """Return the data of a file, NaN and what is too large read as None."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BakeoffError(f"{path} is not text; give a run file, which is JSON") from error
    try:
        large = finite if HUGE.search(text) else None
        return json.loads(text, parse_constant=lambda _: None, parse_float=large)
    except (ValueError, RecursionError) as error:
        raise BakeoffError(f"{path} is not JSON ({error}); give a run file") from error


def finite(text: str) -> float | None:
    """Return a number of JSON, or None where it is too large to be one."""
    value = float(text)
    return value if math.isfinite(value) else None


def run_of(data: Facts, path: Path, *, samples: bool = True) -> Run:
    """Return the run that a file's data are."""
    about: dict[str, Any] = {
        "name": path.stem,
        "machine": data.get("machine_info") or {},
        "commit": data.get("commit_info") or {},
        "when": str(data.get("datetime") or "")[:19],
    }
    section = data.get("bakeoff")
    if section is None:
        return plain(data["benchmarks"], about)
    schema = section.get("schema")
    if schema not in READABLE:
        newer = isinstance(schema, int) and schema > SCHEMA
        known = " and ".join(map(str, READABLE))
        raise BakeoffError(
            f"{path} is a run of schema {schema!r}; schemas {known} are read: "
            + ("install a newer jax-bakeoff" if newer else "measure it again")
            + ", or read it with the version that wrote it"
        )
    msgspec.convert(section, Readable)  # raises ValidationError, a ValueError
    whole = section | {
        "cells": [complete(cell) for cell in section["cells"]],
        "control": section.get("control") or [],
        **{name: texts(section.get(name)) for name in ("warnings", "verdict")},
        "plan": {"margin": MARGIN} | {k: v for k, v in (section.get("plan") or {}).items() if v},
        **{name: section.get(name) or empty for name, empty in SECTION.items()},
    }
    whole.pop("samples", None)  # they are in the run
    control = [
        {"extra_info": dict(zip(Cell._fields, CONTROL, strict=False)) | c, "stats": c}
        for c in whole["control"]
        if "data" in c
    ]
    beside = [{"extra_info": b, "stats": b} for b in section.get("beside") or []]
    blocks: dict[Group, Arms] = {}
    damaged: list[str] = []
    if samples and section.get("samples"):
        blocks, damaged = samples_in(section["samples"])
    elif samples:
        blocks, damaged = samples_of([*data["benchmarks"], *control, *beside])
    lacking = []
    if damaged:
        lacking.append(f"Samples of {listed(damaged)} do not fit together and are left out.")
    timed = any(m.get("median") is not None for c in whole["cells"] for m in c["metrics"].values())
    if samples and timed and not blocks:
        lacking.append("The file has no samples: there is no baseline to pick, and no block.")
    return Run(section=whole, samples=blocks, lacking=lacking, **about)


def texts(found: Any) -> list[str]:
    """Return a list of texts, empty where it is none."""
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def complete(cell: Facts) -> Facts:
    """Return a cell with all that a cell says; what is no number is no measurement."""
    for name in Cell._fields:
        if not isinstance(cell[name], str):
            raise TypeError(f"the cell's {name} is {cell[name]!r}, no name")
    whole = CELL | cell
    whole["metrics"] = {
        RENAMED.get(name, name): compared(found)
        if usable(found)
        else {"missing": found.get("missing") or NO_NUMBER}
        for name, found in whole["metrics"].items()
        if name not in GONE
    }
    if not has_numbers(whole["proof"], "loss", "gradient", "trajectory"):
        whole["proof"] = None
    if not has_numbers(whole["final_loss"], "same_weights"):
        whole["final_loss"] = None
    return whole


def has_numbers(found: Facts | None, *names: str) -> bool:
    """Tell whether all of these are numbers."""
    return bool(found) and all(is_number((found or {}).get(name)) for name in names)


def compared(found: Facts) -> Facts:
    """Return what was found for a metric, without a ratio that cannot be one."""
    ratio = found.get("ratio")
    if ratio is None or (is_number(ratio) and ratio > 0):
        return found
    return found | {"ratio": None, "low": None, "high": None, "verdict": None}


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def usable(found: Facts) -> bool:
    """Tell whether a metric has a number: all are costs, and above zero."""
    median: Any = found.get("median")
    return is_number(median) and median > 0


def samples_in(found: Facts) -> tuple[dict[Group, Arms], list[str]]:
    """Return the samples of each cell, by group, and the names of what does not fit together."""
    out: dict[Group, dict[Cell, list[Samples]]] = defaultdict(dict)
    damaged: list[str] = []

    def take(cell: Cell, metric: str, samples: Samples) -> None:
        good = metric in METRICS and all(is_number(v) and v > 0 for v in samples.values)
        if good and samples.values and len(samples.values) % max(1, samples.rounds) == 0:
            group = Group(metric, cell.workload, cell.backend)
            out[group].setdefault(cell, []).append(samples)
        else:
            damaged.append(f"{cell} ({metric})")

    for block in found.get("blocks") or []:
        about = block["process"], block["number"], block["at"]
        for metric, arms in block["nanoseconds"].items():
            for arm, whole in arms.items():
                values = [n / NANOSECONDS if is_number(n) else n for n in whole]
                entrant, _, style = arm.partition("/")
                cell = Cell(entrant, style, block["workload"], block["backend"])
                take(cell, metric, Samples(*about, values, block["rounds"]))
    programs = {}
    for cold in found.get("cold") or []:
        cell = Cell(*(cold[name] for name in Cell._fields))
        programs[cell] = cold.get("program", "")
        for metric, value in cold["values"].items():
            take(cell, metric, Samples(cold["process"], cold["process"], 0.0, [value]))
    return pooled(out, programs), list(dict.fromkeys(damaged))


def samples_of(benchmarks: list[Facts]) -> tuple[dict[Group, Arms], list[str]]:
    """Return the blocks of each cell, by group, and the names of benchmarks whose do not fit."""
    found: dict[Group, dict[Cell, list[Samples]]] = defaultdict(dict)
    shapes: dict[tuple[Group, int], tuple[int, int]] = {}
    damaged = []
    for benchmark in benchmarks:
        info, values = benchmark["extra_info"], benchmark["stats"].get("data") or []
        name = info.get("metric", "")
        metric = METRICS.get(RENAMED.get(name, name))
        if metric is None or "process_by_block" not in info or not values:
            continue
        cell = Cell(*(info[name] for name in Cell._fields))
        group = Group(metric.name, cell.workload, cell.backend)
        blocks = list(blocks_of(info, values))
        warm = metric.kind is Kind.WARM
        fits = blocks and all(
            shapes.setdefault((group, block.number), shape(block)) == shape(block)
            for block in blocks
            if warm
        )
        if fits:
            found[group][cell] = blocks
        else:
            damaged.append(f"{cell} ({metric.name})")
    return dict(found), damaged


def blocks_of(info: Facts, values: list[Any]) -> Iterator[Samples]:
    """Yield the blocks of a benchmark, none where its numbers do not fit together."""
    names = ("process_by_block", "number_by_block", "rounds_by_block", "samples_by_block")
    columns = [info.get(name) or [] for name in names]
    if len({len(column) for column in columns}) != 1 or sum(columns[-1]) != len(values):
        return
    if not all(isinstance(value, int | float) and value > 0 for value in values):
        return
    if not all(r >= 1 and n >= 1 and n % r == 0 for _, _, r, n in zip(*columns, strict=True)):
        return
    start = 0
    for process, number, rounds, size in zip(*columns, strict=True):
        yield Samples(process, number, 0.0, values[start : start + size], rounds)
        start += size


def shape(block: Samples) -> tuple[int, int]:
    """Return rounds and samples, which all arms of a block have in common."""
    return block.rounds, len(block.values)


def plain(benchmarks: list[Facts], about: dict[str, Any]) -> Run:
    """Return what there is in a file of pytest-benchmark alone: medians, by group."""
    cells: list[Facts] = []
    empty = []
    for benchmark in benchmarks:
        stats, name = benchmark.get("stats") or {}, str(benchmark.get("name") or "unnamed")
        median = stats.get("median")
        group = str(benchmark.get("group") or "no group")
        if not usable(stats):
            empty.append(name)
            continue
        first = next((c for c in cells if c["workload"] == group), None)
        base = first["metrics"][TIME]["median"] if first else None
        found = {"unit": "s", "median": median, "samples": stats.get("rounds"), "verdict": None}
        if base and median:
            found["ratio"] = median / base
        cell = {"entrant": name, "style": "", "workload": group, "backend": ""}
        cells.append(CELL | cell | {"metrics": {TIME: found}})
    lacking = [
        "This file was written by pytest-benchmark alone. It has no proof that its benchmarks "
        "compute the same, no intervals and no verdicts: they were timed one after the other, "
        "where identical programs differ by several per cent. Ratios are of medians, to the first "
        "of each group."
    ]
    if empty:
        lacking.append(f"Without a median: {listed(empty)}.")
    section: Facts = {
        "schema": SCHEMA,
        **SECTION,
        "plan": {"margin": MARGIN},
        "control": [],
        "warnings": [],
        "verdict": [],
        "cells": cells,
    }
    return Run(section=section, lacking=lacking, **about)


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


def listed(names: list[str]) -> str:
    """Return some names, and how many more there are."""
    more = len(names) - FEW_CELLS
    return ", ".join(names[:FEW_CELLS]) + (f" and {more} more" if more > 0 else "")
