"""A run as a document: its tables, what it found, and what to take."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.report.choices import choices
from bench.report.findings import Finding, Topic, findings, sentences
from bench.report.run import LINES, document
from bench.report.table import text_of
from bench.report.view import views
from bench.runfile import ResultsWithSamples
from tests.report.runs import Planted, made_run
from tests.report.test_renderers import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report.choices import Choice
    from bench.report.table import Document, Section
    from bench.runfile.reader import Run

NNX = "flax_nnx/jit"


def topics(run: Run) -> list[Topic]:
    return [finding.topic for finding in findings(run.results)]


def one(run: Run, topic: Topic) -> Finding:
    [finding] = [f for f in findings(run.results) if f.topic is topic]
    return finding


def section(shown: Document, title: str) -> Section:
    [part] = [part for part in shown.sections if part.title == title]
    return part


# tables


def test_a_table_has_the_baselines_times_and_the_others_ratios() -> None:
    arms = {
        "haiku/pure": Planted(1.0, calls=1),
        NNX: Planted(1.2, differs={"add": 1}, calls=9, counts={"temp_bytes": 725_572}),
        "flax_linen/blog": Planted(1.5, proof={"whole_step": False}, calls=9000),
        "planted/pure": Planted(failure="not equal"),
    }
    run = made_run(arms, cold=0)
    shown = document(run)
    [table] = section(shown, "Results").tables
    assert table.title == "seed on cpu: width 128, 256 characters; 15 blocks, 5 processes"
    assert [column.title for column in table.columns] == [
        *("style", "step", "Python\ncalls", "program")
    ]
    rows = [[text_of(content) for content in row.cells] for row in table.rows]
    assert [row[0] for row in rows] == [
        *("pure_jax", "haiku", "flax_nnx jit", "flax_linen blog", "planted")
    ]
    assert rows[0][1:] == ["4.08 ms", "4", ""]
    assert rows[1][2:] == ["-3", "the same"]
    assert rows[2][1].startswith("1.2")
    assert rows[2][2:] == ["+5", "+1 add"]
    assert rows[3][2:] == ["+8 996", "several"]
    assert rows[4][1:] == ["failed", "", ""]
    memory = section(shown, "More about seed on cpu").tables[-2]
    assert [[text_of(c) for c in row.cells] for row in memory.rows] == [
        ["pure_jax", "726 kB"],
        ["haiku", "="],
        ["flax_nnx jit", "+4 B"],
        ["flax_linen blog", "part"],
    ]
    text = terminal(shown)
    assert "FAILED planted pure (seed on cpu): not equal" in text
    assert "    last" in text
    assert text.count("first") < 5


def test_what_was_not_asked_for_shows_nothing_and_the_rest_has_one_reason() -> None:
    budget = dict.fromkeys(("step", "import", "compile"), "not measured within the budget")
    run = made_run({NNX: Planted(1.2, host=9e-4, missing=budget)}, ("toy", "seed"), cold=6)
    run.results.estimates = [
        row
        for row in run.results.estimates
        if row.cell.is_baseline or row.metric not in budget or row.cell.entrant == "control"
    ]
    shown = document(run)
    toy, seed = section(shown, "Results").tables
    assert [column.title for column in toy.columns][:2] == ["style", "host\ncost"]
    assert [text_of(row.cells[1]) for row in seed.rows] == ["4.08 ms", "–"]
    assert seed.notes == ("not measured within the budget: step of flax_nnx jit.",)
    lines = section(shown, "What was not measured").lines
    assert lines[1] == (
        "seed on cpu: not measured within the budget: step, import and compile of flax_nnx jit."
    )


def test_startup_is_the_sum_of_all_stages() -> None:
    run = made_run({"haiku/pure": Planted(cold=2.0, differs={"add": 1})})
    [table] = section(document(run), "Results").tables
    column = [c.title for c in table.columns].index("startup")
    sums = [row.cells[column] for row in table.rows]
    assert [s.value for s in sums if not isinstance(s, str)] == pytest.approx(
        [0.91, 1.82], rel=0.01
    )


def test_a_short_run_is_read_in_a_minute() -> None:
    styles = [f"style{i}" for i in range(12)]
    arms = {
        f"{entrant}/{s}": Planted(1 + i / 40, 1e-5 * i)
        for i, s in enumerate(styles)
        for entrant in ("flax_nnx", "haiku")
    }
    shown = document(made_run(arms, ("toy", "seed", "wide"), workers=3, cold=5, noise=0.02))
    short = section(shown, "What it found").lines
    assert sum(len(textwrap.wrap(line, 80, subsequent_indent="  ")) for line in short) <= LINES
    assert section(shown, "More that it found").lines
    assert len(terminal(shown, details=True)) > 2 * len(terminal(shown))


def test_preliminary_estimates_are_named_and_advise_nothing() -> None:
    run = made_run({"haiku/pure": Planted()}, workers=2)
    [table] = section(document(run), "Results").tables
    assert table.notes == ("Preliminary, from fewer than 3 workers: step.",)
    assert Topic.ADVICE not in topics(run)


# findings


def test_who_is_equal_who_is_not_and_what_to_choose_by() -> None:
    arms = {
        "flax_linen/pure": Planted(1.001),
        "haiku/pure": Planted(1.015),
        "equinox/filter_jit": Planted(1.2),
        NNX: Planted(1.5, differs={"add": 1}),
        "stax/pure": Planted(0.87, differs={"add": 1}),
    }
    run = made_run(arms)
    assert one(run, Topic.EQUAL).arms == ("flax_linen", "haiku")
    assert one(run, Topic.CERTAIN).arms == ("haiku",)
    assert "haiku +1.5 % (1." in str(one(run, Topic.CERTAIN))
    slower, faster = (f for f in findings(run.results) if f.topic is Topic.DIFFERENT)
    assert slower.arms == ("flax_nnx jit", "equinox filter_jit")
    assert slower.estimates["flax_nnx jit"].value == pytest.approx(1.5, rel=0.01)
    assert faster.arms == ("stax",)
    assert one(run, Topic.ADVICE).arms == ("flax_linen", "haiku")
    assert sentences(run.results)[:2] == [
        "Equally fast at seed: pure_jax, flax_linen and haiku. Choose by API; mind how you write "
        "steps.",
        "Within ±2 % of pure_jax at seed: flax_linen and haiku.",
    ]


def test_what_is_open_says_what_the_run_detects() -> None:
    run = made_run({"haiku/pure": Planted(1.03)}, noise=0.1)
    assert "inconclusive at seed (this run detects " in one(run, Topic.OPEN).text


@pytest.mark.parametrize(
    ("reason", "arm"),
    [
        ("what the host does in each call (host cost)", Planted(1.2, 8e-4, calls=7000)),
        # As the host is twice as slow between two calls of a large program.
        ("what the host does in each call (host cost)", Planted(1.2, 4e-4)),
        ("another program (+4 transpose)", Planted(1.2, 1e-5, differs={"transpose": 4})),
        ("", Planted(1.2, None, differs={"transpose": 4}, calls=400)),
        ("the same program, but more Python calls than pure_jax's", Planted(1.2, None, calls=40)),
        ("", Planted(1.2, None)),
        ("a step is several programs, not one", Planted(1.2, 8e-4, proof={"whole_step": False})),
        ("not written in JAX", Planted(7.0, None, proof={"jax": False})),
        ("it traces and compiles again when warm", Planted(9.0, counts={"compilations_warm": 1})),
    ],
)  # fmt: skip
def test_why_a_step_is_slower(reason: str, arm: Planted) -> None:
    run = made_run({"haiku/transform": Planted(), NNX: arm}, ("toy", "seed"), cold=0)
    causes = [f.text for f in findings(run.results) if f.topic is Topic.CAUSE]
    expected = f"why flax_nnx jit is slower at seed: {reason}"
    assert causes == ([expected] if reason else [])


@pytest.mark.parametrize(
    ("ratios", "workload", "topic"),
    [
        ({"seed": 1.2, "wide": 1.0}, "seed", Topic.DIFFERENT),
        ({"seed": 1.0, "wide": 1.1}, "wide", Topic.ELSEWHERE),
        ({"seed": 1.2, "wide": 1.1}, "wide", Topic.ELSEWHERE),
    ],
)
def test_steps_at_the_widest_workload(
    ratios: dict[str, float], workload: str, topic: Topic
) -> None:
    # The wider one first: the order in the file says nothing about sizes.
    run = made_run({NNX: Planted(ratios)}, ("wide", "seed"))
    slower = [f for f in findings(run.results) if f.text.startswith(f"slower at {workload}")]
    assert [f.topic for f in slower] == [topic]


def test_what_a_call_costs_the_host() -> None:
    arms = {
        "haiku/pure": Planted(host=0.0),
        NNX: Planted(host=9e-4),
        "equinox/pure": Planted(host=3e-5),
    }
    run = made_run(arms, ("toy",))
    assert one(run, Topic.ADDED).arms == ("flax_nnx jit", "equinox")
    assert Topic.NOT_COMPARED in topics(run)


def test_initialisers() -> None:
    apart = {"haiku/pure": Planted(own_losses=(3.1, 3.3)), NNX: Planted(own_losses=(2.4, 2.5))}
    assert one(made_run(apart), Topic.INITIALISER).arms == ("pure_jax", "haiku")
    near = {"haiku/pure": Planted(own_losses=(2.5, 2.7))}
    assert Topic.INITIALISER not in topics(made_run(near))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: made_run({NNX: Planted()}, base=False), "Steps are not compared: none was timed"),
        (lambda: made_run({}), "Steps are not compared"),
        (
            lambda: made_run(dict.fromkeys(("haiku/pure", NNX), Planted(failure="no")), base=False),
            "Nothing was measured: all of the 2 cells failed.",
        ),
    ],
)
def test_a_run_without_ratios_says_so(make: Callable[[], Run], text: str) -> None:
    run = make()
    assert sentences(run.results)[0].startswith(text)
    assert text in terminal(document(run), 200)


def test_two_backends_are_named() -> None:
    cpu, gpu = (made_run({NNX: Planted(1.2)}, backend=name) for name in ("cpu", "gpu"))
    cpu.results.cells += gpu.results.cells
    cpu.results.estimates += gpu.results.estimates
    texts = sentences(cpu.results)
    assert any("at seed on cpu" in text for text in texts)
    assert any("at seed on gpu" in text for text in texts)
    names = [figure.name for figure in section(document(cpu), "Charts").figures]
    assert names == ["steps-cpu", "startup-cpu", "steps-gpu", "startup-gpu"]


# which library


def chosen(run: Run) -> list[Choice]:
    return choices(views(run.results)[0])


def test_choices_are_of_maintained_libraries_in_use() -> None:
    arms = {
        name: Planted(1.0 + i / 10, 1e-5 * i, 1.0 + i / 10)
        for i, name in enumerate(
            ("haiku/pure", "pure_jax/tuned", "trax/pure", "equinox/pure", "flax_nnx/pure")
        )
    }
    made = chosen(made_run(arms, ("toy", "seed")))
    assert [choice.text.partition(":")[0] for choice in made] == [
        "small models, many short calls",
        "training at seed",
        "short runs and CI, up to a first step at seed",
        "memory at seed",
    ]
    assert {arm for choice in made for arm in choice.alike} == {"equinox", "flax_nnx"}
    assert chosen(made_run({"trax/pure": Planted(), "haiku/pure": Planted()})) == []


@pytest.mark.parametrize(
    ("ratios", "noise", "alike", "text"),
    [
        ((0.8, 1.0), 0.002, ("equinox",), "training at seed: equinox, 0.8"),
        ((1.0, 1.005), 0.002, ("equinox", "flax_nnx"), "all are within ±2 % of pure_jax"),
        ((1.1, 1.11), 0.001, ("equinox", "flax_nnx"), "they do not differ by more than 2 %"),
        ((1.0, 1.04), 0.1, ("equinox", "flax_nnx"), "none is shown to be worse by more than 2 %"),
    ],
)
def test_a_tie_is_one_short_sentence(
    ratios: tuple[float, float], noise: float, alike: tuple[str, ...], text: str
) -> None:
    arms = {"equinox/pure": Planted(ratios[0]), "flax_nnx/pure": Planted(ratios[1])}
    [step] = chosen(made_run(arms, noise=noise, cold=0))
    assert set(step.alike) == set(alike)
    assert text in step.text
    assert ("next: flax_nnx" in step.text) is (len(alike) == 1)


def test_an_empty_file_is_a_document() -> None:
    run = replace(made_run({}), results=ResultsWithSamples(), samples=[])
    assert "Nothing was measured." in terminal(document(run))
