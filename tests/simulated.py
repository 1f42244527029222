"""A machine that is made up: it does what a plan asks for, on a clock of its own, and no process
is started. It asserts that what it is asked for can be done at that moment."""

from __future__ import annotations

import heapq
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cells import Cell
from bench.engine.actions import Action, Death, Outcome
from bench.metrics import COLD, METRICS, Kind
from bench.samples import Block
from bench.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bench.engine.driver import Plan
    from bench.samples import State

    type Needed = dict[Cell, set[str]]
    type Fault = Callable[[Action], Death | str | None]

STYLES = {
    "pure_jax": ["pure"],
    "equinox": ["pure", "filter_jit"],
    "flax_linen": ["pure", "train_state", "blog"],
    "flax_nnx": ["pure", "jit", "cached_partial", "jit_partial"],
    "haiku": ["pure", "transform"],
}
STEP_SECONDS = {"toy": 1e-4, "seed": 3.6e-3, "batched": 2e-2, "wide": 3e-2}
SLOW = {"flax_linen/blog": 18.0, "flax_nnx/jit": 8.0}
METRICS_OF: dict[str, list[str]] = defaultdict(list)
for _metric in METRICS.values():
    if _metric.kind is Kind.WARM:
        METRICS_OF[_metric.turn].append(_metric.name)
LANES = [(0,), (1,)]
UNASKED = tuple(name for name, metric in METRICS.items() if not metric.named)
"""Metrics that a run measures unless others are named."""


def needed(
    workloads: Iterable[str] = ("toy", "seed"),
    metrics: Iterable[str] = UNASKED,
    entrants: Iterable[str] = tuple(STYLES),
    backend: str = "cpu",
    styles: Mapping[str, list[str]] = STYLES,
) -> Needed:
    """Return what `pytest bench` asks for with these names."""
    cells = [Cell(e, s, w, backend) for w in workloads for e in entrants for s in styles[e]]
    wanted = {cell: {m for m in metrics if METRICS[m].applies(cell)} for cell in cells}
    return {cell: names for cell, names in wanted.items() if names}


def dies(do: str, arm: str = "", *, times: int = 1, side: str | None = None) -> Fault:
    """Return what kills a worker a few times when it does something, at an arm's turn."""
    left = [times]

    def fault(action: Action) -> Death | None:
        mine = action.do == do and side in (None, action.side)
        if mine and left[0] and (not arm or arm in action.arms):
            left[0] -= 1
            return Death("worker failed (exit status -9)", "", arm)
        return None

    return fault


PROOF = dict.fromkeys(("loss", "gradient", "trajectory"), 1e-8)


@dataclass
class Machine:
    """Two cores of an EPYC, about."""

    fault: Fault = lambda _: None
    """What goes wrong with an action: its worker dies, or an arm has a failure, or nothing."""
    slowness: float = 1.0
    effects: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Factor of an arm on a side; else it is as slow as that arm is."""
    noise: float = 0.0
    """Standard deviation of a block's log-time; half of it stays with a worker's arm."""
    seed: int = 0
    now: float = 0.0
    log: list[tuple[float, float, Action]] = field(default_factory=list)
    """Beginning, end and action."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.loaded: dict[int, tuple[str, ...]] = {}
        self.opened: dict[int, set[tuple[str, str]]] = defaultdict(set)
        self.cores: dict[int, tuple[int, ...]] = {}
        self.luck: dict[tuple[int, str], float] = {}

    def seconds(self, action: Action) -> float:
        """Return what an action takes."""
        step = STEP_SECONDS.get(action.workload, 0.0)
        one = 1.0 if action.cores or self.cores.get(action.worker) else 0.7
        arms = sum(SLOW.get(arm, 1.2) if action.workload == "toy" else 1.2 for arm in action.arms)
        return (
            self.slowness
            * {
                "start": 0.2,
                "load": 2.0 * one,
                "count": 0.5,
                "prove": 1.2 * one + 20 * step,
                "open": 0.2 + 12 * step,
                "prepare": 4.0,
                "train": 0.3 + 800 * step,
                "cold": 3.0,
                "close": 0.01,
                "block": 0.05
                + {
                    "step": arms * (action.rounds * 5 + 4) * step,
                    "host_cost": arms * (action.rounds * 22 + 4) * step,
                    "sample": 0.03 * arms * action.rounds,
                    "epoch": arms * 78 * action.rounds * step,
                }.get(action.kind, 0.0),
            }[action.do]
        )

    def answer(self, action: Action, wrong: str = "") -> Any:
        """Return what a worker says; asserts that it can be asked.

        Args:
            action: What it is asked.
            wrong: The arm that fails, or of what is one arm's own, how it does.
        """
        worker, do = action.worker, action.do
        if do in ("start", "cold"):
            assert worker not in self.cores, "each worker has a number of its own"
            self.cores[worker] = action.cores
        assert worker in self.cores, f"{action} of a worker that does not live"
        if do in ("close", "cold"):
            del self.cores[worker]
        if do == "load":
            self.loaded[worker] = action.arms
        if do in ("load", "prepare"):
            return protocol.Failures({wrong: "it cannot"} if wrong else {})
        if do == "cold":
            cost = self.cost(action, action.arms[0])
            return protocol.Cold(dict.fromkeys(COLD, cost), 2.0, "clock")
        if do in ("prove", "open"):
            assert action.arms[0] in self.loaded[worker]
            self.opened[worker].add((action.workload, action.arms[0]))
        if do in ("block", "train"):
            assert all((action.workload, arm) in self.opened[worker] for arm in action.arms)
        if do == "block":
            seconds = {arm: self.times(action, arm) for arm in action.arms if arm != wrong}
            failures = {wrong: "it computed something else"} if wrong else {}
            return protocol.Timed(dict.fromkeys(METRICS_OF[action.kind], seconds), failures)
        if wrong:
            return protocol.Failed(wrong)
        return {
            "prove": protocol.Proven(
                dict.fromkeys(("loss", "gradient", "trajectory"), 1e-8), {"flops": 5.0}, [1.0] * 10
            ),
            "open": protocol.Opened(),
            "count": protocol.Counted({"python_calls": 3}),
            "train": protocol.Trained(
                {"seconds": [0.7], "same_weights": 2.5, "own_initialiser": []}
            ),
        }.get(do)

    def times(self, action: Action, arm: str) -> list[float]:
        """Return the samples of an arm in a block."""
        own = self.luck.setdefault((action.worker, arm), self.rng.gauss(0, self.noise / 2))
        level = self.cost(action, arm) * math.exp(own + self.rng.gauss(0, self.noise))
        return [level] * action.rounds

    def cost(self, action: Action, arm: str) -> float:
        """Return the seconds of a call."""
        step = STEP_SECONDS.get(action.workload, 1.0)
        slow = SLOW.get(arm, 1.0) if action.workload == "toy" else 1.0
        return step * slow * self.effects.get((action.side, arm), 1.0)

    def drive(self, plan: Plan) -> list[Action]:
        """Run a plan to its end, and return what it did, in the order of endings."""
        self.now = plan.spent.wall
        running: list[tuple[float, int, float, Action]] = []
        lanes, count = plan.actions(), 0
        try:
            begin = next(lanes)
            while True:
                for action in begin:
                    busy = {a.worker for *_, a in running}
                    assert action.worker not in busy, "a worker does one thing at a time"
                    count += 1
                    end = self.now + self.seconds(action)
                    heapq.heappush(running, (end, count, self.now, action))
                end, _, start, action = heapq.heappop(running)
                self.now = end
                self.log.append((start, end, action))
                begin = lanes.send(self.outcome(action, end - start))
        except StopIteration:
            assert not running, "everything that was begun has ended"
        return [action for *_, action in self.log]

    def outcome(self, action: Action, took: float) -> Outcome:
        """Return what came of an action."""
        wrong = self.fault(action)
        if isinstance(wrong, Death):
            self.cores.pop(action.worker, None)
            return Outcome(action.worker, took, self.now, None, wrong)
        return Outcome(action.worker, took, self.now, self.answer(action, wrong or ""))


def with_blocks(state: State) -> State:
    """Give a state that was made by hand the blocks that its samples are views of."""
    blocks: dict[tuple[str, str, int], Block] = {}
    for cell, found in state.cells.items():
        for metric, several in found.blocks.items():
            if METRICS[metric].kind is not Kind.WARM:
                continue
            for each in several:
                about = each.number, each.process, "", cell.workload, cell.backend
                turn = METRICS[metric].turn
                block = blocks.setdefault(
                    (cell.workload, turn, each.number),
                    Block(*about, turn, each.cores, each.at, each.rounds, {}),
                )
                arm = f"{cell.entrant}/{cell.style}"
                block.seconds.setdefault(metric, {})[arm] = [float(value) for value in each.values]
    state.blocks = list(blocks.values())
    return state
