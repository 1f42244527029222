"""Blocks: times without other processes' on one core, orders, the datum of a block, and stages."""

import socket
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bench.cells import BASELINE, CONTROL, Arm
from bench.metrics import STAGES
from bench.samples import Sample
from bench.stats.verdicts import find_too_fast
from bench.worker import settings, turns
from bench.worker.arms import Arms
from bench.worker.block import SCALES, TimedBlock, Token
from bench.worker.protocol import KINDS, LEAST_CALL_ROUNDS, TimeBlock
from bench.worker.session import use_cache
from bench.worker.turns import (
    WARMING_CALLS,
    Call,
    Turn,
    make_paired_samples,
    make_sample,
)
from common.contract import Program

ARMS = [Arm("pure_jax", "pure"), Arm("control", "pure"), Arm("haiku", "pure")]
QUIET, INTERRUPTED = Call(1.0, 2e-6), Call(1.004, 4e-3)
"""Seconds and idle ones of calls; in the second, another process had the core for 4 ms."""


@pytest.mark.parametrize(
    ("calls", "value"),
    [
        pytest.param([QUIET, INTERRUPTED, QUIET, QUIET], 1.0, id="one interrupted"),
        pytest.param([QUIET, QUIET, INTERRUPTED, INTERRUPTED], None, id="too few clean ones"),
        pytest.param([INTERRUPTED] * 4, None, id="none clean"),
        pytest.param([Call(1.0, -1e-3)] * 4, 1.0, id="several threads"),
    ],
)
def test_calls_in_which_others_had_the_core_are_left_out(
    calls: list[Call], value: float | None
) -> None:
    cell = BASELINE.make_cell("toy", "cpu")
    sample = make_sample(cell, "host_cost", [[call] * 2 for call in calls])
    assert (sample and sample.value) == value
    single = make_sample(cell, "host_cost", [[call] for call in [*calls, *calls[:2]]])
    assert (single is None) == (INTERRUPTED in calls), "of single calls, six have to be clean"
    assert sample is None or sample.p95 == 1.0, "the interrupted call is in no quantile"


@pytest.mark.parametrize(
    ("cores", "backend", "idle"),
    [([0], "cpu", 4.0), ([0, 1], "cpu", 0.0), (None, "cpu", 0.0), ([0], "gpu", 0.0)],
)
def test_idle_time_of_the_untimed_call_counts_and_no_time_is_split(
    cores: list[int] | None, backend: str, idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has the core for 4 s, in the untimed call; the timed one takes 1 s."""
    monkeypatch.setattr(settings, "affinity", lambda: cores)
    step = Step([5.0, 1.0], monkeypatch)
    arms: Any = Mock(steps={ARMS[0]: step}, pairs_calls=True, backend=backend)
    arms.skipped_metrics = ("host_cost_pipelined",)
    turn = Turn("host_cost", arms, ARMS[0], Mock(), scale=1.0)
    step.seconds = cycle([5.0, 1.0])
    start, cpu = step.now, iter([0.0, 2.0])
    monkeypatch.setattr(turns, "CPU_CLOCK", lambda: next(cpu))
    [call] = turn()["host_cost"]
    assert step.now - start == 6.0
    assert call.seconds == 1.0
    assert call.idle == pytest.approx(idle, abs=0.01), "but for a thousandth"


@pytest.mark.parametrize("broken", [False, True])
def test_a_block_that_subtracts_too_much_is_found_at_the_end(
    broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 rounds, 8 were interrupted for 4 ms; broken, a call gets its part of that time."""

    def subtract_parts(calls: list[list[Call]]) -> np.ndarray:
        return np.array([[c.seconds * (1 - c.idle / (c.idle + 2 * c.seconds))] for [c] in calls])

    if broken:
        monkeypatch.setattr(turns, "read_clean_seconds", subtract_parts)
    calls = [[Call(0.7e-3, 4e-3 if number % 5 == 0 else 0.0)] for number in range(40)]
    cells = [arm.make_cell("mine.skeleton", "cpu") for arm in (BASELINE, CONTROL)]
    samples = make_paired_samples(dict.fromkeys(cells, calls), "host_cost")
    too_fast = find_too_fast(samples)
    assert {cell for _, cell, _ in too_fast} == ({*cells} if broken else set())
    if broken:
        why = too_fast["", cells[0], "host_cost"]
        assert why.startswith("not known: a block gave less than a third of its own median")


def test_a_block_of_two_calls_may_have_an_interrupted_one() -> None:
    cell = BASELINE.make_cell("mine", "cpu")
    few, many = (Sample(cell, "step", 0.1e-3, calls, median=0.5e-3) for calls in (2, 10))
    assert find_too_fast([few]) == {}
    assert find_too_fast([many]).keys() == {("", cell, "step")}


def test_a_block_without_clean_calls_of_the_baseline_has_no_samples() -> None:
    interrupted, quiet = [[INTERRUPTED]] * 9, [[QUIET]] * 9
    cells = [arm.make_cell("mine.skeleton", "cpu") for arm in (BASELINE, CONTROL, ARMS[2])]
    rows = [quiet, interrupted, quiet]
    assert make_paired_samples(dict(zip(cells, rows, strict=True)), "host_cost") == []
    rows = [quiet, quiet, interrupted]
    samples = make_paired_samples(dict(zip(cells, rows, strict=True)), "host_cost")
    assert [sample.cell for sample in samples] == cells[:2]


class Step:
    """A step whose calls take given seconds by a clock of its own."""

    def __init__(self, seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0.0, cycle(seconds)
        monkeypatch.setattr(turns, "CLOCK", lambda: self.now)
        monkeypatch.setattr(turns, "CPU_CLOCK", lambda: self.now)
        monkeypatch.setattr(turns, "WAIT", lambda result: result)

    def __call__(self, hidden: Any, _chunk: Any) -> Any:
        self.now += next(self.seconds)
        return hidden, 1.0

    def begin(self, kind: str) -> Turn:
        arms: Any = Mock(steps={ARMS[0]: self}, skipped_metrics=(), pairs_calls=False)
        turn = Turn(kind, arms, ARMS[0], Mock(), scale=1.0)
        self.now = 0.0
        return turn


@pytest.mark.parametrize(("kind", "calls"), [("step", 3), ("pipelined", 51), ("host_cost", 21)])
def test_a_call_in_a_row_takes_as_long_as_one_that_is_waited_for(
    kind: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step([2.0], monkeypatch)
    turn = step.begin(kind)
    assert {call.seconds for several in turn().values() for call in several} == {2.0}
    assert (turn.calls - WARMING_CALLS) * 2.0 == step.now == calls * 2.0, "all calls are counted"


@pytest.mark.parametrize(("ready", "least"), [(True, 1.0), (False, 2.0)])
def test_calls_that_leave_work_in_flight_stand_for_each_other(
    ready: bool, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step that keeps its state to itself; the mean of 1 and 3 seconds is 2."""
    step: Any = Step([3.0, 1.0], monkeypatch)
    step.is_in_flight = False
    array = SimpleNamespace(is_ready=lambda: ready)
    monkeypatch.setattr(turns, "list_live_arrays", lambda _: [array])
    [calls] = step.begin("step")().values()
    assert len(calls) == 2
    assert min(call.seconds for call in calls) == least


def take_turns(workload: str, rounds: int, mark: Any, token: Token | None = None) -> TimedBlock:
    """Take turns that take no time."""
    command = TimeBlock(workload, "cpu", "step", [*map(str, ARMS)], rounds, seed=1)
    timed = TimedBlock(Mock(), command, mark, lambda: 0, str, token)
    timed.interleave(lambda: dict.fromkeys(ARMS, lambda: {"step": [Call(1.0, 0.0)]}))
    return timed


def test_rounds_have_other_orders_and_every_second_one_reverses_the_one_before() -> None:
    seen: list[Arm | None] = []
    timed = take_turns("toy", 23, seen.append)
    orders = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert len(orders) == 24
    assert all(set(order) == set(ARMS) for order in orders)
    assert {order[0] for order in orders[::2]} == set(ARMS)
    assert [order[::-1] for order in orders[::2]] == orders[1::2]
    assert all(len(timed.calls[arm]["step"]) == 23 for arm in ARMS), "the first is not timed"


def test_two_workers_take_the_turns_of_an_arm_one_after_the_other() -> None:
    """Both sides are as often first; the arms that one has are those of the other one."""
    ends, seen = socket.socketpair(), list[tuple[int, Arm]]()

    def work(side: int) -> None:
        mark = lambda arm: seen.append((side, arm)) if arm else None  # noqa: E731
        take_turns("seed", 40, mark, Token(side, ends[side]))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, side) for side in (0, 1)]:
            done.result(timeout=20)
    turns = [seen[i : i + 2] for i in range(0, len(seen), 2)]
    assert len(turns) == 40 * len(ARMS)
    assert all({side for side, _ in turn} == {0, 1} for turn in turns)
    assert all(len({arm for _, arm in turn}) == 1 for turn in turns)
    for arm in ARMS:
        first = [turn[0][0] for turn in turns if turn[0][1] == arm]
        assert first.count(0) == 20, "every second round reverses the one before"
    for end in ends:
        end.close()


def test_what_an_arm_does_before_its_turn_is_not_the_next_ones_fault() -> None:
    changes = iter(["", "left running: sleep (1)", "", ""])
    command = TimeBlock("toy", "cpu", "step", [], 1, seed=1)
    timed = TimedBlock(Mock(), command, Mock(), lambda: 0, lambda: next(changes))
    first, second, third = ARMS
    assert [timed.attempt(arm, "before", lambda: 1) for arm in (first, second)] == [1, None]
    assert timed.failures == {second: "before it was timed it left running: sleep (1)"}
    timed.take(third, lambda: {"step": [Call(1.0, 0.0)]}, 0)
    assert timed.calls.keys() == {third}
    assert timed.failures.keys() == {second}


def test_single_calls_are_watched_now_and_then_until_something_changes() -> None:
    """Looking at settings and threads takes longer than a call of a small skeleton.

    Whoever changed something between two looks is not known: it is found the next time.
    """
    looks, changed = list[tuple[int, Arm]](), {32: ARMS[0], 34: ARMS[1]}

    def look() -> str:
        looks.append((number, arm))
        if changed.get(number) != arm:
            return ""
        del changed[number]  # what is found is as before again
        return "changed a setting"

    command = TimeBlock("mine.skeleton", "cpu", "host_cost", [], 1, seed=1)
    timed = TimedBlock(Mock(pairs_calls=True), command, Mock(), lambda: 0, look)
    for number in range(36):
        for arm in ARMS[:2]:
            if arm not in timed.failures:
                timed.take(arm, lambda: {"host_cost": [Call(1.0, 0.0)]}, number)
    assert {n for n, _ in looks} == {0, *range(32, 36)}
    assert timed.failures == {ARMS[1]: "while it was timed it changed a setting"}


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-9, LEAST_CALL_ROUNDS), (60.0, 40), (0.0, 40)])
def test_a_block_with_a_limit_ends_between_pairs_of_rounds(seconds: float, rounds: int) -> None:
    arms = [str(arm) for arm in ARMS]
    command = TimeBlock("mine.skeleton", "cpu", "host_cost", arms, 40, seed=1, seconds=seconds)
    timed = TimedBlock(Mock(pairs_calls=True), command, Mock(), lambda: 0, str)
    taken = list[Arm]()
    timed.take = lambda arm, *_: taken.append(arm)  # type: ignore[method-assign]
    timed.interleave(lambda: dict.fromkeys(ARMS, Mock()))
    assert Counter(taken) == dict.fromkeys(ARMS, rounds)


def test_slow_turns_do_not_move_the_datum_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the geometric mean of the fastest half of turns, each counted as its fastest call."""
    monkeypatch.setattr(settings, "affinity", lambda: [0, 1])
    quiet = [[Call(1.0, 0.0), Call(3.0, 0.0)], [Call(6.0, 0.0), Call(4.0, 0.0)]]
    slow = [[Call(9.0, 0.0), Call(8.0, 0.0)]]
    cell = ARMS[0].make_cell("seed", "cpu")
    before, after = (make_sample(cell, "step", quiet + slow * n) for n in (1, 2))
    assert after is not None
    assert before == Sample(cell, "step", 2.0, 6, 5.0, 8.75)
    assert (after.value, after.calls, after.median) == (2.0, 8, 7.0)


def test_each_block_starts_from_other_weights() -> None:
    """A step that keeps results by the content of its inputs finds none."""
    arms, loaded = Arms("toy", "cpu", donate=False), list[Any]()
    for scale in SCALES:
        step: Any = SimpleNamespace(load=loaded.append)
        arms.load(step, scale)
    first, second = (start.weights.readout.kernel for start in loaded)
    assert first.dtype == second.dtype == np.float32
    assert np.all(first != second)
    np.testing.assert_allclose(first / second, SCALES[0] / SCALES[1], rtol=1e-6)


# Stages of steps that are made anew.

INNER: list[int] = []
"""Grows each time that JAX traces what all steps share."""


@jax.jit
def shared(x: jax.Array) -> jax.Array:
    INNER.append(1)
    return x + 1


class TracedStep:
    """A step whose trace counts itself."""

    def __init__(self, traced: list[int]) -> None:
        self.traced = traced

    def program(self, *_: Any) -> Program:
        def function(x: jax.Array) -> jax.Array:
            self.traced.append(1)
            return shared(x)

        ours = jax.jit(function)
        return Program.from_trace(lambda: ours.trace(jnp.zeros(2)))


GOOD, LIKE_IT, BROKEN = (Arm("made", name) for name in ("a", "b", "broken"))


def block_of_made_steps(rounds: int, programs: dict[str, str] | None = None) -> Any:
    """Return a block of arms, one of which cannot be made, and what its steps were seen to do."""
    made, traced, alive = list[weakref.ref[TracedStep]](), list[int](), list[int]()

    def make(arm: Arm) -> TracedStep:
        if arm == BROKEN:
            raise OSError("no such planet")
        alive.append(sum(step() is not None for step in made))
        step = TracedStep(traced)
        made.append(weakref.ref(step))
        return step

    arms: Any = Arms.__new__(Arms)  # without a workload
    arms.make, arms.backend, arms.chunks = make, "cpu", [()]
    arms.load = arms.initialise = lambda *_: None
    arms.case = SimpleNamespace(zero=tuple, data=tuple)
    arms.find_cell = lambda arm: arm.make_cell("toy", "cpu")
    names = [*map(str, (GOOD, LIKE_IT, BROKEN))]
    command = TimeBlock("toy", "cpu", STAGES, names, rounds, seed=1, programs=programs or {})
    answer = TimedBlock(arms, command, lambda _: None, int, str).run()
    return SimpleNamespace(answer=answer, traced=traced, alive=alive)


def test_a_program_that_is_read_from_a_cache_has_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "disable_cache", nullcontext)
    names = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
    before = {name: getattr(jax.config, name) for name in names}
    try:
        use_cache(str(tmp_path))
        answer = block_of_made_steps(rounds=2).answer
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert answer.samples == []
    assert "the persistent compilation cache was used" in answer.failures[str(GOOD)]


def test_each_turn_traces_a_step_of_its_own_and_drops_it() -> None:
    """An arm that cannot be made costs its own times alone."""
    before = len(INNER)
    block = block_of_made_steps(rounds=4)
    assert len(block.traced) == len(INNER) - before == 2 * 4, "nothing is kept of other turns"
    assert max(block.alive) <= 1, "no step outlives the next turn"
    calls = {(str(sample.cell.arm), sample.calls) for sample in block.answer.samples}
    assert calls == {(str(GOOD), 4), (str(LIKE_IT), 4)}
    why = "raised OSError: no such planet (while it was timed)"
    assert block.answer.failures == {str(BROKEN): why}


def test_arms_of_one_program_compile_it_once_in_a_round() -> None:
    block = block_of_made_steps(3, {str(GOOD): "one", str(LIKE_IT): "one"})
    calls = {(str(s.cell.arm), s.metric): s.calls for s in block.answer.samples}
    both = str(GOOD), str(LIKE_IT)
    assert [calls[arm, "trace"] for arm in both] == [3, 3]
    assert sum(calls.get((arm, "compile"), 0) for arm in both) == 3
    apart = block_of_made_steps(3, {str(GOOD): "one", str(LIKE_IT): "another"})
    assert {(str(s.cell.arm), s.calls) for s in apart.answer.samples} == {(arm, 3) for arm in both}


@pytest.mark.parametrize("pinned", [False, True])
def test_what_a_library_cannot_trace_apart_is_told_by_jax_events(
    pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Program.from_trace
    monkeypatch.setattr(turns, "has_one_core", lambda: pinned)
    monkeypatch.setattr(Program, "from_trace", lambda trace: whole(trace)._replace(trace=None))
    samples = block_of_made_steps(rounds=2).answer.samples
    assert {s.metric for s in samples if s.cell.arm == GOOD} == {*KINDS[STAGES]}
    assert all(sample.value > 0 for sample in samples)


def test_calls_of_a_round_are_related_where_the_machine_wobbles() -> None:
    rng = np.random.default_rng(0)
    speed = np.exp(rng.normal(0, 0.3, 40))
    slow = Arm("equinox", "filter_jit")
    turns = {
        arm.make_cell("mine.skeleton", "cpu"): [[Call(ratio * s, 0.0)] for s in speed]
        for arm, ratio in ((BASELINE, 1e-3), (CONTROL, 1e-3), (slow, 4e-3))
    }
    base, control, other = (sample.value for sample in make_paired_samples(turns, "host_cost"))
    assert other / base == pytest.approx(4.0)
    assert base == control == pytest.approx(np.quantile(1e-3 * speed, 0.1), rel=0.02)


def test_a_third_copy_of_plain_jax_takes_as_long_as_the_two_references() -> None:
    """Where noise only adds time, as it does, the mean of two calls is no typical call."""
    rng = np.random.default_rng(0)
    third = Arm("equinox", "pure")
    noise = 1e-3 * (1 + rng.exponential(0.1, (3, 4000)))
    turns = {
        arm.make_cell("mine.skeleton", "cpu"): [[Call(seconds, 0.0)] for seconds in row]
        for arm, row in zip((BASELINE, CONTROL, third), noise.tolist(), strict=True)
    }
    base, control, other = (sample.value for sample in make_paired_samples(turns, "host_cost"))
    assert base == pytest.approx(control, rel=0.005) == pytest.approx(other, rel=0.005)


@pytest.mark.parametrize("rounds", [8, 400])
def test_rounds_in_which_the_host_slows_the_core_down_are_left_out(rounds: int) -> None:
    """Python's part of a call gets longer by more than the program's, so ratios would rise."""
    rng = np.random.default_rng(0)
    style, is_slow = Arm("flax_nnx", "jit_partial"), np.arange(rounds) % 8 >= 5
    calls = {
        BASELINE: np.where(is_slow, 1.7e-3, 1e-3),
        CONTROL: np.where(is_slow, 1.7e-3, 1e-3),
        style: np.where(is_slow, 1.95 * 1.7e-3, 1.73e-3),
    }
    turns = {
        arm.make_cell("mine.skeleton", "cpu"): [[Call(s * rng.uniform(1, 1.02), 0.0)] for s in row]
        for arm, row in calls.items()
    }
    base, control, other = (sample.value for sample in make_paired_samples(turns, "host_cost"))
    within = 0.01 if rounds > 8 else 0.05  # six of eight rounds are taken, whichever they are
    assert base == pytest.approx(control, rel=0.01) == pytest.approx(1e-3, rel=0.02)
    assert other / base == pytest.approx(1.73, rel=within)
