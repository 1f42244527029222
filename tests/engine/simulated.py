"""A made-up machine: it does what a plan asks for on a clock of its own, and starts no process.

It asserts that each action can be done at that moment.
"""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from bench.cells import REFERENCE, Arm, Cell, Selection
from bench.engine.actions import Action, Outcome
from bench.engine.costs import CALLS, TurnKind
from bench.engine.plan import Plan
from bench.engine.process import WorkerFailedError
from bench.engine.task import SideState
from bench.metrics import COLD, SAMPLED, STAGES
from bench.samples import Proof, Sample
from bench.worker import protocol

type Needed = dict[Cell, frozenset[str]]
type Fault = Callable[[Action], WorkerFailedError | str | None]

STYLES = {
    "pure_jax": ["pure"],
    "equinox": ["pure", "filter_jit"],
    "flax_linen": ["pure", "train_state", "blog"],
    "flax_nnx": ["pure", "jit", "cached_partial", "jit_partial"],
    "haiku": ["pure", "transform"],
}
FEW = {"pure_jax": ["pure"], "haiku": ["pure", "transform"]}
STEP_SECONDS = {
    "toy": 1e-4,
    "depth12": 2e-4,
    "seed": 3.6e-3,
    "wide": 3e-2,
    "mine": 5e-2,
    "mine.skeleton": 1e-3,
}
SLOW_AT_TOY = {"flax_linen/blog": 18.0, "flax_nnx/jit": 8.0}
SERIES = {
    kind: {metric: 1 if series.in_a_row else series.calls for metric, series in by_metric.items()}
    for kind, by_metric in protocol.KINDS.items()
}
"""Kind of turns → metric → its numbers in a turn: of calls in a row, one."""
LANES = [(0,), (1,)]
PROOF = Proof(loss=1e-8, gradient=1e-8, trajectory=1e-8)


def needed(
    workloads: Iterable[str] = ("toy", "seed"),
    metrics: tuple[str, ...] = (),
    styles: Mapping[str, list[str]] = STYLES,
    backend: str = "cpu",
) -> Needed:
    """Return what `pytest bench` asks for with these names; its usual metrics if none."""
    selection = Selection(metrics=metrics)
    cells = [Cell(e, s, w, backend) for w in workloads for e in styles for s in styles[e]]
    wanted = {
        cell: frozenset(name for name in SAMPLED if selection.is_measured(name, cell))
        for cell in cells
    }
    return {cell: names for cell, names in wanted.items() if names}


def side(
    wanted: Needed,
    environment: str = "",
    *,
    control: bool = True,
    problems: Mapping[str, str] | None = None,
) -> SideState:
    """Return a side that has measured nothing yet."""
    backend = next(iter(wanted)).backend
    return SideState(environment, backend, wanted, control, problems or {})


def dies(do: str, arm: str = "", *, times: int = 1, environment: str | None = None) -> Fault:
    """Return a fault: a worker dies a few times when it does something, at an arm's turn."""
    left = [times]

    def fault(action: Action) -> WorkerFailedError | None:
        sides = {action.environment: action.worker, action.partner_environment: action.partner}
        same = action.do == do and (environment is None or environment in sides)
        if same and left[0] and (not arm or arm in action.arms):
            left[0] -= 1
            worker = sides.get(environment or "", action.worker)
            words = "worker failed (exit status -9)", "last words"
            return WorkerFailedError(*words, None, number=worker, blamed=arm)
        return None

    return fault


@dataclass
class Machine:
    """Two cores of an EPYC, about."""

    fault: Fault = lambda _: None
    """What goes wrong with an action: a death, the name of the arm that fails, or None."""
    slowness: float = 1.0
    effects: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Factor of an arm's time in an environment; 1 for others."""
    noise: float = 0.0
    """Standard deviation of a block's log-time; half of it again by a worker's arm."""
    seed: int = 0
    foreign: str = ""
    """Arm whose program is not JAX's."""
    now: float = 0.0
    log: list[tuple[float, float, Action]] = field(default_factory=list)
    """Beginning, end and action, in the order of ends."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.loaded: dict[int, tuple[str, ...]] = {}
        self.opened: dict[int, set[tuple[str, str]]] = defaultdict(set)
        self.cores: dict[int, tuple[int, ...]] = {}
        self.luck: dict[tuple[int, str], float] = {}

    def seconds(self, action: Action) -> float:
        """Return the seconds that an action takes."""
        step = STEP_SECONDS.get(action.workload, 0.0)
        one = 1.0 if action.cores or self.cores.get(action.worker) else 0.7
        sides = {action.environment, action.partner_environment or action.environment}
        arms = sum(self.factor(action.workload, e, arm) for e in sides for arm in action.arms)
        pairs_calls = TurnKind(action.workload, action.kind).pairs_calls
        calls_of_turn = 2 if pairs_calls else CALLS.get(action.kind, 0)
        calls = self.rounds(action) * calls_of_turn + 4
        anew = getattr(action.command, "anew", False)
        return (
            self.slowness
            * {
                "load": 0.2 + 2.0 * one,
                "count": 0.5,
                "prove": 1.2 * one + 20 * step,
                "open": 0.2 + 12 * step,
                "train": 0.3 + 800 * step,
                "cold": 3.0,
                "close": 0.01,
                "block": 0.05
                + arms * (0.6 if action.kind == STAGES else calls * step + 0.2 * anew),
            }[action.do]
        )

    def rounds(self, action: Action) -> int:
        """Return the rounds of a block, which may have to end earlier than with all of them."""
        block: Any = action.command
        if not isinstance(block, protocol.TimeBlock) or not block.seconds:
            return getattr(block, "rounds", 0)
        factors = (self.factor(action.workload, action.environment, arm) for arm in action.arms)
        one = 2 * self.slowness * STEP_SECONDS[action.workload] * sum(factors)
        return max(protocol.LEAST_CALL_ROUNDS, min(block.rounds, int(block.seconds / one)))

    def factor(self, workload: str, environment: str, arm: str) -> float:
        """Return the time of an arm's step, in units of the baseline's."""
        slow = SLOW_AT_TOY.get(arm, 1.0) if workload == "toy" else 1.0
        return slow * self.effects.get((environment, arm), 1.0)

    def answers(self, action: Action, failing: str = "") -> list[Any]:
        """Return the workers' answers; asserts that they can be asked at this moment."""
        worker, do = action.worker, action.do
        if do in ("load", "cold"):
            assert worker not in self.cores, "each worker has a number of its own"
            self.cores[worker] = action.cores
        assert worker in self.cores, f"{action} of a worker that does not live"
        if do in ("close", "cold"):
            del self.cores[worker]
        if do == "load":
            self.loaded[worker] = tuple(action.arms)
            return [protocol.Failures({failing: "it cannot"} if failing else {})]
        if do in ("prove", "open"):
            assert action.arms[0] in self.loaded[worker]
            self.opened[worker].add((action.workload, action.arms[0]))
        if do == "block" and action.kind == STAGES:
            for number in action.workers:
                assert {*action.arms} <= {*self.loaded[number]}
                assert number not in self.opened, "it does nothing else"
        elif do in ("block", "train"):
            for number in action.workers:
                assert number in self.cores
                assert all((action.workload, arm) in self.opened[number] for arm in action.arms)
        if do == "block":
            sides = (worker, action.environment), (action.partner, action.partner_environment)
            return [self.timed(action, *side, failing) for side in sides[: len(action.workers)]]
        if failing:
            return [protocol.Failed(f"{failing} failed")]
        [arm] = action.arms or [""]
        cell = Arm.parse(arm).make_cell(action.workload, getattr(action.command, "backend", ""))
        level = self.factor(action.workload, action.environment, arm)
        level *= STEP_SECONDS.get(action.workload, 1.0)
        cold = level * math.exp(self.rng.gauss(0, self.noise))
        counts = [Sample(cell, name, 3.0) for name in ("python_calls", "compilations_first")]
        program = "a" * (arm != self.foreign)
        answers = {
            "cold": protocol.Sampled([Sample(cell, metric, cold) for metric in COLD], 2.0),
            "prove": protocol.Proven(PROOF, [Sample(cell, "flops", 5.0)], [1.0] * 10, program),
            "open": protocol.Sampled(),
            "count": protocol.Sampled(counts),
            "train": protocol.Sampled([Sample(cell, "final_loss", 2.5)]),
        }
        return [answers.get(do)]

    def timed(self, action: Action, worker: int, environment: str, failing: str) -> protocol.Timed:
        """Return a worker's answer to a block."""
        samples, block = [], action.command
        assert isinstance(block, protocol.TimeBlock)
        level, series = STEP_SECONDS[action.workload], SERIES[action.kind]
        if TurnKind(action.workload, action.kind).pairs_calls:
            series = {action.kind: 1}
        for arm in action.arms:
            luck = self.luck.setdefault((worker, arm), self.rng.gauss(0, self.noise / 2))
            seconds = self.factor(action.workload, environment, arm) * level
            seconds *= math.exp(luck + self.rng.gauss(0, self.noise))
            cell = Arm.parse(arm).make_cell(action.workload, block.backend)
            samples += [
                Sample(cell, metric, seconds, count * self.rounds(action), seconds, seconds)
                for metric, count in series.items()
                if arm != failing
            ]
        failures = {failing: "it computed something else"} if failing else {}
        shares = {a: self.factor(action.workload, environment, a) for a in action.arms}
        if block.programs:  # the copies of the baseline compile, which is in this program, too
            samples = [s for s in samples if s.metric != "compile" or s.cell.arm in REFERENCE]
        return protocol.Timed(samples, failures, shares)

    def drive(self, plan: Plan) -> Self:
        """Run a plan to its end."""
        self.now = plan.state.spent.wall_seconds
        running: list[tuple[float, int, float, Action]] = []
        lanes, count = plan.actions(), 0
        try:
            begin = next(lanes)
            while True:
                for action in begin:
                    busy = {number for *_, other in running for number in other.workers}
                    assert not busy & {*action.workers}, "a worker does one thing at a time"
                    count += 1
                    cores = self.cores_of(action)
                    shared = bool(cores) * sum(
                        self.cores_of(other) == cores for *_, other in running
                    )
                    end = self.now + self.seconds(action) * (1 + shared)
                    heapq.heappush(running, (end, count, self.now, action))
                end, _, start, action = heapq.heappop(running)
                self.now = end
                self.log.append((start, end, action))
                begin = lanes.send(self.outcome(action, end - start))
        except StopIteration:
            assert not running, "everything that was begun has ended"
        return self

    def cores_of(self, action: Action) -> tuple[int, ...]:
        """Return the cores of an action's worker; what others do there takes as long again."""
        return action.cores or self.cores.get(action.worker, ())

    def outcome(self, action: Action, took: float) -> Outcome:
        """Return the outcome of an action that ends now."""
        wrong = self.fault(action)
        if isinstance(wrong, WorkerFailedError):
            for number in action.workers:
                self.cores.pop(number, None)
            wrong.number = wrong.number or action.worker
            return Outcome(action.worker, took, self.now, [], wrong)
        return Outcome(action.worker, took, self.now, self.answers(action, wrong or ""))

    def actions(self, do: str = "block", kind: str = "") -> list[Action]:
        """Return the actions of a kind that were done, in the order of ends."""
        return [a for *_, a in self.log if a.do == do and kind in ("", a.kind)]

    def blocks(self, kind: str = "") -> list[protocol.TimeBlock]:
        """Return the commands of blocks of a kind of turns, in the order of their ends."""
        commands = (action.command for action in self.actions("block", kind))
        return [command for command in commands if isinstance(command, protocol.TimeBlock)]
