"""One document in a terminal, in Markdown and as a page: all of it, and nothing of it acts."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from bench.report import text as terminal_text
from bench.report.charts import Figure
from bench.report.markdown import LONGEST, markdown
from bench.report.page import coded, page
from bench.report.run import document
from bench.report.table import Column, Document, Row, Section, Table
from bench.stats.verdicts import Verdict
from tests.report.runs import Planted, made_run
from tests.report.test_table import ratio

HOSTILE = "<b>[red]|`@you\x1b[31m #1 {{ 7*7 }} </script>"
SLOWER = ratio(1.2, 1.1, 1.3, verdict=Verdict.SLOWER)
FASTER = ratio(0.9, 0.8, 0.95, verdict=Verdict.FASTER)


def terminal(
    shown: Document, width: int = 80, *, details: bool = False, colours: bool = False
) -> str:
    file = io.StringIO()
    system: Any = "standard" if colours else None
    console = Console(
        width=width, file=file, highlight=False, color_system=system, force_terminal=colours
    )
    terminal_text.show(shown, console, details=details)
    return file.getvalue()


def small(text: str = "name", *, folded: bool = False) -> Document:
    """Return a document that has all parts, with a text in each."""
    rows = (Row((text, SLOWER, "=")), Row(("other", FASTER, "+7"), worse=True))
    columns = (Column("style"), Column("step"), Column("calls", number=True))
    table = Table(columns, rows, f"table {text}", (f"note {text}",))
    figure = Figure("chart", f"chart {text}", f"seen {text}", {"mark": "bar", "data": {}})
    parts = (
        Section(f"section {text}", (f"line {text}\n    below",), (table,), status="bad"),
        Section("charts", figures=(figure,)),
        Section("folded", ("folded line",), folded=folded),
        Section("on request", ("requested line",), needed=False),
    )
    return Document(f"title {text}", "", f"headline {text}", "bad", (f"warning {text}",), parts)


def test_every_renderer_shows_everything_and_nothing_of_it_acts() -> None:
    parts = ("headline", "warning", "table", "note", "line", "1.2 (1.1–1.3)", "+7", "below")
    texts = {
        "text": terminal(small(HOSTILE), 100, colours=True),
        "markdown": markdown(small(HOSTILE), "<!-- marker -->"),
        "page": page(small(HOSTILE)),
    }
    for name, text in texts.items():
        assert all(word in text for word in parts), name
    assert "[red]|" in texts["text"]
    assert "\x1b[31m" not in texts["markdown"]
    assert texts["markdown"].startswith("<!-- marker -->\n❌ **")
    assert "| **1.2 (1.1–1.3)** |" in texts["markdown"]
    assert not any(active in texts["markdown"] for active in ("<b>", "@you", "[red]"))
    assert "<b>" not in texts["page"]
    assert "{{ 7*7 }}" in texts["page"]
    assert "&lt;/script&gt;" in texts["page"]
    assert 'class="number slower"' in texts["page"]


def test_what_is_folded_or_on_request_is_so_everywhere() -> None:
    shown = small(folded=True)
    assert "folded line" not in terminal(shown)
    assert "requested line" not in terminal(shown)
    assert {"folded line", "requested line"} <= set(terminal(shown, details=True).splitlines())
    assert "<details><summary>folded</summary>" in markdown(shown)
    html = page(shown)
    assert html.index("<details>") < html.index("folded line") < html.index("requested line")


def test_a_comment_that_is_too_long_loses_whole_lines() -> None:
    long = Section("long", tuple(f"line {n} of it" for n in range(9000)), folded=True)
    text = markdown(Document("t", headline="h", sections=(Section("s", ("kept",)), long)))
    assert len(text) <= LONGEST
    assert "* kept" in text
    assert "line 8" not in text


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("details", [False, True])
def test_a_terminal_is_never_too_narrow(width: int, details: bool) -> None:
    arms = {
        "flax_nnx/cached_partial": Planted(1.2, 3e-4, differs={"add": 1}),
        "planted/pure": Planted(failure="x" * 300 + " and more"),
    }
    shown = document(made_run(arms, ("toy", "seed")))
    text = terminal(shown, width, details=details)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as file:
        terminal_text.show(shown, Console(width=width, file=file), details=details)
        file.flush()
        plain = raw.getvalue().decode("ascii").splitlines()
    assert max(map(len, plain)) <= width


def test_needed_columns_stay_in_one_table_and_the_others_where_they_fit() -> None:
    columns = [Column("name"), *(Column("n" * 20, needed=i < 2) for i in range(5))]
    table = Table(tuple(columns), (Row(tuple("abcdef")),))
    shown = Document("", sections=(Section("", tables=(table,)),))
    assert terminal(shown, 60).count("─\n") == 1
    assert terminal(shown, 60, details=True).count("─\n") > 1
    assert set("abcdef") <= set(terminal(shown, 60, details=True))


@pytest.mark.parametrize("plain", [False, True])
def test_colour_only_where_there_is_a_finding(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    text = terminal(small(), colours=True)
    coloured = re.findall(r"\x1b\[3[12]m", text)
    assert coloured == ([] if plain else ["\x1b[31m", "\x1b[32m"])


@pytest.mark.parametrize(
    ("text", "html"),
    [("a `b<` c", "a <code>b&lt;</code> c"), ("a ` <c>", "a ` &lt;c&gt;"), ("``", "<code></code>")],
)
def test_code_in_a_page(text: str, html: str) -> None:
    assert str(coded(text)) == html
