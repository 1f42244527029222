"""`bakeoff report`: pages and tables of files, and what of them is published."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.cli.output import Output, finish
from bench.estimates import Estimate
from bench.report.documents import make_document
from bench.report.page import Anchors
from bench.report.summary import CAUSES, list_views
from bench.runfile.reader import read
from bench.runfile.writer import run_file, write
from results.picture import MATTERS, find_title
from tests.commands import ROOT, Bakeoff, script
from tests.report.runs import Planted, made_run
from tests.report.test_renderers import terminal
from tests.track.simulated import two_sides

SITE = script("results/publish.py")
MOST_LINES = 30
"""Lines of a default run at 80 columns: it is read without scrolling."""
MOST_WORDS = 700
"""Words of README.md that somebody reads before trying anything."""
MOST_BYTES = 10_000_000
"""Bytes of the site: what is published stays small."""
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


def test_a_page_of_a_measurement_says_when_it_was_made_one_of_files_does_not(
    tmp_path: Path,
) -> None:
    results = two_sides(1)
    for seconds in (0.0, 60.0):
        results.spent.wall_seconds = seconds
        file = tmp_path / f"{seconds}.md"
        finish(results, Output("md", file))
        minute = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", file.read_text("utf-8"))
        assert bool(minute) is bool(seconds)


def test_every_form_of_a_report(bakeoff: Bakeoff, tmp_path: Path, path: Path) -> None:
    given = str(path)
    done = bakeoff("report", given, "-o", "run.html")
    assert (done.status, done.out) == (0, "run.html\n")
    assert "Under one `jax.jit`" in done.err, "the answer stands beside the name of the page"
    assert "it &lt;b&gt;broke" in (tmp_path / "run.html").read_text("utf-8")
    assert bakeoff("report", given, "-o", "run.html").status == 0, "a page of ours is made anew"
    for mine in ("mine.html", "link.html"):
        (tmp_path / "mine.html").write_text("<p>mine</p>", encoding="utf-8")
        (tmp_path / "link.html").unlink(missing_ok=True)
        (tmp_path / "link.html").symlink_to("run.html")
        done = bakeoff("report", given, "-o", mine)
        assert (done.status, "never overwritten" in done.err) == (2, True)
    assert (tmp_path / "mine.html").read_text("utf-8") == "<p>mine</p>"
    assert bakeoff("report", given).out == bakeoff("report", given).out != ""
    (tmp_path / "other.json").write_bytes(path.read_bytes())
    assert bakeoff("report", given, "other.json", "-o", "both.html").status == 0
    html = (tmp_path / "both.html").read_text("utf-8")
    assert re.findall(r"<h1>(.*?)</h1>", html) == ["jax-bakeoff: run", "jax-bakeoff: other"]
    assert bakeoff("report", given, "-o", "run.txt").status == 0
    whole = bakeoff("report", given, "--format=text", "--details").out
    for text in ((tmp_path / "run.txt").read_text(), whole):
        assert "All numbers, width 128 on cpu" in text
    short = bakeoff("report", given, "--format=text").out
    assert "Under one jax.jit" in short
    assert "All numbers" not in short
    assert "| haiku/pure | ▲ +20" in bakeoff("report", given, "--format", "md").out


def test_the_address_of_this_project_reaches_commands_and_workflows() -> None:
    text = (
        "in a clone (there is no public address yet):\nuvx --from . bakeoff cost\n"
        "`OWNER` is this repository's owner. Replace `v1`.\n"
        "- uses: OWNER/jax-bakeoff/comment@v1\n- uses: actions/x@v1"
    )
    made = SITE.insert_address(text, "https://example.org/us/jax-bakeoff")
    assert made == (
        "from any folder:\nuvx --from git+https://example.org/us/jax-bakeoff bakeoff cost\n"
        "Replace `v1`.\n"
        "- uses: us/jax-bakeoff/comment@v1\n- uses: actions/x@v1"
    )
    assert SITE.insert_address(made, "https://example.org/us/jax-bakeoff") == made


@pytest.mark.parametrize(
    ("library", "style", "matters"), [(2e-5, 9e-4, True), (9e-4, 2e-5, False), (9e-4, 9e-4, False)]
)
def test_the_pictures_title_says_what_its_times_say(
    library: float, style: float, matters: bool
) -> None:
    arms = {"haiku/pure": Planted(host=library), "flax_nnx/jit": Planted(host=style)}
    [view] = list_views(made_run(arms, ("toy",)).results)
    assert (find_title(view) == MATTERS) is matters


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


def test_published_tables_are_of_their_files() -> None:
    """`make results` was called after the last change."""
    for path, parts in (
        (SITE.README, 3),
        (SITE.INDEX, 3),
        (SITE.COST, 1),
        (SITE.BESIDE, 2),
        (SITE.TRIALS, 2),
        (ROOT / "docs/why.md", 1),
        (SITE.TRACKING, 3),
    ):
        text = path.read_text("utf-8")
        assert SITE.insert_parts(path) == text
        assert len(SITE.PART.findall(text)) == parts
    words = re.sub("<!--.*?-->", "", SITE.README.read_text("utf-8")).split()
    assert len(words) <= MOST_WORDS
    match = SITE.ANSWER.search(SITE.README.read_text("utf-8"))
    shown = terminal(make_document(read(ROOT / match[1], samples=False)), 80)
    assert len(shown.splitlines()) <= MOST_LINES
    for place, made in SITE.libraries.make_pages(SITE.read_answer()).items():
        assert place.read_text("utf-8") == made
    pictures = SITE.draw_charts()
    assert len(pictures) == 3
    for place, drawn in pictures.items():
        assert place.read_text("utf-8") == drawn
    for name, made in (
        ("commands", SITE.describe_commands()),
        ("run-file", SITE.describe_run_file()),
    ):
        assert (ROOT / f"docs/{name}.md").read_text("utf-8") == made
        assert "Annotated" not in made, "users read plain types"


def test_every_link_of_the_site_leads_to_a_part_of_a_page(tmp_path: Path) -> None:
    """Each published run file and each Markdown file is a page, and no link is dead."""
    SITE.Builder(tmp_path, SITE.find_runs()).build()
    html = {path: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    parts = {path: set(re.findall(r' id="([^"]+)"', text)) for path, text in html.items()}
    assert len(html) > 25
    for cause in CAUSES:
        assert Anchors().make_id(cause) in parts[tmp_path / "docs/why.html"], cause
    assert "equinox-0.13.3" in parts[tmp_path / "results/libraries/equinox.html"], "a row's link"
    for path, text in html.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            address = urlsplit(link)
            if not address.scheme:
                target = (path.parent / address.path).resolve() if address.path else path
                assert target.is_file(), f"{path.relative_to(tmp_path)} leads to {link}"
                assert address.fragment in {"", *parts.get(target, ())}, link
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < MOST_BYTES


def test_figures_of_trainings_are_of_their_printed_losses() -> None:
    index, folder = SITE.INDEX.read_text("utf-8"), ROOT / "results/training"
    curve, shared = ((folder / f"{name}.txt").read_text() for name in ("curve", "same-weights"))
    losses = {int(n): float(loss) for n, loss in re.findall(r"epoch +(\d+)  loss (\S+)", curve)}
    rows = re.findall(r"^\| (\d+) .*\| ([\d.]+) \| ([\d.]+) \|$", index, re.MULTILINE)
    assert [(n, f"{losses[min(int(n), 149)]:.3f}") for n, *_ in rows] == [
        (n, here) for n, _, here in rows
    ]
    assert len(rows) == 5
    mean = sum(losses[n] for n in range(140, 150)) / 10
    assert f"| mean of 140 to 149 | | {mean:.3f} |" in index
    last = dict(
        re.findall(r"^(\w+)/pure.*?epoch +29  loss (\S+)", shared, re.MULTILINE | re.DOTALL)
    )
    assert len(last) == 6
    assert f"({last.pop('equinox')} in epoch 29)" in index
    [same] = {*last.values()}
    assert f"({same} in epoch 29)" in index
    [moved] = re.findall(r"epoch +29  loss (\S+)", (folder / "moved-weights.txt").read_text())
    assert f"(training/moved-weights.txt) ({moved})." in index
    assert f"Differences of {abs(float(moved) - float(same)):.2f} " in index
