"""Summaries of run files: the few numbers of each that a time line needs, kept in the cache folder.

A run file is read again when its size or its time of change differs. The file of summaries can be
deleted at any time; where it is missing, damaged or of another version, it is made anew.
"""

from __future__ import annotations

import json
import math
import os
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from bench.cells import Cell
from bench.compare.conditions import versions
from bench.metrics import METRICS
from bench.report.runs import processor, read
from bench.report.wording import printable
from bench.runfile import SCHEMA
from bench.stats.verdicts import Verdict
from common.errors import BakeoffError
from common.fetch import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.report.runs import Run
    from bench.report.wording import Facts

    type Step = Callable[[int, int], None]
    """Told how many of how many files have been read."""

VERSION = f"{SCHEMA}.1".encode()
"""Of the summaries, and of how run files are read: summaries of another version are not used."""
NAME = "time-line.msgpack"
"""In the cache folder."""
DIGEST_BYTES = 16
PASSED_OVER = (".git", ".venv", "node_modules", "__pycache__")
"""Folders that hold many files and no run."""
VERDICTS = tuple(map(str, Verdict))
"""As points number them."""
FAILURE = "failure"
"""In place of a metric, where a cell failed and has none."""
OF_SIDES = {"history", "spec"}
"""Entries of a run's section by which it is a stack of a history, or a side of an A/B."""


class Stamp(NamedTuple):
    """Tells whether a file is still the one that was read."""

    size: int
    mtime_ns: int


UNREADABLE = Stamp(-1, -1)
"""Of a file that could not be opened: it is tried again, though it may not have changed."""


class State(StrEnum):
    """The kind of a JSON file."""

    RUN = "run"
    SIDE = "side"
    """A stack of a history, or a side of an A/B: no run of this project's own history."""
    OTHER = "other"
    """JSON that makes no claim to be a run."""
    DAMAGED = "damaged"


class Key(NamedTuple):
    """The cell and metric that the points of a series have in common."""

    machine: str
    entrant: str
    style: str
    workload: str
    backend: str
    metric: str
    unit: str
    exact: bool


class Numbers(NamedTuple):
    """A point; NaN where a number is not known."""

    median: float
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    standard_error: float = math.nan
    df: float = math.nan
    p: float = math.nan
    verdict: float = math.nan
    """Its place in `VERDICTS`."""


class Summary(msgspec.Struct, array_like=True, frozen=True):
    """The summary of a file; of one that is no run, its stamp, state and problem."""

    stamp: Stamp
    state: State
    problem: str = ""
    """Of a damaged file, in a sentence that names it."""
    name: str = ""
    path: str = ""
    at: str = ""
    """When it was measured: year to second, UTC."""
    revision: str = ""
    dirty: bool = False
    versions: dict[str, str] = {}
    margin: float = 0.0
    digest: bytes = b""
    """The same in copies of a run; empty where nothing was timed."""
    machines: list[str] = []
    keys: bytes = b""
    """Of its points: places in `Summaries.keys`, as 32-bit integers."""
    numbers: bytes = b""
    """Of its points: `Numbers`, as 64-bit floats."""
    gaps: dict[int, str] = {}
    """Why there is no number, by place of the key."""


class Summaries(msgspec.Struct, array_like=True):
    """The summaries of many files, which share a table of keys."""

    keys: list[Key] = []
    files: dict[bytes, Summary] = {}
    """By path: the bytes of a name need not be text."""


def found_files(folders: Sequence[Path]) -> tuple[dict[Path, Stamp], list[str]]:
    """Return the JSON files in folders and below, and which folders cannot be read, in sentences.

    Raises:
        BakeoffError: a folder does not exist.
    """
    found: dict[Path, Stamp] = {}
    problems: list[str] = []

    def denied(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be looked into ({error.strerror})")

    for folder in folders:
        if not folder.exists():
            raise BakeoffError(
                f"--runs {folder}: there is no such folder; give folders that hold run files, "
                "such as .benchmarks or results"
            )
        top = Path(os.path.abspath(folder))  # noqa: PTH100  # keeps links, drops `..`
        for path in [top] if top.is_file() else json_files(top, denied):
            try:
                about = path.stat()
            except OSError:  # deleted meanwhile, or a link to nowhere
                continue
            found[path] = Stamp(about.st_size, about.st_mtime_ns)
    return found, problems


def json_files(top: Path, denied: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the paths of JSON files in a folder and below."""
    for folder, inside, names in top.walk(on_error=denied):
        inside[:] = sorted(name for name in inside if name not in PASSED_OVER)
        yield from (folder / name for name in sorted(names) if name.endswith(".json"))


def summaries(
    files: Mapping[Path, Stamp],
    *,
    step: Step | None = None,
    notify: Callable[[str], None] | None = None,
) -> tuple[list[Key], dict[Path, Summary]]:
    """Return the table of keys, and the summary of each file; new and changed files are read.

    Files that were read before an interruption (Ctrl-C) are kept too.

    Args:
        files: The files, and what they are like now.
        step: Told how many files have been read, when some have to be.
        notify: Told, in a sentence, that the summaries cannot be kept.
    """
    path = cache_folder() / NAME
    known = load(path)
    keys = {key: place for place, key in enumerate(known.keys)}
    found: dict[Path, Summary] = {}
    stale = []
    for file, stamp in files.items():
        summary = known.files.get(os.fsencode(file))
        if summary is not None and summary.stamp == stamp:
            found[file] = summary
        else:
            stale.append(file)
    try:
        for done, file in enumerate(stale):
            if step is not None:
                step(done, len(stale))
            found[file] = summary_of(file, files[file], keys)
    finally:
        if stale:
            left = {name: s for name, s in known.files.items() if os.path.exists(name)}  # noqa: PTH110  # bytes
            new = {os.fsencode(file): summary for file, summary in found.items()}
            try:
                save(path, Summaries(list(keys), left | new))
            except OSError as error:
                if notify is not None:
                    notify(
                        f"{path} cannot be written ({error.strerror}): the files will be read "
                        "again next time"
                    )
    if step is not None and stale:
        step(len(stale), len(stale))
    return list(keys), found


def load(path: Path) -> Summaries:
    """Return the summaries in a file; none where it is missing, damaged or of another version."""
    try:
        content = path.read_bytes()
    except OSError:
        return Summaries()
    digest, data = content[:DIGEST_BYTES], memoryview(content)[DIGEST_BYTES:]
    if digest != mark(data):
        return Summaries()
    try:
        return msgspec.msgpack.decode(data, type=Summaries)
    except msgspec.ValidationError:  # of another layout
        return Summaries()


def save(path: Path, found: Summaries) -> None:
    """Write summaries to a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = msgspec.msgpack.encode(found)
    with NamedTemporaryFile(dir=path.parent, prefix=path.name, delete_on_close=False) as file:
        file.write(mark(data))
        file.write(data)
        file.close()
        Path(file.name).replace(path)


def mark(data: bytes | memoryview) -> bytes:
    """Return a digest of data and of the version."""
    return blake2b(data, digest_size=DIGEST_BYTES, key=VERSION).digest()


def summary_of(path: Path, stamp: Stamp, keys: dict[Key, int]) -> Summary:
    """Return the summary of a file, and add its keys to the table; a file that is no run has one.

    Args:
        path: Of the file.
        stamp: What it is like.
        keys: The place of each key.
    """
    try:
        run = read(path, samples=False)
        if OF_SIDES & run.section.keys():
            return Summary(stamp, State.SIDE)
        if not run.when:
            return damaged(stamp, f"{path} does not say when it was measured")
        return summarised(run, path, stamp, keys)
    except BakeoffError as error:
        if isinstance(error.__cause__, OSError):
            return damaged(UNREADABLE, str(error))
        return Summary(stamp, State.OTHER) if is_other(path) else damaged(stamp, str(error))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        return damaged(stamp, f"{path} is damaged: {type(error).__name__} {error}")


def damaged(stamp: Stamp, problem: str) -> Summary:
    """Return the summary of a file that is skipped, its problem in one line."""
    return Summary(stamp, State.DAMAGED, " ".join(text(printable(problem)).split()))


def is_other(path: Path) -> bool:
    """Tell whether a file is JSON that makes no claim to be a run."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(data, dict) and ("benchmarks" in data or "bakeoff" in data))


def summarised(run: Run, path: Path, stamp: Stamp, keys: dict[Key, int]) -> Summary:
    """Return the summary of a run, and add its keys to the table."""
    at = datetime.fromisoformat(run.when).isoformat(timespec="seconds")
    measured: dict[int, Numbers] = {}
    gaps: dict[int, str] = {}
    machines: dict[str, None] = {}
    timed = False
    for key, point in points_of(run):
        place = keys.setdefault(key, len(keys))
        machines[key.machine] = None
        if isinstance(point, str):
            gaps[place] = point
        else:
            measured[place] = point
            timed |= not key.exact
    places = np.array(list(measured), np.int32).tobytes()
    values = np.array(list(measured.values()), np.float64).tobytes()
    revision = text(run.commit.get("id") or "")
    margin = number(run.section["plan"]["margin"])
    return Summary(
        stamp,
        State.RUN,
        name=text(run.name),
        path=text(path),
        at=at,
        revision=revision,
        dirty=bool(run.commit.get("dirty")),
        versions={text(name): text(version) for name, version in versions(run).items()},
        margin=margin if math.isfinite(margin) else 0.0,
        digest=mark(revision.encode() + places + values) if timed else b"",
        machines=list(machines),
        keys=places,
        numbers=values,
        gaps=gaps,
    )


def points_of(run: Run) -> Iterator[tuple[Key, Numbers | str]]:
    """Yield all numbers of a run's cells; a text is the reason why there is none."""
    devices = run.section["environment"].get("devices") or {}
    for cell in run.section["cells"]:
        device = devices.get(cell["backend"])
        machine = text(", ".join(filter(None, [processor(run), device and str(device)])))
        about = [machine or "unknown machine", *(text(cell[name]) for name in Cell._fields)]
        if cell["failure"] is not None:
            yield Key._make([*about, FAILURE, "", False]), text(cell["failure"])
            continue
        for metric, found in cell["metrics"].items():
            known = METRICS.get(metric)
            unit = text(found.get("unit") or (known.unit if known else ""))
            point = numbers(found) if "median" in found else text(found["missing"])
            yield Key._make([*about, text(metric), unit, False]), point
        for metric, value in cell["exact"].items():
            if math.isfinite(median := number(value)):
                unit = "B" if metric.endswith("_bytes") else ""
                yield Key._make([*about, text(metric), unit, True]), Numbers(median)
        if cell["final_loss"]:
            median = number(cell["final_loss"]["same_weights"])
            yield Key._make([*about, "final_loss", "nats", False]), Numbers(median)


def numbers(found: Facts) -> Numbers:
    """Return a metric of a run file as a point."""
    verdict: Any = found.get("verdict")
    place = VERDICTS.index(verdict) if verdict in VERDICTS else math.nan
    return Numbers._make([*(number(found.get(name)) for name in Numbers._fields[:-1]), place])


def number(value: Any) -> float:
    """Return a value of JSON as a number, NaN for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.nan


def text(value: Any) -> str:
    """Return a text that can be encoded, whatever a file's escapes and names are."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
