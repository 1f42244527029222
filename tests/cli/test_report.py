"""`bakeoff report`: pages, tables and pictures of files."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench import result_pages
from bench.runfile.writer import run_file, write
from tests.report.runs import Planted, made_run

if TYPE_CHECKING:
    from tests.commands import Bakeoff

ROOT = Path(__file__).parents[2]
PICTURES = re.compile(r"data:image/svg[^\"]*")
"""Drawn with a machine's fonts."""


@pytest.fixture
def report(bakeoff: Bakeoff) -> Bakeoff:
    """Return what calls `bakeoff report`."""
    return lambda *arguments: bakeoff("report", *map(str, arguments))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run file."""
    arms = {
        "haiku/pure": Planted(1.2, 1e-5),
        "flax_nnx/jit": Planted(1.5, 9e-4, missing={"trace": "not measured"}),
        "=1+1/pure": Planted(failure="it <b>broke</b>"),
    }
    run = made_run(arms, ("toy", "seed"))
    results: Any = run.results
    file = tmp_path_factory.mktemp("runs") / "run.json"
    write(file, run_file(results))
    return file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json"], "nowhere.json cannot be read (No such file"),
        (["bytes.json"], "is not JSON"),
        (["broken.json", "-o", "page.html"], "broken.json is not JSON ("),
        (["other.json"], "other.json is no run of jax-bakeoff"),
        (["old.json"], "old.json is a run of schema 3; schema 4 is read"),
        (["RUN", "-o", "broken.json"], "exists already"),
        (["RUN", "-o", "no/page.html"], "there is no folder"),
        (["RUN", "-o", "page.pdf"], "ends in .pdf; .html, .htm, .txt, .text, .md, .markdown"),
        (["RUN", "-o", "page.html", "--pictures", "broken.json/pictures"], "--pictures"),
        (["RUN", "--details", "--format", "md"], "--details is for text"),
        (["RUN", "--format", "parquet"], "parquet"),
        (["RUN", "--limit", "limit.json"], "No such option: --limit"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_leaves_nothing(
    arguments: list[Any], message: str, report: Bakeoff, tmp_path: Path, path: Path
) -> None:
    files = {
        "broken.json": b"{",
        "bytes.json": b"\xff\xfe\x00",
        "other.json": b'{"a": 1}',
        "old.json": b'{"bakeoff": {"schema": 3}}',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = report(*[path if a == "RUN" else a for a in arguments])
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_a_page_is_the_default(report: Bakeoff, tmp_path: Path, path: Path) -> None:
    done = report(path)
    assert (done.status, done.out) == (0, "run.html\n")
    html = (tmp_path / "run.html").read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert "it &lt;b&gt;broke" in html
    assert report(path).status == 2, "files are never overwritten"


def test_several_files_are_parts_of_one_page_with_pictures_of_each(
    report: Bakeoff, tmp_path: Path, path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    assert report(path, other, "-o", "both.html", "--pictures", "pictures").status == 0
    html = (tmp_path / "both.html").read_text("utf-8")
    assert re.findall(r"<h1>(.*?)</h1>", html) == ["jax-bakeoff: run", "jax-bakeoff: other"]
    names = {file.stem for file in (tmp_path / "pictures").iterdir()}
    assert names == {"run-steps", "run-startup", "other-steps", "other-startup"}


def test_text_and_markdown(report: Bakeoff, tmp_path: Path, path: Path) -> None:
    short, every = report(path, "--format", "text").out, report(path, "--details").out
    assert len(every) > 2 * len(short) > 0
    assert report(path, "-o", "run.txt").status == 0
    whole = (tmp_path / "run.txt").read_text("utf-8")
    assert {word for word in every.split() if set(word) != {"─"}} <= set(whole.split())
    markdown = report(path, "--format", "md").out
    assert "| haiku | **1.2" in markdown
    assert "<b>" not in markdown


def test_csv_and_json_have_a_row_for_each_estimate(report: Bakeoff, path: Path) -> None:
    text = report(path, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(text)))
    objects = json.loads(report(path, "--format", "json").out)
    assert len(rows) == len(objects)
    estimates = json.loads(path.read_text())["bakeoff"]["estimates"]
    measured = [row for row in objects if "missing" not in row]
    assert [row["value"] for row in measured] == [row["value"] for row in estimates]
    [step] = [r for r in rows if (r["style"], r["metric"], r["form"]) == ("jit", "step", "ratio")]
    assert (step["verdict"], step["against"]) == ("slower", "pure_jax/pure")
    missing = {row["missing"] for row in rows if not row["value"]}
    assert missing == {"failed: it <b>broke</b>", "not measured"}
    assert "'=1+1" in text
    assert not re.search(r"(^|,)=1", text), "a spreadsheet would compute it"


@pytest.mark.parametrize("kind", ["ab", "bisect", "history"])
def test_each_kind_of_file_is_shown_by_the_command_that_wrote_it(
    kind: str, path: Path, report: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    from bench.report.table import Document

    data = json.loads(path.read_text())
    data["bakeoff"]["kind"] = kind
    (tmp_path / "file.json").write_text(json.dumps(data))
    module = importlib.import_module(f"bench.track.{kind}")
    monkeypatch.setattr(module, "document", lambda results: Document("", headline=results.kind))
    assert report("file.json", "--format", "text").out.strip() == kind


def test_a_report_needs_no_jax_and_nothing_slow(tmp_path: Path, path: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['jax', 'flax', 'haiku', 'equinox', 'altair'])\n"
        "from bench.cli import main\n"
        f"status = main(['report', {str(path)!r}, '-o', {str(tmp_path / 'page.html')!r}])\n"
        "sys.exit(status or 'scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "page.html")


# what is published


def test_the_answer_is_a_small_table() -> None:
    """From cheap to dear; who adds next to nothing shares a row; no more rows than fit."""
    arms = {
        "haiku/pure": Planted(host=1e-6),
        "flax_linen/pure": Planted(host=3e-6),
        "pure_jax/tuned": Planted(0.5),
        "equinox/pure": Planted(host=3e-5),
        "equinox/filter_jit": Planted(1.1, host=1.4e-4),
        "flax_linen/train_state": Planted(host=2e-5),
        "flax_linen/blog": Planted(2.0, host=2e-3),
        **{f"flax_nnx/style{i}": Planted(1.2, host=1e-4 * i) for i in range(1, 9)},
    }
    table = result_pages.answer(made_run(arms, ("toy", "seed"), cold=0))
    rows = [str(row.cells[0]) for row in table.rows]
    assert rows == [
        "pure_jax `pure` (times)",
        "haiku `pure`, flax_linen `pure`",
        *("equinox `pure`", "flax_nnx `style1`", "equinox `filter_jit`", "flax_nnx `style6`"),
        *("flax_nnx `style7`", "flax_nnx `style8`"),
    ]
    assert table.rows[1].cells[1:] == ("at most 4 µs", "within ±2 %")
    assert str(table.rows[-1].cells[2]) == "1.20"


def test_published_pages_and_tables_are_of_their_files() -> None:
    """`make results` was called after the last change."""
    for folder, runs in result_pages.folders():
        html = result_pages.page_of(runs)
        assert PICTURES.sub("", (folder / "page.html").read_text("utf-8")) == PICTURES.sub("", html)
        assert len(html.encode()) < 1_000_000
    readme = result_pages.README.read_text("utf-8")
    assert result_pages.with_answer(readme) == readme
    assert result_pages.MARKED.search(readme)


def test_a_text_keeps_its_table_until_the_run_is_published() -> None:
    text = "a\n<!-- answer results/nowhere.json -->\nold\n<!-- end -->\nb"
    assert result_pages.with_answer(text) == text
