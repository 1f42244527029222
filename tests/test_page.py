"""`bakeoff report`: the page and its other forms, from a run that was really measured."""

from __future__ import annotations

import csv
import functools
import io
import json
import operator
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import impls
from bench import result_pages
from bench.cells import BASELINE, Cell
from bench.engine.actions import Options
from bench.engine.run_plan import RunPlan as Planned
from bench.estimates import beside
from bench.metrics import METRICS
from bench.report import answer
from bench.report.charts import picture
from bench.report.charts.figure import colours_of
from bench.report.markdown import markdown
from bench.report.page import page, parts
from bench.report.page.data import by_baseline, stored
from bench.report.run import document
from bench.report.table import Value
from bench.runfile import PlanOfRun
from bench.runfile.reader import read
from bench.runfile.section import section
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from bench.runfile.reader import Run
    from tests.commands import Bakeoff

ROOT = Path(__file__).parents[1]
PATH = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
LOGS = sorted((ROOT / "results" / "training").glob("five-*.jsonl"))
VEGA = re.compile(r'id="vega">[^<]*<')
"""Compressed, and not by every release of zlib to the same bytes."""
LABEL = re.compile(r'aria-label="([^"]*)"')
RATIO = re.compile(r"\d+(?:\.\d+)? \(\d+(?:\.\d+)?–\d+(?:\.\d+)?\)")


@pytest.fixture
def report(bakeoff: Bakeoff) -> Bakeoff:
    """Return what calls `bakeoff report`."""
    return lambda *arguments: bakeoff("report", *map(str, arguments))


@pytest.fixture(scope="module")
def run() -> Run:
    return read(PATH)


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return page([run])


@pytest.fixture
def data() -> dict[str, Any]:
    """Return a run file's content, to spoil."""
    return dict(json.loads(PATH.read_text("utf-8")))


def saved(tmp_path: Path, content: Any, name: str = "spoilt.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def parsed(html: str, id_: str = "data") -> Any:
    """Return the data that a page holds."""
    match = re.search(rf'<script type="application/json" id="{id_}">(.*?)</script>', html)
    assert match is not None
    return json.loads(match[1])


def test_the_page_is_one_file_that_asks_for_nothing(html: str) -> None:
    outside = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#|data:,)""", outside)
    assert "default-src 'none'" in html
    assert "@import" not in outside
    assert "url(" not in outside
    assert len(html.encode()) < 1_000_000


def test_the_page_says_what_the_terminal_says(html: str, run: Run) -> None:
    order = ["warning", 'id="main"', "<h2", "chart-blocks", "<details><summary><h2"]
    assert sorted(map(html.index, order)) == [html.index(each) for each in order]
    whole = document(run)
    for text in [*whole.warnings, *(line for part in whole.sections for line in part.lines)]:
        assert str(parts.coded(text)) in html
    table = parsed(html)
    names = [metric["name"] for metric in table["metrics"]]
    steps = names.index("step")
    assert len(names) == len(set(names))
    compared = 0
    for row, cell, ratios in zip(
        table["rows"], run.section.cells, table["ratios"][BASELINE[0]], strict=True
    ):
        assert row[1:5] == [cell.entrant, cell.style, cell.workload, cell.backend]
        if found := cell.measured("step"):
            said = [pytest.approx(found.median, rel=1e-4), str(Value(found.median, "s"))]
            assert row[7][steps] == said
        if found := cell.compared("step"):
            value, ratio = Value.of(found), pytest.approx(found.ratio, rel=1e-4)
            assert ratios[steps] == [ratio, f"{value.mark} {value}".strip(), value.colour]
            compared += 1
    assert compared > 10


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run file of this schema, by a machine that is made up."""
    wanted = needed(("toy", "seed"))
    plan = Planned(wanted, Options(600), lanes=LANES)
    Machine(noise=0.01).drive(plan)
    said = section(plan.state, wanted, plan=PlanOfRun())
    for cell in said.cells:
        cell.proof = None  # it is not whole
    data = {"benchmarks": [], "bakeoff": msgspec.to_builtins(said)}
    return saved(tmp_path_factory.mktemp("made"), data)


@pytest.fixture(scope="module")
def made(made_up: Path) -> Run:
    """Return that run."""
    return read(made_up)


def test_samples_give_the_ratios_that_the_run_has(made: Run) -> None:
    """The file has all that its numbers were made of."""
    known = stored(made)
    checked = 0
    for group, arms in made.samples.items():
        for cell, estimate in beside(group, arms).items():
            if group.metric not in known.get(cell, {}):
                continue
            ratio, value = known[cell][group.metric]
            assert estimate.ratio == pytest.approx(ratio, rel=1e-4)  # in nanoseconds
            if not METRICS[group.metric].added:
                low, high = estimate.interval
                assert low == pytest.approx(value.low or 0.0, rel=1e-3)
                assert high == pytest.approx(value.high or float("inf"), rel=1e-3)
            checked += 1
    assert checked > 100


def test_another_baseline_turns_ratios_around(made: Run) -> None:
    """But for what the control says of the run's own baseline."""
    ratios = by_baseline(made)
    assert set(ratios) == {c.entrant for c in made.section.cells if c.style == "pure"}
    there = ratios[BASELINE[0]][Cell("haiku", "pure", "seed", "cpu")]["step"]
    back = ratios["haiku"][Cell(*BASELINE, "seed", "cpu")]["step"]
    assert there[0] * back[0] == pytest.approx(1, rel=0.01)
    assert there[1].low is not None
    assert back[1].high == pytest.approx(1 / there[1].low, rel=0.05)


HOSTILE = "</script><script>alert(1)</script>\"'&\u2028{{ 7*7 }} 🦔"


def test_what_came_from_outside_stays_text(data: dict[str, Any], tmp_path: Path) -> None:
    for cell in data["bakeoff"]["cells"]:
        if cell["entrant"] == "haiku":
            cell["entrant"] = HOSTILE
    data["bakeoff"]["warnings"] = data["bakeoff"]["arguments"] = [HOSTILE]
    data["machine_info"]["node"] = HOSTILE
    made = page([read(saved(tmp_path, data))])
    assert "<script>alert(1)" not in made
    assert "{{ 7*7 }}" in made
    assert HOSTILE in {row[1] for row in parsed(made)["rows"]}
    assert json.dumps(HOSTILE)[1:-1] in json.dumps(parsed(made, "specs"))
    assert json.loads(parts.embedded({"a": HOSTILE})) == {"a": HOSTILE}
    assert "<" not in parts.embedded({"a": HOSTILE})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json"], "nowhere.json cannot be read (No such file"),
        (["bytes.json"], "is not JSON"),
        (["spoilt.json", "-o", "page.html"], "spoilt.json is not JSON ("),
        ([PATH, "-o", "spoilt.json"], "exists already"),
        ([PATH, "-o", "no/page.html"], "there is no folder"),
        ([PATH, "-o", "page.pdf"], "ends in .pdf; .html, .htm, .md, .markdown, .json, .csv"),
        ([PATH, "-o", "page.html", "--pictures", "spoilt.json/pictures"], "--pictures"),
        ([PATH, "--details", "--format", "md"], "--details is for text"),
        ([*LOGS, "-o", "curves.pdf"], "a picture's name ends in .svg or .png"),
        ([*LOGS, "--details"], "their curves alone are drawn"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_leaves_nothing(
    arguments: list[Any], said: str, report: Bakeoff, tmp_path: Path
) -> None:
    saved(tmp_path, "{")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    done = report(*arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bytes.json", "spoilt.json"]
    assert (tmp_path / "spoilt.json").read_text() == "{"


CELL = ("bakeoff", "cells", 1)


@pytest.mark.parametrize(
    "spoils",
    [
        [
            *((..., "bakeoff", name) for name in ("control", "warnings", "verdict")),
            *((..., "bakeoff", name) for name in ("environment", "spent", "samples")),
            (..., "bakeoff", "plan", "margin"),
            ({}, "machine_info"),
            (None, "commit_info"),
        ],
        [([], "bakeoff", "cells")],
        [([], "benchmarks"), ([], "bakeoff", "samples", "blocks")],
        [
            (..., *CELL, "metrics", "step", "median"),
            (None, *CELL, "proof"),
            ({}, *CELL, "exact"),
            (None, *CELL, "final_loss"),
        ],
        [("it <b>broke</b>", "bakeoff", "cells", 0, "failure")],
        [(None, *CELL, "metrics", "step", "ratio"), ({}, "bakeoff", "cells", 2, "metrics")],
    ],
    ids=["section", "no cells", "no samples", "none", "failure", "parts"],
)
def test_what_is_missing_is_missing_and_no_more(
    spoils: list[tuple[Any, ...]], data: dict[str, Any], tmp_path: Path
) -> None:
    for value, *path, last in spoils:  # `...` drops what is there
        place = functools.reduce(operator.getitem, path, data)
        place[last] = value
        if value is ...:
            del place[last]
    run = read(saved(tmp_path, data))
    made = VEGA.sub("", page([run]))
    assert len(parsed(made)["rows"]) == len(data["bakeoff"]["cells"])
    assert "NaN" not in re.sub(r"<script>.*?</script>", "", made, flags=re.DOTALL)
    assert "nan" not in markdown(document(run)).split()


PLAIN = {
    "benchmarks": [
        {"name": "test_a", "group": "g", "stats": {"median": 0.002, "rounds": 5}},
        {"name": "test_b<i>", "group": "g", "stats": {"median": 0.003, "rounds": 5}},
        {"name": "test_c", "group": None, "stats": {"median": 0.001, "rounds": 5}},
        {"name": "test_d", "group": None, "stats": {"rounds": 0}},
    ]
}


def test_a_plain_pytest_benchmark_file(tmp_path: Path, report: Bakeoff) -> None:
    path = saved(tmp_path, PLAIN)
    run = read(path)
    assert "written by pytest-benchmark alone" in run.lacking[0]
    assert run.lacking[1] == "Without a median: test_d."
    made = page([run])
    table = parsed(made)
    assert [row[1] for row in table["rows"]] == ["test_a", "test_b<i>", "test_c"]
    assert table["bases"] == ["the first of each group"]
    assert table["ratios"][table["bases"][0]][1][0] == [1.5, "1.50", ""]
    assert "Which library for me?" not in made
    assert r"| test_b\<i\> | 1.50 |" in report(path, "--format", "md").out
    assert "2.00 ms" in report(path, "--details").out


def test_csv_and_json_have_a_row_for_each_cell_and_metric(
    report: Bakeoff, run: Run, data: dict[str, Any], tmp_path: Path
) -> None:
    rows = list(csv.DictReader(io.StringIO(report(PATH, "--format", "csv").out)))
    objects = json.loads(report(PATH, "--format", "json").out)
    assert len(rows) == len(objects)
    steps = [o for o in objects if o["metric"] == "step"]
    assert len(steps) == len(run.section.cells)
    haiku = Cell("haiku", "pure", "seed", "cpu")
    [one] = [o for o in steps if Cell.of(o) == haiku]
    [cell] = [c for c in run.section.cells if c.cell == haiku]
    assert one["ratio"] == cell.metrics["step"].ratio
    data["bakeoff"]["cells"][1]["entrant"] = "=1+1"
    out = report(saved(tmp_path, data), "--format", "csv").out
    assert "'=1+1" in out
    assert not re.search(r"(^|,)=1", out)  # a formula
    measured = [row for row in rows if not row["missing"]]
    assert {row["unit"] for row in measured if row["metric"] == "peak_rss"} == {"B"}


def test_the_report_needs_no_jax_and_nothing_slow(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['jax', 'flax', 'haiku', 'equinox'])\n"
        "from bench.cli import main\n"
        f"status = main(['report', {str(PATH)!r}, '-o', {str(tmp_path / 'page.html')!r}])\n"
        "sys.exit(status or 'scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_details_and_text(report: Bakeoff, tmp_path: Path) -> None:
    short = report(PATH, "--format", "text").out
    every = report(PATH, "--details").out
    assert len(every) > 3 * len(short) > 0
    assert report(PATH, "--format", "text", "-o", tmp_path / "run.txt").status == 0
    whole = (tmp_path / "run.txt").read_text("utf-8")
    assert {word for word in every.split() if set(word) != {"─"}} <= set(whole.split())


def test_several_runs_in_one_page(run: Run) -> None:
    made = page([run, run])
    table = parsed(made)
    assert len(table["rows"]) == 2 * len(run.section.cells)
    assert table["runs"] == [run.name] * 2
    assert "All 2 runs in this page" in made


def test_without_samples_a_run_says_the_same(run: Run, made: Run, made_up: Path) -> None:
    assert read(PATH, samples=False) == replace(run, samples={})
    assert read(made_up, samples=False) == replace(made, samples={})
    assert made.samples


def test_training_logs_become_a_picture_or_a_table(report: Bakeoff, tmp_path: Path) -> None:
    done = report(*LOGS, "-o", tmp_path / "curves.svg")
    assert done == (0, f"{tmp_path / 'curves.svg'}\n", "")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "ends at 1.6" in drawn
    assert "equinox pure" in drawn
    assert "mean loss, nats per character" in drawn
    assert report(*LOGS).out.startswith("| epoch | equinox pure | flax_linen pure |")
    assert report(LOGS[0], "-o", tmp_path / "one.png").status == 0
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no training log; give what `bakeoff train --log` wrote"),
        ('{"run": {}}', "is no training log"),
        ('{"run": {"entrant": "haiku"}}', "has no epoch yet"),
        ('{"run": {"entrant": "haiku"}}\n{"epoch": 1}', "is no training log"),
    ],
)
def test_what_is_no_training_log(text: str, message: str, report: Bakeoff, tmp_path: Path) -> None:
    path = saved(tmp_path, text, "log.jsonl")
    done = report(path, "-o", tmp_path / "curves.svg")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"bakeoff: {path} {message}")
    assert not (tmp_path / "curves.svg").exists()


def test_training_draws_its_curve(bakeoff: Bakeoff, tmp_path: Path) -> None:
    small = ("--corpus", "toy", "--width", "8", "--chunk", "16", "--sample-every", "0")
    assert bakeoff("train", *small, "--epochs", "3", "--plot", "curve.svg").status == 0
    assert "pure_jax pure ends at" in (tmp_path / "curve.svg").read_text()
    for name, said in (("curve.svg", "exists already"), ("c.txt", "ends in .svg or .png")):
        done = bakeoff("train", *small, "--plot", name)
        assert done.status == 2
        assert said in done.err


def test_pages_and_pictures_are_of_their_results() -> None:
    """`make results` was called after the last change."""
    for path, text in result_pages.pages():
        kept = path.read_text("utf-8")
        assert VEGA.sub("", kept) == VEGA.sub("", text), path
        assert len(kept.encode()) < 1_000_000
    for folder, charts in result_pages.pictures():
        for figure in charts:
            svg = io.StringIO()
            picture(figure).save(svg, format="svg")
            path = folder / f"{figure.name}.svg"
            # what marks say of their data; where words stand depends on the fonts of a machine
            assert LABEL.findall(path.read_text("utf-8")) == LABEL.findall(svg.getvalue())
            assert path.with_suffix(".png").stat().st_size > 2000


def test_ratios_in_prose_are_of_published_runs() -> None:
    tuned = {*result_pages.TUNED.glob("*/*.json")} - {*result_pages.TUNED.rglob(result_pages.LIMIT)}
    known = {
        str(Value.of_ratio(found))
        for run in [*(r for _, runs in result_pages.machines() for r in runs), *map(read, tuned)]
        for cell in run.section.cells
        for metric in cell.metrics
        if (found := cell.compared(metric))
    }
    for path in result_pages.TEXTS:
        text = result_pages.TABLE.sub("", path.read_text("utf-8")).split("## How it measures")[0]
        assert set(RATIO.findall(text)) <= known, path


@pytest.mark.parametrize("path", result_pages.TEXTS, ids=lambda p: p.parent.name)
def test_tables_are_of_their_runs(path: Path) -> None:
    text = path.read_text("utf-8")
    assert result_pages.refreshed(text) == text


def test_each_entrant_of_this_project_has_its_own_colour() -> None:
    names = impls.names()
    colours = colours_of(names)
    assert len(set(colours)) == len(names)
    assert [colours_of([name, "mine"])[0] for name in names] == colours


def test_the_readme_shows_the_answer() -> None:
    [shown] = result_pages.TABLE.finditer((ROOT / "README.md").read_text("utf-8"))
    assert shown["what"] == "answer"
    assert 3 < shown[0].count("\n| ") - 2 <= answer.MOST_ROWS


def test_the_answer_is_a_small_table(made: Run) -> None:
    """From cheap to dear; who adds next to nothing shares a row."""
    head, _, base, cheap, dear = answer.table(made.section).splitlines()
    assert head == "| style | added to a call | step, `toy` | step, `seed` | compile |"
    assert base.startswith("| **pure_jax** |")
    names, added, *_ = cheap[2:].split(" | ")
    assert {"haiku", "haiku transform", "equinox"} <= set(names.split(", "))
    assert added == "at most 1 µs"
    assert re.match(r"\| flax_nnx jit \| \+(69|70)\d µs .* \| 8\.00 \|", dear)  # as slow there
