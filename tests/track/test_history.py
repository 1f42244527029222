"""`bakeoff history`: what is said of days and of kept runs, by simulation; and a real small one."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from bench.cells import BASELINE, Cell, Selection
from bench.engine.process import Place
from bench.environments.builder import Environment
from bench.environments.offers import Offer
from bench.environments.uv import UnsolvableError
from bench.estimates import Estimate
from bench.report.page import page
from bench.runfile import EnvironmentInfo, ResultsWithSamples
from bench.runfile.reader import read
from bench.runfile.writer import run_file, write
from bench.track import sides
from bench.track.days import Days, days_of
from bench.track.history import causes, document, growth
from bench.track.kept_runs import Filters, kept_runs
from bench.track.timeline import Timeline
from common.errors import BakeoffError
from tests.commands import command, how
from tests.track.simulated import ARMS, BLOG, FILTER_JIT, HAIKU, a_run, file_of, of_days

if TYPE_CHECKING:
    from pathlib import Path

    from bench.environments.spec import Spec
    from bench.report.table import Table
    from bench.runfile.reader import Run
    from tests.commands import Bakeoff

DAYS = ["2025-06-01", "2025-08-01", "2025-10-01", "2025-12-01"]
QUARTER = dict.fromkeys(ARMS, 0.25)
JAX = [{}, {}, {"jax": "0.13.0", "jaxlib": "0.13.0"}, {"jax": "0.13.0", "flax": "0.13.0"}]
FASTER = of_days(1, dict(zip(DAYS, [{}, {}, QUARTER, QUARTER], strict=True)), JAX)
"""A step took a quarter of the time from the third day on."""


def tables(results: ResultsWithSamples) -> dict[str, Table]:
    return {
        table.title or section.title: table
        for section in document(results).sections
        for table in section.tables
    }


# days


def test_a_change_of_all_styles_is_one_row_with_its_releases() -> None:
    made = document(FASTER)
    rows = {row.cells[0]: row.cells[1:] for row in tables(FASTER)["What changed"].rows}
    everybody = "pure_jax, equinox filter_jit, flax_linen blog and haiku"
    assert rows["step at seed"] == (
        *("fell by 75 %", "2025-08-01 and 2025-10-01", "jax 0.12.0 → 0.13.0", everybody),
    )
    assert set(rows) == {"step at seed", "host cost at toy", "compile at seed"}
    assert re.match(r"3 changes found in 48 comparisons\. [SCH].* fell by 75 %", made.headline)
    assert made.title == "2025-06-01 to 2025-12-01: what became slower, and when"
    charts = [figure for section in made.sections for figure in section.figures]
    assert [figure.name for figure in charts] == [
        *("step-seed-cpu", "host_cost-toy-cpu", "compile-seed-cpu", "peak_rss-seed-cpu")
    ]
    assert charts[0].title.startswith("Step at seed fell by 75 % between")
    assert charts[-1].title == "Peak memory at seed: no change found"
    folded = [section.title for section in made.sections if section.folded]
    assert folded == ["Every series", "Releases, and what is missing"]
    assert len(page(made)) < 400_000


def test_the_noise_of_days_is_no_change() -> None:
    changes = [Timeline(of_days(seed, {day: {} for day in DAYS})).changes for seed in range(12)]
    assert sum(map(bool, changes)) <= 2


def test_changes_of_one_style_have_an_interval_and_other_libraries_are_no_cause() -> None:
    slower = of_days(
        2,
        dict(zip(DAYS[:2], [{}, {HAIKU: 1.3}], strict=True)),
        [{}, {"dm-haiku": "0.0.17", "flax": "0.13.0", "numpy": "2.5"}],
    )
    slower.environments[DAYS[0]].versions |= {"dm-haiku": "0.0.16", "numpy": "2.4"}
    it = Timeline(slower)
    [rows] = [rows for rows in it.changes if rows[0].metric == "step"]
    assert re.fullmatch(r"rose by (29|30|31)(\.\d)? % \(2\d.* to 3\d.*\)", growth(rows))
    assert causes(rows, it) == "dm-haiku 0.0.16 → 0.0.17 and numpy 2.4 → 2.5"
    assert rows[0].cell.arm == HAIKU


def test_exact_counts_that_move_need_no_test() -> None:
    moved = [
        replace(row, value=row.value + 7)
        if row.metric == "python_calls" and row.environment in DAYS[2:]
        else row
        for row in FASTER.estimates
    ]
    table = tables(replace(FASTER, estimates=moved))["Exact counts that changed"]
    assert [row.cells[:3] for row in table.rows] == [
        ("Python calls", "4 → 11", "2025-08-01 to 2025-10-01"),
        ("Python calls", "1 537 → 1 544", "2025-08-01 to 2025-10-01"),
        ("Python calls", "6 100 → 6 107", "2025-08-01 to 2025-10-01"),
    ]
    assert table.rows[0].cells[3] == "pure_jax at seed and haiku at seed"


def test_what_days_lack_is_told() -> None:
    gaps = {"haiku": "no wheel", "haiku/transform": "no wheel"}
    environments = FASTER.environments | {
        "2025-07-01": EnvironmentInfo(spec="@2025-07-01", gaps={"": "no jax"}),
        DAYS[1]: replace(FASTER.environments[DAYS[1]], gaps=gaps),
    }
    made = replace(FASTER, environments=dict(sorted(environments.items())))
    rows = {row.cells[0]: row.cells for row in tables(made)["Releases, and what is missing"].rows}
    assert rows["2025-07-01"][-1] == "could not be built: no jax"
    assert rows[DAYS[1]][-1] == "haiku and haiku/transform: no wheel"
    assert rows[DAYS[0]][1:3] == ("0.12.0", "0.12.8")
    assert [*rows] == [DAYS[0], "2025-07-01", *DAYS[1:]]


def estimate(value: float, low: float, high: float, form: Any = "ratio") -> Estimate:
    return Estimate(
        cell=HAIKU.at("seed", "cpu"),
        metric="step",
        form=form,
        unit="" if form == "ratio" else "s",
        against="x",
        value=value,
        low=low,
        high=high,
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([estimate(1.3, 1.2, 1.41)], "rose by 30 % (20 to 41)"),
        ([estimate(1.97, 1.9, 2), estimate(1.5, 1.4, 1.6)], "rose by 50–97 %"),
        ([estimate(2.1, 2, 2.2), estimate(2.4, 2.3, 2.5)], "rose to 2.1–2.4 times"),
        ([estimate(140.9, 108.0, 183.9)], "rose to 141 times"),
        ([estimate(0.86, 0.8, 0.9), estimate(0.87, 0.8, 0.9)], "fell by 13–14 %"),
        ([estimate(0.25, 0.24, 0.26)], "fell by 75 %"),
        ([estimate(2e-5, 1e-5, 3e-5, "added")], "rose by 20.0 µs"),
        ([estimate(-2e-5, -3e-5, -1e-5, "added")], "fell by 20.0 µs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_in_words(rows: list[Estimate], expected: str) -> None:
    assert growth(rows) == expected


@pytest.mark.parametrize(
    ("since", "until", "every", "expected"),
    [
        ("2024-12-31", "2025-04-30", "1mo", "12-31 01-31 02-28 03-31 04-30"),
        ("2025-01-01", "2025-01-20", "1w", "01-01 01-08 01-15 01-20"),
        ("2024-02-29", "2026-02-28", "1y", "02-29 02-28 02-28"),
        ("2025-01-01", "2025-01-01", "3d", "01-01"),
    ],
)
def test_days(since: str, until: str, every: str, expected: str) -> None:
    days = days_of(date.fromisoformat(since), date.fromisoformat(until), every)
    assert [str(day)[5:] for day in days] == expected.split()


class Stacks:
    """A builder whose stacks change every second day; on one day there is none."""

    def notify(self, _: str) -> None: ...

    def environment(self, spec: Spec, pythons: Any = ()) -> Environment:
        assert spec.date is not None
        if spec.date.day == 3:
            raise UnsolvableError("no jax")
        release = (spec.date - datetime.timedelta((spec.date.day + 1) % 2)).day
        return Environment(spec, Place((str(spec.date),)), (f"jax==0.{release}",), pythons[0])


def test_days_of_one_stack_share_a_side_and_gaps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def offer(entrants: Any, outside: Any, place: Any) -> Offer:
        styles = {"pure_jax": ["pure"]} | ({} if "-01" in place.command[0] else {"haiku": ["pure"]})
        return Offer(styles, {}, ["cpu"], {"jax": place.command[0]}, {"cpu": "cpu"})

    monkeypatch.setattr(sides, "offer", offer)
    told: list[str] = []
    made = Days()
    days = [datetime.date(2025, 5, day) for day in range(1, 6)]
    made.build(days, (), Stacks(), told.append)  # type: ignore[arg-type]
    assert list(made.sides) == ["reference", "2025-05-01", "2025-05-04", "2025-05-05"]
    assert told == ["2025-05-03: no jax"]
    cells = made.cells(Selection(workloads=("toy",)))
    assert {name: len(of_day) for name, of_day in cells.items()} == {
        "reference": 2,
        "2025-05-01": 1,
        "2025-05-04": 2,
        "2025-05-05": 2,
    }
    results = ResultsWithSamples(
        environments={name: side.info for name, side in made.sides.items()}
    )
    made.complete(results)
    assert list(results.environments) == [*map(str, days), "reference"]
    assert results.environments["2025-05-03"].gaps == {"": "no jax"}
    assert results.warnings == ["2025-05-03 could not be built: no jax"]
    assert results.environments["2025-05-02"].pins == {"jax": "0.1"}


# kept runs


def night(number: int, **more: Any) -> Run:
    return a_run(number, when=f"2026-0{number}-15T08:00:00", name=f"000{number}_run", **more)


def saved(path: Path, run: Run) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, file_of(run))
    return path


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with six runs, of two releases of jax; in the last three haiku is slower."""
    folder = tmp_path_factory.mktemp("nights")
    for number in range(1, 7):
        later = number > 3
        jax = {"jax": "0.13.0", "jaxlib": "0.13.0"} if later else {}
        factors = {HAIKU: 1.4} if later else {}
        changed = {(FILTER_JIT, "python_calls"): 1600.0} if number > 4 else {}
        run = night(number, factors=factors, changed=changed, commit=f"{number}" * 40, **jax)
        saved(folder / ".benchmarks" / "Linux" / f"000{number}_run.json", run)
    return folder


def test_kept_runs_become_a_history_that_finds_a_planted_change(nights: Path) -> None:
    kept = kept_runs([nights])
    it = Timeline(kept.results)
    assert [moment[:10] for moment in it.moments] == [f"2026-0{n}-15" for n in range(1, 7)]
    assert not it.measured
    [step] = [rows for rows in it.changes if rows[0].metric == "step"]
    assert [row.cell.arm for row in step] == [HAIKU]
    assert (step[0].against[:7], step[0].environment[:7]) == ("2026-03", "2026-04")
    assert causes(step, it) == "jax 0.12.0 → 0.13.0; commit 3333333333 → 4444444444"
    assert not any(row.cell.is_baseline for row in it.neighbours)
    made = document(kept.results)
    assert made.subtitle == "6 runs, 2026-01-15 to 2026-06-15, CPU X (family 6), 2 cores, cpu"
    table = tables(kept.results)["Exact counts that changed"]
    assert [row.cells[:3] for row in table.rows] == [
        ("Python calls", "1 537 → 1 600", "2026-04-15 to 2026-05-15")
    ]
    assert (kept.problems, kept.notes) == ([], [])


def test_what_is_added_to_a_slower_machine_s_calls_is_no_change(tmp_path: Path) -> None:
    for number, speed in enumerate((1.0, 1.25, 0.9), 1):
        saved(tmp_path / f"{number}.json", night(number, speed=speed))
    it = Timeline(kept_runs([tmp_path]).results)
    assert it.changes == []
    rows = it.series[BLOG.at("toy", "cpu"), "host_cost"]
    assert rows[1].value > 1.15 * rows[0].value  # the seconds are shown as they are


@pytest.mark.parametrize(
    ("filters", "series", "moments"),
    [
        ({}, 15, 6),
        ({"names": {"entrant": ("haiku",), "metric": ("step", "compile")}}, 2, 6),
        ({"names": {"style": ("filter_jit",), "workload": ("toy",)}}, 1, 6),
        ({"machine": "cpu x"}, 15, 6),
        ({"since": date(2026, 3, 15), "until": date(2026, 5, 1)}, 15, 2),
        ({"last": 2}, 15, 2),
    ],
    ids=str,
)
def test_filters(filters: dict[str, Any], series: int, moments: int, nights: Path) -> None:
    it = Timeline(kept_runs([nights], Filters(**filters)).results)
    assert (len(it.series) + 3 * (not filters.get("names")), len(it.moments)) == (series, moments)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"names": {"entrant": ("haiku", "flex")}}, "unknown entrant 'flex'; known: equinox, fl"),
        ({"names": {"metric": ("stp",)}}, "unknown metric 'stp'; known: code_lines, compile, "),
        ({"machine": "epyc"}, "unknown machine 'epyc'; known: CPU X (family 6), 2 cores, cpu"),
        ({"since": date(2027, 1, 1)}, "of the time that is asked for; the 6 there are from 2026-0"),
        (
            {"names": {"entrant": ("haiku",), "style": ("filter_jit",)}},
            "no run has what is asked for in all of the options at once",
        ),
    ],
    ids=str,
)
def test_filters_that_nothing_passes_are_one_line(
    filters: dict[str, Any], message: str, nights: Path
) -> None:
    with pytest.raises(BakeoffError, match=re.escape(message)) as caught:
        kept_runs([nights], Filters(**filters))
    assert "\n" not in str(caught.value)


def test_one_machine_is_shown_and_the_others_are_named(tmp_path: Path) -> None:
    saved(tmp_path / "old.json", night(1))
    other = night(2)
    other.machine["cpu"] = {"brand_raw": "CPU Z"}
    saved(tmp_path / "new.json", other)
    kept = kept_runs([tmp_path])
    assert kept.results.conditions.devices == {"cpu": "CPU Z, 2 cores, cpu"}
    assert kept.notes == [
        "passed over: 1 × a run on CPU X (family 6), 2 cores, cpu (--machine names another one)"
    ]
    older = kept_runs([tmp_path], Filters(machine="cpu x"))
    assert list(older.results.environments) == ["2026-01-15T08:00:00"]


def test_copies_failures_and_two_runs_of_a_second(tmp_path: Path) -> None:
    saved(tmp_path / "1.json", night(1))
    saved(tmp_path / "a" / "again.json", a_run(1, when="2026-01-15T08:00:02"))
    saved(tmp_path / "2.json", night(2, failures={HAIKU: "it broke"}))
    saved(tmp_path / "3.json", a_run(7, when="2026-02-15T08:00:00"))
    saved(tmp_path / ".venv" / "run.json", night(4))
    write(tmp_path / "ab.json", run_file(FASTER))
    kept = kept_runs([tmp_path, tmp_path / "1.json"])
    assert list(kept.results.environments) == [
        *("2026-01-15T08:00:00", "2026-02-15T08:00:00", "2026-02-15T08:00:00.1")
    ]
    assert kept.notes == [
        "passed over: 1 × the result of `bakeoff history`",
        "passed over: 1 × a run that is there already",
    ]
    assert not any("it broke" in line for s in document(kept.results).sections for line in s.lines)
    (tmp_path / "3.json").unlink()
    [lines] = [s.lines for s in document(kept_runs([tmp_path]).results).sections if s.lines]
    assert lines == ("haiku at toy and seed failed on 2026-02-15: it broke",)


GOOD = json.dumps({"benchmarks": []})
BAD = {
    "cut.json": ('{"bakeoff": {"sch', "is not JSON"),
    "newer.json": ('{"benchmarks": [], "bakeoff": {"schema": 999}}', "of schema 999"),
    "number.json": ('{"benchmarks": [], "bakeoff": {"schema": 4, "cells": 1}}', "is damaged: "),
    "undated.json": ('{"benchmarks": [], "bakeoff": {"schema": 4}}', "does not say when it was"),
}


def test_a_corrupt_file_among_many_is_named_and_skipped(
    bakeoff: Bakeoff, nights: Path, tmp_path: Path
) -> None:
    others = {"package.json": '{"name": "x"}', "plain.json": GOOD, "notes.txt": "no JSON"}
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone.json")
    assert bakeoff("history", str(nights), ".").status == 0
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    done = bakeoff("history", str(nights), ".")
    assert done.status == 1
    text = " ".join(done.out.split())
    assert text.count("warning: skipped: ") == len(BAD) + 1
    for name, (_, message) in BAD.items():
        assert re.search(rf"skipped: {name} [^:]*{message}", text)


@pytest.mark.parametrize("output", ["line.html", "line.JSON", "line.txt", "line --format md", "x"])
def test_a_file_is_what_its_ending_says_and_a_folder_has_two(
    bakeoff: Bakeoff, nights: Path, tmp_path: Path, output: str
) -> None:
    name, *more = output.split()
    done = bakeoff("history", str(nights), "-o", name, *more)
    assert done.status == 0, done.err
    paths = [tmp_path / name]
    if name == "x":
        paths = [tmp_path / "x" / "history.json", tmp_path / "x" / "page.html"]
    for path in paths:
        if path.suffix.lower() == ".json":
            made = read(path).results
            assert made.kind == "history"
            assert len(Timeline(made).moments) == 6
        else:
            assert "Step at seed rose by " in path.read_text("utf-8").replace("\n  ", " ")
    assert bakeoff("history", str(nights), "-o", name, *more).status == 2


def test_thousands_of_runs_are_scanned_in_seconds(tmp_path: Path) -> None:
    """A small run's content, under many dates: what one costs is what counts."""
    content = saved(tmp_path / "first.json", night(1, arms=ARMS[:2])).read_text()
    start = datetime.datetime(2026, 1, 1)
    for number in range(300):
        when = (start + datetime.timedelta(hours=7 * number)).isoformat()
        text = content.replace("2026-01-15T08:00:00", when).replace("c0ffee", f"{number:06x}")
        (tmp_path / f"{number}.json").write_text(text)
    begun = datetime.datetime.now()
    kept = kept_runs([tmp_path])
    made = document(kept.results)
    seconds = (datetime.datetime.now() - begun).total_seconds()
    assert seconds < 10  # 1.5 on a quiet core: 3,000 in 15
    assert len(Timeline(kept.results).moments) == 301
    assert Timeline(kept.results).changes == []
    assert len(page(made).encode()) < 3_000_000


# as a command


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_a_real_history_is_measured_and_written(tmp_path: Path) -> None:
    given = "history --since 2025-08-01 --until 2025-10-01 --every 2mo --entrant pure_jax"
    given += " --workload seed --metric step --pairs 3 --blocks 2 --budget 300 -o past"
    done = subprocess.run(
        command(*given.split()),
        **how(tmp_path, JAX_DISABLE_MOST_OPTIMIZATIONS="false"),
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = read(tmp_path / "past" / "history.json").results
    it = Timeline(made)
    assert it.moments == ["2025-08-01", "2025-10-01"]
    [row] = it.neighbours
    assert row.cell == Cell(*BASELINE, "seed", "cpu")
    assert row.value < 0.5  # jax 0.7.1 made a small scan on a CPU four times as fast
    assert made.environments["2025-08-01"].versions["jax"] == "0.7.0"
    assert "<!doctype html>" in (tmp_path / "past" / "page.html").read_text("utf-8")
    assert not list(tmp_path.glob(".bakeoff/*"))
