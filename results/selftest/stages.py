"""Stages in turns beside those of fresh processes: `python results/selftest/stages.py`.

Each library's shared style is traced, lowered and compiled in fresh processes, as a cold sample
begins, and in rounds of workers, as `pytest bench` times stages: the two by turns, on one core.
Prints ratios to plain JAX, medians with their standard errors. Nothing else should run meanwhile.
stages.md has what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from statistics import median, stdev
from typing import Any

from bench.worker.settings import environment

LIBRARIES = "pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku", "stax"
NAMES = "trace", "lower", "compile"


def fresh(entrant: str) -> dict[str, float]:
    """Return the seconds of an entrant's stages in this process, which has done nothing yet."""
    import jax

    import impls
    from bench.worker.arms import load_workload
    from bench.worker.cold import lower, time_stage
    from bench.worker.turns import CPU_CLOCK
    from common.contract import fresh_checkpoint
    from common.equality import make
    from common.steps import move_to_host

    loaded, case = impls.load(entrant), load_workload("seed")[0]
    model = loaded.build(case.model)
    params = jax.block_until_ready(model.init(jax.random.key(0)))
    step = make(loaded.style("pure", donate=False), case)
    step.load(fresh_checkpoint(move_to_host(model.to_weights(params))))
    program = step.program(*jax.block_until_ready((case.zero(), case.data())))
    assert program is not None, "these are JAX's"
    seconds: dict[str, float] = {}
    lowered = lower(program, seconds, CPU_CLOCK)
    with time_stage(seconds, "compile", CPU_CLOCK):
        lowered.compile()
    return seconds


def in_turns(seed: str) -> dict[str, dict[str, float]]:
    """Return the seconds of all libraries' stages in one round of this process, by library."""
    from bench.worker.arms import Arms
    from bench.worker.block import TimedBlock
    from bench.worker.protocol import TimeBlock
    from bench.worker.session import use_cache

    use_cache(os.environ["BAKEOFF_STAGES_CACHE"])
    members = [f"{name}/pure" for name in LIBRARIES]
    command = TimeBlock("seed", "cpu", "stages", members, 1, int(seed))
    arms = Arms("seed", "cpu", donate=False)
    timed = TimedBlock(arms, command, lambda _: None, int, str).run()
    assert not timed.failures, timed.failures
    out: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in timed.samples:
        out[sample.cell.entrant][sample.metric] = sample.value
    return out


def ask(*arguments: str) -> dict[str, Any]:
    """Return what this file prints in a process of its own, on one core."""
    command = [sys.executable, __file__, *arguments]
    process = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Measure both ways in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each way")
    parser.add_argument("--fresh", help="print the seconds of this library alone")
    parser.add_argument("--turns", help="print the seconds of a round, in this order")
    given = parser.parse_args()
    if given.fresh or given.turns:
        print(json.dumps(fresh(given.fresh) if given.fresh else in_turns(given.turns)))
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ways: dict[str, list[dict[str, dict[str, float]]]] = {"fresh process": [], "in turns": []}
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(environment(), NPROC="1", PJRT_NPROC="1", BAKEOFF_STAGES_CACHE=cache)
        ask("--turns", "0")  # fills the cache
        for number in range(given.rounds):
            ways["fresh process"].append({name: ask("--fresh", name) for name in LIBRARIES})
            ways["in turns"].append(ask("--turns", str(number + 1)))
    print("| stage | | " + " | ".join(LIBRARIES[1:]) + " |\n|---|---|" + "--:|" * 5)
    for stage in NAMES:
        for way, rounds in ways.items():
            row = []
            for name in LIBRARIES[1:]:
                ratios = [r[name][stage] / r["pure_jax"][stage] for r in rounds]
                error = 1.25 * stdev(ratios) / len(ratios) ** 0.5  # of a median
                row.append(f"{median(ratios):.3f} ± {error:.3f}")
            print(f"| {stage} | {way} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
