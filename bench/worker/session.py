"""What a warm worker holds: the compiled steps of each workload, and what is done with them."""

from __future__ import annotations

import gc
import random
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.worker import cache as compilation_cache
from bench.worker import long_turns
from bench.worker.arms import Arm, Arms, beside, numbers
from bench.worker.block import Block
from bench.worker.counts import exact, heard
from bench.worker.failures import guarded
from bench.worker.imports import imported
from bench.worker.integrity import Functions, Surroundings
from bench.worker.protocol import (
    Counted,
    Failed,
    Failures,
    Opened,
    Proven,
    Timed,
    Trained,
)
from bench.worker.setting import setting, use
from bench.worker.source import code_lines
from bench.worker.training import final_loss
from common.equality import Deviation, NotEqualError, loss_and_gradient_deviation, trajectory
from common.tolerances import TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.recorder import Turn
    from common.contract import TrainStep


class Session:
    """The state of a warm worker; each method is one command, and returns its answer."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.index: dict[Arm, int] = {}
        """What the recorder's page holds while it is an arm's turn."""
        self.workloads: dict[tuple[str, str], Arms] = {}
        self.counted: list[TrainStep] = []
        """Kept: `jax.clear_caches` of jax 0.4.28 and 0.7.0 crashes where it frees a step."""
        self.functions = Functions()
        self.compiled: Callable[[], int] | None = None
        """Returns how many programs the process has compiled so far."""
        self.cached = False
        self.cache_hits = 0
        """Programs that came from the persistent compilation cache."""

        def happened(event: str, **_: str | int) -> None:
            self.cache_hits += event.endswith("cache_hits")

        jax.monitoring.register_event_listener(happened)

    def load(
        self,
        arms: list[list[str]],
        outside: dict[str, str],
        cache: str | None,
        seed: int,
        check_programs: bool = False,
    ) -> Failures:
        """Import the entrants of all arms, in an order drawn from `seed`.

        Args:
            arms: Entrants and styles; their order gives them their indices.
            outside: Files of entrants that lie elsewhere, by name.
            cache: Folder of the compilation cache; None for a process that uses none.
            seed: Draws the order.
            check_programs: Whether to look, after each import, if the baseline's program is still
                the same.
        """
        for path in outside.values():
            impls.add(path)
        self.index = {Arm(*arm): i for i, arm in enumerate(arms)}
        notes = []
        if cache is not None:
            problem = compilation_cache.enable(cache)
            self.cached = not problem
            notes += [problem] if problem else []
        rng = random.Random(seed)  # noqa: S311 -- an order of imports is no secret
        found = imported(list(self.index), rng, self.at, check_programs=check_programs)
        self.turn.nobody()
        gc.collect()
        gc.freeze()  # what is imported stays; collections before blocks need not look at it
        return Failures(found.failures, notes + found.notes)

    def at(self, arm: Arm) -> None:
        """Say that it is an arm's turn."""
        self.turn.at(self.index[arm])

    def on(self, workload: str, backend: str) -> Arms:
        """Return the arms of a workload, made when first asked for."""
        key = (workload, backend)
        use(backend)
        if key not in self.workloads:
            self.workloads[key] = Arms(setting(workload, backend))
        return self.workloads[key]

    def one[Answer](self, arm: Arm, action: Callable[[], Answer]) -> Answer | Failed:
        """Do something that is one arm's own; a failure is that arm's."""
        self.at(arm)
        before = Surroundings()
        found = guarded(action)
        if (changes := before.changes()) and not isinstance(found, Failed):
            found = Failed(f"making or running its step {changes}")
        self.turn.nobody()
        if self.cache_hits and not self.cached:
            raise RuntimeError("the persistent compilation cache was used")
        return found

    def count(self, workload: str, backend: str, arm: str) -> Counted | Failed:
        """Count what an arm's step has Python and JAX do; it says the same at all sizes.

        JAX's caches are cleared for that, so that whatever was compiled is compiled anew when it is
        called next: count in a worker that does nothing else.
        """
        arms, name = self.on(workload, backend), Arm.of(arm)

        def counts() -> Counted:
            self.counted.append(arms.make(name))
            return Counted(asdict(exact(self.counted[-1], arms.case)))

        return self.one(name, counts)

    def prove(self, workload: str, backend: str, arm: str) -> Proven | Failed:
        """Make an arm's step, and show that it is equal."""
        arms, name = self.on(workload, backend), Arm.of(arm)
        baseline = arms.reference()

        def proof() -> Proven:
            step, case = arms.make(name), arms.case
            loss, gradient = loss_and_gradient_deviation(step, case)
            losses = trajectory(step, case)
            away = Deviation(loss, gradient, float(np.max(np.abs(losses - baseline.losses))))
            away.require()
            program = arms.program(step)
            about = beside(program, baseline.program)
            about["settings"] = dict(getattr(step, "settings", {}))
            lines = code_lines(impls.source(name.code.entrant))
            constant: dict[str, float | None] = {
                "parameters": case.model.parameters,
                "code_lines": lines,
            }
            arms.steps[name] = step
            return Proven(asdict(away) | about, constant | numbers(program), losses.tolist())

        return self.kept(arms, name, proof)

    def open(
        self, workload: str, backend: str, arm: str, losses: list[float] | None
    ) -> Opened | Failed:
        """Make the step of an arm that another process has proven: its losses must be the same.

        Args:
            workload: Its name.
            backend: Of its device.
            arm: Its name.
            losses: The baseline's ten; None has this process find them.
        """
        arms, name = self.on(workload, backend), Arm.of(arm)
        expected = arms.reference().losses if losses is None else np.array(losses)

        def opening() -> Opened:
            step = arms.make(name)
            away = float(np.max(np.abs(trajectory(step, arms.case) - expected)))
            if not away <= TRAJECTORY_TOLERANCE:
                raise NotEqualError(
                    f"not equal in this process, though it was in another: ten steps' losses off "
                    f"by {away:.2g} nats from the baseline (allowed: {TRAJECTORY_TOLERANCE:g})"
                )
            arms.steps[name] = step
            return Opened()

        return self.kept(arms, name, opening)

    def kept[Answer](self, arms: Arms, arm: Arm, action: Callable[[], Answer]) -> Answer | Failed:
        """Make a step, and forget it where something is wrong with it."""
        found = self.one(arm, action)
        if isinstance(found, Failed):
            arms.steps.pop(arm, None)
        return found

    def prepare(self, workload: str, backend: str, kind: str, arms: list[str]) -> Failures:
        """Compile what turns of this kind need beyond the steps."""
        opened = self.on(workload, backend)
        calls = opened.calls.setdefault(kind, {})
        failures: dict[str, str] = {}
        for arm in map(Arm.of, arms):
            entrant, style = arm.code
            ready = self.one(arm, partial(long_turns.PREPARED[kind], entrant, style, opened))
            if isinstance(ready, Failed):
                failures[str(arm)] = ready.failure
            else:
                calls[arm] = ready
        return Failures(failures)

    def block(
        self, workload: str, backend: str, kind: str, arms: list[str], rounds: int, seed: int
    ) -> Timed:
        """Measure one block of turns of this kind: fresh buffers, then rounds in random order."""
        block = Block(self.on(workload, backend), kind, arms, seed, self.at)
        self.compiled = self.compiled or heard()  # which compiles one, to know that it hears
        found = block.run(workload, rounds, self.compiled, self.functions.replaced)
        self.turn.nobody()
        return found

    def train(self, workload: str, backend: str, arm: str) -> Trained | Failed:
        """Train an arm, from the same weights and from its library's own initialisers."""
        arms, name = self.on(workload, backend), Arm.of(arm)

        def training() -> Trained:
            entrant, style = name.code
            found: dict[str, Any] = final_loss(entrant, style, arms.steps[name], arms)
            corpus = arms.corpus
            text = {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
            return Trained(found | text | {"entropy": corpus.entropy})

        return self.one(name, training)
