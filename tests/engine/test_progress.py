"""The progress of a measurement: lines in a pipe, a bar on a terminal."""

import io
from typing import get_args

from rich.console import Console

from bench.engine.actions import Action, Do
from bench.engine.progress import WORDS, Progress
from bench.runfile import TimeSpent
from bench.worker.protocol import Load, TimeBlock


def test_a_pipe_gets_a_line_now_and_then_and_a_terminal_a_bar() -> None:
    assert set(WORDS) == set(get_args(Do.__value__))
    pipe, screen = io.StringIO(), io.StringIO()
    with Progress(Console(file=pipe, width=80), budget=100) as shown:
        for second in range(101):
            block = TimeBlock("seed", "cpu", "step", ["haiku/pure"], 10, seed=0)
            precision = 0.013 if second > 40 else 0.0
            shown(
                Action(1, command=block),
                TimeSpent(wall_seconds=second, blocks=second, precision=precision),
            )
    printed = pipe.getvalue().splitlines()
    assert [line.partition(" of ")[0] for line in printed] == ["0", "30", "60", "90"]
    assert printed[1] == "30 of 100 s: step at width 128; 30 blocks so far"
    assert printed[2] == "60 of 100 s: step at width 128; 60 blocks so far; steps to ±1.3 %"
    with Progress(Console(file=screen, width=80, force_terminal=True), budget=300) as shown:
        shown(Action(1, command=Load([], seed=0)), TimeSpent(wall_seconds=55))
    assert "55 of 300 s: starting a worker" in screen.getvalue()
