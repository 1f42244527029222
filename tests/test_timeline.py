"""`bakeoff history --runs`: runs of many files as a time line."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from bench.cli import main
from bench.cli.documents import rendered
from bench.compare.export import timelines_csv, timelines_json
from bench.compare.series import Point, Series, SeriesKey, Timeline
from bench.compare.timeline import Filters, KeptRuns, document, kept_runs, known_points
from bench.compare.trend_chart import picked
from bench.compare.trends import sparkline
from bench.compare.windows import changes
from bench.report.text import show
from bench.runfile import NO_NUMBER, SCHEMA
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.report.charts import Figure

CELLS = (("pure_jax", "pure", None), ("equinox", "pure", 1.2), ("flax_nnx", "jit", 8.0))


def metric(median: float, ratio: float | None, **more: Any) -> dict[str, Any]:
    """Return a metric as a run has it."""
    out: dict[str, Any] = {"unit": "s", "median": median}
    if ratio is not None:
        out |= {"median": median * ratio, "ratio": ratio, "low": ratio * 0.98, "high": ratio * 1.02}
        out |= {"verdict": "slower", "p": 1e-5, "standard_error": 0.01, "df": 12.0}
    return out | more


def a_run(
    when: str = "2026-01-01T12:00:00",
    *,
    times: float = 1.0,
    calls: int = 343,
    backend: str = "cpu",
    workloads: Sequence[str] = ("toy", "seed"),
    cpu: str = "CPU X",
    commit: str = "c0ffee" * 6,
    **versions: str,
) -> dict[str, Any]:
    """Return a small run file's content."""
    cells = []
    for workload in workloads:
        for entrant, style, ratio in CELLS:
            cell: dict[str, Any] = {"entrant": entrant, "style": style, "workload": workload}
            slower = None if ratio is None else ratio * times
            found = {"step": metric(1e-4, slower), "compile": metric(0.3, slower)}
            exact = {"python_calls": calls if entrant == "flax_nnx" else 4, "temp_bytes": 64}
            cells.append(cell | {"backend": backend, "metrics": found, "exact": exact})
    where: dict[str, Any] = {
        "versions": {"jax": "0.9.0", "jaxlib": "0.9.0", "flax": "0.12.0"} | versions,
        "devices": {backend: {"cpu": "cpu", "gpu": "NVIDIA Y"}[backend]},
        "affinity": [0, 1],
    }
    return {
        "machine_info": {"cpu": {"brand_raw": cpu, "count": 4}},
        "commit_info": {"id": commit, "dirty": False},
        "datetime": f"{when}.123456+00:00",
        "benchmarks": [],
        "bakeoff": {"schema": SCHEMA, "cells": cells, "environment": where},
    }


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with six runs: two releases of jax, and a jump of flax_nnx's calls."""
    folder = tmp_path / "runs"
    for i in range(6):
        jax = "0.9.0" if i < 3 else "0.10.0"
        content = a_run(
            f"2026-0{i + 1}-15T08:00:00",
            times=1 + 0.01 * i,
            calls=343 if i < 4 else 350,
            commit=f"{i}" * 40,
            jax=jax,
            jaxlib=jax,
        )
        saved(folder / ".benchmarks" / "Linux" / f"000{i + 1}_run.json", content)
    return folder


def of(found: KeptRuns, entrant: str, name: str = "step", workload: str = "toy") -> Series:
    [series] = [
        each
        for timeline in found.timelines
        for each in timeline.series
        if (each.key.entrant, each.key.metric, each.key.workload) == (entrant, name, workload)
    ]
    return series


def only(found: KeptRuns) -> Timeline:
    [timeline] = found.timelines
    return timeline


def lines(found: KeptRuns) -> list[str]:
    """Return the sentences about changes and failures."""
    return [line for section in document(found).sections for line in section.lines]


def charts(found: KeptRuns) -> list[Figure]:
    sections = document(found, figures=True).sections
    return [figure for section in sections for figure in section.figures]


def text(found: KeptRuns, width: int = 100, **options: Any) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False, **options)
    show(document(found), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


# --- runs, machines, points


def test_a_time_line_has_each_run_s_numbers_in_the_order_of_time(runs: Path) -> None:
    found = kept_runs([runs])
    timeline = only(found)
    assert timeline.name == "CPU X, 2 cores, cpu"
    assert [run.at for run in timeline.moments] == [f"2026-0{i}-15T08:00:00" for i in range(1, 7)]
    assert timeline.moments[0].revision == "0" * 40
    assert timeline.moments[5].versions["jax"] == "0.10.0"
    nnx = of(found, "flax_nnx", "compile", "seed")
    assert nnx.column("ratio") == pytest.approx(8 * (1 + 0.01 * np.arange(6)))
    assert nnx.column("low") == pytest.approx(nnx.column("ratio") * 0.98)
    assert nnx.column("standard_error") == pytest.approx(np.full(6, 0.01))
    assert nnx.value(0).verdict == "slower"
    calls = of(found, "flax_nnx", "python_calls")
    assert calls.column("median").tolist() == [343] * 4 + [350] * 2
    assert calls.key.exact
    assert not of(found, "pure_jax").compared
    assert (found.problems, found.notes) == ((), ())


def test_autosaved_runs_and_results_and_plain_files_are_found_below(tmp_path: Path) -> None:
    saved(tmp_path / "a" / ".benchmarks" / "x" / "0001_a.json", a_run())
    saved(tmp_path / "b" / "machine" / "run.json", a_run("2026-02-01T00:00:00", times=1.1))
    stats = {"median": 0.002, "rounds": 5}
    plain: dict[str, Any] = {"benchmarks": [{"name": "test_a", "group": "g", "stats": stats}]}
    plain |= {"datetime": "2026-03-01T00:00:00", "machine_info": {"machine": "riscv"}}
    saved(tmp_path / "b" / "plain.json", plain)
    saved(tmp_path / "b" / ".venv" / "run.json", a_run("2026-04-01T00:00:00", times=1.2))
    found = kept_runs([tmp_path / "a", tmp_path / "b"])
    assert [(each.name, len(each.moments)) for each in found.timelines] == [
        ("riscv", 1),
        ("CPU X, 2 cores, cpu", 2),
    ]
    assert of(found, "test_a", "time", "g").column("median").tolist() == [0.002]
    assert len(only(kept_runs([tmp_path / "b" / "machine" / "run.json"])).moments) == 1


def test_a_machine_is_its_processor_its_cores_and_its_device(tmp_path: Path) -> None:
    saved(tmp_path / "1.json", a_run())
    both = a_run("2026-01-02T00:00:00", backend="gpu", times=1.1)
    both["bakeoff"]["environment"]["devices"]["cpu"] = "cpu"
    both["bakeoff"]["cells"] += a_run(times=1.2)["bakeoff"]["cells"]
    saved(tmp_path / "2.json", both)
    saved(tmp_path / "3.json", a_run("2026-01-03T00:00:00", cpu="CPU Z", workloads=("a/ b",)))
    again = a_run("2026-01-04T00:00:00", cpu="CPU Z", workloads=("a/ b",), times=2)
    saved(tmp_path / "4.json", again)
    found = kept_runs([tmp_path], usual=("step",))
    assert {each.name: len(each.moments) for each in found.timelines} == {
        "CPU Z, 2 cores, cpu": 2,
        "CPU X, 2 cores, NVIDIA Y": 1,
        "CPU X, 2 cores, cpu": 2,
    }
    assert [figure.name for figure in charts(found)] == [
        *("0-step-a_b-cpu", "1-step-toy-cpu", "1-step-seed-cpu")
    ]
    assert "CPU Z" in document(found).sections[0].title


def test_a_run_that_was_saved_twice_is_one(runs: Path) -> None:
    """As by `--benchmark-json` and `--benchmark-autosave`, some moments apart."""
    first = json.loads((runs / ".benchmarks" / "Linux" / "0001_run.json").read_text())
    saved(runs / "results" / "run.json", first | {"datetime": "2026-01-15T08:00:02"})
    found = kept_runs([runs])
    assert len(only(found).moments) == 6
    assert found.notes == ("Passed over: 1 file that holds a run that is there already.",)


def test_a_failure_is_reported_until_the_cell_is_measured_again(tmp_path: Path) -> None:
    saved(tmp_path / "1.json", a_run())
    broken = a_run("2026-01-02T00:00:00", times=1.1)
    broken["bakeoff"]["cells"][1] |= {"failure": "it broke", "metrics": {}}
    broken["bakeoff"]["cells"][2]["metrics"]["step"] = {"missing": "too few blocks"}
    broken["bakeoff"]["cells"][0]["metrics"]["step"] = {"median": 0.0}
    saved(tmp_path / "2.json", broken)
    found = kept_runs([tmp_path])
    assert "equinox at toy failed on 2026-01-02: it broke" in lines(found)
    rows = list(csv.DictReader(io.StringIO(timelines_csv(found))))
    assert {row["missing"] for row in rows} == {"", "it broke", "too few blocks", NO_NUMBER}
    saved(tmp_path / "3.json", a_run("2026-01-03T00:00:00", times=1.2))
    assert not any("it broke" in line for line in lines(kept_runs([tmp_path])))


# --- filters


@pytest.mark.parametrize(
    ("asked", "series", "count"),
    [
        ({}, 24, 6),
        ({"names": {"entrant": ("equinox", "pure_jax")}}, 16, 6),
        ({"names": {"style": ("jit",)}}, 8, 6),
        ({"names": {"workload": ("toy",), "metric": ("step", "python_calls")}}, 6, 6),
        ({"machines": ("cpu x",)}, 24, 6),
        ({"since": date(2026, 3, 15)}, 24, 4),
        ({"until": date(2026, 3, 15)}, 24, 3),
        ({"last": 2}, 24, 2),
        ({"until": date(2026, 5, 31), "last": 1}, 24, 1),
    ],
    ids=str,
)
def test_filters(asked: dict[str, Any], series: int, count: int, runs: Path) -> None:
    timeline = only(kept_runs([runs], Filters(**asked)))
    assert (len(timeline.series), len(timeline.moments)) == (series, count)
    assert all(each.at.size == count for each in timeline.series)
    assert timeline.moments[-1].at[:10] <= str(asked.get("until", "2026-06-15"))


def test_the_last_ones_are_those_that_have_what_is_asked_for(runs: Path) -> None:
    saved(runs / "toy.json", a_run("2026-08-01T00:00:00", workloads=("toy",), times=2))
    timeline = only(kept_runs([runs], Filters({"workload": ("seed",)}, last=1)))
    assert [run.at[:10] for run in timeline.moments] == ["2026-06-15"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"names": {"entrant": ("equinox", "flex")}}, "unknown entrant 'flex'; known: equinox, fl"),
        ({"names": {"metric": ("stp",)}}, "unknown metric 'stp'; known: compile, python_calls, s"),
        ({"machines": ("epyc",)}, "unknown machine 'epyc'; known: CPU X, 2 cores, cpu; choose"),
        ({"since": date(2027, 1, 1)}, "of the time that is asked for; the 6 there are from 2026-0"),
        (
            {"names": {"entrant": ("equinox",), "style": ("jit",)}},
            "no run has what is asked for in all of the options at once",
        ),
    ],
    ids=str,
)
def test_filters_that_nothing_passes_are_an_error_of_one_line(
    asked: dict[str, Any], message: str, runs: Path
) -> None:
    with pytest.raises(BakeoffError, match=re.escape(message)) as caught:
        kept_runs([runs], Filters(**asked))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


# --- other files


BAD = {
    "cut.json": (json.dumps(a_run())[:-20], "is not JSON"),
    "newer.json": ({"benchmarks": [], "bakeoff": {"schema": 999, "cells": []}}, "of schema 999"),
    "number.json": (json.dumps(a_run()).replace("1e-05", '"1"'), "is damaged: "),
    "unnamed.json": (a_run() | {"datetime": None}, "does not say when it was measured"),
    "undated.json": (a_run() | {"datetime": "tomorrow"}, "does not say when it was measured"),
}


def test_a_corrupt_file_among_many_is_named_and_skipped_and_others_are_passed_over(
    runs: Path,
) -> None:
    others = {"package.json": {"name": "x", "version": 1}, "list.json": [1], "notes.txt": "no JSON"}
    for name, content in others.items():
        saved(runs / name, content)
    (runs / "nowhere.json").symlink_to(runs / "gone.json")
    (runs / "dir.json").mkdir()
    assert kept_runs([runs]).problems == ()
    for name, (content, _) in BAD.items():
        saved(runs / name, content)
    (runs / "bytes.json").write_bytes(b"\xff\xfe\x00")
    found = kept_runs([runs])
    assert len(only(found).moments) == 6
    assert len(found.problems) == len(BAD) + 1
    for name, (_, message) in BAD.items():
        [problem] = [p for p in found.problems if f"{runs / name} " in p]
        assert message in problem
        assert "\n" not in problem
    assert f"skipped: {runs / 'cut.json'} is not JSON" in " ".join(text(found, 300).split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "none of 1 JSON files is a run; give folders with what `pytest bench --bench"),
        ("{", "none of 1 JSON files is a run (the first problem: "),
    ],
)
def test_nothing_left_is_an_error(content: Any, message: str, tmp_path: Path) -> None:
    saved(tmp_path / "x.json", content)
    with pytest.raises(BakeoffError, match=re.escape(message)):
        kept_runs([tmp_path])


# --- changes


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.0, 1.005, 1.3, 1.29], [(1, 2)]),
        ([1.0, 1.01, 0.99, 1.0], []),
        ([1.0, np.nan, 1.3], [(0, 2)]),
    ],
)
def test_own_runs_that_differ_by_more_than_runs_wander_are_changes(
    ratios: list[float], expected: list[tuple[int, int]]
) -> None:
    key = SeriesKey("m", "haiku", "pure", "seed", "cpu", "step", "s", False)
    points = [Point(1.0, ratio, standard_error=0.003, df=20.0) for ratio in ratios]
    found = changes({key: known_points(Series(key, dict(enumerate(points))))})
    assert [(change.before, change.after) for change in found] == expected
    assert all(change.low < 1.3 < change.high for change in found)


def test_changes_of_exact_metrics_need_no_test(runs: Path) -> None:
    found = kept_runs([runs], usual=("step",))
    assert {series.key.metric for series in only(found).series} == {"step"}
    assert only(found).changes == ()
    [table] = document(found).sections[0].tables
    cells = "flax_nnx jit at toy and flax_nnx jit at seed"
    assert [row.cells for row in table.rows] == [
        ("Python calls", "343 → 350", "2026-04-15 to 2026-05-15", cells)
    ]


def test_a_planted_change_is_found_and_reported_by_every_format(runs: Path) -> None:
    for path in sorted(runs.rglob("*.json"))[3:]:
        content = json.loads(path.read_text())
        content["bakeoff"]["cells"][1]["metrics"]["step"] = metric(1e-4, 1.2 * 1.9)
        saved(path, content)
    found = kept_runs([runs], usual=("step",))
    [change] = only(found).changes
    assert (change.key.entrant, change.key.workload) == ("equinox", "toy")
    assert (change.before, change.after, change.width) == (2, 3, 1)
    assert change.low < 1.9 / 1.02 < change.high
    [said] = lines(found)
    assert said.startswith("Step at toy rose by 86 % (")
    assert "(jax 0.9.0 → 0.10.0; commit 2222222222 → 3333333333): equinox." in said
    for form in ("html", "md", "text"):
        assert "Step at toy rose by 86 %" in rendered(partial(document, found), form)
    assert charts(found)[0].title == f"{said.partition(' (jax')[0]} (equinox)"
    [row] = json.loads(timelines_json(found))["lines"][0]["changes"]
    assert (row["entrant"], row["before"], row["after"]) == ("equinox", 2, 3)


# --- forms


def test_csv_and_json_say_the_same(runs: Path) -> None:
    found = kept_runs([runs])
    [machine] = json.loads(timelines_json(found))["lines"]
    versions = "version of jax"
    expected = []
    for key in machine["series"]:
        for point in key.pop("points"):
            run = machine["runs"][point.pop("run")]
            about = {name: run[name] for name in ("run", "path", "when", "commit", "dirty")}
            row = {**about, **key, **point, versions: run["versions"]["jax"]}
            expected.append({n: "" if v is None else str(v) for n, v in row.items()})
    rows = list(csv.DictReader(io.StringIO(timelines_csv(found))))
    assert len(rows) == 24 * 6
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected
    assert machine["exact_changes"][0]["values"] == [343, 350]
    assert machine["releases"] == [
        {"run": 3, "changed": {"jax": ["0.9.0", "0.10.0"]}}  # jaxlib goes with it
    ]


def test_text_from_files_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    for i in (1, 2):
        content = a_run(f"2026-01-0{i}T00:00:00", times=i, flax="=1+1")
        content["bakeoff"]["cells"][0]["style"] = "=2+2"
        content["bakeoff"]["cells"][1]["metrics"]["step"] = {"missing": "+3"}
        content["bakeoff"]["cells"][2]["failure"] = "-4"
        saved(tmp_path / f"@{i}.json", content)
    found = kept_runs([tmp_path])
    cells = [cell for row in csv.reader(io.StringIO(timelines_csv(found))) for cell in row]
    assert {"'=1+1", "'=2+2", "'@1", "'+3", "'-4"} <= set(cells)
    assert not any(cell.startswith(("=", "@", "+", "-")) for cell in cells)


@pytest.mark.parametrize(
    ("output", "files"),
    [
        ("line.html", {"line.html": "<!doctype html>"}),
        ("line.JSON", {"line.JSON": "{"}),
        ("line.txt", {"line.txt": "CPU X, 2 cores, cpu: 6 runs"}),
        ("line --format csv", {"line": "run,path,when,commit"}),
        (
            "line",
            {
                "line/page.html": "<!doctype html>",
                "line/timeline.csv": "run,path,when,commit",
                "line/timeline.json": "{",
            },
        ),
    ],
)
def test_a_file_is_what_its_ending_or_the_format_says_and_a_folder_has_three(
    output: str, files: dict[str, str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *more = output.split()
    top = runs.parent
    assert main(["history", "--runs", str(runs), "-o", str(top / name), *more]) == 0
    assert capsys.readouterr().out == f"{top / name}\n"
    assert {path for path in top.glob("line*/*") if path.is_file()} <= {top / n for n in files}
    for path, start in files.items():
        assert (top / path).read_text().startswith(start)


def test_the_terminal_shows_a_row_for_each_series(runs: Path) -> None:
    out = text(kept_runs([runs], usual=("time", "step")))
    assert out.startswith("CPU X, 2 cores, cpu: 6 runs, 2026-01-15 to 2026-06-15\n")
    assert "Step at toy (width 8), relative to pure_jax" in out
    for name, expected in (
        ("equinox", "1.26 (1.23–1.29) ▂▃▄▄▅▆ 1.20–1.26 6 2026-06-15"),
        ("flax_nnx jit", "8.4 (8.2–8.6) ▂▃▄▄▅▆ 8.00–8.40 6 2026-06-15"),
    ):
        row = next(line for line in out.splitlines() if line.startswith(name))
        assert row.split() == f"{name} {expected}".split()
    assert re.search(r"2026-04-15 +0\.10\.0", out)
    assert "\x1b" not in out
    narrow = text(kept_runs([runs]), 40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert narrow.count("8.4 (8.2–8.6)") == 4


def test_noise_is_flat_and_what_moves_is_seen_to() -> None:
    at = np.arange(8)
    noise = 1 + 0.001 * np.array([1, -1, 1, -1, 1, -1, 1, -1.0])
    assert len(set(sparkline(noise, at, 8, 0.1))) == 1
    assert sparkline(np.exp(at / 7), at, 8, 0.1) == "▁▂▃▄▄▅▆▇"
    assert sparkline(np.exp(np.arange(96) / 95), np.arange(96), 96, 0.1)[::8] == "▁▃▅"
    assert sparkline(np.array([1.0, np.nan, 1.5]), np.array([0, 1, 3]), 4, 0.0) == "▁  ▇"
    assert sparkline(np.array([-1.0, 0.0, 1.0]), np.arange(3), 3, 0.0) == "▁▄▇"
    assert sparkline(np.array([5.0, 5.0]), np.arange(2), 2, 0.0) == "▄▄"
    assert sparkline(np.array([np.nan]), np.arange(1), 1, 0.0) == ""


def test_each_chart_says_what_it_found(runs: Path) -> None:
    found = charts(kept_runs([runs]))
    assert [figure.title for figure in found] == [
        "Step at toy: no change found",
        "Step at seed: no change found",
        "Compile at toy: no change found",
        "Compile at seed: no change found",
        "Python calls at toy changed for flax_nnx jit",
        "Python calls at seed changed for flax_nnx jit",
    ]
    for figure in found:
        assert "Dashed rules: releases; 2026-04-15 jax 0.10.0." in figure.text
    assert "equinox 1.20 (1.18–1.22) → 1.26 (1.23–1.29)" in found[0].text
    assert "flax_nnx jit 343 → 350" in found[4].text
    rows = found[4].chart.to_dict()["data"]["values"]
    assert [row["value"] for row in rows] == [1, 1, 1, 1, 1.0204, 1.0204]


def test_a_page_of_many_runs_stays_small(tmp_path: Path) -> None:
    for i in range(300):
        at = f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}T00:00:00"
        saved(tmp_path / "runs" / f"{i}.json", a_run(at, times=1 + 0.001 * i, jax=f"0.9.{i // 20}"))
    found = kept_runs([tmp_path / "runs"])
    assert len(charts(found)[0].chart.to_dict()["data"]["values"]) == 600
    assert len(rendered(partial(document, found), "html").encode()) < 3_000_000
    assert picked(of(found, "equinox"), 7) == [0, 50, 100, 150, 199, 249, 299]
    assert len(only(found).releases) == 14
