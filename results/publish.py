"""`make results`: tables in Markdown, made anew from the published files, and the site of them.

README.md has the answer of a run, between `<!-- answer FILE: STYLES -->` and `<!-- end -->`; other
parts of that form are the published runs, costs, and what trials of other tools say. The site, in
`site/`, has a page of each run file and of each Markdown file that README.md leads to; links stay
as they are.
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
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench import runfile
from bench.cli.output import make_document
from bench.cost import published
from bench.estimates import Estimate
from bench.report.charts import render_svg
from bench.report.markdown import table_lines
from bench.report.page import Anchors, page
from bench.report.run import describe_origin, draw_calls, explain_marks
from bench.report.summary import list_views, make_headline, make_table
from bench.report.table import Figure, Table
from bench.runfile.reader import NotARunError, Run, read
from bench.samples import Proof
from bench.worker.settings import ROOT
from results.beside import scores
from results.beside.usage import describe_tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token

MADE = "<!-- made by `make results` -->\n"
"""First line of a reference that is made from the code."""
STRUCTS = (
    *(runfile.ResultsWithSamples, runfile.Results, runfile.RunOptions, runfile.EnvironmentInfo),
    *(runfile.Conditions, runfile.TimeSpent, runfile.CellResult, Proof, Estimate),
    *(runfile.Series, runfile.SampleRow, runfile.SearchRecord, runfile.SearchStep),
)
"""Structures of a run file, from the outside in."""
FOLDER, README, INDEX = ROOT / "results", ROOT / "README.md", ROOT / "results/README.md"
PICTURE = FOLDER / "calls.svg"
BESIDE, COST, TRACKING = (FOLDER / name / "README.md" for name in ("beside", "cost", "tracking"))
COST_EXAMPLE = 147, 0.040
"""Parameter arrays and seconds of the step that the table of costs is of, as its README says."""
SITE = ROOT / "site"
ANSWER = re.compile(r"<!-- answer (\S+\.json): ([^>]*) -->")
PART = re.compile(r"(<!-- (answer|runs|costs|trials|tools)[^>]* -->\n).*?(<!-- end -->)", re.DOTALL)
TOPIC = re.compile(r"^\* \[([^\]]+)\]\(([^)]+)\)", re.MULTILINE)
"""Lines of results/README.md that name the site's topics, in their order."""
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


# tables in Markdown


def insert_parts(text: str) -> str:
    """Return a Markdown text whose parts, each from its name to `<!-- end -->`, are made anew."""

    def make(part: re.Match[str]) -> str:
        makers = {
            "runs": list_runs,
            "costs": list_costs,
            "trials": list_trials,
            "tools": list_tools,
        }
        answer = ANSWER.match(part[0])
        lines = answer_run(answer[1], answer[2].split()) if answer else makers[part[2]]()
        return "\n".join([part[1], *lines, "", part[3]])

    return PART.sub(make, text)


def answer_run(file: str, styles: Sequence[str]) -> Iterator[str]:
    """Yield the rows of some styles in a run's table of steps and calls, and where it was made."""
    run = read(ROOT / file, samples=False)
    yield f"**{make_headline(run.results)}**\n"
    table = make_table(list_views(run.results)[0])
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
    yield f"\n{describe_origin(run)}. {' '.join(explain_marks(run.results))}"


def list_runs() -> Iterator[str]:
    """Yield a table of the published run files: when, where and by which command each was made."""
    yield "| run | day | machine | command |\n|---|---|---|---|"
    for path, run in find_runs().items():
        where = path.relative_to(FOLDER).as_posix()
        machine = re.sub(r"\(R\)| Processor| CPU", "", run.processor.partition(" (")[0])
        command = run.results.make_command()
        yield f"| [{where}]({where}) | {run.when[:10]} | {machine} | `{command}` |"


def find_runs() -> dict[Path, Run]:
    """Return the published run files that pages are made of, the newest first.

    They are not those of the tests of the measurements.
    """
    runs = {}
    for path in sorted(FOLDER.glob("*/*.json")):
        try:
            runs[path] = read(path, samples=False)
        except NotARunError:
            continue
    return dict(sorted(runs.items(), key=lambda item: item[1].when, reverse=True))


def list_costs() -> Iterator[str]:
    """Yield the table of what styles cost a model, as `bakeoff cost` prints it."""
    costs = published.read_published()
    yield from table_lines(published.make_table(costs, *COST_EXAMPLE, costs.styles))


def list_trials() -> Iterator[str]:
    """Yield the tables of trials of other tools."""
    yield from scores.describe_trials(scores.read_rows())


def list_tools() -> Iterator[str]:
    """Yield the table of how these tools are used."""
    yield from table_lines(describe_tools(scores.read_rows()))


def draw_trials() -> dict[Path, str]:
    """Return the charts of the trials of other tools, by their places beside their README."""
    return {
        BESIDE.with_name(f"{name}.svg"): render_svg(Figure(name, name, chart))
        for name, chart in scores.draw_charts(scores.read_rows()).items()
    }


def draw_answer(text: str) -> str:
    """Return the picture of what a call costs in the run that README.md names."""
    match = ANSWER.search(text)
    assert match is not None
    [view, *_] = list_views(read(ROOT / match[1], samples=False).results)
    [figure] = draw_calls(view)
    return render_svg(figure)


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
        "A run file is pytest-benchmark's JSON, and its key `bakeoff` has the rest: a structure "
        f"`{STRUCTS[0].__name__}`. Files of other commands than `pytest bench` are the same, "
        "without benchmarks.",
    ]
    for struct in STRUCTS:
        lines += ["", f"## {struct.__name__}", "", inspect.getdoc(struct) or "", ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        meanings = read_meanings(struct)
        for name, kind in struct.__annotations__.items():
            alternatives = str(kind).replace("|", "or")
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


# the site


@dataclass(frozen=True)
class Builder:
    """A site that is built: its folder, and the pages that are still to be made."""

    folder: Path
    runs: dict[Path, Run]

    def build(self) -> int:
        """Write all pages, beginning with README.md; return how many there are."""
        waiting, done = [README], dict[Path, None]()
        while waiting:
            path = waiting.pop()
            if path in done:
                continue
            done[path] = None
            target = self.folder / self.find_address(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in self.runs:
                text = page(make_document(self.runs[path]))
                text = text.replace("<main>", f"{self.make_navigation(path)}\n<main>", 1)
                target.write_text(text, encoding="utf-8")
            elif path.suffix == ".md":
                target.write_text(self.render(path, waiting), encoding="utf-8")
            else:
                shutil.copyfile(path, target)
        return len(done)

    def find_address(self, path: Path) -> Path:
        """Return where a file of the project stands in the site."""
        place = path.relative_to(ROOT)
        if place.name == "README.md":
            return place.with_name("index.html")
        return place.with_suffix(".html") if path in self.runs or path.suffix == ".md" else place

    def render(self, path: Path, waiting: list[Path]) -> str:
        """Return a Markdown file as a page; files that it leads to are made, too."""
        parser = MarkdownIt("commonmark", {"html": False}).enable("table")
        tokens = parser.parse(COMMENT.sub("", path.read_text("utf-8")))
        anchors, title = Anchors(), path.stem
        for token, inner in zip(tokens, [*tokens[1:], None], strict=True):
            if token.type == "heading_open" and inner is not None:
                token.attrSet("id", anchors.make_id(inner.content))
                title = inner.content if token.tag == "h1" else title
            for child in token.children or ():
                self.follow(child, path, waiting)
        return TEMPLATE.render(
            title=title,
            body=Markup(parser.renderer.render(tokens, parser.options, {})),  # noqa: S704 -- ours
            style=(ROOT / "bench/report/page/page.css").read_text("utf-8"),
            navigation=Markup(self.make_navigation(path)),  # noqa: S704 -- ours
        )

    def make_navigation(self, path: Path) -> str:
        """Return links to the site's first pages, and to the topics or runs around a page."""
        pages = {"jax-bakeoff": README, "results": INDEX, "documentation": ROOT / "docs/README.md"}
        if path.parent.name in ("history", "tracking"):
            pages["what each release changed"] = TRACKING
        links = [f'<a href="{self.link(path, page)}">{name}</a>' for name, page in pages.items()]
        topics = {
            ROOT / normpath(Path("results") / file): title
            for title, file in TOPIC.findall(INDEX.read_text("utf-8"))
        }
        around = topics if path in topics else {place: place.stem for place in self.runs}
        if path in around:
            places = [*around]
            i = places.index(path)
            for j, arrow, rel in ((i - 1, "←", "prev"), (i + 1, "→", "next")):
                if 0 <= j < len(places):
                    address, title = self.link(path, places[j]), around[places[j]]
                    links.append(f'{arrow} <a rel="{rel}" href="{address}">{title}</a>')
        return f'<nav class="soft">{" · ".join(links)}</nav>'

    def follow(self, token: Token, path: Path, waiting: list[Path]) -> None:
        """Have a link lead to the page of its file, which is to be made."""
        name = "href" if token.type == "link_open" else "src"
        address = urlsplit(str(token.attrs.get(name, "")))
        if address.scheme or not address.path:
            return
        target = ROOT / normpath(path.relative_to(ROOT).parent / address.path)
        if target.is_dir():
            target /= "README.md"
        if not target.is_file():
            where = path.relative_to(ROOT)
            raise SystemExit(f"{where} leads to {address.path}, which is not there")
        waiting.append(target)
        fragment = f"#{address.fragment}" * bool(address.fragment)
        token.attrSet(name, self.link(path, target) + fragment)

    def link(self, path: Path, target: Path) -> str:
        """Return the address of a file's page, as seen from another's."""
        up = "../" * (len(self.find_address(path).parts) - 1)
        return f"{up}{self.find_address(target).as_posix()}"


TEMPLATE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body class="text">
{{ navigation }}
<main>{{ body }}</main>
<script>
for (const cell of document.querySelectorAll("td")) {
  if (!/^\\d{4}-\\d{2}-\\d{2}$/.test(cell.textContent)) continue;
  const days = Math.floor((Date.parse(cell.textContent) - Date.now()) / 864e5) + 1;
  cell.append(`, ${new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(days, "day")}`);
}
</script>
</body>
</html>
""")


def main() -> None:
    """Make the tables and the site anew."""
    for path in (README, INDEX, COST, BESIDE):
        path.write_text(insert_parts(path.read_text("utf-8")), encoding="utf-8")
    PICTURE.write_text(draw_answer(README.read_text("utf-8")), encoding="utf-8")
    for place, drawn in draw_trials().items():
        place.write_text(drawn, encoding="utf-8")
    (ROOT / "docs/commands.md").write_text(describe_commands(), encoding="utf-8")
    (ROOT / "docs/run-file.md").write_text(describe_run_file(), encoding="utf-8")
    shutil.rmtree(SITE, ignore_errors=True)
    count = Builder(SITE, find_runs()).build()
    print(f"{SITE / 'index.html'}: {count} pages and files")


if __name__ == "__main__":
    main()
