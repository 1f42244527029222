"""The report of a run, made from sections that are built here: no worker runs."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console

from bench.metrics import STARTUP
from bench.report import text as terminal_text
from bench.report import wording
from bench.report.choices import choices as choices_of
from bench.report.findings import Finding, Topic
from bench.report.findings import findings as findings_of
from bench.report.markdown import MOST, markdown
from bench.report.page.parts import document_page
from bench.report.run import LINES, document
from bench.report.table import (
    ADDED,
    Column,
    Document,
    Row,
    Section,
    Table,
    Value,
    amount,
    percent,
)
from bench.runfile import BakeoffSection
from bench.runfile.reader import Run, read

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
MARGIN = 0.02
TIMES = {"toy": 106e-6, "seed": 3.54e-3}
"""Seconds of the baseline's step."""
DEFAULT = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
PUBLISHED = json.loads(DEFAULT.read_text("utf-8"))["bakeoff"] | {"samples": {}}


def metric(
    median: float,
    ratio: float | None = None,
    half: float = 0.01,
    unit: str = "s",
    **more: Any,
) -> dict[str, Any]:
    """Return a metric with an interval of `half` to each side, and the verdict that follows."""
    out: dict[str, Any] = {"unit": unit, "median": median, "samples": 800, "blocks": 40}
    out |= {"processes": 5, "p": None, "detectable": 0.008}
    if ratio is None:
        return out | {"ratio": None, "low": None, "high": None, "verdict": None}
    low, high = ratio - half, ratio + half
    verdict = "slower" if low > 1 else "faster" if high < 1 else "inconclusive"
    if low >= 1 - MARGIN and high <= 1 + MARGIN:
        verdict = "equivalent"
    out |= {"median": median * ratio, "ratio": ratio, "low": low, "high": high}
    return out | {"verdict": verdict} | more


def cell(
    entrant: str,
    style: str = "pure",
    workload: str = "seed",
    *,
    differs: dict[str, int] | None = None,
    calls: int = 4,
    **more: Any,
) -> dict[str, Any]:
    """Return a cell without metrics, whose program is the baseline's unless `differs` is given."""
    out: dict[str, Any] = {"entrant": entrant, "style": style, "workload": workload}
    out |= {"backend": "cpu", "failure": None, "stderr": "", "final_loss": None, "metrics": {}}
    counts = {f"stablehlo.{kind}": n for kind, n in (differs or {}).items()}
    out["proof"] = {"loss": 1e-8, "gradient": 2e-7, "trajectory": 0.0, "whole_step": True}
    out["proof"] |= {"same_program_as_baseline": differs is None}
    out["proof"] |= {"operations_beside_baseline": counts}
    out["exact"] = {"python_starts": 2, "python_calls": calls, "jaxpr_equations": 273}
    out["exact"] |= {"hlo_instructions": 1008, "flops": 1950181.0, "temp_bytes": 725568}
    out["exact"] |= {"compilations_first": 1, "compilations_warm": 0, "code_lines": 43}
    return out | more


def section(cells: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a section that holds `cells`, with a control for each of their workloads' steps."""
    cells = list(cells)
    control = [
        metric(1.0, 1.002)
        | {"workload": w, "backend": "cpu", "metric": "step", "detectable": 0.008}
        for w in dict.fromkeys(cell["workload"] for cell in cells)
    ]
    spent = {"wall_seconds": 291.2, "sampling_seconds": 190.0, "sampling_share": 0.653}
    out: dict[str, Any] = {"schema": 3, "arguments": ["bench"], "warnings": [], "cells": cells}
    out |= {"plan": {"budget_seconds": 300.0, "margin": MARGIN, "seed": 0}}
    return out | {"spent": spent | {"processes": 31}, "control": control} | more


def full() -> dict[str, Any]:
    """Return the section of a whole run: all styles at two sizes."""
    return copy.deepcopy(PUBLISHED)


def final(own: list[float] | None = None, same: float = 2.269) -> dict[str, Any]:
    """Return where training gets to."""
    return {"steps": 200, "same_weights": same, "own_initialiser": own or [], "entropy": 0.9}


def steps(*styles: tuple[dict[str, Any], float | None, float]) -> dict[str, Any]:
    """Return the section of a run of `step` alone, from cells, their ratios and half intervals."""
    cells = []
    for row, ratio, half in styles:
        row["metrics"] = {"step": metric(TIMES.get(row["workload"], 0.02))}
        if ratio is not None:
            row["metrics"]["step"] = metric(row["metrics"]["step"]["median"], ratio, half)
        cells.append(row)
    return section(cells)


def base(workload: str = "seed") -> tuple[dict[str, Any], None, float]:
    return cell("pure_jax", workload=workload), None, 0.0


def terminal(found: Document, width: int = 80, *, details: bool = False, **options: Any) -> str:
    file = io.StringIO()
    to = Console(width=width, file=file, highlight=False, **options)
    terminal_text.show(found, to, details=details)
    return file.getvalue()


def shown(found: dict[str, Any], width: int = 80, **options: Any) -> str:
    """Return what a terminal shows of a section."""
    return terminal(document(of(found)), width, **options)


def of(found: dict[str, Any]) -> Run:
    """Return the run of a section."""
    return Run("run", typed(found), when="2026-11-26")


def typed(found: dict[str, Any]) -> BakeoffSection:
    """Return a section as a file has it."""
    return msgspec.convert(found, BakeoffSection)


def findings(found: dict[str, Any]) -> list[Finding]:
    return findings_of(typed(found))


def sentences(found: dict[str, Any]) -> list[str]:
    return list(map(str, findings(found)))


def choices(found: dict[str, Any]) -> list[Finding]:
    return choices_of(typed(found), "cpu")


def one(found: dict[str, Any], kind: Topic) -> Finding:
    [finding] = [each for each in findings(found) if each.kind is kind]
    return finding


def kinds(found: dict[str, Any]) -> list[Topic]:
    return [finding.kind for finding in findings(found)]


# --- values, tables and their renderers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(1.003, low=0.999, high=1.007), "1.003 (0.999–1.007)"),
        (Value(1.2131, low=1.188, high=1.242), "1.21 (1.19–1.24)"),
        (Value(9.02, low=8.66, high=9.41), "9.0 (8.7–9.4)"),
        (Value(21.81, low=21.75, high=21.87), "21.8 (21.8–21.9)"),
        (Value(1.08, low=0.96, high=1.19), "1.08 (0.96–1.19)"),
        (Value(1.2, low=1.0401, high=1.36), "1.20 (1.04–1.36)"),
        (Value(1.0, low=1.0, high=1.0), "1.00 (1.00–1.00)"),
        (Value(1.25, low=1.1), "1.2 (>1.1)"),
        (Value(1.25), "1.25"),
        (Value(140.2), "140"),
        (Value(1.0, low=0.004, high=260.0), "1 (0–260)"),
        (Value(1.0, bound=0.002), "±0.2 %, proven"),
        (Value(57e-6, ADDED, 55e-6, 59e-6), "+57 µs (55 to 59)"),
        (Value(-2e-3, ADDED), "-2.00 ms"),
        (Value(None), "–"),
        (Value(106e-6, "s"), "106 µs"),
        (Value(12.0, "s"), "12.0 s"),
        (Value(0.0, "s"), "0 ns"),
        (Value(725568, "B"), "726 kB"),
        (Value(0, "B"), "0 B"),
        (Value(2.3047, "nats"), "2.305"),
        (Value(7060, "count"), "7 060"),
        (Value(0.0004, "fraction"), "0.04 %"),
    ],
    ids=str,
)
def test_a_value_has_the_digits_of_its_interval(value: Value, text: str) -> None:
    assert str(value) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (percent(0.008), "0.8 %"),
        (percent(1.5), "150 %"),
        (percent(0.0), "0 %"),
        (wording.operations({}), "another order"),
        (wording.operations({"stablehlo.add": 1, "stablehlo.tanh": -2}), "+1 add, -2 tanh"),
        (wording.operations({"a": 1, "b": -2, "c": 3, "d": 1}), "7 operations differ"),
        (wording.sized("batched"), "batched (width 128, batch 8)"),
        (wording.sized("of_old"), "of_old"),
        (wording.few(["a", "b", "c"], 2), "a, b and c"),
        (wording.few(["a", "b", "c", "d"], 2), "a, b and 2 more"),
        (wording.printable("\x1b[31mred\x1b[0m\a\tx\ry"), "red     x\ny"),
        (wording.ascii_only("±2 % µs 1–2 é"), "~2 % us 1-2 ?"),
    ],
)
def test_wording(said: str, text: str) -> None:
    assert said == text


HOSTILE = "<b>[red]|`@you\x1b[31m #1 {{ 7*7 }} </script>"


def small(text: str = "name", *, folded: bool = False) -> Document:
    """Return a document that has all parts, with a text from outside in each."""
    rows = (
        Row((text, Value(1.2, low=1.1, high=1.3, verdict="slower"), "=")),
        Row(("other", Value(0.9, low=0.8, high=0.95, verdict="faster"), "+7"), worse=True),
    )
    columns = (Column("style"), Column("step"), Column("calls", number=True))
    table = Table(columns, rows, f"table {text}", (f"note {text}",))
    parts = (
        Section(f"section {text}", (f"line {text}\n    below",), (table,), status="bad"),
        Section("folded", ("folded line",), (), folded=folded),
        Section("on request", ("requested line",), needed=False),
    )
    return Document(f"title {text}", "", f"headline {text}", "bad", (f"warning {text}",), parts)


def test_every_renderer_shows_all_and_nothing_of_it_acts() -> None:
    said = ("headline", "warning", "table", "note", "line", "1.2 (1.1–1.3)", "+7", "below")
    texts = {
        "text": terminal(small(HOSTILE), 100, force_terminal=True, color_system="standard"),
        "markdown": markdown(small(HOSTILE), "<!-- marker -->"),
        "page": document_page(small(HOSTILE)),
    }
    for name, text in texts.items():
        assert all(word in text for word in said), name
    assert "[red]|" in texts["text"]
    assert "\x1b[31m" not in texts["markdown"]
    assert texts["markdown"].startswith("<!-- marker -->\n❌ **")
    assert "| **1.2 (1.1–1.3)** |" in texts["markdown"]
    assert not any(active in texts["markdown"] for active in ("<b>", "@you", "[red]"))
    assert "<b>" not in texts["page"]
    assert "{{ 7*7 }}" in texts["page"]
    assert "&lt;/script&gt;" in texts["page"]


def test_what_is_folded_or_on_request_is_so_everywhere() -> None:
    found = small(folded=True)
    assert "folded line" not in terminal(found)
    assert "requested line" not in terminal(found)
    assert {"folded line", "requested line"} <= set(terminal(found, details=True).splitlines())
    assert "<details><summary>folded</summary>" in markdown(found)
    page = document_page(found)
    assert page.index("<details>") < page.index("folded line") < page.index("requested line")


def test_a_comment_that_is_too_long_loses_whole_lines() -> None:
    long = Section("long", tuple(f"line {n} of it" for n in range(9000)), folded=True)
    text = markdown(Document("t", headline="h", sections=(Section("s", ("kept",)), long)))
    assert len(text) <= MOST
    assert "* kept" in text
    assert "line 8" not in text


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("details", [False, True])
def test_it_fits(width: int, details: bool) -> None:
    found = full()
    odd = cell("planted", failure="x" * 300 + " and more", stderr="y" * 200)
    found["cells"].append(odd)
    text = shown(found, width, details=details)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as file:
        to = Console(width=width, file=file, highlight=False)
        terminal_text.show(document(of(found)), to, details=details)
        file.flush()
        plain = raw.getvalue().decode("ascii").splitlines()
    assert max(map(len, plain)) <= width


@pytest.mark.parametrize("plain", [False, True])
def test_colour_only_where_there_is_a_finding(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    found = steps(base(), (cell("equinox"), 0.87, 0.01), (cell("haiku"), 1.3, 0.01))
    found["cells"].append(cell("odd"))
    found["cells"][-1]["metrics"] = {"step": metric(3.5e-3, 0.7, 0.4)}
    text = shown(found, force_terminal=True, color_system="standard")
    coloured = [line for line in text.splitlines() if "\x1b[31m" in line or "\x1b[32m" in line]
    assert [line.split()[0] for line in coloured] == ([] if plain else ["equinox", "haiku"])
    assert "? 0.7 (0.3–1.1)" in text


# --- a run in a terminal


def test_one_table_a_workload_and_eight_lines_of_findings() -> None:
    found = document(of(full()))
    text = terminal(found)
    assert sum(set(line) == {"─"} for line in text.splitlines()) == 2
    [said] = [section for section in found.sections if section.title == "What it found"]
    lines = terminal(Document("", sections=(said,))).strip().splitlines()
    assert 1 <= len(lines) <= LINES
    everything = terminal(found, details=True)
    for name in {wording.name(each) for each in typed(full()).cells}:
        assert sum(line.startswith(name + " ") for line in text.splitlines()) >= 2
    for word in (
        "jaxpr",
        "pipelined",
        "trace",
        "nats per character",
        "Why ",
        "+1 add, +1 constant",
        "7227",
    ):
        assert word in everything, word
    assert len(everything) > 3 * len(text)


def test_a_table_has_times_of_the_baseline_and_ratios_of_the_others() -> None:
    jit = cell("flax_nnx", "jit", calls=9)
    found = steps(base(), (cell("haiku", calls=1), 1.001, 0.003), (jit, 1.2, 0.03))
    found["cells"].append(cell("planted", failure="not equal", stderr="\nfirst\n" * 9 + "last"))
    [table] = document(of(found)).sections[0].tables[:1]
    titles = [column.title for column in table.columns]
    assert titles == ["style", "step", "Python\ncalls", "program"]
    texts = [[str(content) for content in row.cells] for row in table.rows]
    assert texts == [
        ["pure_jax", "3.54 ms", "4", ""],
        ["haiku", "1.001 (0.998–1.004)", "−3", "the same"],
        ["flax_nnx jit", "1.20 (1.17–1.23)", "+5", "the same"],
        ["planted", "failed", "", ""],
    ]
    text = shown(found)
    assert "FAILED planted pure (seed on cpu): not equal" in text
    assert "    last" in text
    assert text.count("first") < 5


def test_what_is_missing_has_its_reason() -> None:
    found = full()
    for row in found["cells"]:
        row["metrics"]["import"] = {"missing": "not measured within the budget"}
        if row["entrant"] == "haiku":
            row["metrics"]["step"] = {"missing": "its worker died"}
    sections = {section.title: section for section in document(of(found)).sections}
    assert sections["seed on cpu"].tables[0].notes == (
        "its worker died: step of haiku, haiku transform.",
    )
    why = sections["What was not measured"].lines
    [said] = [line for line in why if line.startswith("seed on cpu: not") and "any style" in line]
    assert "import" in said
    found["cells"][-1]["exact"]["compilations_warm"] = 1
    assert "1/1" in shown(found, details=True)
    assert "1/1" not in shown(full(), details=True)


def test_cores_and_host_costs_are_told_where_they_contradict_the_rest() -> None:
    found = steps(base(), *((cell(name), 1.0, 0.01) for name in ("haiku", "stax", "equinox")))
    for row, used in zip(found["cells"][1:], (1.1, 1.0, 1.9), strict=True):
        row["metrics"]["step"]["cores_used"] = used
    where = {"entrant": "haiku", "style": "pure", "workload": "seed", "backend": "cpu"}
    said = {"predicted_seconds": 3e-6, "predicted_low": 2e-6, "predicted_high": 4e-6}
    row = where | said | {"measured_seconds": 0, "measured_low": -1e-5, "measured_high": 1e-5}
    found["additivity"] = [row, row | {"entrant": "stax", "measured_low": 5e-6}]
    assert one(found, Topic.CORES).arms == ("equinox",)
    assert one(found, Topic.UNPREDICTED).arms == ("stax at seed",)
    assert one(found, Topic.PREDICTED).arms == ("haiku at seed",)
    text = shown(found)
    assert "Cores used at seed (width 128): equinox 1.9, the others about 1.1." in text
    assert "+3.0 µs" not in text
    assert "+3.0 µs" in shown(found, details=True)


# --- findings


def test_who_is_equal_who_is_not_and_what_to_choose_by() -> None:
    found = steps(
        base(),
        (cell("flax_linen"), 0.999, 0.008),
        (cell("haiku"), 1.01, 0.03),
        (cell("equinox", "filter_jit"), 1.2, 0.03),
        (cell("flax_nnx", "jit", differs={"add": 1}), 1.5, 0.03),
        (cell("stax", differs={"add": 1}), 0.87, 0.01),
    )
    assert one(found, Topic.EQUAL).arms == ("flax_linen",)
    assert one(found, Topic.OPEN).arms == ("haiku",)
    assert one(found, Topic.OPEN).values["detectable"] == 0.008
    assert one(found, Topic.SAME_PROGRAM).arms == ("flax_linen", "haiku", "equinox filter_jit")
    slower, faster = (f for f in findings(found) if f.kind is Topic.DIFFERENT)
    assert (slower.values["verdict"], slower.arms) == (
        *("slower", ("flax_nnx jit", "equinox filter_jit")),
    )
    assert slower.values["ratios"]["flax_nnx jit"].number == 1.5
    assert (faster.values["verdict"], faster.arms) == ("faster", ("stax",))
    advice = one(found, Topic.ADVICE)
    assert advice.arms == ("flax_linen",)
    assert advice.values["slower"]
    assert not advice.values["every"]
    assert sentences(found)[:2] == [
        "Within ±2 % of pure_jax at seed (width 128): flax_linen.",
        "Slower at seed (width 128): flax_nnx jit 1.50 (1.47–1.53) and equinox filter_jit "
        "1.20 (1.17–1.23).",
    ]


def causes(found: dict[str, Any]) -> dict[tuple[str, ...], str]:
    return {f.arms: f.values["cause"] for f in findings(found) if f.kind is Topic.CAUSE}


def test_dispatch_is_a_fixed_cost_at_two_sizes() -> None:
    def nnx(calls: int, *ratios: float) -> dict[str, Any]:
        rows = [
            (cell("flax_nnx", "jit", w, differs={"add": 1}, calls=calls), ratio, ratio / 40)
            for w, ratio in zip(("toy", "seed"), ratios, strict=True)
        ]
        return steps(base("toy"), rows[0], base("seed"), rows[1])

    assert causes(nnx(7060, 9.0, 1.23)) == {("flax_nnx jit",): "dispatch"}
    found = one(nnx(7060, 9.0, 1.23), Topic.CAUSE)
    [(seconds, workloads)] = found.values["fixed"]
    assert seconds == pytest.approx(8.0 * 106e-6, rel=0.05)
    assert workloads == ("toy", "seed")
    assert found.values["calls"] == [(7060, 4)]
    # As much slower at both sizes: the cost grows with the model, so it is the program's as well.
    assert causes(nnx(7060, 1.23, 1.23)) == {("flax_nnx jit",): "both"}
    assert causes(nnx(4, 9.0, 1.23)) == {("flax_nnx jit",): "program"}


@pytest.mark.parametrize(
    ("cause", "more"),
    [
        ("calls", {"calls": 343}),
        ("unknown", {}),
        ("program", {"differs": {"transpose": 4}}),
        ("both", {"differs": {"transpose": 4}, "calls": 442}),
        ("parts", {"differs": {"add": -49}, "calls": 9000, "proof": {"whole_step": False}}),
        ("outside", {"differs": {}, "proof": {"jax": False}}),
        ("compiles", {"exact": {"compilations_warm": 1}}),
    ],
)
def test_why_a_step_is_slower(cause: str, more: dict[str, Any]) -> None:
    given = {name: value for name, value in more.items() if name in ("differs", "calls")}
    row = cell("flax_nnx", **given)
    for name in ("proof", "exact"):
        row[name] |= more.get(name, {})
    assert causes(steps(base(), (row, 1.2, 0.03))) == {("flax_nnx",): cause}


@pytest.mark.parametrize(
    ("ratios", "where", "until"),
    [
        ({"toy": (1.6, 0.07), "seed": (1.0, 0.01), "wide": (1.0, 0.01)}, "toy", "within seed"),
        ({"toy": (1.6, 0.07), "seed": (1.2, 0.01), "wide": (1.0, 0.01)}, "seed", "within wide"),
        # Slower for certain, but by less than the margin.
        ({"toy": (1.6, 0.07), "seed": (1.01, 0.005)}, "toy", "within seed"),
        ({"toy": (1.6, 0.07), "seed": (1.2, 0.01)}, "seed", ""),
        ({"seed": (1.6, 0.07), "wide": (1.2, 0.01)}, "seed", "larger"),
        ({"toy": (1.6, 0.07), "seed": (1.01, 0.05)}, "toy", "open seed"),
        ({"toy": (1.6, 0.07), "seed": (1.0, 0.01), "wide": (1.3, 0.01)}, "wide", "except seed"),
        ({"toy": (1.6, 0.07), "seed": (0.9, 0.01)}, "toy", "not seed"),
        ({"toy": (1.6, 0.07)}, "toy", ""),
    ],
)
def test_from_which_size_on_it_stops_mattering(
    ratios: dict[str, tuple[float, float]], where: str, until: str
) -> None:
    # The wider ones first: their order in the file says nothing about their sizes.
    found = steps(
        *[base(workload) for workload in reversed(ratios)],
        *[(cell("flax_nnx", workload=w, calls=343), *ratios[w]) for w in reversed(ratios)],
    )
    [slower] = (
        f for f in findings(found) if f.values.get("verdict") == "slower" and "until" in f.values
    )
    kind, workloads = slower.values["until"]
    assert slower.values["workload"] == where
    assert slower.values["ratios"]["flax_nnx"].number == ratios[where][0]
    assert " ".join([kind, *workloads]) == until
    assert (slower.kind is Topic.DIFFERENT) is (where == "seed" or len(ratios) == 1)


def test_initialisers() -> None:
    found = one(full(), Topic.INITIALISER)
    assert found.arms == ("stax", "equinox")
    assert found.values["own"] == pytest.approx((2.248, 2.996), abs=1e-3)
    within = full()
    for number, row in enumerate(within["cells"]):  # all within the spread of the seeds
        row["final_loss"] = final([2.3 + 0.05 * (number % 3), 2.6 + 0.05 * (number % 3)])
    apart = full()
    apart["cells"][-1]["final_loss"] = final(same=2.4)  # from the same weights to another place
    assert Topic.INITIALISER not in kinds(within) + kinds(apart)


def test_before_training() -> None:
    found = full()
    said = one(found, Topic.STARTUP)
    assert (said.arms, said.values["metric"]) == (("flax_linen blog",), "first_step")
    assert str(said.values["ratio"]) == "112 (100–127)"
    for row in found["cells"]:
        for name in STARTUP:
            row["metrics"][name]["verdict"] = "inconclusive"
    assert Topic.STARTUP not in kinds(found)


def test_what_a_call_costs_the_host() -> None:
    added = one(full(), Topic.ADDED)
    assert added.arms[:3] == ("flax_linen blog", "flax_nnx jit", "flax_nnx cached_partial")
    assert "haiku" not in added.arms  # not shown to add anything
    assert str(added.values["added"]["flax_nnx jit"]) == "+932 µs (916 to 948)"


def test_a_run_without_ratios_of_steps() -> None:
    rows = [cell("pure_jax"), cell("haiku")]
    rows[0]["metrics"] = {"compile": metric(0.4)}
    rows[1]["metrics"] = {"compile": metric(0.4, 1.3, 0.1)}
    found = section(rows)
    assert kinds(found) == [Topic.NOT_COMPARED, Topic.SAME_PROGRAM, Topic.STARTUP]
    assert one(found, Topic.NOT_COMPARED).values["reason"] == "untimed"
    haiku = cell("haiku")
    haiku["metrics"] = {"step": metric(3.5e-3)}
    failed = section([cell("pure_jax", failure="worker failed"), haiku])
    assert one(failed, Topic.NOT_COMPARED).values["reason"] == "no baseline"
    assert "3.50 ms" in shown(failed)


def test_nothing_was_measured() -> None:
    assert sentences(section([])) == ["Nothing was measured."]
    failed = [cell(name, failure="no", proof=None) for name in ("pure_jax", "haiku")]
    assert sentences(section(failed)) == ["Nothing was measured: all of the 2 cells failed."]
    assert shown(section(failed)).count("FAILED ") == 2


def test_a_control_that_differs_comes_first() -> None:
    found = steps(base(), (cell("haiku"), 1.03, 0.005))
    found["control"][0] |= {"verdict": "slower", "ratio": 1.02, "low": 1.015, "high": 1.025}
    assert kinds(found)[0] is Topic.CONTROL
    assert str(findings(found)[0].values["ratios"]["step at seed"]) == "1.020 (1.015–1.025)"
    found["control"] = []
    assert kinds(found)[0] is Topic.NO_CONTROL


def test_no_number_is_invented() -> None:
    """Every ratio of a sentence is in the section, as it is worded."""
    found = full()
    numbers = [m for row in found["cells"] for m in row["metrics"].values() if "median" in m]
    known = {str(Value(m["ratio"], low=m["low"], high=m["high"])) for m in numbers if m["ratio"]}
    known |= {amount(m["median"], m["unit"]) for m in numbers}
    said = [v for f in findings(found) for v in (f.values.get("ratios") or {}).values()]
    assert said
    assert {str(value) for value in said} <= known


# --- which library


def test_a_choice_is_a_maintained_library_s() -> None:
    found = choices(full())
    assert [f.values["situation"] for f in found] == ["call", "step", "startup", "memory"]
    named = {name.split()[0] for f in found for name in f.arms}
    assert named <= {"equinox", "flax_nnx"}
    assert choices(section([base()[0], cell("trax"), cell("haiku")])) == []


@pytest.mark.parametrize(
    ("ratios", "arms", "alike"),
    [
        ({"equinox": (0.8, 0.01), "flax_nnx": (1.0, 0.01)}, ("equinox",), "certain"),
        ({"equinox": (1.0, 0.01), "flax_nnx": (1.005, 0.01)}, ("equinox", "flax_nnx"), "within"),
        ({"equinox": (1.1, 0.001), "flax_nnx": (1.11, 0.001)}, ("equinox", "flax_nnx"), "certain"),
        ({"equinox": (1.0, 0.1), "flax_nnx": (1.05, 0.1)}, ("equinox", "flax_nnx"), "open"),
        ({"equinox": (1.2, 0.01), "haiku": (0.5, 0.01)}, None, ""),
    ],
)
def test_a_tie_is_one_short_sentence(
    ratios: dict[str, tuple[float, float]], arms: tuple[str, ...] | None, alike: str
) -> None:
    found = choices(steps(base(), *((cell(n), *ends) for n, ends in ratios.items())))
    if arms is None:  # one candidate is no choice
        assert found == []
        return
    [step] = found
    assert (step.arms, step.values["alike"]) == (arms, alike)
    assert (step.values["next"] is None) is (len(arms) == 2)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*-cores*/*.json")), ids=str)
def test_published_runs_can_be_read_in_a_minute(path: Path) -> None:
    found = document(read(path))
    [said] = [section for section in found.sections if section.title == "What it found"]
    lines = terminal(Document("", sections=(said,))).strip().splitlines()
    assert len(lines) <= LINES
    assert max(map(len, terminal(found, details=True).splitlines())) <= 80
    which = [s for s in found.sections if s.title == "Which library for me?"]
    told = " ".join(line for s in which for line in s.lines if not line.startswith("Left out"))
    assert "trax" not in told
    assert "blog" not in told
