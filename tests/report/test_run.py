"""A run as a document: its tables, its charts, and what it found."""

import re
from typing import Any

import pytest

from bench.report.documents.run import describe_run
from bench.report.table import format_content
from tests.report.runs import Planted, made_run, section
from tests.report.test_renderers import terminal

NNX, HAIKU = "flax_nnx/jit", "haiku/pure"


def test_one_table_has_all_sizes_and_details_have_every_number() -> None:
    arms = {
        NNX: Planted(1.2, 9e-4, differs={"add": 1}, calls=9, counts={"temp_bytes": 725_572}),
        HAIKU: Planted(1.0, calls=1, cold=2.0, differs={"sub": -1}),
        "flax_linen/blog": Planted(1.5, 2e-3, proof={"whole_step": False}, calls=9000),
        "planted/pure": Planted(failure="not equal"),
    }
    shown = describe_run(made_run(arms, ("toy", "seed", "wide")))
    [table] = section(shown, "What it costs").tables
    titles = ["step at width 128", "added to a call", "step at width 512", "compile", "startup"]
    assert [column.title for column in table.columns] == ["style", *titles, "peak\nmemory"]
    rows = [[format_content(cell)[:3] for cell in row.cells] for row in table.rows]
    assert [row[0] for row in rows] == ["pur", "hai", "fla", "fla", "pla"], "the cheapest first"
    assert [row[1] for row in rows] == ["4.0", "-0.", "+20", "+50", ""]
    assert [row[2] for row in rows] == ["51.", "+0.", "+89", "+2.", ""]
    assert [row[5] for row in rows] == ["899", "+99", "-0.", "-0.", ""]
    calls, *_, memory, _medians = section(shown, "All numbers, width 128 on cpu").tables
    assert (
        calls.title
        == "width 128 on cpu (`seed`): 256 characters in a step; 15 blocks, 5 workers, calls"
    )
    programs = [format_content(row.cells[-1]) for row in calls.rows]
    assert sorted(programs) == ["", "+1 add", "-1 sub", "several"]
    temporary = [format_content(row.cells[2]) for row in memory.rows]
    assert sorted(temporary) == ["+4 B", "726 kB", "=", "part"]
    assert "FAILED planted/pure (width 8 on cpu, width 128 on cpu, width 512 on cpu)" in (
        terminal(shown, 100)
    )


def test_what_was_not_measured_is_said_once() -> None:
    missing = dict.fromkeys(("step", "import", "compile"), "not measured within the budget")
    run = made_run({NNX: Planted(1.2, host=9e-4, missing=missing)}, ("toy", "seed"))
    kept = [row for row in run.results.estimates if str(row.cell.arm) != NNX]
    kept += [row for row in run.results.estimates if row.metric == "host_cost"]
    run.results.estimates = kept
    shown = describe_run(run)
    [table] = section(shown, "What it costs").tables
    assert [format_content(row.cells[1]) for row in table.rows] == ["4.09 ms", "–"]
    run = made_run({HAIKU: Planted(), NNX: Planted()})
    run.results.estimates = [row for row in run.results.estimates if str(row.cell.arm) != NNX]
    assert f" Not measured: {NNX}. CPU only" in describe_run(run).headline
    assert "Not measured: 6 numbers." in section(shown, "What it costs").lines[-1]
    why = "Not measured within the budget: step, import and compile of flax_nnx/jit."
    assert section(shown, "Not measured").lines == tuple(
        f"At {place} on cpu. {why}" for place in ("width 8", "width 128")
    )


LEVEL = {"flax_linen/pure": Planted(1.001), HAIKU: Planted(1.015)}


@pytest.mark.parametrize(
    ("arms", "options", "headline"),
    [
        (
            LEVEL | {"equinox/filter_jit": Planted(1.2), NNX: Planted(1.5, differs={"add": 1})},
            {},
            "Under one `jax.jit`, flax_linen and haiku are at most 1.8 % slower than plain JAX at "
            "width 128. `eqx.filter_jit` is 20 % slower; `nnx.jit`, 50 %. CPU only",
        ),
        (
            LEVEL | {"stax/pure": Planted(0.87, differs={"add": 1})},
            {},
            "Under one `jax.jit`, each of 3 libraries is at most 1.9 % slower than plain JAX at ",
        ),
        (
            {HAIKU: Planted(1.03), "haiku/transform": Planted(1.02)},
            {"noise": 0.1},
            "Under one `jax.jit`, haiku is undecided at width 128. Haiku's own loss",
        ),
        (
            {HAIKU: Planted(), NNX: Planted()},
            {"noise": 0.05},
            "At width 128, nothing is settled yet.",
        ),
        (
            {HAIKU: Planted(1.1), NNX: Planted(30.0)},
            {"noise": 0.6, "workers": 4},
            "Under one `jax.jit`, haiku is undecided at width 128. `nnx.jit` is 36 times as "
            "slow as plain JAX at width 128. CPU only",
        ),
        (
            {HAIKU: Planted(), "stax/pure": Planted(failure="no")},
            {"noise": 0.05},
            "At width 128, nothing is settled yet. Failed: stax/pure. CPU only",
        ),
        # What has the mark of equal is not called faster, and a bound is rounded outwards.
        (
            {HAIKU: Planted(0.99)},
            {},
            "Under one `jax.jit`, haiku is within 2 % of plain JAX at width 128.",
        ),
        (
            {HAIKU: Planted(0.845), "stax/pure": Planted(0.7)},
            {},
            "Under one `jax.jit`, haiku and stax are at least 15 % faster than plain JAX at ",
        ),
        (
            {HAIKU: Planted(), NNX: Planted(host=None)},
            {"noise": 0.3, "workloads": ("toy",)},
            "Time added to a call: nothing is settled yet.",
        ),
        (
            {HAIKU: Planted(1.0), "haiku/transform": Planted(1.0)},
            {},
            "Under one `jax.jit`, haiku is at most 0.",
        ),
        (
            {"torch/pure": Planted(1.5, None, proof={"jax": False})},
            {},
            "torch/pure is 50 % slower than plain JAX at width 128.",
        ),
        (
            {"torch/pure": Planted(9.0, None, proof={"jax": False})},
            {},
            "torch/pure is 9.0 times as slow as plain JAX at width 128.",
        ),
        # One style that is no library's shared step
        (
            {"haiku/transform": Planted()},
            {},
            "Haiku's own loss under one `hk.transform` is at most 0.",
        ),
        (
            {NNX: Planted(12.0)},
            {},
            "`nnx.jit` is 12 times as slow as plain JAX at width 128.",
        ),
        (
            {NNX: Planted(2.5), "flax_linen/blog": Planted(150.0)},
            {},
            "`nnx.jit` is 2.5 times as slow as plain JAX at width 128; a 2021 Flax tutorial's "
            "step, 150 times as slow. CPU",
        ),
        (
            {"equinox/pure": Planted({"seed": 1.0, "wide": 0.8}, differs={"add": 1})},
            {"workloads": ("seed", "wide")},
            "Under one `jax.jit`, equinox is at most 0.2 % slower than plain JAX at width 128. "
            "At width 512, equinox is 20 % faster. CPU only",
        ),
        (
            {HAIKU: Planted(1.3), "stax/pure": Planted(failure="no")},
            {},
            "Under one `jax.jit`, haiku is 30 % slower than plain JAX at width 128. "
            "Failed: stax/pure. CPU only",
        ),
        # The wider one first: the order in the file says nothing about sizes.
        (
            {NNX: Planted({"seed": 1.2, "wide": 1.1}, None)},
            {"workloads": ("wide", "seed")},
            "`nnx.jit` is 20 % slower than plain JAX at width 128. CPU only",
        ),
        (
            {HAIKU: Planted(), NNX: Planted(host=9e-4)},
            {"workloads": ("toy",)},
            "`nnx.jit` adds most to a call: 899 µs",
        ),
        (
            {HAIKU: Planted()},
            {"workloads": ("toy",)},
            "No style is known to add time to a call: haiku/pure.",
        ),
        (
            {HAIKU: Planted(host=None)},
            {"workloads": ("toy",)},
            "No time was compared with that of pure_jax/pure. 2 proofs passed.",
        ),
        ({NNX: Planted(failure="no")}, {"base": False}, "Nothing was measured: every cell failed."),
        ({}, {"cells": [], "estimates": []}, "Nothing was measured."),
    ],
)  # fmt: skip
def test_the_headline_is_true_of_what_was_measured(
    arms: dict[str, Planted], options: dict[str, Any], headline: str
) -> None:
    shown = describe_run(made_run(arms, **{"cold": 0} | options))
    assert shown.headline[: len(headline)] == headline
    undecided = "To settle " in terminal(shown)
    assert undecided is ("noise" in options)


def test_few_workers_are_preliminary() -> None:
    shown = describe_run(made_run({HAIKU: Planted()}, workers=2, cold=0))
    assert "Preliminary, from fewer than 3 workers: step." in terminal(shown)


def test_surprises_have_their_cause() -> None:
    arms = {"equinox/pure": Planted({"seed": 1.0, "wide": 0.86}, 2e-5, differs={"transpose": 4})}
    shown = describe_run(made_run(arms, ("toy", "seed", "wide"), cold=0))
    [line] = section(shown, "Surprises").lines
    assert re.fullmatch(
        r"Faster at width 512: equinox/pure -1\d.* % \(-1.* to -1.*\); a different program "
        r"\(\+4 transpose\)\.",
        line,
    )


def test_a_slow_style_has_the_lines_to_write_instead() -> None:
    arms = {NNX: Planted(1.2, 9e-4), "flax_nnx/jit_partial": Planted(1.0, 3e-5)}
    [text] = section(describe_run(made_run(arms, ("toy", "seed"))), "Write this instead").lines
    assert text.splitlines() == [
        "flax_nnx/jit_partial in place of flax_nnx/jit saves 869 µs a call at width 8:",
        "`- @nnx.jit`",
        "`  …`",
        "`+ train_step = nnx.jit_partial(train_step, model, optimizer, graph=False)`",
        "`  for batch in batches:`",
        "`-     value = train_step(model, optimizer, batch)`",
        "`+     value = train_step(batch)`",
    ]


@pytest.mark.parametrize(
    ("reason", "arm"),
    [
        ("the host's work in each call", Planted(1.2, 8e-4, calls=7000)),
        # On several cores, half of it overlaps with the step.
        ("the host's work in each call", Planted(1.1, 8e-4, calls=7000)),
        # As the host is twice as slow between two calls of a large program.
        ("the host's work in each call", Planted(1.2, 4e-4)),
        ("a different program (+4 transpose)", Planted(1.2, 1e-5, differs={"transpose": 4})),
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
    causes = section(describe_run(run), "Causes").lines
    reason = f"Why flax_nnx/jit is slower at width 128: {reason}." if reason else ""
    assert [text for text in causes if text.startswith("Why")] == [reason] * bool(reason)


def test_a_run_has_a_chart_for_each_question() -> None:
    arms = {HAIKU: Planted({"width64": 1.3, "width256": 1.01}), NNX: Planted(1.3, 9e-4, cold=2.0)}
    shown = describe_run(made_run(arms, ("toy", "width64", "width256", "seed")))
    [calls] = section(shown, "What a call costs").figures
    assert re.fullmatch(r"flax_nnx/jit adds most to a call: 90\d µs .*", calls.title)
    steps, widths = section(shown, "Steps").figures
    assert steps.title == "At width 128, flax_nnx/jit differs from pure_jax/pure"
    assert steps.text.startswith("step, beside pure_jax/pure, with 95 % intervals. Grey: ")
    assert "Grey: differences too small to detect." in steps.text
    assert widths.title == "At the widest, 1 of 2 steps are within ±2 %"


def test_two_backends_are_named() -> None:
    cpu, gpu = (made_run({NNX: Planted(1.2)}, backend=name) for name in ("cpu", "gpu"))
    cpu.results.cells += gpu.results.cells
    cpu.results.estimates += gpu.results.estimates
    shown = describe_run(cpu)
    assert "than plain JAX at width 128 on gpu" in shown.headline
    tables = section(shown, "What it costs").tables
    assert [table.title for table in tables] == ["On cpu", "On gpu"]
    titles = [figure.title for figure in section(shown, "Steps").figures]
    assert ["width 128 on cpu" in t for t in titles] == [
        "width 128 on gpu" not in t for t in titles
    ]
    assert len(titles) == 2
