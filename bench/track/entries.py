"""What is kept of a run file for a time line: who was measured where and when, and the numbers."""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.cells import Cell
from bench.metrics import METRICS
from bench.report.runs import processor, read
from bench.report.wording import printable
from bench.stats.verdicts import Verdict
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from bench.report.runs import Run
    from bench.report.wording import Facts

PASSED_OVER = (".git", ".venv", "node_modules", "__pycache__")
"""Folders that hold many files and no run."""
VERDICTS = tuple(map(str, Verdict))
"""As points number them."""
FAILURE = "failure"
"""In place of a metric, where a cell failed and has none."""


class Stamp(NamedTuple):
    """What tells whether a file is still the one that was read."""

    size: int
    mtime_ns: int


class State(StrEnum):
    """What a file turned out to be."""

    RUN = "run"
    SIDE = "side"
    """A stack of a history, or a side of an A/B: no run of this project's own history."""
    OTHER = "other"
    """JSON that makes no claim to be a run."""
    DAMAGED = "damaged"


class Key(NamedTuple):
    """What the points of a series have in common."""

    machine: str
    entrant: str
    style: str
    workload: str
    backend: str
    metric: str
    unit: str
    exact: bool


class Numbers(NamedTuple):
    """A point, as the table has it."""

    median: float | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    df: float | None = None
    p: float | None = None
    verdict: int | None = None


@dataclass(frozen=True)
class Entry:
    """What is kept of a file."""

    state: State
    problem: str = ""
    """Of a damaged one, in a sentence that names it."""
    name: str = ""
    at: str = ""
    """When it was measured: year to second, UTC."""
    revision: str = ""
    dirty: bool = False
    versions: str = "{}"
    """JSON."""
    margin: float | None = None
    digest: bytes = b""
    """The same in copies of a run; empty where nothing was timed."""
    points: tuple[tuple[Key, Numbers | str], ...] = ()
    """A text is the reason why there is no number."""
    lasting: bool = True
    """False where the file may be another next time, though it has not changed."""


def found_files(folders: Sequence[Path]) -> tuple[dict[str, Stamp], list[str]]:
    """Return the JSON files in folders and below, and in words what could not be looked into.

    Raises:
        BakeoffError: a folder is not there.
    """
    found: dict[str, Stamp] = {}
    problems: list[str] = []

    def denied(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be looked into ({error.strerror})")

    for folder in folders:
        if folder.is_file():
            paths: Iterable[str] = [os.path.abspath(folder)]  # noqa: PTH100  # keeps links
        elif folder.is_dir():
            paths = walked(os.path.abspath(folder), denied)  # noqa: PTH100
        else:
            raise BakeoffError(
                f"--runs {folder}: there is no such folder; give folders that hold run files, "
                "such as .benchmarks or results"
            )
        for path in paths:
            try:
                about = os.stat(path)  # noqa: PTH116  # of thousands
            except OSError:  # gone between the two, or a link to nowhere
                continue
            found[path] = Stamp(about.st_size, about.st_mtime_ns)
    return found, problems


def walked(top: str, denied: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the paths of JSON files, in the order of their names."""
    for folder, inside, names in os.walk(top, onerror=denied):
        inside[:] = sorted(name for name in inside if name not in PASSED_OVER)
        yield from (os.path.join(folder, n) for n in sorted(names) if n.endswith(".json"))  # noqa: PTH118


OF_SIDES = {"history", "spec"}
"""What a section has that is of another stack, measured beside this one: no run of this project's
own history."""


def entry_of(path: Path) -> Entry:
    """Return what is kept of a file; one that cannot be read is an entry too."""
    try:
        run = read(path, samples=False)
        if OF_SIDES & run.section.keys():
            return Entry(State.SIDE)
        at = datetime.fromisoformat(run.when).isoformat(timespec="seconds") if run.when else ""
        if not at:
            return damaged(f"{path} does not say when it was measured")
        return entry(run, at)
    except BakeoffError as error:
        unreadable = isinstance(error.__cause__, OSError)
        return Entry(State.OTHER) if is_other(path) else damaged(str(error), lasting=not unreadable)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        return damaged(f"{path} is damaged: {type(error).__name__} {error}")


def damaged(problem: str, *, lasting: bool = True) -> Entry:
    """Return the entry of a file that is skipped."""
    said = " ".join(text(printable(problem)).split())
    return Entry(State.DAMAGED, said, lasting=lasting)


def is_other(path: Path) -> bool:
    """Tell whether a file is JSON that makes no claim to be a run."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(data, dict) and ("benchmarks" in data or "bakeoff" in data))


def entry(run: Run, at: str) -> Entry:
    """Return what is kept of a run."""
    points = tuple(dict(points_of(run)).items())
    revision = text(run.commit.get("id") or "")
    timed = [n for key, n in points if not key.exact and isinstance(n, Numbers)]
    mark = blake2b(f"{revision}{[key for key, _ in points]}".encode(), digest_size=16)
    mark.update(array("d", [n.median or 0.0 for n in timed]).tobytes())
    versions = run.section["environment"].get("versions") or run.machine.get("versions") or {}
    return Entry(
        State.RUN,
        name=text(run.name),
        at=at,
        revision=revision,
        dirty=bool(run.commit.get("dirty")),
        versions=json.dumps({text(name): text(version) for name, version in versions.items()}),
        margin=real(run.section["plan"]["margin"]),
        digest=mark.digest() if timed else b"",
        points=points,
    )


def points_of(run: Run) -> Iterator[tuple[Key, Numbers | str]]:
    """Yield all that a run says of its cells; a text is the reason why there is no number."""
    devices = run.section["environment"].get("devices") or {}
    for cell in run.section["cells"]:
        device = devices.get(cell["backend"])
        machine = text(", ".join(filter(None, [processor(run), device and str(device)])))
        entrant, style, workload, backend = (text(cell[name]) for name in Cell._fields)
        key = partial(Key, machine or "unknown machine", entrant, style, workload, backend)
        if cell["failure"] is not None:
            yield key(FAILURE, "", exact=False), text(cell["failure"])
            continue
        for metric, found in cell["metrics"].items():
            known = METRICS.get(metric)
            unit = text(found.get("unit") or (known.unit if known else ""))
            said = numbers(found) if "median" in found else text(found["missing"])
            yield key(text(metric), unit, exact=False), said
        for metric, value in cell["exact"].items():
            if (median := real(value)) is not None:
                unit = "B" if metric.endswith("_bytes") else ""
                yield key(text(metric), unit, exact=True), Numbers(median)
        if cell["final_loss"]:
            median = real(cell["final_loss"]["same_weights"])
            yield key("final_loss", "nats", exact=False), Numbers(median)


def numbers(found: Facts) -> Numbers:
    """Return what a run says of a metric."""
    said: Any = found.get("verdict")
    verdict = VERDICTS.index(said) if said in VERDICTS else None
    return Numbers._make([*(real(found.get(name)) for name in Numbers._fields[:-1]), verdict])


def real(value: Any) -> float | None:
    """Return a number that SQLite can hold, or None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None


def text(value: Any) -> str:
    """Return a text that can be encoded, whatever a file's escapes and names are."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
