"""`bakeoff report`: the page and its other forms, from a run that was really measured."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bench import results
from bench.cells import BASELINE, Cell
from bench.cli import main
from bench.engine.actions import Options
from bench.engine.run_plan import Run as Planned
from bench.estimates import Group
from bench.report import choose, first, wording
from bench.report.charts import figures, picture
from bench.report.excerpts import excerpts
from bench.report.markdown import table
from bench.report.page import embedded, page, parts
from bench.report.ratios import by_baseline, stored
from bench.report.runs import NO_NUMBER, read, without_samples
from bench.report.sentences import brief, sentences
from bench.summary import section
from common.errors import BakeoffError
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report.runs import Run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "epyc-2-cores"
PATH = min(FOLDER.glob("*.json"))


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
    assert len(html.encode()) < 3_000_000


def test_the_verdict_is_the_run_s(html: str, run: Run) -> None:
    said = [*brief(run.section), *sentences(run.section)]
    assert 1 <= len(brief(run.section)) <= 4
    from markupsafe import escape

    for sentence in said:
        assert str(escape(sentence)) in html
    assert html.index(str(escape(said[0]))) < html.index('id="choose"') < html.index('id="main"')


def test_the_table_has_every_cell_and_what_the_run_says_of_it(html: str, run: Run) -> None:
    table = parsed(html)
    cells = run.section["cells"]
    assert [row[1:5] for row in table["rows"]] == [[c[n] for n in Cell._fields] for c in cells]
    names = [metric["name"] for metric in table["metrics"]]
    steps = names.index("step")
    assert len(names) == len(set(names))
    seen = 0
    for row, cell, ratios in zip(table["rows"], cells, table["ratios"][BASELINE[0]], strict=True):
        found = cell["metrics"]["step"]
        if "median" not in found:
            continue
        assert row[7][steps] == pytest.approx(found["median"], rel=1e-4)
        if found["ratio"] is not None:
            ratio, low, high, verdict = ratios[steps]
            expected = found["ratio"], found["low"], found["high"]
            assert (ratio, low, high) == pytest.approx(expected, rel=1e-4)
            verdicts = ["", "faster", "slower", "equivalent", "inconclusive"]
            assert verdicts[verdict] == found["verdict"]
            seen += 1
    assert seen > 10


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run file of this schema, by a machine that is made up."""
    wanted = needed(("toy", "seed"))
    plan = Planned(wanted, Options(600), lanes=LANES)
    Machine(noise=0.01).drive(plan)
    said = section(plan.state, wanted, margin=0.02, warnings=[], verdict=[])
    return saved(tmp_path_factory.mktemp("made"), {"benchmarks": [], "bakeoff": said})


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
                assert estimate.ratio == pytest.approx(said.ratio, rel=1e-4)  # in nanoseconds
                low, high = estimate.interval
                assert low == pytest.approx(said.low or 0.0, rel=1e-3)
                assert high == pytest.approx(said.high or float("inf"), rel=1e-3)
                checked += 1
    assert checked > 100


def test_another_baseline_turns_ratios_around(made: Run) -> None:
    """But for what the control says of the run's own baseline."""
    beside = by_baseline(made)
    pure = {c["entrant"] for c in made.section["cells"] if c["style"] == "pure"}
    assert set(beside) == pure
    there = beside[BASELINE[0]][Cell("haiku", "pure", "seed", "cpu")]["step"]
    back = beside["haiku"][Cell(*BASELINE, "seed", "cpu")]["step"]
    assert there.ratio * back.ratio == pytest.approx(1, rel=0.01)
    assert there.low is not None
    assert back.high == pytest.approx(1 / there.low, rel=0.05)


def test_every_situation_has_an_answer_with_its_rule(run: Run) -> None:
    found = choose.answers(run, "cpu")
    assert [answer.situation for answer in found] == [
        "A notebook with many short runs",
        "Long training of a small model",
        "Training at the tutorial's size",
        "A larger model: the widest measured",
        "Many recompilations: shapes that change",
        "Lowest memory",
        "Maintained and growing",
    ]
    assert all(answer.rule and answer.answer for answer in found)
    assert "haiku" not in found[-1].answer
    assert "in maintenance mode" in found[-1].evidence


def test_a_clear_winner_is_taken_and_a_tie_is_said() -> None:
    clear = {"a": (1.0, 1.0, 1.0), "b": (1.2, 1.1, 1.3), "c": (0.8, 0.75, 0.85)}
    answer = choose.ranked("s", "r", clear, 0.02)
    assert answer.answer == "c"
    assert answer.evidence.startswith("Best: c 0.80 (0.75–0.85). Behind: a")
    assert choose.ranked("s", "r", clear | {"d": (0.82, 0.78, 0.86)}, 0.02).answer == "c and d"
    # told apart, but surely within the margin: that is no reason to take the one and not the other
    near = {"a": (1.0, 1.0, 1.0), "b": (1.01, 1.005, 1.015), "c": (1.1, 1.05, 1.15)}
    assert choose.ranked("s", "r", near, 0.02).answer == "a and b"
    assert choose.ranked("s", "r", near, 0.01).answer == "a"
    close = {"a": (1.0, 1.0, 1.0), "b": (1.01, 0.99, 1.03)}
    assert choose.ranked("s", "r", close, 0.02).answer == "This run cannot tell"
    assert choose.ranked("s", "r", close, 0.05).answer == "It does not matter here"
    alone = {"a": (1.0, 1.0, 1.0), "b": (1.0, 0.0, math.inf)}
    assert choose.ranked("s", "r", alone, 0.02).answer == choose.NOT_MEASURED


def test_each_chart_says_what_it_found(run: Run) -> None:
    drawn = figures(run, "cpu")
    names = [figure.name for figure in drawn]
    assert names == ["blocks", "ledger", "totals", "widths", "curves", "initialisers"]
    for figure in drawn:
        spec = figure.chart.to_dict()
        assert figure.title
        assert len(figure.text) > 40
        encodings = json.dumps(spec)
        assert '"title": "' in encodings
        assert picture(figure).to_dict()["title"]["text"] == figure.title


def test_the_models_are_the_files(run: Run) -> None:
    found = {each.entrant: each for each in excerpts(["pure_jax", "equinox", "nobody's"])}
    assert list(found) == ["pure_jax", "equinox"]
    assert found["pure_jax"].model.startswith("def dense(")
    assert '"""' not in found["equinox"].model
    assert "class CharRNN(eqx.Module):" in found["equinox"].model
    assert "def build" not in found["equinox"].model
    assert found["equinox"].file == (ROOT / "impls" / "equinox.py").read_text("utf-8")
    import ast

    for each in found.values():
        ast.parse(each.model)


HOSTILE = "</script><script>alert(1)</script>\"'&\u2028{{ 7*7 }} 🦔"


def test_what_came_from_outside_stays_text(data: dict[str, Any], tmp_path: Path) -> None:
    for cell in data["bakeoff"]["cells"]:
        if cell["entrant"] == "haiku":
            cell["entrant"] = HOSTILE
    data["bakeoff"]["warnings"] = [HOSTILE]
    data["bakeoff"]["verdict"] = [HOSTILE]
    data["bakeoff"]["arguments"] = [HOSTILE]
    data["machine_info"]["node"] = HOSTILE
    for benchmark in data["benchmarks"]:
        if benchmark["extra_info"]["entrant"] == "haiku":
            benchmark["extra_info"]["entrant"] = HOSTILE
    made = page([read(saved(tmp_path, data))])
    assert "<script>alert(1)" not in made
    assert "{{ 7*7 }}" in made
    assert HOSTILE in {row[1] for row in parsed(made)["rows"]}
    assert any(
        HOSTILE in json.dumps(spec, ensure_ascii=False) for spec in parsed(made, "specs")
    ) or (json.dumps(HOSTILE)[1:-1] in json.dumps(parsed(made, "specs")))


def test_numbers_that_are_none_are_left_out(data: dict[str, Any], tmp_path: Path) -> None:
    cells = [cell for cell in data["bakeoff"]["cells"] if cell["workload"] == "seed"]
    before = [cell["proof"] for cell in data["bakeoff"]["cells"]].count(None)
    for cell, name in zip(cells[1:], ("loss", "gradient", "trajectory"), strict=False):
        cell["proof"][name] = None
    cells[1]["final_loss"]["same_weights"] = None
    cells[2]["metrics"]["step"]["ratio"] = 0
    cells[3]["metrics"]["step"]["ratio"] = "1.0"
    data["bakeoff"]["verdict"] = "fast"
    run = read(saved(tmp_path, data))
    assert run.section["verdict"] == []
    assert [cell["proof"] is None for cell in run.section["cells"]].count(True) == before + 3
    made = parsed(page([run]))
    assert len(made["rows"]) == len(data["bakeoff"]["cells"])


def test_embedded_data_cannot_end_its_script() -> None:
    text = embedded({"a": HOSTILE})
    assert "<" not in text
    assert json.loads(text) == {"a": HOSTILE}


def drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def spoil(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    spoil.__name__ = f"no {'-'.join(map(str, path))}"
    return spoil


def put(value: Any, *path: str | int) -> Callable[[dict[str, Any]], None]:
    def spoil(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    spoil.__name__ = f"{str(value)[:20]} as {'-'.join(map(str, path))}"
    return spoil


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON ("),
        ("{", "is not JSON ("),
        ("[1, 2]", "is JSON, but no run: it has no list of benchmarks; give what"),
        ('{"a": 1}', "is JSON, but no run"),
        ('{"benchmarks": 3}', "is JSON, but no run"),
        ('{"benchmarks": [], "bakeoff": {"schema": 1}}', "is a run of schema 1; schemas 2 and 3 "),
        ('{"benchmarks": [], "bakeoff": {"schema": 9}}', "install a newer jax-bakeoff"),
        (
            '{"benchmarks": [], "bakeoff": {"schema": 2}}',
            "is damaged: Object missing required field",
        ),
        ('{"benchmarks": [], "bakeoff": {"schema": 2, "cells": [{}]}}', "is damaged: KeyError"),
        ('{"benchmarks": [3], "bakeoff": null}', "is damaged: AttributeError"),
        ("[" * 100_000, "is not JSON ("),
    ],
)
def test_what_is_no_run_is_one_clear_line(
    content: str, message: str, report: Callable[..., Done], tmp_path: Path
) -> None:
    path = saved(tmp_path, content)
    done = report(path, "-o", tmp_path / "page.html")
    assert done.status == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"bakeoff: {path} ")
    assert message in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spoilt.json"]


def test_files_that_cannot_be_read_or_written(report: Callable[..., Done], tmp_path: Path) -> None:
    assert "nowhere.json cannot be read (No such file" in report("nowhere.json").err
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert "is not text" in report(tmp_path / "bytes.json").err
    there = tmp_path / "there.html"
    there.write_text("mine")
    done = report(PATH, "-o", there)
    assert (done.status, there.read_text()) == (2, "mine")
    assert "exists already" in done.err
    assert "there is no folder" in report(PATH, "-o", tmp_path / "no" / "page.html").err
    done = report(PATH, "-o", tmp_path / "page.pdf")
    assert "ends in .pdf; .html, .md, .json, .csv" in done.err


@pytest.mark.parametrize(
    "spoil",
    [
        drop("bakeoff", "control"),
        drop("bakeoff", "warnings"),
        put([], "bakeoff", "cells"),
        put([], "benchmarks"),
        put(None, "bakeoff", "cells", 1, "metrics", "step", "median"),
        put(float("nan"), "bakeoff", "cells", 1, "metrics", "step", "median"),
        put(None, "bakeoff", "cells", 1, "metrics", "step", "ratio"),
        put({}, "bakeoff", "cells", 1, "metrics"),
        put(None, "bakeoff", "cells", 1, "proof"),
        put({}, "bakeoff", "cells", 1, "exact"),
        put(None, "bakeoff", "cells", 1, "final_loss"),
        put("it <b>broke</b>", "bakeoff", "cells", 0, "failure"),
        put({}, "machine_info"),
        put(None, "commit_info"),
        put([], "benchmarks", 0, "stats", "data"),
        put([float("nan")], "benchmarks", 0, "stats", "data"),
        put([0] * 9, "benchmarks", 0, "extra_info", "rounds_by_block"),
        put([], "benchmarks", 0, "extra_info", "number_by_block"),
        put(None, "bakeoff", "plan", "margin"),
        drop("bakeoff", "verdict"),
        drop("bakeoff", "environment"),
        drop("bakeoff", "spent"),
        put([1e-3] * 100_000, "benchmarks", 0, "stats", "data"),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_missing_is_missing_and_no_more(
    spoil: Callable[[dict[str, Any]], None],
    data: dict[str, Any],
    tmp_path: Path,
    html: str,
) -> None:
    spoil(data)
    made = page([read(saved(tmp_path, data))])
    rows = parsed(made)["rows"]
    assert len(rows) == len(data["bakeoff"]["cells"])
    assert "NaN" not in re.sub(r"<script>.*?</script>", "", made, flags=re.DOTALL)


def test_what_cannot_be_a_time_is_none(data: dict[str, Any], tmp_path: Path) -> None:
    put(-1.0, "bakeoff", "cells", 1, "metrics", "step", "median")(data)
    run = read(saved(tmp_path, data))
    assert run.section["cells"][1]["metrics"]["step"] == {"missing": NO_NUMBER}
    assert "-1.00" not in table(run.section)


def test_a_hundred_thousand_rounds(data: dict[str, Any], tmp_path: Path) -> None:
    """Of one step, in blocks that are much larger than usual."""
    for benchmark in data["benchmarks"]:
        info = benchmark["extra_info"]
        if info["metric"] == "step" and info["workload"] == "seed":
            rounds = 100_000 // 4 // len(info["rounds_by_block"])
            info["rounds_by_block"] = [rounds] * len(info["rounds_by_block"])
            info["samples_by_block"] = [4 * rounds] * len(info["rounds_by_block"])
            total = sum(info["samples_by_block"])
            benchmark["stats"]["data"] = [benchmark["stats"]["median"]] * total
    data["bakeoff"]["control"] = []
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
    assert table["ratios"][table["bases"][0]][1][0][0] == 1.5
    assert "Which library for me?" not in made
    assert "There is no verdict in this file" in made
    done = report(path, "--format", "md")
    assert done.out.splitlines()[3] == r"| test_b\<i\> | g | 3.00 ms | 1.50 |"


def test_csv_and_json_have_a_row_for_each_cell_and_metric(
    report: Callable[..., Done], run: Run
) -> None:
    rows = list(csv.DictReader(io.StringIO(report(PATH, "--format", "csv").out)))
    objects = json.loads(report(PATH, "--format", "json").out)
    assert len(rows) == len(objects)
    steps = [o for o in objects if o["metric"] == "step"]
    assert len(steps) == len(run.section["cells"])
    one = next(
        o for o in steps if (o["entrant"], o["style"], o["workload"]) == ("haiku", "pure", "seed")
    )
    cell = next(
        c
        for c in run.section["cells"]
        if (c["entrant"], c["style"], c["workload"]) == ("haiku", "pure", "seed")
    )
    assert one["ratio"] == cell["metrics"]["step"]["ratio"]
    measured = [row for row in rows if not row["missing"]]
    assert {row["unit"] for row in measured if row["metric"] == "peak_rss"} == {"B"}


def test_csv_is_no_formula(
    data: dict[str, Any], tmp_path: Path, report: Callable[..., Done]
) -> None:
    data["bakeoff"]["cells"][1]["entrant"] = "=1+1"
    out = report(saved(tmp_path, data), "--format", "csv").out
    assert "'=1+1" in out
    assert not re.search(r"(^|,)=1", out)


def test_the_report_needs_no_jax(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['jax'] = sys.modules['flax'] = None\n"
        "from bench.cli import main\n"
        f"sys.exit(main(['report', {str(PATH)!r}, '-o', {str(tmp_path / 'page.html')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_several_runs_in_one_page(run: Run) -> None:
    made = page([run, run])
    table = parsed(made)
    assert len(table["rows"]) == 2 * len(run.section["cells"])
    assert table["runs"] == [run.name] * 2
    assert "All 2 runs in this page" in made


def test_without_samples_a_run_says_the_same(run: Run, made: Run, made_up: Path) -> None:
    assert read(PATH, samples=False) == replace(run, samples={})
    assert read(made_up, samples=False) == replace(made, samples={})
    assert made.samples


@pytest.mark.parametrize("value", [0, -1000, None, "1000", True])
def test_a_sample_that_is_none_is_left_out(value: Any, made_up: Path, tmp_path: Path) -> None:
    data = json.loads(made_up.read_text("utf-8"))
    steps = [b for b in data["bakeoff"]["samples"]["blocks"] if "step" in b["nanoseconds"]]
    steps[0]["nanoseconds"]["step"]["haiku/pure"][0] = value
    del data["bakeoff"]["control"]
    run = read(saved(tmp_path, data))
    name = f"haiku-pure-{steps[0]['workload']}-cpu (step)"
    assert run.lacking == [f"Samples of {name} do not fit together and are left out."]
    assert Cell("pure_jax", "pure", "seed", "cpu") in run.samples[Group("step", "seed", "cpu")]


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_number_that_is_none_is_none_without_samples_too(number: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    text = PATH.read_text("utf-8").replace(
        '"sampling_share": 0.', f'"sampling_share": {number}, "x": 0.'
    )
    assert number in text
    path.write_text(text, encoding="utf-8")
    assert without_samples(path.read_bytes()) is None
    assert read(path, samples=False).section["spent"]["sampling_share"] is None


@pytest.mark.parametrize("text", ["[1", "{}", '{"benchmarks": 3}', '{"benchmarks": [3]}', "é"])
def test_what_is_no_run_has_the_same_words_without_samples(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text, encoding="latin-1")
    said = []
    for samples in (True, False):
        with pytest.raises(BakeoffError) as caught:
            read(path, samples=samples)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.slow
def test_the_page_of_a_large_run_is_small(
    data: dict[str, Any], many: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run = read(saved(tmp_path, many(data, 5, 10, 4)))
    made = page([run])
    assert len(parsed(made)["rows"]) == 200
    assert len(made.encode()) < 3_000_000


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


def test_pages_are_of_their_runs() -> None:
    """`make results` was called after the last change."""
    for folder, runs in results.machines():
        assert (folder / results.PAGE).read_text("utf-8") == page(
            runs, results.limits(folder, runs)
        ), folder.name
        for figure in figures(runs[0], "cpu", runs[1:]):
            drawn = io.StringIO()
            picture(figure).save(drawn, format="svg")
            path = folder / results.PICTURES / f"{figure.name}.svg"
            # what marks say of their data; where words stand depends on the fonts of a machine
            assert LABEL.findall(path.read_text("utf-8")) == LABEL.findall(drawn.getvalue())
            assert path.with_suffix(".png").stat().st_size > 2000


def test_pages_of_histories_are_of_their_histories() -> None:
    found = list(results.histories())
    assert found
    for folder, history in found:
        assert (folder / results.PAGE).read_text("utf-8") == results.history_page(history), (
            folder.name
        )
        for figure in results.changed(history):
            drawn = io.StringIO()
            picture(figure).save(drawn, format="svg")
            path = folder / results.PICTURES / f"{figure.name}.svg"
            assert LABEL.findall(path.read_text("utf-8")) == LABEL.findall(drawn.getvalue())


def test_pages_of_bisections_are_of_their_bisections() -> None:
    for path, found in results.bisections():
        assert path.with_suffix(".html").read_text("utf-8") == results.bisection_page(found), (
            path.name
        )


@pytest.mark.parametrize("path", results.TEXTS, ids=lambda p: p.parent.name)
def test_ratios_in_prose_are_of_published_runs(path: Path) -> None:
    known = {
        wording.ratio(found)
        for run in results.published()
        for cell in run.section["cells"]
        for metric in cell["metrics"]
        if (found := wording.measured(cell, metric)) and found.get("ratio")
    }
    said = RATIO.findall(
        results.TABLE.sub("", path.read_text("utf-8")).split("## How it measures")[0]
    )
    assert said
    assert set(said) <= known


@pytest.mark.parametrize("path", results.TEXTS, ids=lambda p: p.parent.name)
def test_tables_are_of_their_runs(path: Path) -> None:
    text = path.read_text("utf-8")
    assert results.refreshed(text) == text


def test_the_readme_shows_the_answer() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    [shown] = results.TABLE.finditer(text)
    assert shown["what"] == "answer"
    assert 3 < shown[0].count("\n| ") - 2 <= first.MOST_ROWS


def test_the_answer_is_a_small_table(made: Run) -> None:
    """From cheap to dear; who adds next to nothing shares a row."""
    head, _, base, *rows = first.table(made.section).splitlines()
    assert head == "| style | added to a call | step, `toy` | step, `seed` | compile |"
    assert base.startswith("| **pure_jax** |")
    assert 1 + len(rows) <= first.MOST_ROWS
    assert all(row.count("|") == head.count("|") for row in [base, *rows])
    cheap, *dear = rows
    assert "haiku" in cheap
    assert "at most" in cheap
    assert [row.split(" |")[0] for row in dear] == ["| flax_nnx jit"]  # 8 times as slow there
    assert re.search(r"\+(69|70)\d µs", dear[0])


def test_an_empty_table_is_filled() -> None:
    text = f"<!-- table {PATH.relative_to(ROOT)} -->\n<!-- end -->"
    assert "| [pure_jax](impls/pure_jax.py) `pure` |" in results.refreshed(text)


def test_a_table_that_is_not_its_run_s_is_seen() -> None:
    text = f"<!-- table {PATH.relative_to(ROOT)} -->\n\nwrong\n\n<!-- end -->"
    assert "wrong" not in results.refreshed(text)


def test_scripts_are_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEOFF_CACHE", str(tmp_path))
    made = parts.bundle.__wrapped__()
    [kept] = (tmp_path / "scripts").iterdir()
    assert kept.read_text("utf-8") == made
    assert "vegaEmbed" in made
    assert "</script" not in made
    kept.write_text("kept")
    assert parts.bundle.__wrapped__() == "kept"
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("in the way: nothing can be kept")
    assert parts.bundle.__wrapped__() == made
