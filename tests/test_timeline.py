"""`bakeoff history --runs`: runs of many files as a time line."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from bench.cli import main
from bench.compare import summaries
from bench.compare.filters import Filters
from bench.compare.line import Line, Series, TimeLine
from bench.compare.pages import timeline as terminal
from bench.compare.pages import timeline_charts as charts
from bench.compare.pages import timeline_words as words
from bench.compare.pages.sparkline import sparkline
from bench.compare.pages.timeline_page import page
from bench.compare.pages.timeline_rows import as_csv, as_json
from bench.compare.summaries import Key, Numbers
from bench.compare.timeline import timeline
from bench.report.charts import picture
from bench.runfile import SCHEMA
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
CELLS = (("pure_jax", "pure", None), ("equinox", "pure", 1.2), ("flax_nnx", "jit", 8.0))
HOSTILE = "\x1b[2J\x1b]0;t\x07</script><script>alert(1)</script>\"'&\u2028{{ 7*7 }} 🦔"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BAKEOFF_CACHE", str(folder))
    return folder


def metric(median: float, ratio: float | None, **more: Any) -> dict[str, Any]:
    """Return a metric as a run has it."""
    out: dict[str, Any] = {"unit": "s", "median": median, "ratio": ratio, "verdict": None}
    out |= {"low": None, "high": None, "p": None, "standard_error": None, "df": None}
    if ratio is not None:
        out |= {"median": median * ratio, "low": ratio * 0.98, "high": ratio * 1.02}
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
    device = {"cpu": "cpu", "gpu": "NVIDIA Y"}[backend]
    where: dict[str, Any] = {
        "versions": {"jax": "0.9.0", "jaxlib": "0.9.0", "flax": "0.12.0"} | versions
    }
    where |= {"devices": {backend: device}, "affinity": [0, 1]}
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
        content = a_run(
            f"2026-0{i + 1}-15T08:00:00",
            times=1 + 0.01 * i,
            calls=343 if i < 4 else 350,
            commit=f"{i}" * 40,
            jax="0.9.0" if i < 3 else "0.10.0",
            jaxlib="0.9.0" if i < 3 else "0.10.0",
        )
        saved(folder / ".benchmarks" / "Linux" / f"000{i + 1}_run.json", content)
    return folder


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of files that are read from now on."""
    names: list[str] = []

    real = summaries.summary_of

    def recording(path: Path, *arguments: Any) -> Any:
        names.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(summaries, "summary_of", recording)
    return names


def of(found: TimeLine | Line, entrant: str, name: str = "step", workload: str = "toy") -> Series:
    lines = found.lines if isinstance(found, TimeLine) else [found]
    [series] = [
        each
        for line in lines
        for each in line.series
        if (each.key.entrant, each.key.metric, each.key.workload) == (entrant, name, workload)
    ]
    return series


def answer(folder: Path) -> str:
    return as_csv(timeline([folder]))


# --- runs, machines, points


def test_a_line_has_each_run_s_numbers_in_the_order_of_time(runs: Path) -> None:
    found = timeline([runs])
    [line] = found.lines
    assert line.machine == "CPU X, 2 cores, cpu"
    assert [run.at for run in line.runs] == [f"2026-0{i}-15T08:00:00" for i in range(1, 7)]
    assert line.runs[0].revision == "0" * 40
    assert line.runs[5].versions["jax"] == "0.10.0"
    nnx = of(found, "flax_nnx", "compile", "seed")
    assert nnx.ratio == pytest.approx(8 * (1 + 0.01 * np.arange(6)))
    assert nnx.low == pytest.approx(nnx.ratio * 0.98)
    assert nnx.standard_error == pytest.approx(np.full(6, 0.01))
    assert nnx.said(0)["verdict"] == "slower"
    calls = of(found, "flax_nnx", "python_calls")
    assert calls.median.tolist() == [343] * 4 + [350] * 2
    assert calls.key.exact
    assert not np.isfinite(of(found, "pure_jax").ratio).any()
    assert (found.status, found.problems, found.notes) == (0, (), ())


def test_autosaved_runs_and_results_and_plain_files_are_found_below(tmp_path: Path) -> None:
    saved(tmp_path / "a" / ".benchmarks" / "x" / "0001_a.json", a_run())
    saved(tmp_path / "b" / "machine" / "run.json", a_run("2026-02-01T00:00:00", times=1.1))
    stats = {"median": 0.002, "rounds": 5}
    plain: dict[str, Any] = {"benchmarks": [{"name": "test_a", "group": "g", "stats": stats}]}
    plain |= {"datetime": "2026-03-01T00:00:00", "machine_info": {"machine": "riscv"}}
    saved(tmp_path / "b" / "plain.json", plain)
    saved(tmp_path / "b" / ".venv" / "run.json", a_run("2026-04-01T00:00:00", times=1.2))
    found = timeline([tmp_path / "a", tmp_path / "b"])
    assert [(line.machine, len(line.runs)) for line in found.lines] == [
        ("riscv", 1),
        ("CPU X, 2 cores, cpu", 2),
    ]
    assert of(found.lines[0], "test_a", "time", "g").median.tolist() == [0.002]
    assert len(timeline([tmp_path / "b" / "machine" / "run.json"]).lines[0].runs) == 1


def test_a_machine_is_its_processor_its_cores_and_its_device(tmp_path: Path) -> None:
    saved(tmp_path / "1.json", a_run())
    both = a_run("2026-01-02T00:00:00", backend="gpu", times=1.1)
    both["bakeoff"]["environment"]["devices"]["cpu"] = "cpu"
    both["bakeoff"]["cells"] += a_run(times=1.2)["bakeoff"]["cells"]
    saved(tmp_path / "2.json", both)
    saved(tmp_path / "3.json", a_run("2026-01-03T00:00:00", cpu="CPU Z"))
    found = {line.machine: line for line in timeline([tmp_path]).lines}
    assert {name: len(line.runs) for name, line in found.items()} == {
        "CPU Z, 2 cores, cpu": 1,
        "CPU X, 2 cores, NVIDIA Y": 1,
        "CPU X, 2 cores, cpu": 2,
    }
    assert len(of(found["CPU X, 2 cores, cpu"], "equinox").at) == 2


def test_a_run_that_was_saved_twice_is_one(runs: Path) -> None:
    """As by `--benchmark-json` and `--benchmark-autosave`, some moments apart."""
    first = json.loads((runs / ".benchmarks" / "Linux" / "0001_run.json").read_text())
    saved(runs / "results" / "run.json", first | {"datetime": "2026-01-15T08:00:02"})
    found = timeline([runs])
    assert len(found.lines[0].runs) == 6
    assert found.notes == ("Passed over: 1 file that holds a run that is there already.",)
    assert found.status == 0


def test_versions_that_changed_between_neighbours_are_releases(runs: Path) -> None:
    [line] = timeline([runs]).lines
    [release] = line.releases
    assert release.run == 3
    assert release.changed == {"jax": ("0.9.0", "0.10.0"), "jaxlib": ("0.9.0", "0.10.0")}
    assert list(words.releases(line)) == [("2026-04-15", "jax 0.9.0 → 0.10.0")]


def test_a_failure_is_reported_until_the_cell_is_measured_again(tmp_path: Path) -> None:
    saved(tmp_path / "1.json", a_run())
    broken = a_run("2026-01-02T00:00:00", times=1.1)
    broken["bakeoff"]["cells"][1] |= {"failure": "it broke", "metrics": {}}
    broken["bakeoff"]["cells"][2]["metrics"]["step"] = {"missing": "too few blocks"}
    saved(tmp_path / "2.json", broken)
    found = timeline([tmp_path])
    [line] = found.lines
    assert list(words.failures(line)) == ["equinox at toy failed on 2026-01-02: it broke"]
    assert of(found, "flax_nnx").gaps == {1: "too few blocks"}
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert {row["missing"] for row in rows} == {"", "it broke", "too few blocks"}
    saved(tmp_path / "3.json", a_run("2026-01-03T00:00:00", times=1.2))
    assert list(words.failures(timeline([tmp_path]).lines[0])) == []


# --- summaries


def test_only_new_and_changed_files_are_read(runs: Path, read_files: list[str]) -> None:
    before = answer(runs)
    assert len(read_files) == 6
    read_files.clear()
    assert answer(runs) == before
    assert read_files == []
    folder = runs / ".benchmarks" / "Linux"
    saved(folder / "0002_run.json", a_run("2026-02-15T08:00:00", times=5))
    saved(folder / "0007_run.json", a_run("2026-07-15T08:00:00", times=2))
    (folder / "0001_run.json").unlink()
    found = timeline([runs])
    assert sorted(read_files) == ["0002_run.json", "0007_run.json"]
    assert of(found, "equinox").ratio == pytest.approx(
        [6, 1.2 * 1.02, 1.2 * 1.03, 1.2 * 1.04, 1.2 * 1.05, 2.4]
    )


def test_summaries_of_other_folders_are_kept_until_their_files_are_deleted(
    runs: Path, tmp_path: Path, cache: Path, read_files: list[str]
) -> None:
    timeline([runs])
    timeline([saved(tmp_path / "other" / "1.json", a_run(times=3)).parent])
    read_files.clear()
    assert len(timeline([runs]).lines[0].runs) == 6
    assert read_files == []
    shutil.rmtree(runs)
    timeline([saved(tmp_path / "other" / "2.json", a_run(times=4)).parent])
    assert len(summaries.load(cache / summaries.NAME).files) == 2


def test_files_that_were_read_before_an_interruption_are_not_read_again(
    runs: Path, read_files: list[str]
) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 6
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timeline([runs], step=interrupt)
    assert len(read_files) == 4
    steps: list[tuple[int, int]] = []
    assert len(timeline([runs], step=lambda *at: steps.append(at)).lines[0].runs) == 6
    assert len(read_files) == 6
    assert steps == [(0, 2), (1, 2), (2, 2)]


def flipped(content: bytes, place: int) -> bytes:
    """Return a content with another byte at a place."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


DAMAGE = {
    "overwritten": lambda content: b"no summaries" * 1000,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "digest": lambda content: flipped(content, 0),
    "middle": lambda content: flipped(content, len(content) // 2),
    "end": lambda content: flipped(content, -1),
    "version": lambda content: content,
    "layout": lambda content: summaries.mark(b"\x92\x01\x02") + b"\x92\x01\x02",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_or_old_summaries_are_made_anew(
    damage: str, runs: Path, cache: Path, read_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answer(runs)
    path = cache / summaries.NAME
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    if damage == "version":
        monkeypatch.setattr(summaries, "VERSION", b"another")
    for _ in range(2):
        found = timeline([runs])
        assert (as_csv(found), found.notes, len(read_files)) == (before, (), 12)


def test_several_processes_at_once_leave_whole_summaries(runs: Path, cache: Path) -> None:
    for i in range(30):
        saved(runs / f"{i}.json", a_run(f"2026-07-15T08:{i:02d}:00", times=1 + 0.001 * i))
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.compare.timeline import timeline\n"
        "from bench.compare.pages.timeline_rows import as_csv\n"
        f"sys.stdout.write(as_csv(timeline([Path({str(runs)!r})])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    written = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(summaries.load(cache / summaries.NAME).files) == 36
    assert written == {answer(runs)}
    assert [path.name for path in cache.iterdir()] == [summaries.NAME]


def test_a_cache_that_cannot_be_written_is_noted(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answer(runs)
    monkeypatch.setenv("BAKEOFF_CACHE", str(saved(tmp_path / "file", "no folder") / "cache"))
    found = timeline([runs])
    assert (as_csv(found), found.status) == (before, 0)
    [note] = found.notes
    assert "cannot be written (Not a directory)" in note


# --- filters


@pytest.mark.parametrize(
    ("asked", "series", "count"),
    [
        ({}, 24, 6),
        ({"entrants": ("equinox", "pure_jax")}, 16, 6),
        ({"styles": ("jit",)}, 8, 6),
        ({"workloads": ("toy",), "metrics": ("step", "python_calls")}, 6, 6),
        ({"backends": ("cpu",), "metrics": ("all",)}, 24, 6),
        ({"machines": ("cpu x",)}, 24, 6),
        ({"since": "2026-03"}, 24, 4),
        ({"since": "2026-03-15T08:00:01"}, 24, 3),
        ({"until": "2026-03"}, 24, 3),
        ({"until": "2026-03-14"}, 24, 2),
        ({"since": "2026", "until": "2026"}, 24, 6),
        ({"last": 2}, 24, 2),
        ({"until": "2026-05", "last": 1}, 24, 1),
    ],
    ids=str,
)
def test_filters(asked: dict[str, Any], series: int, count: int, runs: Path) -> None:
    [line] = timeline([runs], Filters(**asked)).lines
    assert (len(line.series), len(line.runs)) == (series, count)
    assert all(each.at.size == count for each in line.series)
    newest = "2026-05" if asked.get("until") == "2026-05" else line.runs[-1].at
    assert line.runs[-1].at.startswith(newest)


def test_the_last_ones_are_those_that_have_what_is_asked_for(runs: Path) -> None:
    saved(runs / "toy.json", a_run("2026-08-01T00:00:00", workloads=("toy",), times=2))
    [line] = timeline([runs], Filters(workloads=("seed",), last=1)).lines
    assert [run.at[:10] for run in line.runs] == ["2026-06-15"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"entrants": ("flex",)}, "unknown entrant 'flex'; known: equinox, flax_nnx, pure_jax; "),
        ({"entrants": ("equinox", "flex")}, "unknown entrant 'flex'"),
        ({"styles": ("jot",)}, "unknown style 'jot'; known: jit, pure; choose one"),
        ({"workloads": ("sea",)}, "unknown workload 'sea'; known: seed, toy; choose"),
        ({"metrics": ("stp",)}, "unknown metric 'stp'; known: compile, python_calls, step, temp"),
        ({"backends": ("tpu",)}, "unknown backend 'tpu'; known: cpu; choose"),
        ({"machines": ("epyc",)}, "unknown machine 'epyc'; known: CPU X, 2 cores, cpu; choose"),
        ({"since": "yesterday"}, "--since 'yesterday' is no time; give a year, a month, a day"),
        ({"since": "2026-13"}, "--since '2026-13' is no time"),
        ({"until": "2026-02-30"}, "--until '2026-02-30' is no time"),
        ({"since": "2026-05", "until": "2026-04"}, "--since 2026-05 is after --until 2026-04"),
        (
            {"since": "2027"},
            "no run is of the time that is asked for; the 6 there are from 2026-01",
        ),
        ({"last": 0}, "--last is 0; it must be at least 1"),
        ({"entrants": ("equinox",), "styles": ("jit",)}, "in all of the options at once"),
    ],
    ids=str,
)
def test_filters_that_nothing_passes_are_an_error_of_one_line(
    asked: dict[str, Any], message: str, runs: Path, tmp_path: Path
) -> None:
    other = a_run(times=3)
    other["bakeoff"]["cells"][1]["entrant"] = "flex"  # in the summaries, not in the folder
    timeline([saved(tmp_path / "other" / "run.json", other)])
    with pytest.raises(BakeoffError, match=re.escape(message)) as caught:
        timeline([runs], Filters(**asked))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


# --- other files


BAD = {
    "cut.json": (json.dumps(a_run())[:-20], "is not JSON"),
    "empty.json": ("", "is not JSON"),
    "newer.json": ({"benchmarks": [], "bakeoff": {"schema": 999, "cells": []}}, "of schema 999"),
    "damaged.json": (
        {"benchmarks": [], "bakeoff": {"schema": SCHEMA}},
        "is damaged: Object missing",
    ),
    "unnamed.json": (a_run() | {"datetime": None}, "does not say when it was measured"),
    "undated.json": (a_run() | {"datetime": "tomorrow"}, "is damaged: "),
    "listed.json": (a_run() | {"machine_info": [1]}, "is damaged: Expected "),
    "none.json": ({"benchmarks": 3}, "no run"),
}


def test_a_corrupt_file_among_many_is_named_and_skipped(runs: Path) -> None:
    for name, (content, _) in BAD.items():
        saved(runs / name, content)
    (runs / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (runs / "dir.json").mkdir()
    for _ in range(2):  # read, and from summaries
        found = timeline([runs])
        assert found.status == 1
        assert len(found.lines[0].runs) == 6
        assert len(found.problems) == len(BAD) + 1
        for name, (_, message) in BAD.items():
            [problem] = [p for p in found.problems if f"{runs / name} " in p]
            assert message in problem
            assert "\n" not in problem
    assert f"skipped: {runs / 'cut.json'} is not JSON" in " ".join(printed(found, 300).split())


def test_other_files_are_passed_over_silently(runs: Path, tmp_path: Path) -> None:
    saved(runs / "package.json", {"name": "x", "version": 1})
    saved(runs / "list.json", [1, 2])
    saved(runs / "notes.txt", "not JSON")
    (runs / "nowhere.json").symlink_to(tmp_path / "gone.json")
    found = timeline([runs])
    assert (found.status, found.problems) == (0, ())
    assert len(found.lines[0].runs) == 6


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    """Its size and time of change stay the same when it can be opened again."""
    summary = summaries.summary_of(tmp_path / "gone.json", summaries.Stamp(1, 1), {})
    assert (summary.state, summary.stamp) == (summaries.State.DAMAGED, summaries.UNREADABLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no JSON file; give folders with what `pytest bench --benchmark-autosave`"),
        ({"a": 1}, "none of 1 JSON files is a run; give"),
        ("[1", "none of 1 JSON files is a run (the first problem: "),
    ],
)
def test_nothing_left_is_an_error(content: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        saved(folder / "x.json", content)
    with pytest.raises(BakeoffError, match=re.escape(message)):
        timeline([folder])
    with pytest.raises(BakeoffError, match="nowhere: there is no such folder; give folders"):
        timeline([folder, tmp_path / "nowhere"])


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    content = a_run()
    content["bakeoff"]["cells"][1]["exact"] = {"flops": "x"}
    with pytest.raises(BakeoffError, match="is damaged: Expected `float"):
        timeline([saved(tmp_path / "run.json", content)])


# --- changes


def test_changes_of_exact_metrics_need_no_test(runs: Path) -> None:
    [line] = timeline([runs], usual=("step",)).lines
    assert {series.key.metric for series in line.series} == {"step"}
    assert [(m.key.metric, m.before, m.after, m.values) for m in line.moved] == [
        ("python_calls", 3, 4, (343, 350))
    ] * 2
    assert line.changes == ()
    assert next(words.changes(line)) == (
        "Python calls changed between 2026-04-15 and 2026-05-15 (commit 3333333333 → 4444444444): "
        "flax_nnx jit at toy 343 → 350 and flax_nnx jit at seed 343 → 350."
    )


def test_a_planted_change_is_found_and_reported_by_every_format(runs: Path) -> None:
    for path in sorted(runs.rglob("*.json"))[3:]:
        content = json.loads(path.read_text())
        content["bakeoff"]["cells"][1]["metrics"]["step"] = metric(1e-4, 1.2 * 1.9)
        saved(path, content)
    found = timeline([runs], usual=("step",))
    [line] = found.lines
    [change] = line.changes
    assert (change.key.entrant, change.key.workload) == ("equinox", "toy")
    assert (change.before, change.after, change.width) == (2, 3, 1)
    assert change.low < 1.9 / 1.02 < change.high
    sentence = list(words.changes(line))[1]
    assert sentence.startswith("Step of equinox at toy, beside pure_jax, rose to 1.9 (")
    assert "(jax 0.9.0 → 0.10.0; commit 2222222222 → 3333333333)" in sentence
    assert sentence in " ".join(printed(found).split())
    assert sentence in page(found)
    assert next(charts.figures(line)).title == sentence.removesuffix(".")
    [row] = json.loads(as_json(found))["lines"][0]["changes"]
    assert (row["entrant"], row["before"], row["after"]) == ("equinox", 2, 3)


# --- rows


def test_csv_and_json_say_the_same(runs: Path) -> None:
    found = timeline([runs])
    [line] = json.loads(as_json(found))["lines"]
    runs_of = [
        (run["path"], run["when"], run["commit"], run["versions"]["jax"]) for run in line["runs"]
    ]
    expected = [
        ["" if value is None else str(value) for value in [*run, *key.values(), *point.values()]]
        for key in line["series"]
        for point in key.pop("points")
        for run in [runs_of[point.pop("run")]]
    ]
    named = ["path", "when", "commit", "version of jax", *Key._fields, *Numbers._fields]
    rows = [[row[name] for name in named] for row in csv.DictReader(io.StringIO(as_csv(found)))]
    assert len(rows) == 24 * 6
    assert rows == expected
    assert line["exact_changes"][0]["values"] == [343, 350]
    assert line["changes"] == []


def test_text_from_files_does_nothing_in_any_format(tmp_path: Path) -> None:
    """No formula in a spreadsheet, no escape sequence in a terminal, no markup in a page."""
    for i in (1, 2):
        content = a_run(f"2026-01-0{i}T00:00:00", times=i, cpu=HOSTILE, jax=f"{HOSTILE}{i}")
        content["bakeoff"]["cells"][0]["style"] = "=2+2"
        content["bakeoff"]["cells"][1] |= {"entrant": HOSTILE, "workload": HOSTILE}
        content["bakeoff"]["cells"][2] |= {"failure": HOSTILE}
        content["bakeoff"]["environment"]["versions"]["flax"] = "=1+1"
        saved(tmp_path / f"@{i}.json", content)
    saved(tmp_path / "<img src=x onerror=alert(1)>.json", "[1")
    found = timeline([tmp_path])
    cells = [cell for row in csv.reader(io.StringIO(as_csv(found))) for cell in row]
    assert {"'=1+1", "'=2+2", "'@1"} <= set(cells)
    assert not any(cell.startswith(("=", "@")) for cell in cells)
    assert "\x1b" not in printed(found)
    html = page(found)
    assert "<script>alert(1)" not in html
    assert "<img" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "{{ 7*7 }}" in html


# --- the command


def test_a_folder_gets_the_page_and_the_data(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "past"
    assert main(["history", "--runs", str(runs), "-o", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert {path.name for path in folder.iterdir()} == {
        *("page.html", "timeline.csv", "timeline.json")
    }
    rows = list(csv.DictReader((folder / "timeline.csv").read_text().splitlines()))
    [line] = json.loads((folder / "timeline.json").read_text())["lines"]
    assert len(rows) == sum(len(series["points"]) for series in line["series"]) > 0
    assert line["machine"] in (folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("output", "more", "start"),
    [
        ("line.html", (), "<!doctype html>"),
        ("line.csv", (), "run,path,when,commit"),
        ("line.JSON", (), "{"),
        ("line.txt", (), "CPU X, 2 cores, cpu: 6 runs"),
        ("line", ("--format", "csv"), "run,path,when,commit"),
        ("line.pdf", (), None),
    ],
)
def test_a_file_is_what_its_ending_or_the_format_says(
    output: str, more: tuple[str, ...], start: str | None, runs: Path, tmp_path: Path
) -> None:
    status = main(["history", "--runs", str(runs), "-o", str(tmp_path / output), *more])
    if start is None:
        assert (status, (tmp_path / output).exists()) == (2, False)
    else:
        assert status == 0
        assert (tmp_path / output).read_text().startswith(start)


# --- terminal


def printed(found: TimeLine, width: int = 100, **options: Any) -> str:
    file = io.StringIO()
    console = Console(width=width, file=file, highlight=False, **options)
    for part in terminal.parts(found):
        console.print(part)
    return file.getvalue()


def test_the_terminal_shows_a_line_for_each_series(runs: Path) -> None:
    out = printed(timeline([runs], usual=terminal.USUAL))
    assert out.startswith("CPU X, 2 cores, cpu: 6 runs, 2026-01-15 to 2026-06-15\n")
    assert "step, toy (width 8): ratios to pure_jax" in out
    [nnx] = [line for line in out.splitlines() if line.startswith("flax_nnx jit")][:1]
    assert nnx.split() == [
        *("flax_nnx", "jit", "8.4", "(8.2–8.6)", "▂▃▄▄▅▆", "8.00–8.40", "6", "2026-06-15")
    ]
    assert "2026-04-15: jax 0.9.0 → 0.10.0" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_the_terminal_s_width_is_kept(width: int, runs: Path) -> None:
    out = printed(timeline([runs]), width)
    assert max(map(len, out.splitlines())) <= width
    assert out.count("8.4 (8.2–8.6)") == 4


def test_a_terminal_without_more_than_ascii(runs: Path) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    console = Console(width=100, file=file)
    for part in terminal.parts(timeline([runs], usual=("step",))):
        console.print(part)
    out = file.buffer.getvalue().decode("ascii")
    assert "|234456 " in out
    assert "jax 0.9.0 > 0.10.0" in out


def test_only_a_terminal_shows_the_progress_bar(runs: Path) -> None:
    for terminal_ in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal_)
        with terminal.Bar(console) as bar:
            bar(0, 3)
            bar(3, 3)
        out = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("reading run files" in out) == terminal_


def test_noise_is_flat_and_what_moves_is_seen_to() -> None:
    at = np.arange(8)
    noise = 1 + 0.001 * np.array([1, -1, 1, -1, 1, -1, 1, -1.0])
    assert len(set(sparkline(noise, at, 8, 80, 0.1))) == 1
    assert sparkline(np.exp(at / 7), at, 8, 80, 0.1) == "▁▂▃▄▄▅▆▇"
    assert sparkline(np.exp(at / 7), at, 8, 4, 0.1) == "▁▃▅▇"
    assert sparkline(np.array([1.0, np.nan, 1.5]), np.array([0, 1, 3]), 4, 80, 0.0) == "▁  ▇"
    assert sparkline(np.array([-1.0, 0.0, 1.0]), np.arange(3), 3, 80, 0.0) == "▁▄▇"
    assert sparkline(np.array([5.0, 5.0]), np.arange(2), 2, 80, 0.0) == "▄▄"
    assert sparkline(np.array([np.nan]), np.arange(1), 1, 80, 0.0) == ""


# --- page


def test_the_page_is_one_file_that_asks_for_nothing(runs: Path) -> None:
    saved(runs / "cut.json", "[1")
    found = timeline([runs])
    html = page(found)
    outside = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#|data:,)""", outside)
    assert "default-src 'none'" in html
    assert "CPU X, 2 cores, cpu" in outside
    assert "Skipped:" in outside
    assert outside.count("<figure ") == 6
    specs = json.loads(re.findall(r'id="specs">(.*?)</script>', html)[0])
    assert len(specs) == 6
    assert len(set(re.findall(r'<figure id="([^"]*)"', outside))) == 6


def test_machines_have_charts_of_their_own(runs: Path) -> None:
    for i in (1, 2):
        content = a_run(f"2026-01-0{i}T00:00:00", cpu="CPU Z", times=i, workloads=("a/ b",))
        saved(runs / f"{i}.json", content)
    html = page(timeline([runs], usual=("step",)))
    names = re.findall(r'<figure id="([^"]*)"', html)
    assert names == ["chart-0-step-toy-cpu-0", "chart-0-step-seed-cpu-1", "chart-1-step-a_b-cpu-0"]
    assert re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', html) == [
        ("machine-0", "CPU X, 2 cores, cpu"),
        ("machine-1", "CPU Z, 2 cores, cpu"),
    ]


def test_each_chart_says_what_it_found(runs: Path) -> None:
    drawn = list(charts.figures(timeline([runs]).lines[0]))
    assert [figure.title.split(";")[0] for figure in drawn] == [
        "At toy, no change of step is seen",
        "At seed, no change of step is seen",
        "At toy, no change of compile is seen",
        "At seed, no change of compile is seen",
        "At toy, python calls changed for flax_nnx jit",
        "At seed, python calls changed for flax_nnx jit",
    ]
    assert re.search("; equinox ranges most, 1.20 to 1.26$|jit ranges most, 8", drawn[0].title)
    for figure in drawn:
        spec = figure.chart.to_dict()
        assert "Dashed rules: releases; 2026-04-15 jax 0.9.0 → 0.10.0." in figure.text
        assert "time of the run (UTC)" in json.dumps(spec)
        assert picture(figure).to_dict()["title"]["text"] == figure.title
    assert "equinox 1.20 (1.18–1.22) → 1.26 (1.23–1.29)" in drawn[0].text
    assert "flax_nnx jit 343 → 350" in drawn[4].text
    rows = drawn[4].chart.to_dict()["data"]["values"]
    assert [row["value"] for row in rows] == [1, 1, 1, 1, 1.0204, 1.0204]


def test_a_page_of_many_runs_stays_small(tmp_path: Path) -> None:
    for i in range(300):
        at = f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}T00:00:00"
        saved(tmp_path / "runs" / f"{i}.json", a_run(at, times=1 + 0.001 * i, jax=f"0.9.{i // 20}"))
    found = timeline([tmp_path / "runs"])
    drawn = next(charts.figures(found.lines[0]))
    spec = drawn.chart.to_dict()
    rows = [row for row in spec["data"]["values"] if row["style"] == "equinox"]
    assert len(rows) == 300
    assert "said" not in rows[0]
    assert any(layer["mark"].get("type") == "area" for layer in spec["layer"])
    labels = [
        r["label"]
        for layer in spec["layer"]
        for r in layer.get("data", {}).get("values", [])
        if "label" in r and layer["mark"]["type"] == "text"
    ]
    assert [bool(label) for label in labels] == [False] * 4 + [True] * 10
    assert len(page(found).encode()) < 3_000_000
    assert charts.picked(of(found, "equinox"), 7) == [0, 50, 100, 150, 199, 249, 299]


@pytest.mark.parametrize("width", [1280, 380])
def test_the_page_in_a_browser(width: int, runs: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here: `apt install chromium`")
    file = saved(tmp_path / "page.html", page(timeline([runs])))
    said: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 800})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_selector("figure:last-of-type svg")
        drawn = tab.locator("figure svg").count()
        wide = tab.evaluate("document.documentElement.scrollWidth")
        tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
        found = axe.Axe().run(tab).response["violations"]
        browser.close()
    assert said == [file.as_uri()]
    assert drawn == 6
    assert wide <= width
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
