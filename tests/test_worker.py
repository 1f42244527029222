"""A real worker: commands and answers, and entrants that cheat beside honest ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from bench.cells import Arm
from bench.worker.block import TimedBlock
from bench.worker.integrity import Surroundings
from bench.worker.protocol import PROTOCOL
from bench.worker.recorder import Recorder
from bench.worker.settings import affinity, environment
from bench.worker.turns import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CHEATS = ROOT / "tests" / "cheats"
TOY = {"workload": "toy", "backend": "cpu"}
HONEST = ["pure_jax/pure", "control/pure", "haiku/pure"]
ROUNDS = 8
"""Enough for 48 calls: the cheats begin at their 20th to 31st."""


class Child:
    """`python -m bench.worker`, as a parent sees it."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", str(self.recorder.path)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self.line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.recorder.__exit__()

    def line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        answer, self.ready = self.line(), self.line()
        return answer

    def load(self, arms: list[str], **more: Any) -> Any:
        cache = os.environ["JAX_COMPILATION_CACHE_DIR"]  # of these tests
        usual = {"outside": outside(arms), "cache": cache, "seed": 0}
        return self.ask("load", arms=[arm.split("/") for arm in arms], **(usual | more))

    def opened(self, arms: list[str], losses: list[float] | None = None) -> None:
        for arm in arms:
            assert self.ask("open", arm=arm, losses=losses, **TOY) == {}, arm

    def block(self, arms: list[str], kind: str = "step", **more: Any) -> Any:
        return self.ask(
            "block", **TOY, **({"kind": kind, "rounds": 2, "seed": 3} | more), arms=arms
        )


def outside(arms: list[str]) -> dict[str, str]:
    """Return the files of cheats among arms."""
    files = {arm.split("/")[0]: CHEATS / f"{arm.split('/')[0]}.py" for arm in arms}
    return {name: str(path) for name, path in files.items() if path.exists()}


@pytest.fixture(scope="module")
def honest() -> Iterator[Child]:
    """Return a worker whose honest arms have been proven."""
    with Child() as child:
        assert child.load(HONEST) == {"failures": {}, "notes": []}
        child.proofs = {arm: child.ask("prove", arm=arm, **TOY) for arm in HONEST[::-1]}  # type: ignore[attr-defined]
        yield child


# Commands and answers.


def test_ready(honest: Child) -> None:
    assert honest.ready["protocol"] == PROTOCOL
    assert honest.ready["cpu_seconds"] > honest.ready["ready"] > 0
    assert honest.recorder.who() is None


def test_a_proof_needs_no_baseline_before_it(honest: Child) -> None:
    proofs: dict[str, Any] = honest.proofs  # type: ignore[attr-defined]
    assert next(iter(proofs)) == "haiku/pure"
    for proof in proofs.values():
        assert len(proof["losses"]) == 10
        assert proof["proof"]["trajectory"] <= 1e-5
        assert proof["proof"]["same_program_as_baseline"]
        assert proof["proof"]["donates"] is False
        assert proof["exact"]["alias_bytes"] == 0
    assert proofs["pure_jax/pure"]["losses"] == proofs["control/pure"]["losses"]


KINDS = {
    "step": {"step": 8},
    "host_cost": {"host_cost": 20, "host_cost_pipelined": 2},
    "sample": {"sample": 2},
    "epoch": {"epoch_by_chunk": 2, "epoch_by_scan": 2},
}
"""Samples of each metric in a block of two rounds."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_some_arms(honest: Child, kind: str) -> None:
    arms = ["pure_jax/pure", "haiku/pure"]
    if kind in ("sample", "epoch"):
        found = honest.ask("prepare", kind=kind, arms=arms, **TOY)
        assert found == {"failures": {}, "notes": []}
    found = honest.block(arms, kind)
    assert found["failures"] == {}
    counts = {
        metric: {arm: len(seconds) for arm, seconds in by_arm.items()}
        for metric, by_arm in found["seconds"].items()
    }
    assert counts == {metric: dict.fromkeys(arms, count) for metric, count in KINDS[kind].items()}
    assert all(
        seconds > 0 for by in found["seconds"].values() for s in by.values() for seconds in s
    )
    assert set(found["cpu_seconds"]) == set(arms)


def test_opening_with_the_losses_of_a_proof(honest: Child) -> None:
    losses = honest.proofs["pure_jax/pure"]["losses"]  # type: ignore[attr-defined]
    honest.opened(["haiku/pure"], losses)
    wrong = [*losses[:9], losses[9] + 1e-3]
    found = honest.ask("open", arm="haiku/pure", losses=wrong, **TOY)
    assert found["failure"].startswith("not equal in this process, though it was in another")
    honest.opened(["haiku/pure"], losses)


def test_training(honest: Child) -> None:
    found = honest.ask("train", arm="haiku/pure", **TOY)["training"]
    assert len(found["seconds"]) == 1 + len(found["own_initialiser"]) == 4
    assert len(found["curve_same_weights"]) == found["steps"] / found["mean_of_steps"]
    assert found["same_weights"] == found["curve_same_weights"][-1] < 3
    assert found["curve_same_weights"][0] > 0


def test_a_cold_sample_has_the_programs_fingerprint(honest: Child) -> None:
    with Child() as child:
        found = child.ask("cold", entrant="haiku", style="pure", outside={}, **TOY)
    proofs: dict[str, Any] = honest.proofs  # type: ignore[attr-defined]
    assert found["fingerprint"] == proofs["haiku/pure"]["proof"]["program"]["fingerprint"]
    assert found["trace_and_lower_split_by"] == "clock"
    parts = [value for name, value in found["values"].items() if name != "peak_rss"]
    assert found["timed_seconds"] == pytest.approx(sum(parts))


def test_the_second_process_reads_what_the_first_has_compiled(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        with Child() as child:
            assert child.load(HONEST, cache=str(tmp_path)) == {"failures": {}, "notes": []}
            child.opened(HONEST)
            assert child.block(HONEST)["failures"] == {}
            kept.append({path.name for path in tmp_path.iterdir() if "cache" in path.name})
    assert kept[0] == kept[1] != set(), "nothing was compiled the second time"


# Entrants that cheat.

WHILE_TIMED = {
    "by_identity": ("is not what was proven", "3 updates in 58 calls"),
    "leaves_one_out": ("is not what was proven", "its weights are off by"),
    "stops": ("is not what was proven", "its weights are off by"),
    "forgets_one": ("is not what was proven", "57 updates in 58 calls"),
    "old_loss": ("is not what was proven", "the last loss is off by"),
    "compiles_again": ("compiled again while it was timed",),
    "clock_while_timed": (
        "while it was timed it replaced time.perf_counter; replaced jax.block_until_ready",
    ),
}
"""Styles of `cheats/steps.py`."""


def test_what_cheats_has_no_times_and_the_others_have() -> None:
    cheats = {f"steps/{style}": words for style, words in WHILE_TIMED.items()}
    arms, at_opening = [*HONEST, *cheats], "steps/clock_at_opening"
    with Child() as child:
        assert child.load([*arms, at_opening])["failures"] == {}
        found = child.ask("open", arm=at_opening, losses=None, **TOY)
        assert found["failure"].startswith("making or running its step replaced time.perf_counter")
        child.opened(["haiku/pure", "steps/by_identity"])
        found = child.block(["haiku/pure", "steps/by_identity"], rounds=ROUNDS)
        assert "haiku/pure" in found["seconds"]["step"], "without the baseline too"
        assert "updates in" in found["failures"]["steps/by_identity"]

        child.opened(arms)
        found = child.block(arms, rounds=10)
        assert set(found["seconds"]["step"]) == set(HONEST)
        assert set(found["failures"]) == set(cheats)
        for arm, words in cheats.items():
            missing = [word for word in words if word not in found["failures"][arm]]
            assert not missing, (arm, found["failures"][arm])
        arms.remove("steps/clock_while_timed")  # it did that once
        found = child.block(arms, "host_cost", rounds=2)
        for metric in ("host_cost", "host_cost_pipelined"):
            assert set(found["seconds"][metric]) == set(HONEST)
        assert set(found["failures"]) == set(arms) - set(HONEST)
        assert child.block(HONEST)["failures"] == {}


AT_IMPORT = {
    "slow_clock/pure": "importing it replaced time.perf_counter",
    "low_precision/pure": (
        "importing it changed jax_default_matmul_precision from 'float32' to 'bfloat16'"
    ),
    "own_cores/pure": (
        "importing it changed XLA_FLAGS from None to '--xla_cpu_enable_fast_math=true'; "
        "changed the affinity from [0, 1] to [0]; changed the priority from 0 to 1"
    ),
    "other_baseline/pure": "importing it changed the program of pure_jax/pure",
}


def test_what_an_import_may_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    several = len(os.sched_getaffinity(0)) > 1
    cheats = [arm for arm in AT_IMPORT if several or arm != "own_cores/pure"]
    with Child() as child:
        found = child.load([*HONEST, *cheats], check_programs=True)
        expected = {arm: AT_IMPORT[arm] for arm in cheats}
        if affinity() != [0, 1]:
            expected.pop("own_cores/pure", None)
            found["failures"].pop("own_cores/pure", None)
        assert found["failures"] == expected
        [note] = found["notes"]
        assert "since other_baseline was imported" in note
        child.opened(HONEST)
        assert set(child.block(HONEST)["seconds"]["step"]) == set(HONEST)
        assert set(os.sched_getaffinity(child.process.pid)) == os.sched_getaffinity(0)


def test_a_cold_sample_by_another_clock_is_none() -> None:
    with Child() as child:
        assert child.process.stdin is not None
        about = {"entrant": "slow_clock", "style": "pure", "outside": outside(["slow_clock/pure"])}
        command = {"do": "cold", **about, **TOY}
        print(json.dumps(command), file=child.process.stdin, flush=True)
        assert child.process.wait(60) == 1


# Surroundings, in this process.


def test_what_has_changed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("JAX_LEFT", "1")
    before, clock = Surroundings(), time.perf_counter
    assert before.changes() == ""
    os.environ["XLA_FLAGS"] = "--fast"
    del os.environ["JAX_LEFT"]
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    assert before.changes() == (
        "replaced time.perf_counter; "
        "changed JAX_LEFT from '1' to None; changed XLA_FLAGS from None to '--fast'"
    )
    assert "XLA_FLAGS" not in os.environ
    assert os.environ["JAX_LEFT"] == "1"
    assert time.perf_counter is clock
    assert before.changes() == ""


class NoTurns:
    """Turns of an arm that take no time: what matters is whose they are."""

    def __call__(self) -> dict[str, list[Call]]:
        return {"step": [Call(1.0, 0.0)]}


def test_every_round_has_another_order() -> None:
    arms = [Arm("pure_jax", "pure"), Arm("control", "pure"), Arm("haiku", "pure")]
    seen: list[Arm] = []
    block = TimedBlock(seen.append, compiled=lambda: 0, changes=str, seed=1)
    block.interleave({arm: NoTurns() for arm in arms}, rounds=12, untimed=1)
    orders = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert all(set(order) == set(arms) for order in orders)
    assert len(orders) == 13
    assert len(set(orders)) > 3
    assert {order[0] for order in orders} == set(arms)
    assert all(len(block.samples[arm]["step"]) == 12 for arm in arms)
