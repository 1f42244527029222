"""State of a warm worker: the compiled steps of each workload, and what commands do to them."""

from __future__ import annotations

import gc
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import impls
from bench import own_steps
from bench.cells import BASELINE, Arm
from bench.metrics import STAGES
from bench.worker.arms import Arms, catch_failure, use_device
from bench.worker.block import TimedBlock, Token
from bench.worker.counts import watch_compilations
from bench.worker.proof import baseline_program, count_arm, prove_arm, train_arm
from bench.worker.protocol import (
    NOBODY,
    ArmCommand,
    Count,
    Failed,
    Failures,
    Load,
    Open,
    Prove,
    Proven,
    Sampled,
    TimeBlock,
    Timed,
    Train,
)
from bench.worker.settings import Surroundings
from bench.worker.skeleton import SkeletonArms
from bench.worker.step_arms import StepArms
from bench.worker.step_file import StepFile
from bench.workloads import is_skeleton

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.protocol import ArmMarker, Command

CACHE: dict[str, bool | int] = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Settings of JAX's persistent compilation cache, beside its folder."""


class Session:
    """The state of a warm worker, which measures at one workload on one backend."""

    def __init__(self, marker: ArmMarker, channel: int) -> None:
        self.marker, self.channel = marker, channel
        self.loaded = Load([], seed=0)
        """Command that said which arms take part."""
        self.index: dict[Arm, int] = {}
        """Arm → byte that says that it is at work."""
        self.arms: Arms | None = None
        """Arms of its workload, from the first command about one on."""
        self.surroundings: Surroundings | None = None
        """Snapshot before the first block."""
        self.count_programs: Callable[[], int] | None = None
        """Function that returns the number of programs compiled since the first block."""

    def answer(self, command: Command) -> object:
        """Carry out a command, and return its answer."""
        actions: dict[type[Command], Callable[[Any], object]] = {
            Load: self.load,
            Count: partial(self.guard, action=count_arm),
            Prove: self.prove,
            Open: self.open,
            Train: partial(self.guard, action=train_arm),
            TimeBlock: self.time_block,
        }
        return actions[type(command)](command)

    def load(self, command: Load) -> Failures:
        """Import the entrants of arms in random order."""
        self.loaded, names, outside = command, command.arms, command.outside
        step = own_steps.find_step(outside)
        self.index = {Arm.parse(name): i for i, name in enumerate(names)}
        use_cache(command.cache)
        if step and (failed := import_own_step(Path(outside[step]))):
            return Failures(dict.fromkeys(names, failed.failure), spoiled=failed.spoiled)
        answer = Failures({})
        rng = random.Random(command.seed)  # noqa: S311 -- an order of imports is no secret
        entrants = list(dict.fromkeys(arm.code.entrant for arm in self.index))
        program = catch_failure(baseline_program) if command.check_programs else ""
        for entrant in rng.sample(entrants, len(entrants)):
            ours = [arm for arm in self.index if arm.code.entrant == entrant]
            self.mark_arm(ours[0])
            before = Surroundings()
            located = impls.locate(entrant, outside)
            loaded = None if entrant == step else catch_failure(partial(impls.load, located))
            failure = loaded.failure if isinstance(loaded, Failed) else ""
            changes = before.changes()
            if command.check_programs and (now := catch_failure(baseline_program)) != program:
                program, answer.spoiled = now, True
                changes = "; ".join(filter(None, [f"changed the program of {BASELINE}", changes]))
            answer.spoiled |= before.spoiled
            if changes:  # which says more than an error after it
                failure = f"importing it {changes}"
            if failure:
                answer.failures |= dict.fromkeys(map(str, ours), failure)
        self.marker.mark()
        gc.collect()
        gc.freeze()  # what is imported stays; collections before blocks need not look at it
        return answer

    def mark_arm(self, arm: Arm | None) -> None:
        """Record which arm is at work; None stands for none."""
        self.marker.mark(NOBODY if arm is None else self.index[arm])

    def find_arms(self, workload: str, backend: str) -> Arms:
        """Return the arms of this worker's workload, which the first call makes."""
        if self.arms is None:
            use_device(backend)
            donate = self.loaded.donate
            if file := own_steps.find_file(self.loaded.outside, workload):
                if is_skeleton(workload):
                    self.arms = SkeletonArms(Path(file), backend, donate=donate)
                else:
                    self.arms = StepArms(StepFile(Path(file)), backend, donate=donate)
            else:
                self.arms = Arms(workload, backend, donate=donate)
        assert (self.arms.workload, self.arms.backend) == (workload, backend)
        return self.arms

    def guard[Answer](
        self, command: ArmCommand, action: Callable[[Arms, Arm], Answer]
    ) -> Answer | Failed:
        """Return what `action` returns for one arm; after a failure, drop the arm's step."""
        file = own_steps.find_file(self.loaded.outside, command.workload)
        arms = catch_failure(partial(self.find_arms, command.workload, command.backend), file)
        if isinstance(arms, Failed):
            return arms
        arm = Arm.parse(command.arm)
        self.mark_arm(arm)
        before = Surroundings()
        answer = catch_failure(partial(action, arms, arm), file)
        if changes := before.changes():
            failures = [answer.failure] if isinstance(answer, Failed) else []
            failures.append(f"making or running its step {changes}")
            answer = Failed("; ".join(failures), spoiled=before.spoiled)
        if isinstance(answer, Failed):
            arms.steps.pop(arm, None)
        self.marker.mark()
        return answer

    def prove(self, command: Prove) -> Proven | Failed:
        """Prove an arm, or say why there is no baseline to compare it with."""
        arms = partial(self.find_arms, command.workload, command.backend)
        file = own_steps.find_file(self.loaded.outside, command.workload)
        ahead = self.guard(command, lambda arms, arm: arms.compile_ahead(arm))
        if isinstance(ahead, Failed):
            return ahead
        reference = catch_failure(lambda: arms().reference, file)
        return reference if isinstance(reference, Failed) else self.guard(command, prove_arm)

    def open(self, command: Open) -> Sampled | Failed:
        """Open an arm, whose losses must be the baseline's."""
        losses = np.array(command.losses)
        if not losses.size:
            losses = self.find_arms(command.workload, command.backend).reference.losses
        return self.guard(command, lambda arms, arm: arms.open(arm, losses)) or Sampled()

    def time_block(self, command: TimeBlock) -> Timed:
        """Measure a block, alone or alternating with a worker of another side."""
        arms = self.find_arms(command.workload, command.backend)
        self.surroundings = around = self.surroundings or Surroundings()
        token = None
        if command.place is not None:
            token = Token.receive(self.channel, command.place, command.patience)
        count: Callable[[], int] = int  # stages are compiled: their programs are not counted
        if command.kind != STAGES:
            self.count_programs = count = self.count_programs or watch_compilations()
        timed = TimedBlock(arms, command, self.mark_arm, count, around.changes, token).run()
        if token:
            token.end.close()
        timed.spoiled = around.spoiled
        self.marker.mark()
        return timed


def import_own_step(file: Path) -> Failed | None:
    """Import a user's own step; return why that fails, or what else it has changed.

    Settings are watched from then on: the file may change them.
    """
    before = Surroundings()
    problem = catch_failure(partial(own_steps.import_step, file))
    failure = problem.failure if isinstance(problem, Failed) else ""
    if changes := before.changes(of_settings=False):
        failure = f"{file.name}: importing it {changes}"
    return Failed(failure, spoiled=before.spoiled) if failure else None


def use_cache(folder: str) -> None:
    """Have JAX read programs from `folder`, and write there what had to be compiled."""
    for name, value in {**CACHE, "jax_compilation_cache_dir": folder}.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX decides once a process whether there is one
