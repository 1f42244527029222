"""`bakeoff history`: what is said of days and of kept runs, by simulation."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from bench.report.documents.history import describe_history, draw_line, list_causes
from bench.report.page import page
from bench.runfile import DIFFERS, CellResult, Results, SearchRecord, SearchStep
from bench.runfile.reader import Processor, Run, read
from bench.runfile.writer import run_file, write
from bench.track.run_files import read_history
from bench.track.timeline import Timeline
from tests.commands import Bakeoff
from tests.report.runs import section
from tests.report.test_renderers import terminal
from tests.track.simulated import ARMS, BLOG, FILTER_JIT, HAIKU, a_run, file_of, of_days

if TYPE_CHECKING:
    from bench.options import CoreChoice

DAYS = ["2025-06-01", "2025-08-01", "2025-10-01", "2025-12-01"]
QUARTER = dict.fromkeys(ARMS, 0.25)
JAX = [{}, {}, {"jax": "0.13.0", "jaxlib": "0.13.0"}, {"jax": "0.13.0", "flax": "0.13.0"}]
FASTER = of_days(1, dict(zip(DAYS, [{}, {}, QUARTER, QUARTER], strict=True)), JAX)
"""A step took a quarter of the time from the third day on."""


def changes(results: Results) -> dict[object, tuple[object, ...]]:
    """Return the rows of the table of changes, by what they are of: effect, days, releases."""
    [table] = section(describe_history(results), "What changed").tables
    parts = ((row.cells, str(row.cells[-2]).partition(": ")) for row in table.rows)
    return {what: (effect, cells[-1], *cells[:-2]) for cells, (what, _, effect) in parts}


def test_a_change_of_all_styles_is_one_row_with_its_releases() -> None:
    calls = [
        replace(row, value=row.value + 7)
        if row.metric == "python_calls" and row.environment in DAYS[2:]
        else row
        for row in FASTER.estimates
    ]
    results = replace(FASTER, estimates=calls)
    made, rows = describe_history(results), changes(results)
    about = "2025-08-01 to 2025-10-01", "jax 0.12.0 → 0.13.0"
    [table] = section(made, "What changed").tables
    assert [column.title for column in table.columns] == ["release", "effect", "between"]
    assert rows["step at width 128"] == ("75 % shorter; all 4 styles", *about)
    assert rows["Python calls at width 128"] == ("+7; all 4 styles", *about)
    assert (
        "step at width 128, 75 % shorter, 2025-08-01 to 2025-10-01: `bakeoff bisect --metric step "
        "--workload seed --entrant pure_jax --style pure --good @2025-10-01 --bad @2025-08-01`"
    ) in section(made, "Searches for the release").lines
    assert list(rows)[-1] == "Python calls at width 128"
    assert set(rows) >= {"step at width 128", "call at width 8", "compile at width 128"}
    assert len(rows) == 4
    assert re.fullmatch(
        r"From 2025-06-01 to 2025-12-01, step at width 128: 7\d.* % shorter\.", made.headline
    )
    assert re.fullmatch(
        r"From 2025-06-01 to 2025-12-01, step at width 128: 7\d.* % shorter; "
        r"call at width 8: 7\d.* % shorter; compile at width 128: 7\d.* % shorter\.",
        section(made, "What changed").lines[-1],
    )
    assert re.match(
        r"12 changes for the better \(7.* less, mean 75 % less\) and 4 changed counts found "
        r"in 108 comparisons\.",
        section(made, "What changed").lines[-2],
    )
    assert made.title == "2025-06-01 to 2025-12-01: what became slower, and when"
    charts = [figure for section in made.sections for figure in section.figures]
    assert len(charts) == 4
    assert charts[0].title.startswith("Step at width 128: 7")
    nothing = (
        "Peak memory at width 128: no change found; "
        "0.58 % between the first day and the last would show"
    )
    assert charts[-1].title == nothing
    assert len(page(made)) < 400_000


def test_styles_that_changed_are_those_of_all_that_were_measured() -> None:
    def more_calls(arms: Any) -> object:
        calls = [
            replace(row, value=row.value + 7)
            if row.metric == "python_calls" and row.environment in DAYS[2:] and row.cell.arm in arms
            else row
            for row in FASTER.estimates
        ]
        return changes(replace(FASTER, estimates=calls))["Python calls at width 128"][0]

    assert more_calls(ARMS) == "+7; all 4 styles"
    assert more_calls({*ARMS} - {HAIKU}) == "+7; all but haiku/pure"
    assert more_calls({HAIKU}) == "+7; haiku/pure"


def test_the_headline_says_how_the_ends_differ_and_of_which_styles() -> None:
    mixed = describe_history(of_days(3, {DAYS[0]: {}, DAYS[1]: {HAIKU: 0.5, FILTER_JIT: 4.0}}))
    assert re.match(
        r"From 2025-06-01 to 2025-08-01, step at width 128: 4.00 times \(.*\) "
        r"\(equinox/filter_jit\), -50 % \(.* to .*\) \(haiku/pure\)\.",
        mixed.headline,
    )
    slow = {HAIKU: 4.0}
    back = describe_history(of_days(3, dict(zip(DAYS, [{}, slow, slow, {}], strict=True))))
    assert not re.match("From .* step", back.headline), "the ends do not differ"


def test_a_series_is_a_line_with_what_would_show() -> None:
    [table] = section(describe_history(FASTER), "Series").tables
    lines = {str(row.cells[0]): row.cells[1:] for row in table.rows}
    line, change, limit = next(cells for name, cells in lines.items() if "step" in name)
    assert line == "██▁▁"
    assert str(change).startswith("-7")
    assert str(limit).endswith(" %")
    rows = next(iter(Timeline(FASTER).series.values()))
    close = [replace(row, value=value) for row, value in zip(rows, (1, 1.01, 1, 1), strict=True)]
    assert len({*draw_line(close, DAYS)}) == 1, "less than the margin is no hill"
    assert draw_line(rows[1:], DAYS)[0] == "·", "a day without a value"


def search(release: str, before: str, value: float, **about: Any) -> SearchRecord:
    """Return a search that found a release, with the ratio of its newer side to the older."""
    package, version = release.split()
    known: dict[str, Any] = {"cell": ARMS[0].make_cell("toy", "cpu"), "metric": "step"} | about
    ends = {"low": value / 1.1, "high": value * 1.1, "cell": known["cell"]}
    row = replace(FASTER.estimates[0], form="ratio", value=value, **ends)
    step = SearchStep(phase="confirm", row=row, conclusion=DIFFERS, seconds=9.0)
    known = {"package": package, "releases": (before, version), "steps": [step]} | known
    return SearchRecord(**known)


def test_searches_beside_a_history_name_its_releases() -> None:
    found = search("jax 0.12.5", "0.12.4", 0.2)
    made = describe_history(FASTER, [found])
    [table] = section(made, "What changed").tables
    rows = {str(row.cells[1]).partition(":")[0]: row.cells[0] for row in table.rows}
    assert rows["step at width 128"] == "jax 0.12.5: -80 % (-82 to -78)"
    assert rows["compile at width 128"] == "jax 0.12.0 → 0.13.0", "another metric's release"
    assert made.headline.startswith(
        "jax 0.12.5 made the step 80 % shorter (width 8). From 2025-06-01 to "
    )
    charts = {figure.title: figure.chart for s in made.sections for figure in s.figures}
    of_step = next(chart for title, chart in charts.items() if title.startswith("Step"))
    assert "'name': 'jax 0.12.5'" in str(of_step)


@pytest.mark.parametrize(
    "other",
    [
        search("jax 0.11.9", "0.11.8", 0.2),  # before the change
        search("jax 0.12.5", "0.12.4", 5.0),  # in the other direction
        search("jax 0.12.5", "0.12.4", 0.2, metric="compile"),
        search("jax 0.12.5", "0.12.4", 0.2, cell=ARMS[0].make_cell("seed", "gpu")),
        search("jax 0.12.5", "0.12.4", 0.2, stopped="no time"),
        search("jax 1f3c9a", "who knows", 0.2),  # a commit
        search("jax 0.12.5", "0.12.4", 0.2, steps=[]),  # a damaged file
        search("equinox 0.13.9", "0.13.8", 0.2),  # which did not differ
    ],
)
def test_other_searches_name_nothing(other: SearchRecord) -> None:
    rows = next(c.rows for c in Timeline(FASTER).changes if c.first.metric == "step")
    assert [*Timeline(FASTER, [other]).find_effects(rows)] == []


def test_a_regression_and_its_repair_are_one_row() -> None:
    slow = dict.fromkeys(ARMS, 8.0)
    days = [*DAYS, "2026-02-01", "2026-04-01"]
    releases = [
        *({}, {}, {"jax": "0.13.0"}, {"jax": "0.13.0"}, {"jax": "0.14.0"}, {"jax": "0.14.0"})
    ]

    def read_rows(levels: list[dict[Any, float]]) -> list[str]:
        results = of_days(5, dict(zip(days, levels, strict=True)), releases)
        [table] = section(describe_history(results), "What changed").tables
        return [str(row.cells[1]) for row in table.rows if str(row.cells[1]).startswith("step")]

    [row] = read_rows([{}, {}, slow, slow, {}, {}])
    assert re.fullmatch(
        r"step at width 128: [78].* times as long; all 4 styles; undone by 2026-02-01", row
    )
    half = dict.fromkeys(ARMS, 3.0)
    assert len(read_rows([{}, {}, slow, slow, half, half])) == 2, "most of it stays"
    others = half | {HAIKU: 8.0}
    assert not any("undone" in row for row in read_rows([{}, {}, slow, slow, others, others]))


def test_libraries_without_a_change_come_last() -> None:
    releases = [
        {"dm-haiku": "0.0.16", "numpy": "2.4"},
        {"dm-haiku": "0.0.17", "numpy": "2.5", "flax": "0.13.0"},
    ]
    it = Timeline(of_days(2, {DAYS[0]: {}, DAYS[1]: {HAIKU: 1.3}}, releases))
    [change] = [change for change in it.changes if change.first.metric == "step"]
    assert change.first.cell.arm == HAIKU
    assert list_causes(change, it) == [
        *("dm-haiku 0.0.16 → 0.0.17", "numpy 2.4 → 2.5", "flax 0.12.8 → 0.13.0")
    ]


def test_days_without_time_are_told() -> None:
    results = of_days(2, {DAYS[0]: {}, DAYS[1]: {}})
    cell, why = HAIKU.make_cell("seed", "cpu"), {"step": "not measured within the budget"}
    results.cells.append(CellResult(cell=cell, environment=DAYS[2], missing=why))
    headline = describe_history(results).headline
    assert headline.endswith("There was no time for 1 of 3 days: give a --budget of 90 or more.")


def night(number: int, **more: Any) -> Run:
    return a_run(number, when=f"2026-0{number}-15T08:00:00", name=f"000{number}_run", **more)


def saved(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, file_of(run))


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with six runs, of two releases of jax; in the last three haiku is slower."""
    folder = tmp_path_factory.mktemp("nights")
    for number in range(1, 7):
        later = number > 3
        jax = {"jax": "0.13.0", "jaxlib": "0.13.0"} if later else {}
        changed = {(FILTER_JIT, "python_calls"): 1600.0} if number > 4 else {}
        about = {"changed": changed, "commit": f"{number}" * 40, "versions": jax}
        run = night(number, factors={HAIKU: 1.4} if later else {}, **about)
        saved(folder / ".benchmarks" / "Linux" / f"000{number}_run.json", run)
    return folder


def test_kept_runs_become_a_history_that_finds_a_planted_change(nights: Path) -> None:
    results = read_history([nights])
    it = Timeline(results)
    assert [moment[:10] for moment in it.moments] == [f"2026-0{n}-15" for n in range(1, 7)]
    assert not it.is_measured
    [step] = [change for change in it.changes if change.first.metric == "step"]
    assert [row.cell.arm for row in step.rows] == [HAIKU]
    assert (step.first.against[:7], step.first.environment[:7]) == ("2026-03", "2026-04")
    assert list_causes(step, it) == ["jax 0.12.0 → 0.13.0", "commit 3333333333 → 4444444444"]
    assert not any(row.cell.is_baseline for row in it.differences)
    assert describe_history(results).subtitle == (
        "6 runs of 6 commits, 2026-01-15 to 2026-06-15, CPU X (family 6), 2 cores"
    )
    assert (
        describe_history(results)
        .fine_print[0]
        .startswith("Values are relative to pure_jax/pure in ")
    )
    calls = changes(results)["Python calls at width 128"]
    assert calls[:2] == ("+63; equinox/filter_jit", "2026-04-15 08:00 to 2026-05-15 08:00")
    assert results.warnings == []


def test_a_short_call_on_all_cores_has_no_change_in_a_few_runs(tmp_path: Path) -> None:
    """In a long series, the differences of neighbours say how much runs differ."""
    for number in range(20):
        factors = {FILTER_JIT: 1.5} if number > 9 else {}
        run = a_run(number, factors, when=f"2026-01-{number + 1:02}T00:00:00", workers=(1, 2))
        run.results.options = replace(run.results.options, cores="all")
        saved(tmp_path / f"{number:02}.json", run)
    files = sorted(tmp_path.iterdir())

    def called(files: list[Path]) -> list[str]:
        it = Timeline(read_history(files))
        return [c.first.metric for c in it.changes if c.first.cell.workload == "toy"]

    few = describe_history(read_history(files[5:15]))
    assert called(files[5:15]) == []
    assert "3 of 12 times are not comparable on all cores (use `--cores=one`)" in few.headline
    assert any(
        "width 8 (call): not comparable" in text for text in section(few, "What changed").lines
    )
    assert called(files) == ["host_cost"]


def test_runs_of_other_cores_are_no_part_of_a_series(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        run = night(number)
        cores: CoreChoice = "all" if number == 1 else "one"
        run.results.options = replace(run.results.options, cores=cores)
        saved(tmp_path / f"{number}.json", run)
    results = read_history([tmp_path])
    assert [moment[:7] for moment in results.environments] == ["2026-02", "2026-03"]
    why = "1 × a run with --cores all left out: give its files alone to see it"
    assert results.warnings == [why]


def test_the_guilty_release_comes_first_at_any_width() -> None:
    releases = [
        {"flax": "0.12.0", "numpy": "2.4", "equinox": "0.13.1"},
        {"jax": "0.8.1", "jaxlib": "0.8.1", "flax": "0.12.1", "numpy": "2.5", "equinox": "0.13.2"},
    ]
    made = describe_history(of_days(2, {DAYS[0]: {}, DAYS[1]: {BLOG: 1.8}}, releases))
    for width in (80, 170):
        text = " ".join(terminal(made, width).split())
        places = [text.find(name) for name in ("flax ", "jax ", "numpy ", "equinox ")]
        assert -1 not in places
    every, alone = dict.fromkeys(ARMS, 1.8), {BLOG: 1.8}
    for factors, first in ((alone, "flax 0.12.0 → 0.12.1, jax 0.12.0"), (every, "jax 0.12.0")):
        results = of_days(2, {DAYS[0]: {}, DAYS[1]: factors}, releases)
        assert str(changes(results)["step at width 128"][2]).startswith(first)
    cell = str(changes(of_days(2, {DAYS[0]: {}, DAYS[1]: alone}, releases))["step at width 128"][2])
    assert cell.endswith("numpy 2.4 → 2.5, equinox 0.13.1 → 0.13.2")


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "1.json", night(1))
    saved(tmp_path / "a" / "again.json", a_run(1, when="2026-01-15T08:00:02"))
    saved(tmp_path / "2.json", night(2, failures={HAIKU: "it broke"}))
    saved(tmp_path / "3.json", a_run(7, when="2026-02-15T08:00:00"))
    saved(tmp_path / ".venv" / "run.json", night(4))
    other = a_run(5, when="2026-01-01T08:00:00")
    other.machine.cpu = Processor("CPU Z")
    saved(tmp_path / "other.json", other)
    write(tmp_path / "ab.json", run_file(FASTER))
    results = read_history([tmp_path, tmp_path / "1.json"])
    assert list(results.environments) == [
        *("2026-01-15T08:00:00", "2026-02-15T08:00:00", "2026-02-15T08:00:00.001")
    ]
    assert results.conditions.devices == {"cpu": "CPU X (family 6), 2 cores"}
    assert results.warnings == [
        "ab.json left out: it is the result of `bakeoff history`, no run",
        "1 × a run with processor CPU Z left out: give its files alone to see it",
    ]
    assert section(describe_history(results), "What changed").lines == (
        "haiku/pure at width 8 and width 128 failed on 2026-02-15 08:00: it broke",
        "No change found in 55 comparisons.",
    )


def test_a_corrupt_file_among_many_is_named_and_skipped(
    bakeoff: Bakeoff, nights: Path, tmp_path: Path
) -> None:
    (tmp_path / "package.json").write_text('{"name": "no run"}')
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone.json")
    done = bakeoff("history", str(nights), ".", "-o", "all.json")
    assert (done.status, done.out) == (0, "all.json\n"), done.err
    assert len(Timeline(read(tmp_path / "all.json").results).moments) == 6
    undated = '{"bakeoff": {"schema": 4, "cells": [{"cell": ["haiku", "pure", "seed", "cpu"]}]}}'
    (tmp_path / "undated.json").write_text(undated)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    done = bakeoff("history", str(nights), ".")
    assert done.status == 1
    text = " ".join(done.out.split())
    assert "warning: skipped: bytes.json is not JSON" in text
    assert "warning: skipped: undated.json has no date" in text


def test_one_run_is_no_history(tmp_path: Path, bakeoff: Bakeoff) -> None:
    write(tmp_path / "run.json", file_of(a_run(1)))
    done = bakeoff("history", "run.json")
    assert (done.status, "--budget" in done.out) == (2, False), "nothing was measured"
    assert "Nothing could be compared: a comparison needs a metric at two moments." in done.out
