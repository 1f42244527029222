"""The tracker: the stack of a Monday beside that of the Monday before. `make track` calls it.

    python results/tracking/track.py                    # the week to the last Monday
    python results/tracking/track.py --weeks 26         # half a year, without what is there
    python results/tracking/track.py --whole 26         # the A/B of both ends of these weeks
    python results/tracking/track.py --describe FOLDER  # texts of a pull request and an issue

A week in which no release differs takes a second. Else `bakeoff ab` measures the libraries that
changed, and `bakeoff bisect` searches the release of what is certainly worse or faster, where the
week has several. Files go to weeks/; what is there already is not measured again. Ctrl-C loses the
week in progress alone.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock

import impls
from bench.environments.builder import Builder
from bench.environments.spec import make_day_spec, today
from bench.environments.uv import PYTHONS, UnsolvableError, list_releases
from bench.runfile import find_differing_releases
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import log_ratio
from bench.streams import say
from bench.track.comparison import ORDER
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.fetch import cache_folder
from common.files import atomic_write
from results.tracking import weeks as kept
from results.tracking.weeks import FOLDER, RECORDS, WHOLE, Week

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.estimates import Estimate

WEEK = datetime.timedelta(7)
STYLES = "pure,jit,jit_partial,filter_jit,train_state"
METRICS = "host_cost,step,trace,compile"
MOST_SEARCHES = 2
"""Searches of a week: the largest change of the first metrics. Each takes a minute or two."""
SEARCH_SECONDS = 240


def main() -> None:
    """Track the weeks that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--until", type=datetime.date.fromisoformat, help="last day [today]")
    parser.add_argument("--weeks", type=int, default=1, help="number of weeks [1]")
    parser.add_argument("--budget", type=float, default=600, help="seconds of an A/B [600]")
    parser.add_argument("--whole", type=int, metavar="WEEKS", help="measure both ends alone")
    parser.add_argument("--describe", type=Path, metavar="FOLDER", help="measure nothing")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the command in progress ends
    last = given.until or today()
    monday = last - datetime.timedelta(last.weekday())
    if given.describe:
        describe(kept.read_weeks()[-1], given.describe)
        return
    if given.whole:
        measure(monday - given.whole * WEEK, monday, given.budget, WHOLE)
        return
    for number in reversed(range(given.weeks)):
        track(monday - number * WEEK, given.budget)


def track(monday: datetime.date, budget: float) -> None:
    """Measure a week, if a release differs and it was not measured before; keep its record."""
    base = monday - WEEK
    known = {week.monday: week for week in kept.read_weeks()}.get(str(monday))
    if known and not known.problem and (known.path.exists() or not known.releases):
        say(f"{monday}: it is there")
        return
    try:
        releases = find_releases(base, monday)
        say(f"{monday}: {', '.join(releases) or 'no release differs'}")
        week = Week(str(monday), releases)
        if releases:
            if not week.path.exists():
                measure(base, monday, budget, week.path)
            week = msgspec.structs.replace(week, searches=[*search(week, base, monday)])
    except BakeoffError as error:
        week = Week(str(monday), problem=str(error))
        say(f"{monday}: {week.problem}")
    keep(week)


def find_releases(
    base: datetime.date, new: datetime.date
) -> dict[str, tuple[str | None, str | None]]:
    """Return the releases that differ in two days' stacks: of JAX, NumPy, Optax and libraries.

    Raises:
        BakeoffError: a stack cannot be resolved, or the index does not answer.
    """
    builder = Builder(notify=say)
    stacks = []
    for day in (base, new):
        problem = UnsolvableError("")
        for python in PYTHONS:
            try:
                pins = builder.resolve(make_day_spec(day), ROOT, python).pins
                break
            except UnsolvableError as error:
                problem = error
        else:
            raise problem
        stacks.append(dict(pin.split("==", 1) for pin in pins))
    tracked = {*SHARED_PACKAGES, *impls.libraries()}
    differing = find_differing_releases(*stacks)
    return {name: pair for name, pair in differing.items() if name in tracked}


def measure(base: datetime.date, new: datetime.date, budget: float, path: Path) -> None:
    """Measure two days' stacks in turns, into a run file without samples.

    Raises:
        BakeoffError: there is no file: the words of the command stand above.
    """
    sides = ("--base", f"@{base}", "--new", f"@{new}")
    about = ("--style", STYLES, "--metric", METRICS, "--budget", f"{budget:g}", "--wait")
    call("ab", *sides, *about, path=path)


def search(week: Week, base: datetime.date, new: datetime.date) -> Iterator[str]:
    """Yield the files of searches for the releases behind a week's largest certain changes."""
    it = kept.compare(week.path)
    certain = [row for row in it.times if it.is_worse(row) or it.is_faster(row)]
    for row in choose_rows(certain)[:MOST_SEARCHES]:
        if len(week.releases) == 1 and not has_releases_between(week):
            return  # it is that one
        path = FOLDER / f"{week.monday}-{row.cell.entrant}-{row.cell.style}-{row.metric}.json"
        ends = ("--good", f"@{base}", "--bad", f"@{new}")
        cell = ("--entrant", row.cell.entrant, "--style", row.cell.style)
        at = ("--workload", row.cell.workload, "--metric", row.metric)
        if not path.exists():
            try:
                call("bisect", *ends, *cell, *at, "--budget", str(SEARCH_SECONDS), path=path)
            except BakeoffError as error:
                say(str(error))
                continue
        yield path.name


def choose_rows(rows: Sequence[Estimate]) -> list[Estimate]:
    """Return the largest change of each metric, in the order of metrics."""
    largest: dict[str, Estimate] = {}
    for row in sorted(rows, key=lambda row: -abs(log_ratio(row))):
        largest.setdefault(row.metric, row)
    return sorted(largest.values(), key=lambda row: ORDER.index(row.metric))


def has_releases_between(week: Week) -> bool:
    """Tell whether the one package that differs has releases between both."""
    [(name, (before, after))] = week.releases.items()
    if before is None or after is None:
        return False
    return bool(list_releases(name, before, after, PYTHONS[0]))


def call(*words: str, path: Path) -> None:
    """Call `bakeoff`, whose file is kept without its samples: a megabyte less.

    Raises:
        BakeoffError: it has written none.
    """
    command = [sys.executable, "-m", "bench.cli", *words, "-o", path.name]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder)  # noqa: S603 -- our own words, no shell
        written = Path(folder) / path.name
        if not written.exists():
            raise BakeoffError(f"`bakeoff {words[0]}` ended with status {done.returncode}")
        data = msgspec.json.decode(written.read_bytes())
    data["bakeoff"]["samples"] = []
    for step in data["bakeoff"].get("search", {}).get("steps", []):
        step["samples"] = []
    atomic_write(path, msgspec.json.encode(data) + b"\n")


def keep(week: Week) -> None:
    """Add a week's record, or replace it; two trackers at once lose none."""
    with FileLock(cache_folder() / "weeks.lock"):
        by_day = {each.monday: each for each in kept.read_weeks()} | {week.monday: week}
        records = [by_day[day] for day in sorted(by_day)]
        data = msgspec.json.format(msgspec.json.encode(records), indent=1)
        atomic_write(RECORDS, data + b"\n")


def describe(week: Week, folder: Path) -> None:
    """Write the texts of a week's pull request and, if something is worse, of its issue."""
    folder.mkdir(parents=True, exist_ok=True)
    table = "\n".join(kept.make_weeks_table([week]))
    (folder / "monday").write_text(week.monday, encoding="utf-8")
    (folder / "pull-request.md").write_text(f"{table}\n", encoding="utf-8")
    if not week.path.exists() or week.problem:
        return
    it = kept.compare(week.path)
    if worse := kept.name_changes(filter(it.is_worse, it.times)):
        command = it.results.make_command()
        text = f"{worse}\n\n{table}\n\nTo repeat it:\n\n```\n{command}\n```\n"
        (folder / "issue.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
