"""A run as a document: its tables, its charts, and what it found."""

from typing import Any

import pytest

from bench.report.findings import list_findings
from bench.report.run import document
from bench.report.table import format_content
from tests.report.runs import Planted, made_run, section
from tests.report.test_renderers import terminal

NNX, HAIKU = "flax_nnx/jit", "haiku/pure"


def test_a_table_has_the_baselines_times_and_the_others_ratios() -> None:
    arms = {
        HAIKU: Planted(1.0, calls=1, cold=2.0, differs={"sub": -1}),
        NNX: Planted(1.2, differs={"add": 1}, calls=9, counts={"temp_bytes": 725_572}),
        "flax_linen/blog": Planted(1.5, proof={"whole_step": False}, calls=9000),
        "planted/pure": Planted(failure="not equal"),
    }
    shown = document(made_run(arms))
    [table] = section(shown, "Results").tables
    assert table.title == "seed on cpu: width 128, 256 characters; 15 blocks, 5 processes"
    titles = [column.title for column in table.columns]
    rows = [dict(zip(titles, map(format_content, row.cells), strict=True)) for row in table.rows]
    columns = ("style", "Python\ncalls", "program")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("pure_jax/pure", "4", ""),
        ("haiku/pure", "-3", "-1 sub"),
        ("flax_nnx/jit", "+5", "+1 add"),
        ("flax_linen/blog", "+8 996", "several"),
        ("planted/pure failed", "", ""),
    ]
    assert [row["step"][:3] for row in rows] == ["4.0", "1.0", "1.2", "1.5", ""]
    assert [row["startup"][:3] for row in rows] == ["899", "2.0", "1.0", "1.0", ""]
    memory = section(shown, "More about seed on cpu").tables[-2]
    assert [format_content(row.cells[1]) for row in memory.rows] == ["726 kB", "=", "+4 B", "part"]
    assert "FAILED planted/pure (seed on cpu): not equal\n    first\n" in terminal(shown)


def test_what_was_not_asked_for_shows_nothing_and_the_rest_has_one_reason() -> None:
    missing = dict.fromkeys(("step", "import", "compile"), "not measured within the budget")
    run = made_run({NNX: Planted(1.2, host=9e-4, missing=missing)}, ("toy", "seed"))
    kept = [row for row in run.results.estimates if str(row.cell.arm) != "flax_nnx/jit"]
    kept += [row for row in run.results.estimates if row.metric == "host_cost"]
    run.results.estimates = kept
    toy, seed = section(document(run), "Results").tables
    assert [column.title for column in toy.columns][:2] == ["style", "host\ncost"]
    assert [format_content(row.cells[1]) for row in seed.rows] == ["4.09 ms", "–"]
    assert seed.notes == (
        "Not measured within the budget: step, import and compile of flax_nnx/jit.",
    )


@pytest.mark.parametrize(
    ("arms", "options", "texts"),
    [
        (
            {
                "flax_linen/pure": Planted(1.001),
                HAIKU: Planted(1.015),
                "equinox/filter_jit": Planted(1.2),
                NNX: Planted(1.5, differs={"add": 1}),
                "stax/pure": Planted(0.87, differs={"add": 1}),
            },
            {},
            [
                "equally fast at seed: pure_jax/pure, flax_linen/pure and haiku/pure. "
                "Choose by API; mind how you",
                "within ±2 % of pure_jax/pure at seed: flax_linen/pure and haiku/pure",
                "slower at seed: flax_nnx/jit 1.5",
                "faster at seed: stax/pure 0.8",
                "certain, but within ±2 % at seed: haiku/pure +1.6 % (1.",
            ],
        ),
        ({HAIKU: Planted(1.03)}, {"noise": 0.1}, ["inconclusive at seed: haiku/pure"]),
        # From two workers no advice.
        ({HAIKU: Planted()}, {"workers": 2}, ["within ±2 % of pure_jax/pure at seed: haiku/pure"]),
        (  # The wider one first: the order in the file says nothing about sizes.
            {NNX: Planted({"seed": 1.2, "wide": 1.1}, None)},
            {"workloads": ("wide", "seed")},
            ["slower at seed: flax_nnx/jit 1.2", "slower at wide: flax_nnx/jit 1.10"],
        ),
        (
            {HAIKU: Planted(), NNX: Planted(host=9e-4), "equinox/pure": Planted(host=3e-5)},
            {"workloads": ("toy",)},
            [
                "steps are not compared: none was timed beside pure_jax/pure",
                "at most 10 µs added to each call of a tiny model: haiku/pure",
                "added to each call of a tiny model: flax_nnx/jit +9",
            ],
        ),
        ({NNX: Planted(failure="no")}, {"base": False}, ["nothing was measured: all of the 1"]),
        ({}, {"cells": [], "estimates": []}, ["nothing was measured"]),
    ],
)  # fmt: skip
def test_what_a_run_found(
    arms: dict[str, Planted], options: dict[str, Any], texts: list[str]
) -> None:
    run = made_run(arms, **{"cold": 0} | options)
    several, shown = list_findings(run.results), terminal(document(run), 200)
    assert [text[: len(start)] for text, start in zip(several, texts, strict=True)] == texts
    assert several[0][1:20] in shown
    assert ("To narrow inconclusive intervals: a longer" in shown) is ("noise" in options)
    assert ("Preliminary, from fewer than 3 workers: step." in shown) is ("workers" in options)


@pytest.mark.parametrize(
    ("reason", "arm"),
    [
        ("what the host does in each call (host cost)", Planted(1.2, 8e-4, calls=7000)),
        # On several cores, half of it overlaps with the step.
        ("what the host does in each call (host cost)", Planted(1.1, 8e-4, calls=7000)),
        # As the host is twice as slow between two calls of a large program.
        ("what the host does in each call (host cost)", Planted(1.2, 4e-4)),
        ("another program (+4 transpose)", Planted(1.2, 1e-5, differs={"transpose": 4})),
        (
            "the same program, but more Python calls than pure_jax/pure",
            Planted(1.2, None, calls=40),
        ),
        ("", Planted(1.2, None)),
        ("a step is several programs, not one", Planted(1.2, 8e-4, proof={"whole_step": False})),
        ("it traces and compiles again when warm", Planted(9.0, counts={"compilations_warm": 1})),
    ],
)  # fmt: skip
def test_why_a_step_is_slower(reason: str, arm: Planted) -> None:
    run = made_run({"haiku/transform": Planted(), NNX: arm}, ("toy", "seed"), cold=0)
    causes = [text for text in list_findings(run.results) if text.startswith("why")]
    assert causes == ([f"why flax_nnx/jit is slower at seed: {reason}"] if reason else [])


def test_a_run_has_a_chart_for_each_question() -> None:
    arms = {HAIKU: Planted({"width64": 1.3, "width256": 1.01}), NNX: Planted(1.3, cold=2.0)}
    shown = document(made_run(arms, ("width64", "width256", "seed")))
    steps, widths, startup = section(shown, "Charts").figures
    assert steps.title == "At seed, flax_nnx/jit differs from pure_jax/pure"
    assert steps.text.startswith("step, ratio to pure_jax/pure, with 95 % intervals. Grey: ")
    assert "Grey: differences too small to detect." in steps.text
    assert widths.title == "At the widest, 1 of 2 steps are within ±2 %"
    assert startup.title.endswith("at seed: 900 ms with pure_jax/pure, 1.80 s with flax_nnx/jit")


def test_two_backends_are_named() -> None:
    cpu, gpu = (made_run({NNX: Planted(1.2)}, backend=name) for name in ("cpu", "gpu"))
    cpu.results.cells += gpu.results.cells
    cpu.results.estimates += gpu.results.estimates
    places = {text.partition(":")[0] for text in list_findings(cpu.results)}
    assert places >= {"slower at seed on cpu", "slower at seed on gpu"}
    titles = [figure.title for figure in section(document(cpu), "Charts").figures]
    assert ["seed on cpu" in t for t in titles] == ["seed on gpu" not in t for t in titles]
    assert len(titles) == 4
