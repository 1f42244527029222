"""The tracker: the stack of a Monday beside that of the Monday before. `make track` calls it.

    python results/tracking/track.py                    # the week to the last Monday
    python results/tracking/track.py --weeks 26         # half a year, without what is there
    python results/tracking/track.py --whole 26         # the A/B of both ends of these weeks
    python results/tracking/track.py --take FOLDER      # add weeks that another machine measured;
                                                        # --describe: the texts of a pull request

A week without a release takes a second. In other weeks, `bakeoff ab` measures the libraries that
changed. If something is certainly worse or faster, and the week has several releases, `bakeoff
bisect` searches for the one that did it. Files go to weeks/; weeks that have files there are not
measured again. Ctrl-C loses only the week in progress.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import shutil
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
from bench.fetch import cache_folder
from bench.files import atomic_write
from bench.prepare.sides import IN_TURNS
from bench.runfile import find_differing_releases
from bench.runfile.reader import read
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import log_ratio
from bench.streams import say
from bench.track.comparison import ORDER
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from results.tracking import weeks as kept
from results.tracking.weeks import FOLDER, RECORDS, WEEK, WHOLE, Week

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.estimates import Estimate

STYLES = "pure,jit,jit_partial,filter_jit,train_state"
METRICS = "host_cost,step,trace,compile"
MOST_SEARCHES = 2
"""Searches of a week: the largest change of the first metrics. Each takes a minute or two."""
SEARCH_SECONDS = 240
MOST_BYTES = 1_000_000
"""Size of a published file: a week's has a quarter of it."""


def main() -> None:
    """Track the weeks that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--until", type=datetime.date.fromisoformat, help="last day [today]")
    parser.add_argument("--weeks", type=int, default=1, help="number of weeks [1]")
    parser.add_argument("--budget", type=float, default=600, help="seconds of an A/B [600]")
    parser.add_argument("--whole", type=int, metavar="WEEKS", help="measure both ends alone")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="add the weeks of a folder")
    parser.add_argument("--describe", type=Path, metavar="FOLDER", help="where --take writes texts")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the command in progress ends
    # A Monday's stack has all of that day's releases, so the day has to be over
    last = min(given.until or today(), today() - datetime.timedelta(1))
    monday = last - datetime.timedelta(last.weekday())
    if given.take:
        weeks = take(given.take)
        if given.describe:
            describe(weeks, given.describe)
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
    if known and known.is_kept:
        say(f"{monday} was tracked before")
        return
    week = Week(str(monday))
    try:
        week = Week(str(monday), find_releases(base, monday))
        say(f"{monday}: {', '.join(week.releases) or 'no release differs'}")
        if week.releases and not week.path.exists():
            measure(base, monday, budget, week.path)
    except BakeoffError as error:
        week = msgspec.structs.replace(week, problem=str(error))
        say(f"{monday}: {error}")
    keep(week)
    if week.path.exists() and not week.problem:
        keep(msgspec.structs.replace(week, searches=[*search(week, base, monday)]))


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
    tracked = {*SHARED_PACKAGES, *impls.list_shared_libraries()}
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
        path = FOLDER / f"{week.monday}-{row.cell.entrant}-{row.cell.style}-{row.metric}.json"
        ends = ("--good", f"@{base}", "--bad", f"@{new}")
        about = (*name_number(row), "--budget", str(SEARCH_SECONDS), "--wait")
        try:
            if len(week.releases) == 1 and not has_releases_between(week):
                return  # it is that one
            if not path.exists():
                call("bisect", *ends, *about, path=path)
        except BakeoffError as error:  # a search that fails costs the week nothing
            say(f"{week.monday}: {error}")
            continue
        yield path.name


def name_number(row: Estimate) -> tuple[str, ...]:
    """Return the options of a command that measures one number."""
    cell = ("--entrant", row.cell.entrant, "--style", row.cell.style)
    return (*cell, "--workload", row.cell.workload, "--metric", row.metric)


def choose_rows(rows: Sequence[Estimate]) -> list[Estimate]:
    """Return the largest change of each metric that a search takes, in the order of metrics."""
    largest: dict[str, Estimate] = {}
    for row in sorted(rows, key=lambda row: -abs(log_ratio(row))):
        if row.metric in IN_TURNS:
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
        with subprocess.Popen(  # noqa: S603 -- our own words, no shell
            command, cwd=folder, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            last = ""
            try:
                for line in process.stderr:
                    last = line.strip() or last
                    print(line, end="", file=sys.stderr)
            except BaseException:  # Ctrl-C, or SIGTERM
                process.terminate()
                raise
        written = Path(folder) / path.name
        if not written.exists():
            raise BakeoffError(last or f"`bakeoff {words[0]}` wrote nothing")
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


def take(folder: Path) -> list[Week]:
    """Add the weeks of a folder that are new here, with their files; return these weeks.

    The files are of a job that ran other people's code: plain files of a week's names, under a
    megabyte each, which the reader of run files accepts. What is here already stays as it is.
    """
    here = {week.monday for week in kept.read_weeks() if week.is_kept}
    added = []
    for week in kept.read_weeks(folder / RECORDS.name):
        if week.monday in here:
            continue
        for name in (week.path.name, *week.searches):
            source = folder / name
            if not source.exists() or (FOLDER / name).exists():
                continue
            if source.is_symlink() or source.stat().st_size > MOST_BYTES:
                say(f"{name} was left out: it is a link, or larger than a megabyte")
                continue
            read(source, samples=False)
            shutil.copyfile(source, FOLDER / name)
        searches = [name for name in week.searches if (FOLDER / name).exists()]
        added.append(msgspec.structs.replace(week, searches=searches))
        keep(added[-1])
    return added


def describe(weeks: Sequence[Week], folder: Path) -> None:
    """Write the text of a pull request, and of an issue for each week with something worse.

    Weeks without a release are in neither.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weeks = [week for week in weeks if week.releases or week.problem]
    if not weeks:
        return
    server, repository = map(os.environ.get, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    tree = f"{server}/{repository}/blob/track/results/tracking/weeks" if repository else "weeks"
    (folder / "monday").write_text(weeks[-1].monday, encoding="utf-8")
    table = "\n".join(kept.make_weeks_table(weeks, tree))
    (folder / "pull-request.md").write_text(f"{table}\n", encoding="utf-8")
    for week in weeks:
        if week.path.exists() and (text := describe_slower(week, tree)):
            (folder / f"issue-{week.monday}.md").write_text(text, encoding="utf-8")


def describe_slower(week: Week, tree: str) -> str:
    """Return what is worse, the week and commands that repeat it, as Markdown; or nothing."""
    it = kept.compare(week.path)
    slower = choose_rows([*filter(it.is_worse, it.times)])
    worse = ". ".join(filter(None, [kept.name_failures(it), kept.name_changes(slower)]))
    if not worse:
        return ""
    base, new = it.sides
    sides = ("--base", base.spec, "--new", new.spec)
    commands = [shlex.join(["bakeoff", "ab", *sides, *name_number(row)]) for row in slower]
    repeat = "\n".join(f"    {command} --budget 60" for command in commands)
    table = "\n".join(kept.make_weeks_table([week], tree))
    return f"{worse}.\n\n{table}\n\nTo repeat it:\n\n{repeat}\n"


if __name__ == "__main__":
    main()
