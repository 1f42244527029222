"""Days of a history: which they are, and the stacks that they share."""

import time
from datetime import date
from threading import Barrier
from typing import Any
from unittest.mock import Mock

import pytest

from bench.cells import Selection
from bench.engine.process import Interpreter
from bench.engine.task import Environment
from bench.environments.spec import Spec
from bench.environments.uv import UnsolvableError
from bench.offer import Offer
from bench.options import Options
from bench.prepare import stacks as room
from bench.prepare.sides import run_at_once
from bench.prepare.stacks import add_days, list_days, prepare_days
from bench.report.documents.history import describe_history
from bench.runfile import EnvironmentInfo, Results
from common.errors import BakeoffError
from tests.report.runs import section


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2024-12-31 2025-04-30 1mo", "12-31 01-31 02-28 03-31 04-30"),
        ("2025-01-01 2025-01-20 1w", "01-01 01-08 01-15 01-20"),
        ("2024-02-29 2026-02-28 1y", "02-29 02-28 02-28"),
    ],
)
def test_days(given: str, expected: str) -> None:
    since, until, every = given.split()
    days = list_days(date.fromisoformat(since), date.fromisoformat(until), every)
    assert [str(day)[5:] for day in days] == expected.split()


def test_days_of_one_stack_share_a_side_and_gaps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(spec: Spec, _: Any = None) -> Environment:
        if spec.text == "@2025-05-03":
            raise UnsolvableError("no jax")
        release = "0.5" if spec.text < "@2025-05-04" else "0.6"
        info = EnvironmentInfo(spec=str(spec), pins={"jax": release}, gaps={"haiku": "no wheel"})
        return Environment(Interpreter(), info, offer=Offer({"pure_jax": ["pure"]}, {}, ["cpu"]))

    monkeypatch.setattr(room, "ask_side", lambda environment, selection: environment)
    dates = [date(2025, 5, day) for day in range(1, 6)]
    options, builder = Options(), Mock(build=build)
    task, others = prepare_days(dates, Selection(), options, builder, ["history"])
    assert list(task.sides) == ["reference", "2025-05-01", "2025-05-04"]
    assert task.groups == [("reference", "2025-05-01"), ("reference", "2025-05-04")]
    assert {cell.entrant for cell in task.needed["2025-05-01"]} == {"pure_jax"}
    results = Results(environments={name: side.info for name, side in task.sides.items()})
    add_days(results, others)
    assert results.warnings == ["2025-05-03 could not be built: no jax"]
    assert section(describe_history(results), "What is missing").lines == (
        "haiku: no wheel (2025-05-01, 2025-05-04 and reference)",
        "all: no jax (2025-05-03)",
    )


def test_calls_go_on_at_the_same_time_and_an_error_is_an_answer() -> None:
    meet = Barrier(2, timeout=10)

    def call(number: int) -> int:
        meet.wait()
        if number == 3:
            raise BakeoffError("no three")
        return 2 * number

    answers = dict(run_at_once(call, {str(number): number for number in range(4)}))
    assert list(answers) == ["0", "1", "2", "3"]
    assert [answers[name] for name in "012"] == [0, 2, 4]
    assert str(answers["3"]) == "no three"


def test_after_ctrl_c_no_further_call_is_begun() -> None:
    begun: list[int] = []

    def call(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)
        if number == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_at_once(call, {str(number): number for number in range(40)}))
    time.sleep(0.2)
    assert len(begun) < 10
