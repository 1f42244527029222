"""How far a measurement is, on a terminal and in a pipe."""

from __future__ import annotations

import io
from typing import get_args

from rich.console import Console

from bench.engine.actions import Action, Do, Spent
from bench.report.progress import LINES, WORDS, Progress


def test_each_action_has_words() -> None:
    assert set(WORDS) == set(get_args(Do.__value__))


def test_a_pipe_gets_a_line_now_and_then() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=80), budget=100) as shown:
        shown.plan(["everything"])
        for second in range(100):
            action = Action("block", 1, workload="seed", kind="step", arms=("haiku/pure",))
            shown(action, Spent(wall=second, blocks=second))
        shown(Action("prove", 1, arms=("flax_nnx/jit",)), Spent(wall=100))
    first, *lines = file.getvalue().splitlines()
    assert first == "plan for 100 s, everything"
    assert LINES <= len(lines) <= LINES + 1
    assert lines[1] == "10 of 100 s: step at seed, 10 blocks so far"
    assert lines[-1] == "100 of 100 s: proving flax_nnx jit equal"


def test_a_terminal_has_a_bar_with_the_time_to_go() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=80, force_terminal=True), budget=300) as shown:
        shown(Action("start", 1), Spent(wall=55))
    assert "4:05 to go  starting a worker" in file.getvalue()
