"""Many run files at once: of each, only the few numbers that a time line needs."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.compare.conditions import versions
from bench.compare.series import FAILURE, Moment, Point, SeriesKey
from bench.report.wording import printable
from bench.runfile.reader import NoRunError, processor, read
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.runfile.reader import Run

    type Progress = Callable[[Sequence[Path]], Iterable[Path]]
    """Yields the files that are to be read, and shows how far that is."""

PASSED_OVER = {".git", ".venv", "node_modules", "__pycache__"}
"""Folders that hold many files and no run."""
COPY = "a run that is there already"
"""As `--benchmark-json` beside autosave leaves."""
SIDE = "a stack of a history, or a side of an A/B"


@dataclass
class RunScan:
    """What was found in some folders."""

    runs: list[Moment] = field(default_factory=list)
    """Each once."""
    problems: list[str] = field(default_factory=list)
    """Files that cannot be read, in sentences that name them."""
    files: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files that hold no run of their own, by what they hold."""

    def read(self, folders: Sequence[Path], progress: Progress = iter) -> None:
        """Read all JSON files in folders and below.

        Raises:
            BakeoffError: a folder does not exist.
        """
        paths = list(dict.fromkeys(path for each in folders for path in self.json_files(each)))
        self.files = len(paths)
        known: set[int] = set()
        gc.disable()  # there are many small objects and no cycle
        try:
            for path in progress(paths):
                try:
                    run = read(path, samples=False)
                    found = moment(run, datetime.fromisoformat(run.when), printable(str(path)))
                except NoRunError:
                    continue
                except OverflowError as error:
                    self.problems.append(f"{path} is damaged: {error}")
                    continue
                except (BakeoffError, ValueError) as error:
                    undated = f"{path} does not say when it was measured"
                    said = str(error) if isinstance(error, BakeoffError) else undated
                    self.problems.append(" ".join(printable(said).split()))
                    continue
                if (run.section.history, run.section.spec) != (msgspec.UNSET, msgspec.UNSET):
                    self.passed_over[SIDE] += 1
                elif (same := fingerprint(run, path)) in known:
                    self.passed_over[COPY] += 1
                else:
                    known.add(same)
                    self.runs.append(found)
        finally:
            gc.enable()

    def json_files(self, top: Path) -> Iterator[Path]:
        """Yield the paths of JSON files in a folder and below, or the only one that is given."""
        if not top.exists():
            raise BakeoffError(
                f"--runs {top}: there is no such folder; give folders that hold run files, such as "
                ".benchmarks or results"
            )
        if top.is_file():
            yield top.absolute()
            return

        def denied(error: OSError) -> None:
            self.problems.append(f"{error.filename} cannot be looked into ({error.strerror})")

        for folder, inside, names in top.absolute().walk(on_error=denied):
            inside[:] = sorted({*inside} - PASSED_OVER)
            paths = [folder / name for name in sorted(names) if name.endswith(".json")]
            yield from filter(Path.is_file, paths)  # not links to nowhere


def moment(run: Run, at: datetime, path: str) -> Moment:
    """Return what a time line needs of a run."""
    revision = run.commit.get("id")
    return Moment(
        name=Path(path).stem,
        at=at.isoformat(timespec="seconds"),
        versions=versions(run),
        path=path,
        revision=revision if isinstance(revision, str) else "",
        dirty=bool(run.commit.get("dirty")),
        margin=run.section.plan.margin,
        points=dict(points_of(run)),
    )


def fingerprint(run: Run, path: Path) -> int:
    """Return a number that copies of a run have in common: that of its revision and medians."""
    medians = [metric.median for cell in run.section.cells for metric in cell.metrics.values()]
    return hash((str(run.commit.get("id")), *medians) if any(medians) else path)


def points_of(run: Run) -> Iterator[tuple[SeriesKey, Point]]:
    """Yield the points of a run, each with its series."""
    where, devices = processor(run), run.section.environment.devices
    for cell in run.section.cells:
        machine = ", ".join(filter(None, [where, devices.get(cell.backend)])) or "unknown machine"
        own = cell.cell
        if cell.failure is not None:
            yield SeriesKey.of(own, FAILURE, machine), Point(missing=cell.failure)
            continue
        for name, found in cell.metrics.items():
            point = Point(missing=found.missing)
            if found.median:
                point = Point(
                    *(found.median, found.ratio, found.low, found.high),
                    *(found.standard_error, found.df, found.p, found.verdict),
                )
            yield SeriesKey.of(own, name, machine, found.unit), point
        for name, value in cell.exact.items():
            if value is not None:
                yield SeriesKey.of(own, name, machine, exact=True), Point(float(value))
        if cell.final_loss:
            loss = cell.final_loss.same_weights
            yield SeriesKey.of(own, "final_loss", machine), Point(loss)
