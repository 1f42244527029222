"""What a warm worker holds: the compiled steps of each workload, and what is done with them."""

from __future__ import annotations

import gc
import random
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import jax
import numpy as np

import impls
from bench.cells import BASELINE, Arm
from bench.metrics import TINY
from bench.worker.arms import Arms, guarded, program_of
from bench.worker.block import TimedBlock
from bench.worker.counts import compilations, exact
from bench.worker.donation import (
    live_arrays,
    live_bytes,
    require_alike,
    require_arguments_kept,
)
from bench.worker.integrity import Surroundings
from bench.worker.program import exact_metrics, facts, fingerprint, proof_of
from bench.worker.protocol import (
    Counted,
    Failed,
    Failures,
    Opened,
    Proven,
    Sample,
    Timed,
    Trained,
)
from bench.worker.source import code_lines
from bench.worker.turns import training_losses
from bench.worker.workloads import load_workload, use
from common.config import ModelConfig
from common.equality import Case, Deviation, NotEqualError, make, trajectory
from common.equality import loss_and_gradient_deviation as deviation_of_call
from common.tolerances import TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.worker.recorder import TurnMarker
    from common.contract import TrainStep

TINY_CASE = Case(ModelConfig(vocab_size=5, width=2), chunk=2, batch=1)
"""Sizes that the baseline's program is looked at: they are constants of it, and nothing else."""
CACHE: dict[str, bool | int] = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Settings of JAX's persistent compilation cache, beside its folder."""


class Session:
    """The state of a warm worker; each public method is one command, and returns its answer."""

    def __init__(self, turn: TurnMarker) -> None:
        self.turn = turn
        self.index: dict[Arm, int] = {}
        """What the recorder's page holds while it is an arm's turn."""
        self.workloads: dict[tuple[str, str], Arms] = {}
        self.counted: list[TrainStep] = []
        """Kept: `jax.clear_caches` of jax 0.4.28 and 0.7.0 crashes where it frees a step."""
        self.functions = Surroundings(everything=False)
        self.compiled: Callable[[], int] | None = None
        """Returns how many programs the process has compiled since the first block."""
        self.donate = False
        """Whether steps donate their state."""
        self.cached = False
        self.cache_hits = 0
        """Programs that came from the persistent compilation cache."""

        def happened(event: str, **_: str | int) -> None:
            self.cache_hits += event.endswith("cache_hits")

        jax.monitoring.register_event_listener(happened)

    def load(
        self,
        arms: list[str],
        outside: dict[str, str],
        cache: str | None,
        seed: int,
        check_programs: bool = False,
        donate: bool = False,
    ) -> Failures:
        """Import the entrants of all arms in random order; one that changes something fails.

        Args:
            arms: By name; their order gives them their indices.
            outside: Files of entrants that lie elsewhere, by name.
            cache: Folder of the compilation cache; None for a process that uses none.
            seed: Draws the order.
            check_programs: If true, fail an entrant whose import changes the baseline's program.
            donate: Whether steps donate their state.
        """
        self.donate = donate
        for path in outside.values():
            impls.add(path)
        self.index = {Arm.of(name): i for i, name in enumerate(arms)}
        answer = Failures({})
        if cache is not None:
            answer.notes += filter(None, [use_cache(cache)])
            self.cached = not answer.notes
        rng = random.Random(seed)  # noqa: S311 -- an order of imports is no secret
        by_entrant: dict[str, list[Arm]] = {}
        for arm in self.index:
            by_entrant.setdefault(arm.code.entrant, []).append(arm)
        program = guarded(baseline_program) if check_programs else ""
        for entrant in rng.sample(list(by_entrant), len(by_entrant)):
            ours = by_entrant[entrant]
            self.at(ours[0])
            before = Surroundings()
            for arm in rng.sample(ours, len(ours)):
                problem = guarded(arm.load)
                if isinstance(problem, Failed):
                    answer.failures[str(arm)] = problem.failure
            changes = before.changes()
            if check_programs and (now := guarded(baseline_program)) != program:
                program = now
                other = f"changed the program of {BASELINE}"
                changes = "; ".join(filter(None, [other, changes]))
                answer.notes.append(
                    f"this process measures another program of {BASELINE} than it should, "
                    f"since {entrant} was imported: leave that out"
                )
            if changes:
                answer.failures |= {str(arm): f"importing it {changes}" for arm in ours}
        self.turn.at()
        gc.collect()
        gc.freeze()  # what is imported stays; collections before blocks need not look at it
        return answer

    def at(self, arm: Arm) -> None:
        """Say that it is an arm's turn."""
        self.turn.at(self.index[arm])

    def on(self, workload: str, backend: str) -> Arms:
        """Return the arms of a workload, made when first asked for."""
        key = (workload, backend)
        use(backend)
        if key not in self.workloads:
            self.workloads[key] = Arms(load_workload(workload), donate=self.donate)
        return self.workloads[key]

    def guard[Answer](self, arm: Arm, action: Callable[[], Answer]) -> Answer | Failed:
        """Do something for one arm; a failure is that arm's."""
        self.at(arm)
        before = Surroundings()
        answer = guarded(action)
        if (changes := before.changes()) and not isinstance(answer, Failed):
            answer = Failed(f"making or running its step {changes}")
        self.turn.at()
        if self.cache_hits and not self.cached:
            raise RuntimeError("the persistent compilation cache was used")
        return answer

    def count(self, workload: str, backend: str, arm: str) -> Counted | Failed:
        """Count what an arm's step has Python and JAX do; it says the same at all widths.

        JAX's caches are cleared for that, so that whatever was compiled is compiled anew when it is
        called next: count in a worker that does nothing else.
        """
        arms, name = self.on(workload, backend), Arm.of(arm)

        def counts() -> Counted:
            self.counted.append(arms.make(name))
            return Counted(samples_of(arm, exact(self.counted[-1], arms.case)))

        return self.guard(name, counts)

    def prove(self, workload: str, backend: str, arm: str) -> Proven | Failed:
        """Make an arm's step, and show that it is equal."""
        arms, name = self.on(workload, backend), Arm.of(arm)
        baseline, case = arms.reference, arms.case
        arms.steps.pop(name, None)
        before = live_arrays(backend)

        def proof(step: TrainStep) -> Proven:
            require_arguments_kept(step, case)
            loss, gradient = deviation_of_call(step, case)
            losses = trajectory(step, case)
            away = Deviation(loss, gradient, float(np.max(np.abs(losses - baseline.losses))))
            away.require()
            live = live_bytes(step, case, before, backend)
            program = program_of(step, case)  # which holds arrays, too
            program_facts = facts(program) if program else None
            require_alike(program_facts, donate=self.donate)
            about = asdict(away) | proof_of(program_facts, baseline.program)
            about["settings"] = dict(getattr(step, "settings", {}))
            counts: dict[str, float | None] = {
                "parameters": case.model.parameters,
                "code_lines": code_lines(impls.source(name.code.entrant)),
                "live_bytes": live if program_facts else None,
            }
            counts |= exact_metrics(program_facts)
            return Proven(about, samples_of(arm, counts), losses.tolist())

        return self.kept(arms, name, proof)

    def open(
        self, workload: str, backend: str, arm: str, losses: list[float] | None
    ) -> Opened | Failed:
        """Make the step of an arm that another process has proven: its losses must be the same.

        `losses` are the baseline's ten; None has this process find them.
        """
        arms, name = self.on(workload, backend), Arm.of(arm)
        expected = arms.reference.losses if losses is None else np.array(losses)

        def opening(step: TrainStep) -> Opened:
            away = float(np.max(np.abs(trajectory(step, arms.case) - expected)))
            if not away <= TRAJECTORY_TOLERANCE:
                raise NotEqualError(
                    f"not equal in this process, though it was in another: ten steps' losses off "
                    f"by {away:.2g} nats from the baseline (allowed: {TRAJECTORY_TOLERANCE:g})"
                )
            return Opened()

        return self.kept(arms, name, opening)

    def kept[Answer](
        self, arms: Arms, arm: Arm, action: Callable[[TrainStep], Answer]
    ) -> Answer | Failed:
        """Make a step and do something with it; keep it unless something is wrong with it."""

        def make_first() -> Answer:
            arms.steps.pop(arm, None)
            arms.steps[arm] = arms.make(arm)
            return action(arms.steps[arm])

        answer = self.guard(arm, make_first)
        if isinstance(answer, Failed):
            arms.steps.pop(arm, None)
        return answer

    def block(
        self, workload: str, backend: str, kind: str, arms: list[str], rounds: int, seed: int
    ) -> Timed:
        """Measure one block of turns of this kind: fresh buffers, then rounds in random order."""
        opened = self.on(workload, backend)
        self.compiled = self.compiled or compilations()
        block = TimedBlock(self.at, self.compiled, self.functions.changes, seed)
        untimed = int(workload in TINY)  # where a first round is slower, and costs nothing
        timed = block.run(opened, kind, [*map(Arm.of, arms)], rounds, untimed)
        self.turn.at()
        return timed

    def train(self, workload: str, backend: str, arm: str) -> Trained | Failed:
        """Train an arm, from the same weights and from its library's own initialisers."""
        arms, name = self.on(workload, backend), Arm.of(arm)
        return self.guard(name, lambda: Trained(training_losses(name, arms)))


def samples_of(arm: str, counts: Mapping[str, float | None]) -> list[Sample]:
    """Return exact numbers of an arm as samples; those that are not known are left out."""
    return [
        Sample(arm, metric, float(count)) for metric, count in counts.items() if count is not None
    ]


def use_cache(folder: str) -> str:
    """Have JAX read programs from `folder`, and write there what had to be compiled.

    Returns:
        Why that cannot be, in words; nothing where it can.
    """
    for name, value in {**CACHE, "jax_compilation_cache_dir": folder}.items():
        try:
            jax.config.update(name, value)
        except Exception:
            with suppress(Exception):  # a release that has no such option has it always on
                jax.config.update("jax_enable_compilation_cache", False)
            return f"jax {jax.__version__} has no option {name}: nothing is read from a cache"
    with suppress(Exception):  # JAX decides once a process, and has not yet: nothing is compiled
        from jax.experimental.compilation_cache import compilation_cache

        compilation_cache.reset_cache()
    return ""


def baseline_program() -> str:
    """Return the fingerprint of the baseline's program at a tiny size, traced and lowered anew."""
    program = program_of(make(BASELINE.load(), TINY_CASE), TINY_CASE)
    assert program is not None, "the baseline is JAX's"
    return fingerprint(program.lower())
