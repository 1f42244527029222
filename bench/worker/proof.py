"""Checks of an arm apart from its speed: its equality, its program, and how it trains."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.cells import BASELINE, PURE
from bench.samples import Sample
from bench.worker.arms import find_program
from bench.worker.counts import count_live_bytes, count_step, list_live_arrays
from bench.worker.program import Graph, facts
from bench.worker.protocol import FINAL_STEPS, OWN_SEEDS, Proven, Sampled
from common.config import ModelConfig
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import Case, make
from common.errors import BakeoffError
from common.steps import move_to_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cells import Arm
    from bench.worker.arms import Arms
    from common.contract import TrainStep

TINY_CASE = Case(ModelConfig(vocab_size=5, width=2), chunk=2, batch=1)
"""Sizes at which the baseline's program is compared; only its constants depend on them."""
FINAL_MEAN = 20
"""Number of last steps whose mean is the final loss: one chunk's loss depends on its text."""
UNEXPECTED_DONATION = (
    "its program donates its state, and this run's baseline does not: measure it with "
    "`pytest bench --donate`"
)
MISSING_DONATION = (
    "its program donates nothing, and this run's baseline donates its state: give the style's "
    "factory a keyword, `donate: bool = False`, and let it donate where that is set, or leave out "
    "--donate"
)


def prove_arm(arms: Arms, arm: Arm) -> Proven:
    """Make an arm's step, and show that it is equal.

    Raises:
        BakeoffError: it computes something else, donates its arguments, or donates its state where
            others do not, or the reverse: donation saves memory and copies, so a donating step
            and another one are not compared.
    """
    case, baseline = arms.case, arms.reference
    arms.steps.pop(arm, None)
    before = list_live_arrays(arms.backend)
    step = arms.make_timed(arm)
    if taken := find_donated_arguments(step, case):
        raise BakeoffError(taken)
    proof, losses = arms.judge_step(step, baseline.losses)
    arms.expected_losses = baseline.losses
    counts = arms.measure_facts(arm)
    live = count_live_bytes(step, case, before, arms.backend)
    program = find_program(step, case)  # after `live`: it holds arrays, too
    fingerprint, proof.settings = "", dict(getattr(step, "settings", {}))
    if program is None or baseline.program is None:
        proof.jax = arms.jax_without_program
    else:
        ours = facts(program)
        fingerprint = ours.fingerprint
        if ours.donates != arms.donate:
            raise BakeoffError(MISSING_DONATION if arms.donate else UNEXPECTED_DONATION)
        counts |= {"live_bytes": live, **ours.counts}
        proof.whole_step, proof.donates = ours.whole, ours.donates
        proof.same_program_as_baseline = fingerprint == baseline.program.fingerprint
        proof.operations_beside_baseline = ours.count_differences(baseline.program)
    samples = make_samples(arms, arm, counts)
    return Proven(proof, samples, losses.tolist(), fingerprint)


def count_arm(arms: Arms, arm: Arm) -> Sampled:
    """Return counts of what Python and JAX do in a new step of an arm; see `count_step`."""
    step = arms.make(arm)
    arms.kept_steps.append(step)
    counts = {**count_step(step, arms.case), **arms.measure_overhead(arm, step)}
    return Sampled(make_samples(arms, arm, counts))


def train_arm(arms: Arms, arm: Arm) -> Sampled:
    """Return the final losses of trainings of `FINAL_STEPS` steps, in nats per character.

    The first training starts from weights that are the same for all; the others, in the `pure`
    styles, from the library's own initialiser.

    Raises:
        BakeoffError: a final loss is not a number.
    """
    case, step = arms.case, arms.steps[arm]
    chunks = list(islice(arms.cycle_chunks(), FINAL_STEPS))

    def final_loss(initialised_by: str, seed: int) -> float:
        model = impls.load(initialised_by).build(case.model)
        step.load(
            fresh_checkpoint(move_to_host(model.to_weights(model.init(jax.random.key(seed)))))
        )
        hidden, losses = zero_hidden(case.model, case.batch), []
        for chunk in chunks:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        mean = float(np.mean(jax.device_get(losses[-FINAL_MEAN:])))
        if not math.isfinite(mean):
            raise BakeoffError(f"the loss became {mean} in {FINAL_STEPS} training steps")
        return mean

    cell = arms.find_cell(arm)
    samples = [Sample(cell, "final_loss", final_loss(BASELINE.entrant, 0))]
    for seed in range(OWN_SEEDS if arm.style == PURE else 0):
        samples.append(Sample(cell, "final_loss_own", final_loss(arm.code.entrant, seed)))
    return Sampled(samples)


def make_samples(arms: Arms, arm: Arm, counts: Mapping[str, float | None]) -> list[Sample]:
    """Return exact numbers of an arm as samples; unknown ones are left out."""
    cell = arms.find_cell(arm)
    return [Sample(cell, name, float(n)) for name, n in counts.items() if n is not None]


def find_donated_arguments(step: TrainStep, case: Any) -> str:
    """Return in words which arguments a call of a step donates; empty if none.

    Other steps are called with the same hidden state and chunk. The step's state is lost.
    """
    step.load(case.fresh())
    hidden, chunk = case.hidden(), case.data()
    jax.block_until_ready(step(hidden, chunk))
    given = {"`hidden`": hidden, "the chunk": chunk}
    taken = [
        name
        for name, arrays in given.items()
        if any(a.is_deleted() for a in jax.tree.leaves(arrays) if isinstance(a, jax.Array))
    ]
    return f"your step donates {' and '.join(taken)}; donate only your state" if taken else ""


def baseline_program() -> str:
    """Return the fingerprint of the baseline's program at a tiny size, traced and lowered anew."""
    program = find_program(make(BASELINE.load(), TINY_CASE), TINY_CASE)
    assert program is not None, "the baseline is JAX's"
    return Graph.from_lowered(program.lower()).fingerprint()
