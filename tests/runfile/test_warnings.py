"""Reasons to doubt the numbers, in sentences."""

import pytest
from msgspec import structs

from bench.cells import CONTROL
from bench.offer import Offer
from bench.runfile import EnvironmentInfo, TimeSpent, warnings
from bench.runfile.reader import Run
from tests.report.runs import Planted, made_run


def given(run: Run, notes: tuple[str, ...] = ()) -> list[str]:
    return warnings.collect_warnings(run.results, Offer(), notes)


def test_a_quiet_run_warns_of_nothing() -> None:
    run = made_run({"haiku/pure": Planted(1.2)}, ("toy", "seed"))
    assert given(run) == []
    assert given(run, notes=("a remark",)) == ["a remark"]


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        (TimeSpent(stolen=0.02, others=0.1, busiest="cc"), ()),
        (TimeSpent(stolen=0.07, others=0.25, busiest="cc"), ("7% of the proc", "25%", "of it cc")),
        (TimeSpent(stolen=0.03), ("3% of the processor time",)),
    ],
)
def test_other_processes(spent: TimeSpent, words: tuple[str, ...]) -> None:
    sentences = list(warnings.warn_of_processes(spent))
    assert len(sentences) == bool(words)
    assert all(word in sentences[0] for word in words)


def test_environments() -> None:
    [sentence] = warnings.warn_of_imports(512)
    assert "no bytecode of 512 modules" in sentence
    run = made_run({"haiku/pure": Planted()})
    versions = {"python": "3.13.5", "jax": "0.4.0"}
    run.results.environments["keras"] = EnvironmentInfo(versions=versions)
    [sentence] = given(run)
    assert "keras runs in its own environment with jax 0.4.0 instead of 0.12.0.1:" in sentence


def test_a_control_that_differs_for_certain() -> None:
    run = made_run({"haiku/pure": Planted()})
    for p, warned in ((0.001, 1), (0.03, 0)):  # one of ten controls may have p = 0.03
        apart = [
            structs.replace(row, value=1.03, p=p, verdict="slower")
            if row.cell.arm == CONTROL and row.metric == "step" and row.form == "ratio"
            else row
            for row in run.results.estimates
        ]
        sentences = list(warnings.warn_of_controls(apart))
        assert len(sentences) == warned
        assert all("step at width 128 on cpu: the control" in sentence for sentence in sentences)
