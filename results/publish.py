"""`make results`: tables in Markdown, made anew from the published files, and the site of them.

README.md has the answer of a run, between `<!-- answer FILE -->` and `<!-- end -->`, and rows of
its table; other parts of that form are the published runs, costs, and what trials of other tools
say. `pages.py` makes the site, in `site/`.
"""

from __future__ import annotations

import ast
import html
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from bench import runfile
from bench.estimates import Estimate
from bench.metrics import label
from bench.numbers import words
from bench.options import ABOUT, Options
from bench.report.charts import render_svg
from bench.report.documents import make_document
from bench.report.documents.history import describe_change
from bench.report.documents.run import describe_origin, explain_marks
from bench.report.markdown import escape_text, table_lines
from bench.report.summary import list_views, make_headline, make_summary_table, name_device
from bench.report.table import Figure, Table
from bench.runfile.reader import NotARunError, Run, read
from bench.samples import Proof
from bench.stats.changes import log_ratio
from bench.track.comparison import order_releases
from bench.track.timeline import Timeline
from bench.wording import name_workload, sentence
from bench.worker.settings import ROOT
from results import libraries
from results.beside import tables
from results.beside.scores import read_rows
from results.beside.usage import describe_tools
from results.cost import parts, stacks
from results.pages import CARD, INDEX, README, TRACKING, Builder
from results.picture import describe_styles, draw_card, draw_styles, find_title
from results.tracking import weeks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MADE = "<!-- made by `make results` -->\n"
"""First line of a reference that is made from the code."""
STRUCTS = (
    *(runfile.ResultsWithSamples, runfile.Results, runfile.RunOptions, Options),
    *(
        runfile.EnvironmentInfo,
        runfile.Conditions,
        runfile.TimeSpent,
        runfile.CellResult,
        Proof,
        Estimate,
    ),
    *(runfile.Series, runfile.SampleRow, runfile.SearchRecord, runfile.SearchStep),
)
"""Structures of a run file, from the outside in."""
FOLDER = ROOT / "results"
PICTURE = FOLDER / "styles.svg"
BESIDE, COST = (FOLDER / name / "README.md" for name in ("beside", "cost"))
TRIALS = FOLDER / "beside/trials.md"
SITE = ROOT / "site"
PART = re.compile(r"(<!-- (\w+)((?: [^>]+)?) -->\n).*?(<!-- end -->)", re.DOTALL)
"""A part that is made: its name, and the words that its maker takes."""
ANSWER = re.compile(r"<!-- answer (\S+) -->")
ROW_NAME = re.compile(r"^\| ([a-z_]+)/([a-z_]+) \|", re.MULTILINE)
"""A style that names a row of a table."""
ADDRESSES = {
    re.compile(r"(?<=uvx --from )\S+(?= bakeoff)"): "git+{url}",
    re.compile(r"in a clone \(there is no public address yet\)"): "from any folder",
    re.compile(r"`OWNER` is this repository's owner[.;] ?"): "",
    re.compile(r"`SOURCE` is `git\+` and this repository's URL, or the path of a clone\. "): "",
    re.compile(r"(?<=uses: )\S+(?=/jax-bakeoff(?:/comment)?@v1)"): "{owner}",
}
"""Pattern of this project's address in a text → what stands there."""


# tables in Markdown


def insert_parts(path: Path) -> str:
    """Return a Markdown file whose parts, each from its name to `<!-- end -->`, are made anew.

    The styles that name rows lead to their files.
    """
    impls = os.path.relpath(ROOT / "impls", path.parent)

    def make(part: re.Match[str]) -> str:
        lines = "\n".join([part[1], *MAKERS[part[2]](*part[3].split()), "", part[4]])
        return ROW_NAME.sub(rf"| [\1/\2]({impls}/\1.py) |", lines)

    return PART.sub(make, path.read_text("utf-8"))


def answer_run(file: str) -> Iterator[str]:
    """Yield the answer of a run or a history; the published searches name its releases."""
    searches = [run.results.search for run in find_runs().values() if run.results.kind == "bisect"]
    yield f"**{make_document(read(ROOT / file, samples=False), searches).headline}**"


def tabulate_run(file: str, *styles: str) -> Iterator[str]:
    """Yield the rows of some styles in a run's table of steps and calls, and where it was made."""
    run = read(ROOT / file, samples=False)
    table = make_summary_table(list_views(run.results)[0])
    titles = ("style", "step", "added")
    kept = [i for i, c in enumerate(table.columns) if c.title.startswith(titles)]
    if unknown := set(styles) - {row.cells[0] for row in table.rows}:
        raise SystemExit(f"{run.name} has no row of {', '.join(sorted(unknown))}")
    rows = (
        replace(row, cells=tuple(row.cells[i] for i in kept))
        for row in table.rows
        if row.cells[0] in styles
    )
    yield from table_lines(Table(tuple(table.columns[i] for i in kept), tuple(rows)))
    yield f"\n{' '.join(explain_marks(run.results))} {describe_origin(run)}."


def show_picture(file: str) -> Iterator[str]:
    """Yield the picture of a run's styles, below what it shows."""
    view = list_views(read(ROOT / file, samples=False).results)[0]
    yield f"{find_title(view)}:\n"
    yield f"![{describe_styles(view)}](results/{PICTURE.name})"


def list_runs() -> Iterator[str]:
    """Yield a table of the published run files: when, where and by which command each was made."""
    yield "| run | day | machine | command |\n|---|---|---|---|"
    for path, run in find_runs().items():
        if path.parent == weeks.FOLDER:  # the page of tracking has a table of these
            continue
        where = path.relative_to(FOLDER).as_posix()
        machine = re.sub(r"\(R\)| Processor| CPU", "", run.processor.partition(" (")[0])
        command = run.results.make_command()
        yield f"| [{where}]({where}) | {run.when[:10]} | {machine} | `{command}` |"


def find_runs() -> dict[Path, Run]:
    """Return the published run files that pages are made of, the newest first.

    They are not those of the tests of the measurements.
    """
    runs = {}
    for path in sorted([*FOLDER.glob("*/*.json"), *weeks.FOLDER.glob("*.json")]):
        try:
            runs[path] = read(path, samples=False)
        except NotARunError:
            continue
    return dict(sorted(runs.items(), key=lambda item: item[1].when, reverse=True))


def list_costs() -> Iterator[str]:
    """Yield the table of what styles add to a call of models of several sizes."""
    kept = stacks.read_stacks()
    yield from table_lines(stacks.make_costs_table(kept))
    yield f"\n{stacks.describe_origin(kept)}"


def list_trials() -> Iterator[str]:
    """Yield the tables of trials of other tools."""
    yield from tables.describe_trials(read_rows())


def answer_trials() -> Iterator[str]:
    """Yield what the trials of other tools show."""
    yield from tables.describe_answer(read_rows())


def list_scores() -> Iterator[str]:
    """Yield the table of the main trials."""
    yield from table_lines(tables.make_answer_table(read_rows()))


def list_tools() -> Iterator[str]:
    """Yield the table of how these tools are used."""
    yield from table_lines(describe_tools(read_rows()))


def list_parts() -> Iterator[str]:
    """Yield the table of the parts of a call."""
    yield from table_lines(parts.make_parts_table())


def list_releases(*files: str) -> Iterator[str]:
    """Yield the table of releases that searches found, and what histories show of each.

    The largest effect comes first; what a later release took back comes last.
    """
    searches = {
        path: run.results.search
        for path, run in find_runs().items()
        if path.parent == TRACKING.parent and run.results.kind == "bisect"
    }
    seen: dict[int, dict[str, list[str]]] = {id(search): {} for search in searches.values()}
    repaired = set()
    for file in files:
        history = Timeline(read(ROOT / file, samples=False).results, searches.values())
        for change in history.distinct_changes:
            what, styles, growth, between = describe_change(change, history)
            back = f", undone by {change.repair[0].environment}" if change.repair else ""
            for effect in history.find_effects(change.rows):
                days = seen[id(effect.search)].setdefault(f"{between}{back}", [])
                days.append(f"{what}: {growth}, {styles}")
                repaired |= {id(effect.search)} if change.repair else set()

    def rank(path: Path) -> tuple[bool, float]:
        search = searches[path]
        return id(search) in repaired, -abs(log_ratio(search.steps[-1].row))

    yield "| release | effect | search took |\n|---|---|---|"
    for path in sorted(searches, key=rank):
        search = searches[path]
        (_, new), row = order_releases(search.releases, search.steps[-1].row)
        what = (
            f"{label(search.metric)} of {search.cell.arm} at {name_workload(search.cell.workload)}"
        )
        texts = (f"{'; '.join(rows)}; {days}" for days, rows in seen[id(search)].items())
        shown = escape_text("; ".join(texts)) or "no change between steady periods"
        text = f"**{what}: {words(row)}**; in the history, {shown}"
        yield f"| {search.package} {new} | {text} | [{search.seconds:.0f} s]({path.name}) |"


def list_weeks() -> Iterator[str]:
    """Yield the tables of the tracked weeks, and of all of them together."""
    tracked = weeks.read_weeks()
    yield f"{weeks.describe_weeks(tracked)}\n"
    yield from weeks.make_weeks_table(tracked)
    yield f"\n{weeks.describe_agreement(tracked)}\n"
    yield from weeks.make_chain_table(tracked)


MAKERS: dict[str, Callable[..., Iterator[str]]] = {
    "answer": answer_run,
    "picture": show_picture,
    "table": tabulate_run,
    "runs": list_runs,
    "costs": list_costs,
    "beside": answer_trials,
    "scores": list_scores,
    "trials": list_trials,
    "tools": list_tools,
    "parts": list_parts,
    "releases": list_releases,
    "weeks": list_weeks,
}
"""Name of a part → the function that yields its lines."""


def read_answer() -> Run:
    """Return the run whose answer README.md has."""
    match = ANSWER.search(README.read_text("utf-8"))
    assert match is not None
    return read(ROOT / match[1], samples=False)


def insert_address(text: str, url: str) -> str:
    """Return a text with this project's address wherever a command or a workflow needs it."""
    owner = url.removesuffix(".git").rstrip("/").split("/")[-2]
    for pattern, form in ADDRESSES.items():
        text = pattern.sub(form.format(url=url, owner=owner), text)
    return text


def draw_charts() -> dict[Path, str]:
    """Return the charts of trials of other tools and of the parts of a call, by their places."""
    charts = {
        BESIDE.with_name(f"{name}.svg"): chart
        for name, chart in tables.draw_charts(read_rows()).items()
    }
    charts[COST.with_name("parts.svg")] = parts.draw_parts()
    return {path: render_svg(Figure(path.stem, "", chart)) for path, chart in charts.items()}


# the reference, made from the code


def describe_commands() -> str:
    """Return the reference of all commands, as pytest and Typer make it of their help."""
    options = run_python("pytest", "bench", "--help")
    [benchmarks] = re.findall(r"^jax-bakeoff: .*\n((?:  .*\n)+)", options, re.MULTILINE)
    text = html.unescape(run_python("typer", "bench.cli", "utils", "docs", "--name", "bakeoff"))
    text = re.sub(r"</?span[^>]*>", "`", text).partition("\n")[2]
    text = re.sub(r"^Examples:\n((?:\S.*\n)+)", r"```\n\1```\n", text, flags=re.MULTILINE)
    bench = f"## `pytest bench`\n\nFrom a clone of the repository.\n\n```\n{benchmarks}```"
    return f"{MADE}# Commands\n{text.rstrip()}\n\n{bench}\n"


def run_python(*words: str) -> str:
    """Return what a module of this environment prints, called from the project's folder."""
    command, env = [sys.executable, "-m", *words], os.environ | {"COLUMNS": "100"}
    return subprocess.run(  # noqa: S603 -- our own words
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=env
    ).stdout


def describe_run_file() -> str:
    """Return the reference of the run file: its structures, their fields, and what these mean."""
    lines = [
        f"{MADE}# The run file",
        "",
        "A run file is pytest-benchmark's JSON. Its key `bakeoff` has everything else, as a "
        f"structure `{STRUCTS[0].__name__}`. Commands other than `pytest bench` write the same "
        "file, without benchmarks.",
    ]
    for struct in STRUCTS:
        lines += ["", f"## {struct.__name__}", "", inspect.getdoc(struct) or "", ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        meanings = read_meanings(struct)
        if struct is Options:
            meanings = {name: about["help"] for name, about in ABOUT.items()}
        for name, kind in struct.__annotations__.items():
            plain = re.sub(r"^Annotated\[(.*?),.*\]$", r"\1", str(kind))
            alternatives = plain.replace("|", "or")
            lines.append(f"| `{name}` | `{alternatives}` | {meanings.get(name, '')} |")
    return "\n".join(lines) + "\n"


def read_meanings(struct: type) -> dict[str, str]:
    """Return field → the text that stands below it in the code."""
    [definition] = ast.parse(inspect.getsource(struct)).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for field, text in pairwise(definition.body):
        match field, text:
            case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(words))):
                meanings[name] = " ".join(words.split())
    return meanings


def main() -> None:
    """Make the tables and the site anew."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    url = urls.get("Source", "")
    for path in (README, INDEX, COST, BESIDE, TRIALS, TRACKING, *(ROOT / "docs").glob("*.md")):
        text = insert_parts(path)
        path.write_text(insert_address(text, url) if url else text, encoding="utf-8")
    run = read_answer()
    view, answer = list_views(run.results)[0], make_headline(run.results)
    PICTURE.write_text(render_svg(draw_styles(view)), encoding="utf-8")
    about = f"jax-bakeoff, {run.when[:10]}. {' '.join(map(sentence, name_device(run.results)))}"
    CARD.write_bytes(draw_card(view, f"{answer.partition('. ')[0]}.", about))
    for place, drawn in draw_charts().items():
        place.write_text(drawn, encoding="utf-8")
    (ROOT / "docs/commands.md").write_text(describe_commands(), encoding="utf-8")
    (ROOT / "docs/run-file.md").write_text(describe_run_file(), encoding="utf-8")
    for place, text in libraries.make_pages(run).items():
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    shutil.rmtree(SITE, ignore_errors=True)
    count = Builder(SITE, find_runs(), urls.get("Documentation", "")).build()
    print(f"{SITE / 'index.html'}: {count} pages and files")


if __name__ == "__main__":
    main()
