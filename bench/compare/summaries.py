"""Summaries of run files: the few numbers of each that a time line needs, kept in the cache folder.

A run file is read again when its size or its time of change differs. The file of summaries can be
deleted at any time.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from bench.compare.conditions import versions
from bench.compare.series import FAILURE, VERDICTS, Moment, Numbers, SeriesKey
from bench.metrics import EXACT, METRICS
from bench.report.runs import MARGIN, NO_NUMBER, Run, processor, read
from bench.report.text import printable
from bench.runfile import SCHEMA
from common.errors import BakeoffError
from common.fetch import cache_folder
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    type Progress = Callable[[Sequence[Path]], Iterable[Path]]
    """Yields the files that are to be read, and shows how far that is."""

VERSION = f"{SCHEMA}.2"
"""Of the summaries, and of how run files are read: those of another version are not used."""
NAME = "time-line.msgpack"
"""In the cache folder."""
PASSED_OVER = (".git", ".venv", "node_modules", "__pycache__")
"""Folders that hold many files and no run."""


class Stamp(NamedTuple):
    """Tells whether a file is still the one that was read."""

    size: int
    mtime_ns: int


UNREADABLE = Stamp(-1, -1)
"""Of a file that could not be opened: it is tried again, though it may not have changed."""


class Summary(msgspec.Struct, array_like=True, frozen=True):
    """The summary of a JSON file; of one that is no run, its stamp, kind and problem."""

    stamp: Stamp
    kind: Literal["run", "side", "other", "damaged"]
    """A side is a stack of a history or a side of an A/B; others do not claim to be a run."""
    problem: str = ""
    """Of a damaged file, in a sentence that names it."""
    moment: Moment = Moment("", "")
    digest: bytes = b""
    """The same in copies of a run."""
    machines: list[str] = []
    keys: bytes = b""
    """Of its points: places in `Summaries.keys`, as 32-bit integers."""
    numbers: bytes = b""
    """Of its points: `Numbers`, as 64-bit floats."""
    gaps: dict[int, str] = {}
    """Why there is no number, by place of the key."""


class Summaries(msgspec.Struct, array_like=True):
    """The summaries of many files, which share a table of keys."""

    version: str = VERSION
    keys: list[SeriesKey] = []
    files: dict[bytes, Summary] = {}
    """By path: the bytes of a name need not be text."""


class SummaryMetric(msgspec.Struct, gc=False):
    """What is read of a metric of a cell: `Numbers`, or why there are none."""

    median: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    df: float | None = None
    p: float | None = None
    verdict: str | None = None
    unit: str | None = None
    missing: str | None = None


class SummaryLoss(msgspec.Struct, gc=False):
    """What is read of the loss after a short training."""

    same_weights: float


class SummaryCell(msgspec.Struct):
    """What is read of a cell."""

    entrant: str
    style: str
    workload: str
    backend: str
    failure: str | None = None
    metrics: dict[str, SummaryMetric] = {}
    exact: dict[str, float | None] = {}
    final_loss: SummaryLoss | None = None


class SummaryEnvironment(msgspec.Struct):
    """What is read of a run's environment."""

    versions: dict[str, str] | None = None
    devices: dict[str, str] | None = None
    affinity: list[int] | None = None


class SummaryPlan(msgspec.Struct):
    """What is read of a run's plan."""

    margin: float | None = None


class SummarySection(msgspec.Struct):
    """What is read of a run's section: the rest, most of all samples, is skipped and not made."""

    schema: int
    cells: list[SummaryCell]
    environment: SummaryEnvironment = msgspec.field(default_factory=SummaryEnvironment)
    plan: SummaryPlan = msgspec.field(default_factory=SummaryPlan)
    history: Any = None
    """Only a stack of a history has it."""
    spec: Any = None
    """Only a side of an A/B has it."""


class SummaryFile(msgspec.Struct):
    """What is read of a run file."""

    bakeoff: SummarySection
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    datetime: str = ""


DECODER = msgspec.json.Decoder(SummaryFile)


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
            with suppress(OSError):  # deleted meanwhile, or a link to nowhere
                about = path.stat()
                found[path] = Stamp(about.st_size, about.st_mtime_ns)
    return found, problems


def json_files(top: Path, denied: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the paths of JSON files in a folder and below."""
    for folder, inside, names in top.walk(on_error=denied):
        inside[:] = sorted(name for name in inside if name not in PASSED_OVER)
        yield from (folder / name for name in sorted(names) if name.endswith(".json"))


def summaries(
    files: Mapping[Path, Stamp], progress: Progress | None = None
) -> tuple[list[SeriesKey], dict[Path, Summary], list[str]]:
    """Return the table of keys, the summary of each file, and notes.

    New and changed files are read; after an interruption (Ctrl-C) those that were are kept too.

    Args:
        files: The files, and what they are like now.
        progress: Shows how far it is.
    """
    path = cache_folder() / NAME
    known = load(path)
    keys = {key: place for place, key in enumerate(known.keys)}
    kept = {file: known.files.get(os.fsencode(file)) for file in files}
    found = {file: s for file, s in kept.items() if s is not None and s.stamp == files[file]}
    stale = [file for file in files if file not in found]
    notes: list[str] = []
    try:
        for file in progress(stale) if progress is not None and stale else stale:
            found[file] = summary_of(file, files[file], keys)
    finally:
        if stale:
            left = {name: s for name, s in known.files.items() if os.path.exists(name)}  # noqa: PTH110  # bytes
            new = {os.fsencode(file): summary for file, summary in found.items()}
            try:
                save(path, Summaries(VERSION, list(keys), left | new))
            except OSError as error:
                notes = [
                    f"{path} cannot be written ({error.strerror}): the files will be read again "
                    "next time"
                ]
    return list(keys), found, notes


def load(path: Path) -> Summaries:
    """Return the summaries in a file; none where it is missing, damaged or of another version."""
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=Summaries)
    except (OSError, msgspec.MsgspecError):
        return Summaries()
    return found if found.version == VERSION else Summaries()


def save(path: Path, found: Summaries) -> None:
    """Write summaries to a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=path.name, delete_on_close=False) as file:
        file.write(msgspec.msgpack.encode(found))
        file.close()
        Path(file.name).replace(path)


def summary_of(path: Path, stamp: Stamp, keys: dict[SeriesKey, int]) -> Summary:
    """Return the summary of a file, and add its keys to the table; a file that is no run has one.

    Args:
        path: Of the file.
        stamp: What it is like.
        keys: The place of each key.
    """
    try:
        found = summary_file(path)
        if found.bakeoff.history is not None or found.bakeoff.spec is not None:
            return Summary(stamp, "side")
        if not found.datetime:
            return damaged(stamp, f"{path} does not say when it was measured")
        return summarised(found, path, stamp, keys)
    except BakeoffError as error:
        if isinstance(error.__cause__, OSError):
            return damaged(UNREADABLE, str(error))
        return Summary(stamp, "other") if is_other(path) else damaged(stamp, str(error))
    except ValueError as error:  # msgspec's errors are some too
        return damaged(stamp, f"{path} is damaged: {error}")


def summary_file(path: Path) -> SummaryFile:
    """Return what is needed of a run file.

    Raises:
        BakeoffError: it cannot be read, or is no run.
        ValueError: something in it is not what it has to be.
    """
    with suppress(OSError, msgspec.MsgspecError, RecursionError):
        found = DECODER.decode(read_regular(path, MOST_JSON))
        if found.bakeoff.schema == SCHEMA:
            return found
    # Another schema, a file of pytest-benchmark alone, or one that is damaged: `read` knows.
    run = read(path, samples=False)
    about = {"machine_info": run.machine, "commit_info": run.commit, "datetime": run.when}
    found = msgspec.convert({"bakeoff": run.section, **about}, SummaryFile)
    msgspec.json.encode(found)  # raises where a name is no text, as "\ud800"
    return found


def damaged(stamp: Stamp, problem: str) -> Summary:
    """Return the summary of a file that is skipped, its problem in one line."""
    return Summary(stamp, "damaged", " ".join(text(printable(problem)).split()))


def is_other(path: Path) -> bool:
    """Tell whether a file is JSON that makes no claim to be a run."""
    try:
        data = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, RecursionError):
        return False
    return not (isinstance(data, dict) and ("benchmarks" in data or "bakeoff" in data))


def summarised(found: SummaryFile, path: Path, stamp: Stamp, keys: dict[SeriesKey, int]) -> Summary:
    """Return the summary of a run, and add its keys to the table."""
    environment = msgspec.to_builtins(found.bakeoff.environment)
    run = Run(path.stem, {"environment": environment}, machine=found.machine_info)
    places: list[int] = []
    rows: list[tuple[float | None, ...]] = []
    gaps: dict[int, str] = {}
    machines: dict[str, None] = {}
    for key, point in points_of(found.bakeoff, processor(run)):
        place = keys.get(key)  # type: ignore[call-overload]  # it is equal to one
        if place is None:
            place = keys[SeriesKey._make(key)] = len(keys)
        machines[key[0]] = None
        if isinstance(point, str):
            gaps[place] = point
        else:
            places.append(place)
            rows.append(point)
    numbers = np.array(rows, np.float64).tobytes()
    revision = found.commit_info.get("id")
    moment = Moment(
        name=text(path.stem),
        at=datetime.fromisoformat(found.datetime[:19]).isoformat(timespec="seconds"),
        versions=versions(run),
        path=text(path),
        revision=revision if isinstance(revision, str) else "",
        dirty=bool(found.commit_info.get("dirty")),
        margin=found.bakeoff.plan.margin or MARGIN,
    )
    content = moment.revision.encode() + np.array(places, np.int32).tobytes() + numbers
    return Summary(
        stamp,
        "run",
        moment=moment,
        digest=blake2b(content if rows else path.as_posix().encode(), digest_size=16).digest(),
        machines=list(machines),
        keys=np.array(places, np.int32).tobytes(),
        numbers=numbers,
        gaps=gaps,
    )


def points_of(
    section: SummarySection, processor: str
) -> Iterator[tuple[tuple[Any, ...], tuple[float | None, ...] | str]]:
    """Yield all numbers of a run's cells, by what is equal to their keys.

    A text is the reason why there is no number.
    """
    devices = section.environment.devices or {}
    units = {name: metric.unit for name, metric in (METRICS | EXACT).items()}
    verdicts: dict[str | None, float] = {name: place for place, name in enumerate(VERDICTS)}
    unknown = (math.nan,) * (len(Numbers._fields) - 1)
    for cell in section.cells:
        device = devices.get(cell.backend)
        machine = ", ".join(filter(None, [processor, device])) or "unknown machine"
        about = (machine, cell.entrant, cell.style, cell.workload, cell.backend)
        if cell.failure is not None:
            yield (*about, FAILURE, "", False), cell.failure
            continue
        for name, metric in cell.metrics.items():
            key = (*about, name, metric.unit or units.get(name, ""), False)
            if metric.median is None or metric.median <= 0:
                yield key, metric.missing or NO_NUMBER
                continue
            yield (
                key,
                (
                    *(metric.median, metric.ratio, metric.low, metric.high),
                    *(metric.standard_error, metric.df, metric.p),
                    verdicts.get(metric.verdict, math.nan),
                ),
            )
        for name, value in cell.exact.items():
            if value is not None:
                yield (*about, name, units.get(name, ""), True), (value, *unknown)
        if cell.final_loss is not None:
            loss = cell.final_loss.same_weights
            yield (*about, "final_loss", "nats", False), (loss, *unknown)


def text(value: Any) -> str:
    """Return a text that can be encoded, whatever names of files are."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
