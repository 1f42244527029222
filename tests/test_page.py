"""`bakeoff report`: the page and its other forms, from a run that was really measured."""

from __future__ import annotations

import ast
import base64
import csv
import gzip
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from bench import result_pages
from bench.cells import BASELINE, Cell
from bench.cli import main
from bench.engine.actions import Options
from bench.engine.run_plan import RunPlan as Planned
from bench.metrics import METRICS
from bench.report import answer
from bench.report.charts import figures, picture
from bench.report.excerpts import excerpts
from bench.report.markdown import markdown
from bench.report.page import embedded, page, parts
from bench.report.page.data import by_baseline, stored
from bench.report.run import document
from bench.report.table import Value
from bench.runfile import PlanOfRun
from bench.runfile.reader import read
from bench.runfile.section import section
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.runfile.reader import Run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "xeon-2-cores"
PATH = FOLDER / "2026-11-26-default.json"


VEGA = re.compile(r'id="vega">[^<]*<')
"""Compressed, and not by every release of zlib to the same bytes."""
LABEL = re.compile(r'aria-label="([^"]*)"')
RATIO = re.compile(r"\d+(?:\.\d+)? \(\d+(?:\.\d+)?–\d+(?:\.\d+)?\)")


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return what calls `bakeoff report`."""

    def call(*arguments: object) -> Done:
        status = main(["report", *map(str, arguments)])
        return Done(status, *capsys.readouterr())

    return call


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
    said = document(run)
    for text in [*said.warnings, *(line for part in said.sections for line in part.lines)]:
        assert str(parts.coded(text)) in html
    table = parsed(html)
    cells = run.section.cells
    assert [row[1:5] for row in table["rows"]] == [
        [each.entrant, each.style, each.workload, each.backend] for each in cells
    ]
    names = [metric["name"] for metric in table["metrics"]]
    steps = names.index("step")
    assert len(names) == len(set(names))
    seen = 0
    for row, cell, ratios in zip(table["rows"], cells, table["ratios"][BASELINE[0]], strict=True):
        found = cell.measured("step")
        if found is None:
            continue
        assert row[7][steps] == [
            pytest.approx(found.median, rel=1e-4),
            str(Value(found.median, "s")),
        ]
        if found.ratio is not None:
            value = Value.of(found)
            said_ratio = [pytest.approx(found.ratio, rel=1e-4), f"{value.mark} {value}".strip()]
            assert ratios[steps] == [*said_ratio, value.colour]
            seen += 1
    assert seen > 10


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
    from bench.estimates import beside

    run, known = made, stored(made)
    checked = 0
    for group, arms in run.samples.items():
        for cell, estimate in beside(group, arms).items():
            said = known.get(cell, {}).get(group.metric)
            if said is not None:
                ratio, value = said
                assert estimate.ratio == pytest.approx(ratio, rel=1e-4)  # in nanoseconds
                if not METRICS[group.metric].added:
                    low, high = estimate.interval
                    assert low == pytest.approx(value.low or 0.0, rel=1e-3)
                    assert high == pytest.approx(value.high or float("inf"), rel=1e-3)
                checked += 1
    assert checked > 100


def test_another_baseline_turns_ratios_around(made: Run) -> None:
    """But for what the control says of the run's own baseline."""
    beside = by_baseline(made)
    pure = {c.entrant for c in made.section.cells if c.style == "pure"}
    assert set(beside) == pure
    there = beside[BASELINE[0]][Cell("haiku", "pure", "seed", "cpu")]["step"]
    back = beside["haiku"][Cell(*BASELINE, "seed", "cpu")]["step"]
    assert there[0] * back[0] == pytest.approx(1, rel=0.01)
    assert there[1].low is not None
    assert back[1].high == pytest.approx(1 / there[1].low, rel=0.05)


def test_each_chart_says_what_it_found(run: Run) -> None:
    drawn = figures(run)
    assert [figure.name for figure in drawn] == ["blocks", "startup"]
    for figure in drawn:
        spec = figure.chart.to_dict()
        assert figure.title
        assert len(figure.text) > 40
        encodings = json.dumps(spec)
        assert '"title": "' in encodings
        assert picture(figure).to_dict()["title"]["text"] == figure.title


def test_the_models_are_the_files() -> None:
    found = excerpts(["pure_jax", "equinox", "nobody's", "nobody"])
    assert list(found) == ["pure_jax", "equinox"]
    assert found["pure_jax"].startswith("def dense(")
    assert '"""' not in found["equinox"]
    assert "class CharRNN(eqx.Module):" in found["equinox"]
    assert "def build" not in found["equinox"]
    for text in found.values():
        ast.parse(text)


HOSTILE = "</script><script>alert(1)</script>\"'&\u2028{{ 7*7 }} 🦔"


def test_what_came_from_outside_stays_text(data: dict[str, Any], tmp_path: Path) -> None:
    for cell in data["bakeoff"]["cells"]:
        if cell["entrant"] == "haiku":
            cell["entrant"] = HOSTILE
    data["bakeoff"]["warnings"] = [HOSTILE]
    data["bakeoff"]["arguments"] = [HOSTILE]
    data["machine_info"]["node"] = HOSTILE
    for benchmark in data["benchmarks"]:
        if benchmark["extra_info"]["entrant"] == "haiku":
            benchmark["extra_info"]["entrant"] = HOSTILE
    made = page([read(saved(tmp_path, data))])
    assert "<script>alert(1)" not in made
    assert "{{ 7*7 }}" in made
    assert HOSTILE in {row[1] for row in parsed(made)["rows"]}
    assert json.loads(embedded({"a": HOSTILE})) == {"a": HOSTILE}
    assert "<" not in embedded({"a": HOSTILE})
    assert any(
        HOSTILE in json.dumps(spec, ensure_ascii=False) for spec in parsed(made, "specs")
    ) or (json.dumps(HOSTILE)[1:-1] in json.dumps(parsed(made, "specs")))


def put(value: Any, *path: str | int) -> Callable[[dict[str, Any]], None]:
    """Return what puts a value into a run file, or drops what is there if it is `...`."""

    def spoil(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value
        if value is ...:
            del data[path[-1]]

    return spoil


def test_what_is_no_run_is_one_clear_line(report: Callable[..., Done], tmp_path: Path) -> None:
    path = saved(tmp_path, "{")
    done = report(path, "-o", tmp_path / "page.html")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"bakeoff: {path} is not JSON (")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spoilt.json"]


def test_files_that_cannot_be_read_or_written(report: Callable[..., Done], tmp_path: Path) -> None:
    assert "nowhere.json cannot be read (No such file" in report("nowhere.json").err
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert "is not JSON" in report(tmp_path / "bytes.json").err
    there = tmp_path / "there.html"
    there.write_text("mine")
    done = report(PATH, "-o", there)
    assert (done.status, there.read_text()) == (2, "mine")
    assert "exists already" in done.err
    assert "there is no folder" in report(PATH, "-o", tmp_path / "no" / "page.html").err
    done = report(PATH, "-o", tmp_path / "page.pdf")
    assert "ends in .pdf; .html, .md, .json, .csv" in done.err


CELL = ("bakeoff", "cells", 1)


@pytest.mark.parametrize(
    "spoils",
    [
        [
            *(put(..., "bakeoff", name) for name in ("control", "warnings", "verdict")),
            *(put(..., "bakeoff", name) for name in ("environment", "spent", "samples")),
            put(..., "bakeoff", "plan", "margin"),
            put({}, "machine_info"),
            put(None, "commit_info"),
        ],
        [put([], "bakeoff", "cells")],
        [put([], "benchmarks"), put([], "bakeoff", "samples", "blocks")],
        [
            put(..., *CELL, "metrics", "step", "median"),
            put(None, *CELL, "proof"),
            put({}, *CELL, "exact"),
            put(None, *CELL, "final_loss"),
        ],
        [
            put("it <b>broke</b>", "bakeoff", "cells", 0, "failure"),
        ],
        [
            put(None, *CELL, "metrics", "step", "ratio"),
            put({}, "bakeoff", "cells", 2, "metrics"),
        ],
    ],
    ids=["section", "no cells", "no samples", "none", "failure", "parts"],
)
def test_what_is_missing_is_missing_and_no_more(
    spoils: list[Callable[[dict[str, Any]], None]], data: dict[str, Any], tmp_path: Path
) -> None:
    for spoil in spoils:
        spoil(data)
    run = read(saved(tmp_path, data))
    made = VEGA.sub("", page([run]))
    assert len(parsed(made)["rows"]) == len(data["bakeoff"]["cells"])
    assert "NaN" not in re.sub(r"<script>.*?</script>", "", made, flags=re.DOTALL)
    assert "nan" not in markdown(document(run)).split()


def test_a_hundred_thousand_calls(data: dict[str, Any], tmp_path: Path) -> None:
    """Of one step, in a block that is much larger than usual."""
    block = next(b for b in data["bakeoff"]["samples"]["blocks"] if "step" in b["nanoseconds"])
    for arm, calls in block["nanoseconds"]["step"].items():
        block["nanoseconds"]["step"][arm] = calls[:1] * 100_000
    made = page([read(saved(tmp_path, data))])
    assert len(made.encode()) < 3_000_000


PLAIN = {
    "benchmarks": [
        {"name": "test_a", "group": "g", "stats": {"median": 0.002, "rounds": 5}},
        {"name": "test_b<i>", "group": "g", "stats": {"median": 0.003, "rounds": 5}},
        {"name": "test_c", "group": None, "stats": {"median": 0.001, "rounds": 5}},
        {"name": "test_d", "group": None, "stats": {"rounds": 0}},
    ]
}


def test_a_plain_pytest_benchmark_file(tmp_path: Path, report: Callable[..., Done]) -> None:
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
    report: Callable[..., Done], run: Run, data: dict[str, Any], tmp_path: Path
) -> None:
    rows = list(csv.DictReader(io.StringIO(report(PATH, "--format", "csv").out)))
    objects = json.loads(report(PATH, "--format", "json").out)
    assert len(rows) == len(objects)
    steps = [o for o in objects if o["metric"] == "step"]
    assert len(steps) == len(run.section.cells)
    one = next(
        o for o in steps if (o["entrant"], o["style"], o["workload"]) == ("haiku", "pure", "seed")
    )
    [cell] = [c for c in run.section.cells if c.cell == Cell("haiku", "pure", "seed", "cpu")]
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


def test_details_and_text(report: Callable[..., Done], tmp_path: Path) -> None:
    short = report(PATH, "--format", "text").out
    every = report(PATH, "--details").out
    assert len(every) > 3 * len(short) > 0
    assert report(PATH, "--format", "text", "-o", tmp_path / "run.txt").status == 0
    whole = (tmp_path / "run.txt").read_text("utf-8")
    assert len(whole) > 3 * len(short)
    words = {word for word in every.split() if set(word) != {"─"}}
    assert words <= set(whole.split())
    done = report(PATH, "--details", "--format", "md")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)


def test_pictures_that_cannot_be_drawn_leave_no_page(
    report: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = report(PATH, "-o", tmp_path / "x.html", "--pictures", tmp_path / "file" / "pictures")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert not (tmp_path / "x.html").exists()


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


LOGS = sorted((ROOT / "results" / "training").glob("five-*.jsonl"))


def test_training_logs_become_a_picture_or_a_table(
    report: Callable[..., Done], tmp_path: Path
) -> None:
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
        ("[]", "is no training log"),
        ('{"run": {}}', "is no training log"),
        ('{"run": {"entrant": "haiku"}}', "has no epoch yet"),
        ('{"run": {"entrant": "haiku"}}\n{"epoch": 1}', "is no training log"),
    ],
)
def test_what_is_no_training_log(
    text: str, message: str, report: Callable[..., Done], tmp_path: Path
) -> None:
    path = saved(tmp_path, text, "log.jsonl")
    done = report(path, "-o", tmp_path / "curves.svg")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"bakeoff: {path} {message}")
    assert not (tmp_path / "curves.svg").exists()
    done = report(LOGS[0], "-o", tmp_path / "curves.pdf")
    assert "a picture's name ends in .svg or .png" in done.err


def test_training_draws_its_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--corpus", "toy", "--width", "8", "--chunk", "16", "--sample-every", "0")
    path = tmp_path / "curve.svg"
    assert main(["train", *small, "--epochs", "3", "--plot", str(path)]) == 0
    assert "pure_jax pure ends at" in path.read_text()
    capsys.readouterr()
    assert main(["train", *small, "--plot", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["train", *small, "--plot", str(tmp_path / "curve.txt")]) == 2
    assert "ends in .svg or .png" in capsys.readouterr().err


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


def committed_runs() -> Iterator[Run]:
    """Yield every committed run that a text may take ratios from."""
    for _, runs in result_pages.machines():
        yield from runs
    for path in sorted(result_pages.TUNED.glob("*/*.json")):
        if path.name != result_pages.LIMIT:
            yield read(path)


@pytest.mark.parametrize("path", result_pages.TEXTS, ids=lambda p: p.parent.name)
def test_ratios_in_prose_are_of_published_runs(path: Path) -> None:
    known = {
        str(Value.of_ratio(found))
        for run in committed_runs()
        for cell in run.section.cells
        for metric in cell.metrics
        if (found := cell.compared(metric))
    }
    said = RATIO.findall(
        result_pages.TABLE.sub("", path.read_text("utf-8")).split("## How it measures")[0]
    )
    assert set(said) <= known


@pytest.mark.parametrize("path", result_pages.TEXTS, ids=lambda p: p.parent.name)
def test_tables_are_of_their_runs(path: Path) -> None:
    text = path.read_text("utf-8")
    assert result_pages.refreshed(text) == text


def test_the_readme_shows_the_answer() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    [shown] = result_pages.TABLE.finditer(text)
    assert shown["what"] == "answer"
    assert 3 < shown[0].count("\n| ") - 2 <= answer.MOST_ROWS


def test_the_answer_is_a_small_table(made: Run) -> None:
    """From cheap to dear; who adds next to nothing shares a row."""
    head, _, base, *rows = answer.table(made.section).splitlines()
    assert head == "| style | added to a call | step, `toy` | step, `seed` | compile |"
    assert base.startswith("| **pure_jax** |")
    assert 1 + len(rows) <= answer.MOST_ROWS
    assert all(row.count("|") == head.count("|") for row in [base, *rows])
    cheap, *dear = rows
    assert "haiku" in cheap
    assert "at most" in cheap
    assert [row.split(" |")[0] for row in dear] == ["| flax_nnx jit"]  # 8 times as slow there
    assert re.search(r"\+(69|70)\d µs", dear[0])


def test_scripts_are_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_CACHE", str(tmp_path))
    made = parts.bundle.__wrapped__()
    [kept] = (tmp_path / "scripts").iterdir()
    assert "vegaEmbed" in gzip.decompress(base64.b64decode(made)).decode()
    kept.write_bytes(b"kept")
    assert base64.b64decode(parts.bundle.__wrapped__()) == b"kept"
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("in the way: nothing can be kept")
    assert parts.bundle.__wrapped__() == made
