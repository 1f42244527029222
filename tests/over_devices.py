"""`python -m tests.over_devices ENTRANT STYLE@DEVICES…`: ten steps over devices, as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.cells import Arm
from bench.worker.counts import compilations
from common.config import ModelConfig
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import Case, make, random_chunk, random_weights, trajectory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from common.contract import Hidden, TrainStep

CASE = Case(ModelConfig(11, width=8, layers=2), chunk=6, batch=8)
DEVICES = 4


def epoch(step: TrainStep) -> tuple[Hidden, Any, list[int]]:
    """Return a state and a loss after three steps from the start, and what each compiled."""
    step.load(fresh_checkpoint(random_weights(CASE.model)))
    hidden = zero_hidden(CASE.model, CASE.batch)
    compiled = []
    for i in range(3):
        chunk, programs = random_chunk(CASE, i), compilations()
        hidden, loss = step(hidden, chunk)
        compiled.append(programs())
    return hidden, loss, compiled


@cache
def plain(entrant: str, style: str) -> np.ndarray:
    """Return the losses of a style without devices."""
    return trajectory(make(impls.load(entrant).style(style), CASE), CASE)


def over(arm: Arm) -> dict[str, Any]:
    """Return how far a style over devices is from none, and what further calls compile."""
    step = make(arm.load(), CASE)
    away = float(np.max(np.abs(trajectory(step, CASE) - plain(arm.entrant, arm.style))))
    new = make(arm.load(), CASE)
    after = [*epoch(new)[2][1:], *epoch(new)[2]]
    hidden, loss, again = epoch(step)
    return {
        "away": away,
        "compiled": after + again,
        "rows": hidden[0].shape[0],
        "devices": len(hidden[0].sharding.device_set),
        "divided": hidden[0].addressable_shards[0].data.shape[0],
        "loss_everywhere": loss.sharding.is_fully_replicated,
        "updates": step.save().updates,
        **collectives(step, hidden),
    }


def collectives(step: TrainStep, hidden: Hidden) -> dict[str, Any]:
    """Return how many sums over devices a step's program has, and those in the body of a loop."""
    program = step.program(hidden, random_chunk(CASE, 0))
    assert program is not None
    text = program.lower().compile().as_text() or ""
    blocks = {block.split()[0]: block for block in text.split("\n\n") if block.startswith("%")}
    bodies = set(re.findall(r"body=(%[\w.-]+)", text))
    assert bodies <= set(blocks)
    return {
        "sums": len(re.findall(r" all-reduce(?:-start)?\(", text)),
        "at_each_character": [name for name in bodies if " all-reduce" in blocks[name]],
    }


def in_process(
    entrant: str, names: Iterable[str], python: str = sys.executable, **variables: str
) -> dict[str, dict[str, Any]]:
    """Return what styles over devices do, by their names, in a process that has enough of them."""
    done = subprocess.run(
        [python, "-m", "tests.over_devices", entrant, *names],
        cwd=Path(__file__).parents[1],
        env=os.environ | variables | {"JAX_NUM_CPU_DEVICES": str(DEVICES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    entrant, *names = sys.argv[1:]
    print(json.dumps({name: over(Arm.of(f"{entrant}/{name}")) for name in names}))
    assert len(jax.devices()) == DEVICES


if __name__ == "__main__":
    main()
