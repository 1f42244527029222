"""Many run files at once: of each, only the few numbers that a time line needs."""

from __future__ import annotations

import gc
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.compare.conditions import versions
from bench.compare.series import FAILURE, Moment, Point, SeriesKey
from bench.metrics import EXACT, METRICS
from bench.report.wording import printable
from bench.runfile import MARGIN, NO_NUMBER, SCHEMA, BakeoffSection, CellName, RunConditions
from bench.runfile.reader import Run, processor, read
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    type Progress = Callable[[Sequence[Path]], Iterable[Path]]
    """Yields the files that are to be read, and shows how far that is."""

PASSED_OVER = (".git", ".venv", "node_modules", "__pycache__")
"""Folders that hold many files and no run."""
COPY = "a run that is there already"
"""As `--benchmark-json` beside autosave leaves."""
SIDE = "a stack of a history, or a side of an A/B"
UNITS = {name: metric.unit for name, metric in (METRICS | EXACT).items()}


class ScannedMetric(Point, gc=False):
    """What is read of a metric of a cell."""

    unit: str | None = None


class ScannedCell(CellName, kw_only=True):
    """What is read of a cell."""

    failure: str | None = None
    metrics: dict[str, ScannedMetric] = msgspec.field(default_factory=dict)
    exact: dict[str, float | None] = msgspec.field(default_factory=dict)
    final_loss: dict[str, Any] | None = None


class ScannedSection(msgspec.Struct):
    """What is read of a run's section: the rest, most of all samples, is skipped and not made."""

    schema: int
    cells: list[ScannedCell]
    environment: RunConditions = msgspec.field(default_factory=RunConditions)
    plan: dict[str, Any] = {}
    history: Any = None
    """Only a stack of a history has it."""
    spec: Any = None
    """Only a side of an A/B has it."""


class ScannedFile(msgspec.Struct):
    """What is read of a run file."""

    bakeoff: ScannedSection
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    datetime: str = ""


DECODER = msgspec.json.Decoder(ScannedFile)


@dataclass
class RunScan:
    """What was found in some folders."""

    wanted: Callable[[SeriesKey], bool]
    """Tells which series are kept."""
    moments: list[Moment] = field(default_factory=list)
    """Of each run once."""
    points: dict[SeriesKey, dict[int, Point] | None] = field(default_factory=dict)
    """Of each series, by number of the run; None for one that is not wanted."""
    problems: list[str] = field(default_factory=list)
    """Files that cannot be read, in sentences that name them."""
    files: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files that hold no run of their own, by what they hold."""

    def read(self, folders: Sequence[Path], progress: Progress | None = None) -> None:
        """Read all JSON files in folders and below.

        Raises:
            BakeoffError: a folder does not exist.
        """
        paths = list(dict.fromkeys(path for each in folders for path in self.json_files(each)))
        self.files = len(paths)
        runs: set[int] = set()
        gc.disable()  # there are many small objects and no cycle
        try:
            for path in progress(paths) if progress is not None else paths:
                found = self.scanned(path)
                if found is None:
                    continue
                if found.bakeoff.history is not None or found.bakeoff.spec is not None:
                    self.passed_over[SIDE] += 1
                elif (run := fingerprint(found, path)) in runs:
                    self.passed_over[COPY] += 1
                else:
                    runs.add(run)
                    self.add(found, path)
        finally:
            gc.enable()

    def json_files(self, top: Path) -> Iterator[Path]:
        """Yield the paths of JSON files in a folder and below."""
        if not top.exists():
            raise BakeoffError(
                f"--runs {top}: there is no such folder; give folders that hold run files, such as "
                ".benchmarks or results"
            )
        top = Path(os.path.abspath(top))  # noqa: PTH100  # keeps links, drops `..`
        if top.is_file():
            yield top
            return

        def denied(error: OSError) -> None:
            self.problems.append(f"{error.filename} cannot be looked into ({error.strerror})")

        for folder, inside, names in top.walk(on_error=denied):
            inside[:] = sorted(name for name in inside if name not in PASSED_OVER)
            paths = [folder / name for name in sorted(names) if name.endswith(".json")]
            yield from filter(Path.exists, paths)  # not links to nowhere

    def scanned(self, path: Path) -> ScannedFile | None:
        """Return what is needed of a file; None, and a problem noted, where it is no whole run."""
        try:
            found = scanned_file(path)
            if not found.datetime:
                raise ValueError("it does not say when it was measured")
            datetime.fromisoformat(found.datetime)
        except (BakeoffError, ValueError) as error:  # msgspec's errors are ValueErrors
            if not isinstance(error.__cause__, OSError) and is_other(path):
                return None
            said = str(error) if isinstance(error, BakeoffError) else f"{path} is damaged: {error}"
            self.problems.append(" ".join(text(printable(said)).split()))
            return None
        return found

    def add(self, found: ScannedFile, path: Path) -> None:
        """Take the numbers of a run."""
        number, machines = len(self.moments), set()
        section = BakeoffSection(cells=[], environment=found.bakeoff.environment)
        run = Run(path.stem, section, machine=found.machine_info)
        for about, point in points_of(found.bakeoff, processor(run)):
            machines.add(about[0])
            if about not in self.points:
                key = SeriesKey._make(about)
                self.points[key] = {} if self.wanted(key) else None
            series = self.points[about]  # type: ignore[index]  # equal to its key, and made faster
            if series is not None:
                series[number] = point
        revision, margin = found.commit_info.get("id"), found.bakeoff.plan.get("margin")
        moment = Moment(
            name=text(path.stem),
            at=datetime.fromisoformat(found.datetime[:19]).isoformat(timespec="seconds"),
            versions=versions(run),
            path=text(path),
            revision=revision if isinstance(revision, str) else "",
            dirty=bool(found.commit_info.get("dirty")),
            margin=margin if isinstance(margin, float) else MARGIN,
            machines=frozenset(machines),
        )
        self.moments.append(moment)


def scanned_file(path: Path) -> ScannedFile:
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
    found = msgspec.convert({"bakeoff": msgspec.to_builtins(run.section), **about}, ScannedFile)
    msgspec.json.encode(found)  # raises where a name is no text, as "\ud800"
    return found


def is_other(path: Path) -> bool:
    """Tell whether a file is JSON that makes no claim to be a run."""
    try:
        data = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, RecursionError):
        return False
    return not (isinstance(data, dict) and ("benchmarks" in data or "bakeoff" in data))


def fingerprint(found: ScannedFile, path: Path) -> int:
    """Return a number that copies of a run have in common: that of its revision and medians."""
    medians = [m.median for cell in found.bakeoff.cells for m in cell.metrics.values()]
    return hash((str(found.commit_info.get("id")), *medians) if any(medians) else path)


def points_of(section: ScannedSection, processor: str) -> Iterator[tuple[tuple[Any, ...], Point]]:
    """Yield the points of a run, by what is equal to their keys."""
    devices = section.environment.devices
    for cell in section.cells:
        device = devices.get(cell.backend)
        machine = ", ".join(filter(None, [processor, device])) or "unknown machine"
        about = (machine, cell.entrant, cell.style, cell.workload, cell.backend)
        over = (cell.devices, cell.weak)
        if cell.failure is not None:
            yield (*about, FAILURE, "", False, *over), Point(missing=cell.failure)
            continue
        for name, metric in cell.metrics.items():
            if metric.median is None or metric.median <= 0:
                metric = ScannedMetric(unit=metric.unit, missing=metric.missing or NO_NUMBER)
            yield (*about, name, metric.unit or UNITS.get(name, ""), False, *over), metric
        for name, value in cell.exact.items():
            if value is not None:
                yield (*about, name, UNITS.get(name, ""), True, *over), Point(value)
        loss = (cell.final_loss or {}).get("same_weights")
        if isinstance(loss, float):
            yield (*about, "final_loss", "nats", False, *over), Point(loss)


def text(value: Any) -> str:
    """Return a text that can be encoded, whatever names of files are."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
