"""State of a warm worker: the compiled steps of each workload, and the commands on them."""

from __future__ import annotations

import gc
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import impls
from bench.cells import BASELINE, Arm
from bench.metrics import STAGES, TINY
from bench.worker.arms import Arms, catch_failure, use_device
from bench.worker.block import TimedBlock
from bench.worker.counts import watch_compilations
from bench.worker.integrity import Surroundings
from bench.worker.proof import baseline_program, count_arm, prove_arm, train_arm
from bench.worker.protocol import NOBODY, Failed, Failures, Opened, Proven, Sampled, Timed
from bench.worker.stages import StagesBlock
from bench.worker.step_arms import StepArms
from bench.worker.token import Token
from impls import steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.protocol import TurnMarker

CACHE: dict[str, bool | int] = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Settings of JAX's persistent compilation cache, beside its folder."""


class Session:
    """The state of a warm worker; each command is a public method that returns its answer.

    A command about one arm answers `Failed` where the arm fails.
    """

    def __init__(self, turn: TurnMarker, channel: int = -1) -> None:
        self.turn, self.channel = turn, channel
        self.index: dict[Arm, int] = {}
        """Arm → byte that says that it is its turn."""
        self.outside: dict[str, str] = {}
        """Entrant or training step of a user's own → its file."""
        self.workloads: dict[tuple[str, str], Arms] = {}
        self.surroundings: dict[str, Surroundings] = {}
        """Backend → snapshot before its first block."""
        self.count_programs: Callable[[], int] | None = None
        """Function that returns the number of programs compiled since the first block."""
        self.donate = False
        """Whether steps donate their state."""

    def load(
        self,
        arms: list[str],
        outside: dict[str, str],
        cache: str,
        seed: int,
        check_programs: bool = False,
        donate: bool = False,
    ) -> Failures:
        """Import the entrants of all arms in random order; one that changes something fails.

        Args:
            arms: Names of the arms; their order gives them their indices.
            outside: Entrant or training step of a user's own → its file.
            cache: Folder of the compilation cache.
            seed: Seed of the order of imports.
            check_programs: If true, fail an entrant whose import changes the baseline's program.
            donate: Whether steps donate their state.
        """
        self.donate, self.outside = donate, outside
        step = steps.find_step(outside)
        self.index = {Arm.parse(name): i for i, name in enumerate(arms)}
        answer = Failures({})
        use_cache(cache)
        # First, since the settings that a user's file makes hold for its step
        if step:
            problem = catch_failure(partial(steps.import_step, Path(outside[step])))
            if isinstance(problem, Failed):
                return Failures(dict.fromkeys(arms, problem.failure))
        rng = random.Random(seed)  # noqa: S311 -- an order of imports is no secret
        entrants = list(dict.fromkeys(arm.code.entrant for arm in self.index))
        program = catch_failure(baseline_program) if check_programs else ""
        for entrant in rng.sample(entrants, len(entrants)):
            ours = [arm for arm in self.index if arm.code.entrant == entrant]
            self.mark_turn(ours[0])
            before = Surroundings()
            located = impls.locate(entrant, outside)
            loaded = None if entrant == step else catch_failure(partial(impls.load, located))
            failure = loaded.failure if isinstance(loaded, Failed) else ""
            changes = before.changes()
            if check_programs and (now := catch_failure(baseline_program)) != program:
                program, answer.spoiled = now, True
                changes = "; ".join(filter(None, [f"changed the program of {BASELINE}", changes]))
            answer.spoiled |= before.spoiled
            if failure := f"importing it {changes}" if changes else failure:
                answer.failures |= dict.fromkeys(map(str, ours), failure)
        self.turn.mark()
        gc.collect()
        gc.freeze()  # what is imported stays; collections before blocks need not look at it
        return answer

    def mark_turn(self, arm: Arm | None) -> None:
        """Record that it is an arm's turn; None stands for nobody's."""
        self.turn.mark(NOBODY if arm is None else self.index[arm])

    def find_arms(self, workload: str, backend: str) -> Arms:
        """Return the arms of a workload, which the first call makes."""
        use_device(backend)
        key = (workload, backend)
        if key not in self.workloads:
            file = self.outside.get(workload)
            self.workloads[key] = (
                StepArms(Path(file), backend, donate=self.donate)
                if file
                else Arms(workload, backend, donate=self.donate)
            )
        return self.workloads[key]

    def guard[Answer](
        self, workload: str, backend: str, name: str, action: Callable[[Arms, Arm], Answer]
    ) -> Answer | Failed:
        """Return what `action` returns for one arm; after a failure, drop the arm's step."""
        arms = catch_failure(partial(self.find_arms, workload, backend))
        if isinstance(arms, Failed):
            return arms
        arm = Arm.parse(name)
        self.mark_turn(arm)
        before = Surroundings()
        answer = catch_failure(partial(action, arms, arm))
        if changes := before.changes():
            failures = [answer.failure] if isinstance(answer, Failed) else []
            failures.append(f"making or running its step {changes}")
            answer = Failed("; ".join(failures), spoiled=before.spoiled)
        if isinstance(answer, Failed):
            arms.steps.pop(arm, None)
        self.turn.mark()
        return answer

    def count(self, workload: str, backend: str, arm: str) -> Sampled | Failed:
        """Count what an arm's step has Python and JAX do, in a worker that does nothing else."""
        return self.guard(workload, backend, arm, count_arm)

    def prove(self, workload: str, backend: str, arm: str) -> Proven | Failed:
        """Make an arm's step, and show that it is equal."""
        reference = catch_failure(lambda: self.find_arms(workload, backend).reference)
        if isinstance(reference, Failed):
            return reference
        return self.guard(workload, backend, arm, prove_arm)

    def open(
        self, workload: str, backend: str, arm: str, losses: list[float] | None
    ) -> Opened | Failed:
        """Make the step of an arm that another process has proven: its losses must be the same.

        `losses` are the baseline's ten; with None, this process computes them.
        """
        if losses is None:
            losses = self.find_arms(workload, backend).reference.losses.tolist()
        answer = self.guard(workload, backend, arm, lambda a, b: a.open(b, np.array(losses)))
        return answer or Opened()

    def block(
        self,
        workload: str,
        backend: str,
        kind: str,
        arms: list[str],
        rounds: int,
        seed: int,
        anew: bool = False,
        programs: dict[str, str] | None = None,
        place: int | None = None,
        patience: float = 0.0,
    ) -> Timed:
        """Measure a block of turns of a row of `KINDS`: fresh buffers, then rounds in random order.

        With `anew`, steps are made anew before. `programs` maps arms to fingerprints; in a round,
        one arm compiles each program. With a `place`, 0 or 1, a worker of another side takes turns
        with this one, and is taken to hang after `patience` seconds.
        """
        ours, members = self.find_arms(workload, backend), [*map(Arm.parse, arms)]
        around = self.surroundings.setdefault(backend, Surroundings())
        token = None if place is None else Token.receive(self.channel, place, patience)
        if kind == STAGES:
            stages = StagesBlock(self.mark_turn, lambda: 0, around.changes, seed, token)
            stages.programs = {Arm.parse(arm): program for arm, program in (programs or {}).items()}
            timed = stages.run(ours, kind, members, rounds, untimed=0)
        else:
            self.count_programs = self.count_programs or watch_compilations()
            block = TimedBlock(self.mark_turn, self.count_programs, around.changes, seed, token)
            untimed = int(workload in TINY)  # where a first round is slower, and costs nothing
            timed = block.run(ours, kind, members, rounds, untimed, anew=anew)
        if token:
            token.end.close()
        timed.spoiled = around.spoiled
        self.turn.mark()
        return timed

    def train(self, workload: str, backend: str, arm: str) -> Sampled | Failed:
        """Train an arm, from the same weights and from its library's own initialisers."""
        return self.guard(workload, backend, arm, train_arm)


def use_cache(folder: str) -> None:
    """Have JAX read programs from `folder`, and write there what had to be compiled."""
    for name, value in {**CACHE, "jax_compilation_cache_dir": folder}.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX decides once a process whether there is one
