"""Renderers: all of a document in a terminal, in Markdown and as a page, and drawn charts."""

import io
import re
from dataclasses import replace
from itertools import product
from typing import Any
from urllib.parse import unquote

import pytest
from rich.console import Console

from bench.cells import Arm
from bench.estimates import Verdict
from bench.report.charts import WIDTH, draw_intervals, draw_lines, render_svg
from bench.report.documents.run import describe_run
from bench.report.markdown import markdown
from bench.report.page import mark_code, page
from bench.report.table import Column, Document, Figure, Row, Section, Table
from bench.report.terminal import show
from tests.estimates import ratio
from tests.report.runs import Planted, made_run

CONTROLS = "\x00\x07\x1b[31m\x9b\u202e\t\r"
HOSTILE = "<b>[red]|`@you\x1b[31m #1 {{ 7*7 }} </script>"
SLOWER = ratio(1.2, 1.1, 1.3, verdict=Verdict.SLOWER)
DAYS = {f"2026-0{month}-01": ratio(1 + month / 10, 1, 2) for month in range(1, 6)}
FASTER = ratio(0.9, 0.8, 0.95, verdict=Verdict.FASTER)


def terminal(
    shown: Document, width: int = 80, *, details: bool = False, colours: bool = False
) -> str:
    file = io.StringIO()
    system: Any = "standard" if colours else None
    console = Console(
        width=width, file=file, highlight=False, color_system=system, force_terminal=colours
    )
    show(shown, console, details=details)
    return file.getvalue()


def small(text: str = "name", *, folded: bool = False) -> Document:
    rows = (Row((text, SLOWER, "=")), Row(("other", FASTER, "+7"), worse=True))
    columns = (Column("style"), Column("step"), Column("calls", number=True))
    table = Table(columns, rows, f"table {text}", (f"note {text}",))
    figure = Figure(f"chart {text}", f"seen {text}", {"mark": "bar", "data": {}})
    parts = (
        Section(f"section {text}", (f"line {text}\n    below", "a `b<` c"), (table,), status="bad"),
        Section("charts", figures=(figure,)),
        Section("folded", ("folded line",), folded=folded),
    )
    return Document(f"title {text}", "", f"headline {text}", "bad", (f"warning {text}",), parts)


def test_no_control_character_reaches_a_page_whatever_it_is_in() -> None:
    chart = draw_intervals(CONTROLS, {f"a{CONTROLS}": SLOWER}, band=0.1)
    sections = (*small(CONTROLS).sections, Section(CONTROLS, figures=(chart,), status=CONTROLS))
    about: Any = dict.fromkeys(("subtitle", "marker", "status"), CONTROLS)
    shown = replace(small(CONTROLS), sections=sections, fine_print=(CONTROLS,), **about)
    text = unquote(page(shown))
    assert "a [31m" in re.sub(" +", " ", text), "the chart's label is there"
    assert not {c for c in text if not c.isprintable()} - {"\n", "\u00a0"}


def test_a_narrow_terminal_breaks_texts_and_no_number() -> None:
    """Nothing is left out: not the name of a release, and not a reason in place of a number."""
    releases = "flax 0.12.0 → 0.12.1, jax 0.7.2 → 0.8.1, numpy 2.3.3 → 2.3.5"
    columns = (Column("what", wraps=True), Column("change"), Column("releases", wraps=True))
    rows = (Row(("call at 12 layers", SLOWER, releases)), Row(("step", FASTER, "jax 1 → 2")))
    for width in (40, 60, 200):
        text = terminal(Document("", sections=(Section("", (), (Table(columns, rows),)),)), width)
        words = text.split()
        expected = f"what change releases call at 12 layers ▲ +20 % (10 to 30) {releases} step "
        expected += "▼ -10 % (-20 to -5) jax 1 → 2"
        assert sorted(w for w in words if "─" not in w) == sorted(expected.split())
        assert max(map(len, text.splitlines())) <= width
        assert "+20 % (10 to 30)" in text
        assert text.count("what") == 1, "one table"


def test_every_renderer_shows_everything_and_nothing_of_it_acts() -> None:
    parts = ("headline", "warning", "table", "note", "line", "+20 % (10 to 30)", "+7", "below")
    texts = {
        "text": terminal(small(HOSTILE), 100, colours=True),
        "markdown": markdown(replace(small(HOSTILE), marker="<!-- marker -->")),
        "page": page(small(HOSTILE)).replace("<span>", "").replace("\u00a0", " "),
    }
    for name, text in texts.items():
        assert all(word in text for word in parts), name
    assert "[red]|" in texts["text"]
    assert "\x1b[31m" not in texts["markdown"]
    assert texts["markdown"].startswith("<!-- marker -->\n❌ **")
    assert "| ▲ +20 % (10 to 30) |" in texts["markdown"]
    assert not any(active in texts["markdown"] for active in ("<b>", "@you", "[red]"))
    assert "<b>" not in texts["page"]
    active = (
        "a <code>b&lt;</code> c",
        "{{ 7*7 }}",
        "&lt;/script&gt;",
        'class="number slower size-2"',
    )
    assert all(part in texts["page"] for part in active)


def test_what_is_folded_is_so_everywhere() -> None:
    shown = small(folded=True)
    assert "folded line" not in terminal(shown)
    assert "folded line" in terminal(shown, details=True)
    for text in (markdown(shown), page(shown)):
        assert 0 < text.index("<details><summary>") < text.index("folded line")


def test_a_terminal_is_never_too_narrow() -> None:
    arms = {
        "flax_nnx/cached_partial": Planted(1.2, 3e-4, differs={"add": 1}),
        "planted/pure": Planted(failure="x" * 300 + " and more"),
    }
    shown = describe_run(made_run(arms, ("toy", "seed")))
    for width, details in product((60, 80, 160), (False, True)):
        text = terminal(shown, width, details=details)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as file:  # it has no é and no ±
        show(shown, Console(width=width, file=file))


def test_colour_only_where_there_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.findall(r"\x1b\[3\dm", terminal(small(), colours=True)) == [], "NO_COLOR is set"
    monkeypatch.delenv("NO_COLOR")
    text = terminal(small(), colours=True)
    assert re.findall(r"\x1b\[3[12]m", text) == ["\x1b[31m", "\x1b[32m"]


def test_a_unit_stands_beside_its_number_and_sentences_before_a_table_stand_apart() -> None:
    table = Table((Column("style"),), (Row(("pure",)),))
    first, second = Section("a", ("It takes 12 µs of 100 ns.",), (table,)), Section("b", ("B.",))
    shown = Document("t", sections=(first, replace(first, lines=("C.",)), second))
    lines = [line.rstrip() for line in terminal(shown, 20).splitlines()]
    assert lines[3:7] == ["It takes 12 µs of", "  100 ns.", "", "style"]
    assert lines[-2:] == ["C.", "B."]


def test_a_page_breaks_no_line_within_a_day_or_before_a_unit() -> None:
    assert mark_code("`5 % a/<b>`, <i>/: 2026-01-02, 0.5 → 0.6, 96 %, `") == (
        "<code>5 % a/&lt;b&gt;</code>, &lt;i&gt;/<wbr>: <time>2026-01-02</time>, 0.5\u00a0→ 0.6, "
        "96\u00a0%, `"
    )


def test_lines_of_code_keep_their_indentation() -> None:
    shown = Document("t", sections=(Section("Change", ("`+     return loss`",)),))
    assert "+     return loss" in terminal(shown, 80)
    assert "* `+     return loss`\n" in markdown(shown)
    assert '<code class="faster">+     return loss</code>' in page(shown)


def test_a_table_without_rows_is_a_page_too() -> None:
    table = Table((Column("style"), Column("step")), ())
    assert "<thead>" in page(Document("t", sections=(Section("a", tables=(table,)),)))


def test_a_chart_of_lines_has_a_dot_and_an_interval_at_each_point() -> None:
    drawn = render_svg(draw_lines("t", {Arm("haiku", "pure"): DAYS}))
    [dots] = re.findall(r'<path [^>]*d="([^"]*)"[^>]*stroke-width="5"', drawn)
    [intervals] = re.findall(r'<path [^>]*d="([^"]*)"[^>]*opacity="0.4"', drawn)
    assert [path.count("M") for path in (dots, intervals)] == [len(DAYS)] * 2


@pytest.mark.parametrize(
    ("figure", "labels"),
    [
        (
            draw_intervals("t", {"one": ratio(1.2, 1.1, 1.3), "two": ratio(1.0)}, band=0.1),
            ("one", "two", "step, beside"),
        ),
        (
            draw_lines("t", {Arm("haiku", "pure"): DAYS}, marks={"2026-03-01": "jax 0.7.1"}),
            ("haiku/pure", "2026", "step"),
        ),
        (
            draw_lines("t", {Arm("mine", "own"): {8: ratio(2.0), 64: ratio(1.0)}}, "x"),
            ("mine/own", "64"),
        ),
    ],
)
def test_charts_are_drawn(figure: Figure, labels: tuple[str, ...]) -> None:
    drawn = render_svg(figure)
    assert f'width="{WIDTH}"' in drawn
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)<", drawn))
    assert all(label in text for label in labels), text
    assert "currentColor" in drawn
    assert "NaN" not in drawn
    assert "aria-" not in drawn
