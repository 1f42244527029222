"""A real worker: commands and answers, and entrants that cheat beside honest ones."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from bench.cells import Arm
from bench.engine.process import Worker, WorkerFailedError
from bench.worker.block import TimedBlock
from bench.worker.integrity import Surroundings
from bench.worker.turns import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CHEATS = ROOT / "tests" / "cheats"
TOY = {"workload": "toy", "backend": "cpu"}
HONEST = ["pure_jax/pure", "control/pure", "haiku/pure"]
ROUNDS = 8
"""Enough for 48 calls: the cheats begin at their 20th to 31st."""


class Child(Worker):
    """A real worker, with these tests' usual arguments."""

    proofs: dict[str, Any]
    """Of its arms, where there are any."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def do(self, do: str, **arguments: Any) -> Any:
        return self.ask({"do": do, **arguments})

    def load(self, arms: list[str], **more: Any) -> Any:
        cache = os.environ["JAX_COMPILATION_CACHE_DIR"]  # of these tests
        usual = {"outside": outside(arms), "cache": cache, "seed": 0}
        return self.do("load", arms=[arm.split("/") for arm in arms], **(usual | more))

    def opened(self, arms: list[str], losses: list[float] | None = None) -> None:
        for arm in arms:
            assert self.do("open", arm=arm, losses=losses, **TOY) == {}, arm

    def block(self, arms: list[str], kind: str = "step", **more: Any) -> Any:
        return self.do("block", **TOY, **({"kind": kind, "rounds": 2, "seed": 3} | more), arms=arms)


def outside(arms: list[str]) -> dict[str, str]:
    """Return the files of cheats among arms."""
    files = {arm.split("/")[0]: CHEATS / f"{arm.split('/')[0]}.py" for arm in arms}
    return {name: str(path) for name, path in files.items() if path.exists()}


@pytest.fixture(scope="module")
def honest() -> Iterator[Child]:
    """Return a worker whose honest arms have been proven."""
    with Child() as child:
        assert child.load(HONEST) == {"failures": {}, "notes": []}
        child.proofs = {arm: child.do("prove", arm=arm, **TOY) for arm in HONEST[::-1]}
        assert child.recorder.who() is None
        yield child


# Commands and answers.


def test_a_proof_needs_no_baseline_before_it(honest: Child) -> None:
    proofs = honest.proofs
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
    "pipelined": {"step_pipelined": 2},
    "host_cost": {"host_cost": 20, "host_cost_pipelined": 2},
    "sample": {"sample": 2},
    "epoch": {"epoch_by_chunk": 2, "epoch_by_scan": 2},
}
"""Samples of each metric in a block of two rounds."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_some_arms(honest: Child, kind: str) -> None:
    arms = ["pure_jax/pure", "haiku/pure"]
    if kind in ("sample", "epoch"):
        found = honest.do("prepare", kind=kind, arms=arms, **TOY)
        assert found == {"failures": {}, "notes": []}
    found = honest.block(arms, kind)
    assert found["failures"] == {}
    assert found["seconds"].keys() == KINDS[kind].keys()
    for metric, count in KINDS[kind].items():
        taken = found["seconds"][metric]
        assert taken.keys() == found["cpu_seconds"].keys() == set(arms)
        assert all(len(seconds) == count and min(seconds) > 0 for seconds in taken.values())


def test_opening_with_the_losses_of_a_proof(honest: Child) -> None:
    losses = honest.proofs["pure_jax/pure"]["losses"]
    honest.opened(["haiku/pure"], losses)
    wrong = [*losses[:9], losses[9] + 1e-3]
    found = honest.do("open", arm="haiku/pure", losses=wrong, **TOY)
    assert found["failure"].startswith("not equal in this process, though it was in another")
    honest.opened(["haiku/pure"], losses)


def test_training(honest: Child) -> None:
    found = honest.do("train", arm="haiku/pure", **TOY)["training"]
    assert len(found["seconds"]) == 1 + len(found["own_initialiser"]) == 4
    assert len(found["curve_same_weights"]) == found["steps"] / found["mean_of_steps"]
    assert found["same_weights"] == found["curve_same_weights"][-1] < 3
    assert found["curve_same_weights"][0] > 0


def test_a_cold_sample_has_the_programs_fingerprint(honest: Child) -> None:
    with Child() as child:
        found = child.do("cold", entrant="haiku", style="pure", outside={}, **TOY)
    proof = honest.proofs["haiku/pure"]["proof"]
    assert found["fingerprint"] == proof["program"]["fingerprint"]
    assert found["trace_and_lower_split_by"] == "clock"


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
        found = child.do("open", arm=at_opening, losses=None, **TOY)
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


def test_what_an_import_may_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    cores, nice = sorted(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0)
    moved = f"changed the affinity from {cores} to {cores[:1]}; " if len(cores) > 1 else ""
    changes = {
        "slow_clock/pure": "replaced time.perf_counter",
        "low_precision/pure": ("changed jax_default_matmul_precision from 'float32' to 'bfloat16'"),
        "own_cores/pure": (
            "changed XLA_FLAGS from None to '--xla_cpu_enable_fast_math=true'; "
            f"{moved}changed the priority from {nice} to {nice + 1}"
        ),
        "other_baseline/pure": "changed the program of pure_jax/pure",
    }
    with Child() as child:
        found = child.load([*HONEST, *changes], check_programs=True)
        assert found["failures"] == {arm: f"importing it {what}" for arm, what in changes.items()}
        [note] = found["notes"]
        assert "since other_baseline was imported" in note
        child.opened(HONEST)
        assert set(child.block(HONEST)["seconds"]["step"]) == set(HONEST)
        assert set(os.sched_getaffinity(child.process.pid)) == os.sched_getaffinity(0)


def test_a_cold_sample_by_another_clock_is_none() -> None:
    files = outside(["slow_clock/pure"])
    with Child() as child, pytest.raises(WorkerFailedError) as caught:
        child.do("cold", entrant="slow_clock", style="pure", outside=files, **TOY)
    assert "replaced time.perf_counter: its times mean nothing" in caught.value.stderr


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


def test_every_round_has_another_order() -> None:
    arms = [Arm("pure_jax", "pure"), Arm("control", "pure"), Arm("haiku", "pure")]
    seen: list[Arm] = []
    block = TimedBlock(seen.append, compiled=lambda: 0, changes=str, seed=1)
    turns = dict.fromkeys(arms, lambda: {"step": [Call(1.0, 0.0)]})  # they take no time
    block.interleave(turns, rounds=12, untimed=1)
    orders = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert all(set(order) == set(arms) for order in orders)
    assert len(orders) == 13
    assert len(set(orders)) > 3
    assert {order[0] for order in orders} == set(arms)
    assert all(len(block.samples[arm]["step"]) == 12 for arm in arms)
