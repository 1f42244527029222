"""`bakeoff report`: pages and tables of files, and what of them is published."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.cli.report import make_document
from bench.estimates import Estimate
from bench.report.page import page
from bench.runfile.writer import run_file, write
from tests.commands import Bakeoff, script
from tests.report.runs import Planted, made_run

PAGES = script("results/pages.py")
PICTURES = re.compile(r"data:image/svg[^\"]*")
"""Drawn with a machine's fonts."""
COLUMNS = [
    *("run", "when", "entrant", "style", "workload", "backend", "metric", "form", "value", "unit"),
    *("environment", "against", "low", "high", "standard_error", "df", "p", "verdict", "workers"),
    *("blocks", "settled_by", "level", "bound"),
]
"""Columns that readers of the CSV know; new ones come after them."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = {
        "haiku/pure": Planted(1.2, 1e-5),
        "flax_nnx/jit": Planted(1.5, 9e-4, missing={"trace": "not measured"}),
        "=1+1/pure": Planted(failure="it <b>broke</b>"),
    }
    results: Any = made_run(arms, ("toy", "seed")).results
    file = tmp_path_factory.mktemp("runs") / "run.json"
    write(file, run_file(results))
    return file


def test_every_form_of_a_report(bakeoff: Bakeoff, tmp_path: Path, path: Path) -> None:
    given = str(path)
    done = bakeoff("report", given)
    assert (done.status, done.out) == (0, "run.html\n")
    assert "it &lt;b&gt;broke" in (tmp_path / "run.html").read_text("utf-8")
    assert bakeoff("report", given).status == 2, "files are never overwritten"
    (tmp_path / "other.json").write_bytes(path.read_bytes())
    assert bakeoff("report", given, "other.json", "-o", "both.html").status == 0
    html = (tmp_path / "both.html").read_text("utf-8")
    assert re.findall(r"<h1>(.*?)</h1>", html) == ["jax-bakeoff: run", "jax-bakeoff: other"]
    assert bakeoff("report", given, "-o", "run.txt").status == 0
    for text in ((tmp_path / "run.txt").read_text(), bakeoff("report", given, "--format=text").out):
        assert "More about seed on cpu" in text
    assert "| haiku/pure | **1.2" in bakeoff("report", given, "--format", "md").out


def test_csv_has_a_row_for_each_estimate_and_columns_stay(bakeoff: Bakeoff, path: Path) -> None:
    text = bakeoff("report", str(path), "--format", "csv").out
    [*head, last] = text.partition("\n")[0].split(",")
    assert head[: len(COLUMNS)] == COLUMNS
    assert {*Estimate.__struct_fields__} - {"cell"} <= {*head}
    assert last == "missing"
    rows = list(csv.DictReader(io.StringIO(text)))
    measured = [float(row["value"]) for row in rows if not row["missing"]]
    estimates = json.loads(path.read_text())["bakeoff"]["estimates"]
    assert measured == [row["value"] for row in estimates]
    [step] = [r for r in rows if (r["style"], r["metric"], r["form"]) == ("jit", "step", "ratio")]
    assert (step["verdict"], step["against"]) == ("slower", "pure_jax/pure")
    missing = {row["missing"] for row in rows if not row["value"]}
    assert missing == {"failed: it <b>broke</b>", "not measured"}
    assert "'=1+1" in text
    assert not re.search(r"(^|,)=1", text), "a spreadsheet would compute it"


def test_published_pages_and_tables_are_of_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make results` was called after the last change; pictures are not drawn."""
    monkeypatch.setattr("bench.report.page.render_svg", lambda *_: "</svg>")
    for folder, runs in PAGES.folders():
        html = page(*map(make_document, runs))
        assert PICTURES.sub("", (folder / "page.html").read_text("utf-8")) == PICTURES.sub("", html)
        assert len(html.encode()) < 1_000_000
    readme = PAGES.README.read_text("utf-8")
    assert PAGES.insert_answer(readme) == readme
    assert PAGES.MARKED.search(readme)
