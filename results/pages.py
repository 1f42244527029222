"""The site of the published results: a page of each run file, and of each Markdown file around.

It begins with README.md, and has each file that a page leads to; links stay as they are.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from bench.report.documents import make_document
from bench.report.page import ICON, Anchors, page
from bench.report.summary import CAUSES
from bench.wording import NO_BREAK, keep_units
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

    from bench.runfile import SearchRecord
    from bench.runfile.reader import Run

README, INDEX = ROOT / "README.md", ROOT / "results/README.md"
TRACKING, WHY = ROOT / "results/tracking/README.md", ROOT / "docs/why.md"
CARD = ROOT / "results/card.png"
"""Picture that a link to the site shows."""
TOPIC = re.compile(r"^\* \[([^\]]+)\]\(([^)]+)\)", re.MULTILINE)
"""Lines of results/README.md that name the site's topics, in their order."""
BETWEEN_NUMBERS = re.compile(r"(?<=\d)(?<!\d-\d\d) (?=to -?\d)|(?<=\d to) (?!\d{4}-)(?=-?\d)")
MARK_SPACE = re.compile(r"(?<=[▲▼=?]) (?=[-+±\d])")
ROW_NAME = re.compile(r'(<th scope="row">)(\w+)/<wbr>(\w+)')
"""A style that names a row of a run's page."""
STYLE_NAME = re.compile(r"((?:<td>|\.html\">)[a-z_]+)/([a-z_]+)")
"""A style that names a row of a table in Markdown: it may be broken at its slash."""
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


@dataclass(frozen=True)
class Builder:
    """A site that is built: its folder, and the pages that are still to be made."""

    folder: Path
    runs: dict[Path, Run]
    address: str = ""
    """Where the site is published; empty if that is not known."""

    @property
    def searches(self) -> list[SearchRecord]:
        """What searches found, which histories name."""
        results = (run.results for run in self.runs.values())
        return [found.search for found in results if found.kind == "bisect"]

    def build(self) -> int:
        """Write all pages, beginning with README.md; return how many there are."""
        waiting, done = [README, CARD], dict[Path, None]()
        while waiting:
            path = waiting.pop()
            if path in done:
                continue
            done[path] = None
            target = self.folder / self.find_address(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in self.runs:
                target.write_text(self.show_run(path, waiting), encoding="utf-8")
            elif path.suffix == ".md":
                target.write_text(self.render(path, waiting), encoding="utf-8")
            elif path.suffix == ".py":
                target.write_text(self.show_code(path), encoding="utf-8")
            else:
                shutil.copyfile(path, target)
        return len(done)

    def show_run(self, path: Path, waiting: list[Path]) -> str:
        """Return the page of a run file, with links to the files of its styles, and to causes."""
        text = page(make_document(self.runs[path], self.searches))

        def link_style(row: re.Match[str]) -> str:
            file = ROOT / f"impls/{row[2]}.py"
            if not file.exists():
                return row[0]
            waiting.append(file)
            return f'{row[1]}<a href="{self.link(path, file)}">{row[2]}/<wbr>{row[3]}</a>'

        text = ROW_NAME.sub(link_style, text)
        for cause in CAUSES:
            place = f"{self.link(path, WHY)}#{Anchors().make_id(cause)}"
            text = text.replace(str(escape(cause)), f'<a href="{place}">{escape(cause)}</a>')
        waiting.append(WHY)
        card = f'<meta property="og:image" content="{self.find_card(path)}">'
        text = text.replace("</title>", f"</title>\n{card}", 1)
        return text.replace("<main>", f"{self.make_navigation(path)}\n<main>", 1)

    def show_code(self, path: Path) -> str:
        """Return a file of Python as a page."""
        name = path.relative_to(ROOT).as_posix()
        code = path.read_text("utf-8")
        return self.fill(path, name, name, f"<h1>{name}</h1>\n<pre>{escape(code)}</pre>")

    def find_address(self, path: Path) -> Path:
        """Return where a file of the project stands in the site."""
        place = path.relative_to(ROOT)
        if place.name == "README.md":
            return place.with_name("index.html")
        is_page = path in self.runs or path.suffix in (".md", ".py")
        return place.with_suffix(".html") if is_page else place

    def render(self, path: Path, waiting: list[Path]) -> str:
        """Return a Markdown file as a page; files that it leads to are made, too."""
        parser = MarkdownIt("commonmark", {"html": False}).enable("table")
        text = path.read_text("utf-8")
        tokens = parser.parse(COMMENT.sub("", text))
        anchors, title = Anchors(), path.stem
        for token, inner in zip(tokens, [*tokens[1:], None], strict=True):
            if token.type == "heading_open" and inner is not None:
                token.attrSet("id", anchors.make_id(inner.content))
                title = inner.content if token.tag == "h1" else title
            for child in token.children or ():
                self.follow(child, path, waiting)
                if child.type == "text":
                    child.content = keep_numbers(child.content)
        name_rows(tokens, set(anchors.uses))
        body = STYLE_NAME.sub(r"\1/<wbr>\2", parser.renderer.render(tokens, parser.options, {}))
        first = find_first_text(tokens)
        if "<!-- answer" in text:  # the finding, in its first sentence
            title = first.partition(". ")[0]
        return self.fill(path, title, first, body)

    def fill(self, path: Path, title: str, about: str, body: str) -> str:
        """Return a page of a text: its title, its first words, and its HTML."""
        return TEMPLATE.render(
            title=title,
            about=about,
            icon=ICON,
            card=self.find_card(path),
            body=Markup(body),  # noqa: S704 -- ours
            style=(ROOT / "bench/report/page/page.css").read_text("utf-8"),
            navigation=Markup(self.make_navigation(path)),  # noqa: S704 -- ours
        )

    def find_card(self, path: Path) -> str:
        """Return the address of the picture that a link shows; readers need a whole one."""
        whole = f"{self.address.rstrip('/')}/{self.find_address(CARD).as_posix()}"
        return whole if self.address else self.link(path, CARD)

    def make_navigation(self, path: Path) -> str:
        """Return links to the site's first pages, and to the topics or runs around a page."""
        pages = {"jax-bakeoff": README, "results": INDEX, "documentation": ROOT / "docs/README.md"}
        if path.parent.name in ("history", "tracking"):
            pages["what each release changed"] = TRACKING
        links = [f'<a href="{self.link(path, place)}">{name}</a>' for name, place in pages.items()]
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


def keep_numbers(text: str) -> str:
    """Return a text in which lines break before an interval, and in no number."""
    text = BETWEEN_NUMBERS.sub(NO_BREAK, keep_units(text))
    return MARK_SPACE.sub(NO_BREAK, text)


def find_first_text(tokens: Sequence[Token]) -> str:
    """Return the text of a page's first paragraph."""
    for token, inner in pairwise(tokens):
        if token.type == "paragraph_open":
            return "".join(child.content or " " for child in inner.children or ())
    return ""


def name_rows(tokens: Sequence[Token], taken: set[str]) -> None:
    """Give each row of a table the name of its first cell, unless a part of the page has it."""
    for row, *_, content in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if row.type == "tr_open" and content.type == "inline":
            text = "".join(child.content for child in content.children or ())
            name = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")
            if name and name not in taken:
                taken.add(name)
                row.attrSet("id", name)


TEMPLATE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{{ icon }}">
<title>{{ title }}</title>
<meta name="description" content="{{ about }}">
<meta property="og:title" content="{{ title }}">
<meta property="og:description" content="{{ about }}">
<meta property="og:image" content="{{ card }}">
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
