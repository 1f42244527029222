"""Run files that were kept, as a history of one machine."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.report.wording import printable
from bench.runfile import ResultsWithSamples
from bench.runfile.reader import NoRunError, Run, read
from bench.track.comparison import is_exact
from bench.track.run_files import environment, relative
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PASSED_OVER = {".git", ".venv", "node_modules", "__pycache__"}
"""Folders that hold many files and no run."""
SKIPPED = "skipped: "
"""Begins the warning of a file that cannot be read."""


def kept_runs(places: Sequence[Path]) -> ResultsWithSamples:
    """Return the runs in files, and in folders and below, as the history of one machine.

    That is the one with the newest run. Warnings name what cannot be read, and what is left out.

    Raises:
        BakeoffError: a place does not exist or holds no run.
    """
    results = ResultsWithSamples(kind="history")
    paths = list(dict.fromkeys(path for place in places for path in json_files(place)))
    runs = sorted(_readable(paths, results.warnings), key=lambda run: run.when)
    if not runs:
        first = f" (the first problem: {results.warnings[0]})" if results.warnings else ""
        raise BakeoffError(
            f"{', '.join(map(str, places))}: none of {len(paths)} JSON files is a run{first}; give "
            "what `pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    machine, devices, others = runs[-1].processor, dict[str, str](), Counter[str]()
    for run in reversed(runs):
        there = run.results.conditions.devices
        if run.processor != machine or any(devices.get(b, d) != d for b, d in there.items()):
            others[", ".join(filter(None, [run.processor, *there.values()]))] += 1
            continue
        devices |= there
        moment = run.when
        if moment in results.environments:  # several may be of the same second
            moment += f".{len(results.environments):03}"
        rows = (*relative(run.results).values(), *filter(is_exact, run.results.estimates))
        failed = (r for r in run.results.cells if r.failure is not None and not r.cell.is_control)
        results.environments[moment] = environment(run)
        results.estimates += [replace(row, environment=moment) for row in rows]
        results.cells += [replace(row, environment=moment) for row in failed]
        results.options.margin = max(results.options.margin, run.results.options.margin)
    for other, count in others.items():
        results.warnings.append(
            f"{count} × a run on {other} left out: give its files alone to see it"
        )
    results.environments = dict(sorted(results.environments.items()))
    results.conditions.devices = devices | {"cpu": machine or "unknown processor"}
    return results


def json_files(place: Path) -> Iterator[Path]:
    """Yield the JSON files in a folder and below, or the one file that is given."""
    if not place.exists():
        raise BakeoffError(f"there is no {place}; give run files, or folders that hold them")
    if place.is_file():
        yield place
        return
    for path in sorted(place.rglob("*.json")):
        if path.is_file() and not PASSED_OVER & {*path.relative_to(place).parts}:
            yield path


def _readable(paths: Iterable[Path], warnings: list[str]) -> Iterator[Run]:
    """Yield the runs among files, each once, though it may be there twice: autosave makes copies.

    Warnings are added of files that cannot be read, and of those of other commands.
    """
    known: set[int] = set()
    for path in paths:
        try:
            run = read(path, samples=False)
            datetime.fromisoformat(run.when)
        except NoRunError:
            continue
        except (BakeoffError, ValueError) as error:  # of a damaged file, or one without a date
            why = str(error) if isinstance(error, BakeoffError) else f"{path}: {error}"
            warnings.append(f"{SKIPPED}{' '.join(printable(why).split())}")
            continue
        content = hash((str(run.commit.get("id")), *(row.value for row in run.results.estimates)))
        if run.results.kind != "run":
            kind = run.results.kind
            warnings.append(f"{path.name} left out: it is the result of `bakeoff {kind}`, no run")
        elif content not in known:
            known.add(content)
            yield run
