"""The arms of one workload on one device: their inputs, and the steps made for them."""

from __future__ import annotations

import sys
import traceback
from dataclasses import asdict
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import impls
from bench import corpus as corpora
from bench.cells import BASELINE, Arm
from bench.samples import Proof
from bench.worker.counts import count_code_lines
from bench.worker.program import ProgramFacts, facts
from bench.worker.protocol import Failed
from common.chunker import chunks
from common.config import TRAJECTORY_TOLERANCE, WORKLOADS, Device
from common.contract import Checkpoint, Chunk, Weights, fresh_checkpoint
from common.equality import (
    Case,
    NotEqualError,
    deviation,
    make,
    random_weights,
    relative_norm,
    trajectory,
)
from common.errors import BakeoffError
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.cells import Cell
    from common.contract import Program, TrainStep

CHUNKS = 8
"""Number of first chunks of the text; each block is timed on one of them."""
START_UPDATES = 1000
"""Adam's count of updates at the start of a timed training."""
SECOND_MOMENT = 1.0
"""Adam's second moment at the start of a timed training."""
WEIGHTS_TOLERANCE = 1e-5
"""Largest difference of a weight array to the baseline's, in norm, relative to the baseline's norm.

On CPU it was up to 5e-7 for NumPy and 2e-7 for JAX's, after 43 to 1003 calls at `toy`, `seed`,
`wide` and `batched`; 3.5e-6 for PyTorch, after 1300 at `toy`. One omitted update of 43 makes
6e-5 (`width1024`) to 2e-3 (`depth6`), over all sizes.
"""
BLOCK_LOSS_TOLERANCE = 5e-5
"""Largest difference to the baseline's last loss, in nats per character; it was up to 5e-7 in the
blocks of `WEIGHTS_TOLERANCE`."""
TRACEBACK_LINES = 12
"""Lines of a failure's traceback that are kept."""


def catch_failure[Result](action: Callable[[], Result], file: str | None = None) -> Result | Failed:
    """Return what an arm's `action` returns, or its failure: the worker lives on.

    The failure names the line of a user's own file that raised it.
    """
    try:
        return action()
    except BakeoffError as error:
        return Failed(str(error))
    except Exception as error:
        tail = "\n".join(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
        where = f"{locate_error(Path(file), error)} " if file else ""
        return Failed(f"{where}raised {describe_exception()}", tail)


def locate_error(path: Path, error: BaseException) -> str:
    """Return the name of a file, and its line that an error comes from, if one does."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path.name}:{lines[-1]}" if lines else path.name


def describe_exception() -> str:
    """Return the exception being handled, on one line."""
    return " ".join("".join(traceback.format_exception_only(*sys.exc_info()[:2])).split())


def use_device(backend: str) -> None:
    """Make a device of `backend` the default one: the first, or that of the index in `gpu:1`.

    Raises:
        BakeoffError: there is no such device.
    """
    device = Device.parse(backend)
    devices = jax.devices(device.backend)
    device.require(len(devices))
    jax.config.update("jax_default_device", devices[device.number])


def load_workload(name: str) -> tuple[Case, np.ndarray]:
    """Return the sizes of a workload, and its text as tokens."""
    workload = WORKLOADS[name]
    text = corpora.load(workload.corpus).text
    vocab = Vocab.from_text(text)
    return Case.from_workload(workload, len(vocab)), vocab.encode(text)


class Reference(NamedTuple):
    """Facts about the baseline, from a step that is then dropped."""

    losses: np.ndarray
    """Losses of ten training steps."""
    program: ProgramFacts | None
    """Facts about its program; None where that is not JAX's, or not known."""


class End(NamedTuple):
    """State of a training step at the end of a block."""

    calls: int
    """Number of calls since it got its first weights."""
    loss: float
    """Loss that its last timed call returned."""
    checkpoint: Any


class Arms:
    """The arms of one workload on one device of a backend; steps donate their state if asked to.

    These are of the character RNN; `bench.worker.step_arms` has those of a user's own step.
    """

    tolerance = TRAJECTORY_TOLERANCE
    """Largest difference of ten steps' losses in two processes, by `compare_losses`."""
    skipped_metrics: tuple[str, ...] = ()
    """Metrics that turns do not sample."""
    pairs_calls = False
    """Whether a turn has one call, which is related to the reference's of the same round."""
    jax_without_program: bool | None = False
    """Whether a step without a program is JAX's; None where that is not known."""
    user_file: str | None = None
    """A user's own training step; failures name its lines."""
    case: Any
    """Maker of a step's inputs: `common.equality.Case`, or `StepInputs` of a user's file."""

    def __init__(self, workload: str, backend: str, *, donate: bool) -> None:
        self.workload, self.backend, self.donate = workload, backend, donate
        self.steps: dict[Arm, TrainStep] = {}
        """Steps that can be timed: those of arms that are proven or opened."""
        self.kept_steps: list[TrainStep] = []
        """Counted steps: `jax.clear_caches` of jax 0.4.28 and 0.7.0 crashes where it frees one."""
        self.expected_losses = np.zeros(0)
        """The baseline's ten losses, that arms were proven or opened with."""
        self.prepare(workload)

    def prepare(self, workload: str) -> None:
        """Load the inputs of steps."""
        self.case, self.tokens = load_workload(workload)
        self.start = stable_start(random_weights(self.case.model))
        self.chunks = list(islice(self.cycle_chunks(), CHUNKS))

    def cycle_chunks(self) -> Iterator[Chunk]:
        """Yield the text chunk by chunk, over and over, on the device; only whole chunks."""
        per_chunk = self.case.chunk * self.case.batch
        whole = (len(self.tokens) - 1) // per_chunk * per_chunk
        epoch = chunks(self.tokens[: whole + 1], self.case.chunk, self.case.batch)
        while True:
            for arrays in zip(*epoch, strict=True):
                yield jax.device_put(Chunk(*arrays))

    @cached_property
    def reference(self) -> Reference:
        """Facts about the baseline, from a step that the first access makes.

        That step is not the one that is timed: which arm a process makes first shows in its times,
        so the timed one is made like all others, in whatever order they come.
        """
        step = self.make(BASELINE)
        program = find_program(step, self.case)
        return Reference(self.compute_losses(step), facts(program) if program else None)

    def compile_ahead(self, arm: Arm) -> None:
        """Compile an arm before the reference, if that takes long; here, it does not."""

    def find_cell(self, arm: Arm) -> Cell:
        """Return an arm's cell here."""
        return arm.make_cell(self.workload, self.backend)

    def make(self, arm: Arm) -> TrainStep:
        """Return a new step of an arm."""
        return make(arm.load(donate=self.donate), self.case)

    def with_program[Result](self, arm: Arm, action: Callable[[Program], Result]) -> Result:
        """Do something with the stages of a new step of an arm, whose inputs are there."""
        step = self.make(arm)
        self.load(step, 1.0)
        program = step.program(*jax.block_until_ready((self.case.zero(), self.case.data())))
        assert program is not None, "of a step without one, no stages are asked for"
        return action(program)

    def check_lowered(self, arm: Arm, lowered: jax.stages.Lowered) -> None:
        """Raise NotEqualError if a lowered program of an arm is not the one that it should be."""

    def make_timed(self, arm: Arm) -> TrainStep:
        """Return a new step of an arm, in place of the one that blocks have timed."""
        self.steps.pop(arm, None)
        self.steps[arm] = self.make(arm)
        return self.steps[arm]

    def open(self, arm: Arm, losses: np.ndarray) -> None:
        """Make the step that blocks time, anew if there is one; the arm was proven before.

        Raises:
            NotEqualError: it has other losses than the baseline's ten.
        """
        self.expected_losses = losses
        away = self.compare_losses(arm, self.compute_losses(self.make_timed(arm)), losses)
        if not away <= self.tolerance:
            raise NotEqualError(
                f"not equal in this process, though it was in another: ten steps' losses off "
                f"by {away:.2g} from the baseline (allowed: {self.tolerance:.2g})"
            )

    def load(self, step: TrainStep, scale: float) -> None:
        """Give a step fresh buffers, of the first weights times `scale`.

        They are copies, so that no two arms share one. Each block has another scale, so that a step
        that keeps results by the content of its inputs finds none.
        """
        weights = jax.tree.map(lambda array: scale * array, self.start.weights)
        step.load(jax.tree.map(np.copy, self.start._replace(weights=weights)))

    def initialise(self, arm: Arm) -> None:
        """Trace a library's own initialiser, or call it where it cannot be traced."""
        model, key = impls.load(arm.code.entrant).build(self.case.model), jax.random.key(0)
        try:
            jax.eval_shape(model.init, key)
        except Exception:
            jax.block_until_ready(model.init(key))

    def compute_losses(self, step: TrainStep) -> np.ndarray:
        """Return the losses of ten training steps from the same start."""
        return trajectory(step, self.case)

    def compare_losses(self, _arm: Arm, losses: np.ndarray, expected: np.ndarray) -> float:
        """Return the largest difference of ten losses to others, in nats per character."""
        return float(np.max(np.abs(losses - expected)))

    def judge_step(self, step: TrainStep, baseline: np.ndarray) -> tuple[Proof, np.ndarray]:
        """Return the proof of a step, without facts about its program, and its ten losses.

        Raises:
            BakeoffError: it computes something else.
        """
        away, losses = deviation(step, self.case, baseline)
        away.require()
        return Proof(**asdict(away)), losses

    def measure_facts(self, arm: Arm) -> dict[str, float | None]:
        """Return exact numbers of an arm that need no call."""
        lines = count_code_lines(impls.load(arm.code.entrant).file)
        arrays = 2 * len(self.case.model.kernels)
        parameters = self.case.model.parameters
        return {"parameters": parameters, "parameter_arrays": arrays, "code_lines": lines}

    def measure_overhead(self, _arm: Arm, _step: TrainStep) -> Mapping[str, float | None]:
        """Return overheads of a step, in a worker that does nothing else: here, none."""
        return {}

    def describe_difference(self, end: End, baseline: End | None) -> str:
        """Return in words how an arm differs from the baseline after a block; empty if equal."""
        return describe_difference(end, baseline)


def describe_difference(end: End, baseline: End | None) -> str:
    """Return in words how training from `stable_start` differs from the baseline's; or empty."""
    updates = end.checkpoint.updates - START_UPDATES
    if updates != end.calls or not updates:
        return f"{updates} updates in {end.calls} calls"
    if baseline is None:
        return ""
    assert end.calls == baseline.calls, "every arm has as many turns"
    weights = relative_norm(end.checkpoint.weights, baseline.checkpoint.weights)
    if not weights <= WEIGHTS_TOLERANCE:
        return (
            f"after {end.calls} calls its weights are off by {weights:.2g} of their norm from "
            f"the baseline's (allowed: {WEIGHTS_TOLERANCE:g})"
        )
    loss = abs(end.loss - baseline.loss)
    if not loss <= BLOCK_LOSS_TOLERANCE:
        return (
            f"the last loss is off by {loss:.2g} nats from the baseline's "
            f"(allowed: {BLOCK_LOSS_TOLERANCE:g})"
        )
    return ""


def find_program(step: TrainStep, case: Any) -> Program | None:
    """Return a step's program; None where that is not JAX's."""
    step.load(case.fresh())
    return step.program(case.hidden(), case.data())


def stable_start(weights: Weights) -> Checkpoint:
    """Return the start of blocks: weights whose training is stable for thousands of calls.

    With a second moment of 1, Adam's updates are a learning rate times the gradient, so rounding
    is not blown up: after the same number of calls, arms can be compared. From a second moment of
    0, they differed by 13 % of a weight array's norm after 123 calls at `batched`.
    """
    nu = jax.tree.map(lambda array: np.full_like(array, SECOND_MOMENT), weights)
    return fresh_checkpoint(weights)._replace(nu=nu, updates=START_UPDATES)
