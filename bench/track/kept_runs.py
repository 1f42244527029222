"""Run files that were kept, as histories: one for each machine."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.cells import BASELINE
from bench.metrics import METRICS
from bench.report.wording import printable
from bench.runfile import EnvironmentInfo, ResultsWithSamples
from bench.runfile.reader import NoRunError, read
from bench.track.conditions import releases
from bench.track.moves import is_exact
from bench.track.timeline import DAY
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.cells import Cell
    from bench.runfile.reader import Run

    type Progress = Callable[[Sequence[Path]], Iterable[Path]]
    """Yields the files that are to be read, and shows how far that is."""

PASSED_OVER = {".git", ".venv", "node_modules", "__pycache__"}
"""Folders that hold many files and no run."""
COPY = "a run that is there already"
"""What is said of a copy, as `--benchmark-json` beside autosave leaves it."""


@dataclass(frozen=True)
class Filters:
    """Which runs and series are shown; empty stands for everything."""

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By what they name: `entrant`, `style`, `workload`, `metric`."""
    machine: str = ""
    """Part of its name, in any case."""
    since: date = date.min
    until: date = date.max
    """Last day, included (UTC)."""
    last: int | None = None
    """Number of runs, the newest ones."""

    def takes(self, cell: Cell, metric: str = "") -> bool:
        """Tell whether a series is shown."""
        parts = {**cell._asdict(), "metric": metric}
        return all(
            not names or parts[part] in names or not parts[part]
            for part, names in self.names.items()
        )

    def check(self, part: str, known: Iterable[str]) -> None:
        """Raise BakeoffError if a name is none of those that there are."""
        known = sorted({*known})
        for name in self.names.get(part, ()):
            if name not in known:
                raise unknown(part, name, known)


@dataclass
class KeptRuns:
    """The runs in some files and folders."""

    results: ResultsWithSamples = field(default_factory=lambda: ResultsWithSamples(kind="history"))
    """Those of one machine, as a history."""
    problems: list[str] = field(default_factory=list)
    """Files that cannot be read, in sentences that name them."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files and runs that are not shown, by what they are."""

    @property
    def notes(self) -> list[str]:
        """What was passed over, in sentences."""
        return [f"passed over: {count} × {what}" for what, count in self.passed_over.items()]


def kept_runs(
    places: Sequence[Path], filters: Filters | None = None, progress: Progress = iter
) -> KeptRuns:
    """Return the runs in files, and in folders and below, as the history of one machine.

    That is the one that is asked for, or else the one with the newest run.

    Raises:
        BakeoffError: a place does not exist or holds no run, or no run passes the filters.
    """
    filters, kept = filters or Filters(), KeptRuns()
    where = ", ".join(map(str, places))
    paths = list(dict.fromkeys(path for place in places for path in json_files(place)))
    gc.disable()  # there are many small objects and no cycle
    try:
        runs = list(_readable(progress(paths), kept))
    finally:
        gc.enable()
    if not runs:
        first = f" (the first problem: {kept.problems[0]})" if kept.problems else ""
        raise BakeoffError(
            f"{where}: none of {len(paths)} JSON files is a run{first}; give what "
            "`pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    runs.sort(key=lambda run: run.when)
    cells = {row.cell for run in runs for row in run.results.cells if not row.cell.is_control}
    for part in ("entrant", "style", "workload"):
        filters.check(part, (getattr(cell, part) for cell in cells))
    filters.check("metric", {row.metric for run in runs for row in run.results.estimates})
    machines: dict[str, list[tuple[Run, str]]] = {}
    for run in runs:
        if str(filters.since) <= run.when[:DAY] <= str(filters.until):
            for backend in run.results.backends:
                machines.setdefault(machine_of(run, backend), []).append((run, backend))
    if not machines:
        raise BakeoffError(
            f"{where}: no run is of the time that is asked for; the {len(runs)} there are from "
            f"{runs[0].when} to {runs[-1].when}: give another --since or --until"
        )
    asked = [name for name in machines if filters.machine.casefold() in name.casefold()]
    if not asked:
        raise unknown("machine", filters.machine, sorted(machines))
    machine = max(asked, key=lambda name: machines[name][-1][0].when)
    for other in machines.keys() - {machine}:
        kept.passed_over[f"a run on {other} (--machine names another one)"] = len(machines[other])
    _fill(kept.results, machines[machine], filters)
    if not kept.results.environments:
        raise BakeoffError(
            f"{where}: no run has what is asked for in all of the options at once; leave some out"
        )
    kept.results.conditions.devices = {machines[machine][-1][1]: machine}
    return kept


def json_files(place: Path) -> Iterator[Path]:
    """Yield the JSON files in a folder and below, or the one file that is given."""
    if not place.exists():
        raise BakeoffError(f"there is no {place}; give run files, or folders that hold them")
    if place.is_file():
        yield place
        return
    for folder, inside, names in place.walk():
        inside[:] = sorted({*inside} - PASSED_OVER)
        paths = [folder / name for name in sorted(names) if name.endswith(".json")]
        yield from filter(type(place).is_file, paths)  # no links to nowhere


def _readable(paths: Iterable[Path], kept: KeptRuns) -> Iterator[Run]:
    """Yield the runs among files, each once; say in `kept` what the others are."""
    known: set[int] = set()
    for path in paths:
        try:
            run = read(path, samples=False)
            datetime.fromisoformat(run.when)
        except NoRunError:
            continue
        except BakeoffError as error:
            kept.problems.append(" ".join(printable(str(error)).split()))
            continue
        except ValueError:
            kept.problems.append(f"{printable(str(path))} does not say when it was measured")
            continue
        content = hash((str(run.commit.get("id")), *(row.value for row in run.results.estimates)))
        if run.results.kind != "run":
            kept.passed_over[f"the result of `bakeoff {run.results.kind}`"] += 1
        elif content in known:
            kept.passed_over[COPY] += 1
        else:
            known.add(content)
            yield run


def machine_of(run: Run, backend: str) -> str:
    """Return the name of a machine: its processor, its cores and its device."""
    device = run.results.conditions.devices.get(backend, "")
    return ", ".join(filter(None, [run.processor, device])) or "unknown machine"


def _fill(results: ResultsWithSamples, runs: Sequence[tuple[Run, str]], filters: Filters) -> None:
    """Make the runs of one machine, each with the backend that is meant, moments of a history."""
    against = str(BASELINE)

    @cache  # thousands of runs have the same few rows
    def shown(cell: Cell, metric: str, reference: str, *, exact: bool) -> bool:
        """Tell whether a history needs a row: comparisons, counts, and what is added to."""
        if cell.is_baseline and not reference and METRICS[metric].added:
            return True
        takes = not cell.is_control and filters.takes(cell, metric)
        return takes and (exact or reference == against)

    seconds = Counter[str]()
    moments = []
    for run, _ in runs:  # several may be of the same second
        count = seconds[run.when]
        moments.append(f"{run.when}.{count}" if count else run.when)
        seconds[run.when] += 1
    for moment, (run, backend) in reversed([*zip(moments, runs, strict=True)]):
        if len(results.environments) == filters.last:
            break
        rows = [
            row
            for row in run.results.estimates
            if row.cell.backend == backend
            and shown(row.cell, row.metric, row.against, exact=is_exact(row))
        ]
        failed = [
            row
            for row in run.results.cells
            if row.failure is not None and row.cell.backend == backend and filters.takes(row.cell)
        ]
        if not failed and not any(filters.takes(row.cell, row.metric) for row in rows):
            continue
        dirty = ", changed since" if run.commit.get("dirty") else ""
        commit = str(run.commit.get("id") or "")[:DAY]
        results.environments[moment] = EnvironmentInfo(
            spec=run.name, versions=releases(run), commit=f"{commit}{dirty}"
        )
        results.estimates += [replace(row, environment=moment) for row in rows]
        results.cells += [replace(row, environment=moment) for row in failed]
        results.options.margin = max(results.options.margin, run.results.options.margin)
    results.environments = dict(reversed(results.environments.items()))
