"""What compiles to the same program, where the others differ, and what is kept between calls."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from bench.cells import Selection
from bench.worker import offers
from bench.worker.arms import find_program
from bench.worker.counts import count_live_bytes, list_live_arrays, watch_compilations
from bench.worker.program import Graph, ProgramFacts, facts
from bench.worker.proof import find_donated_arguments
from bench.worker.protocol import Describe
from common.contract import Checkpoint, Program, TrainStep, fresh_checkpoint
from common.equality import (
    deviation,
    make,
    pair,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)
from tests.commands import TOY, StepOf, every_style

ROWS = [(entrant, style) for entrant in impls.list_usual() for style in impls.load(entrant).styles]
COUNTS_TWICE = {("flax_linen", "train_state"), ("flax_linen", "scan")} | {
    ("flax_nnx", style) for style in impls.load("flax_nnx").styles if style not in ("pure", "flat")
}
"""TrainState and nnx.Optimizer count steps, besides Adam's own count."""
DIFFERENT = COUNTS_TWICE | {
    # weights are stored out by in: each layer's product comes out the other way round
    *(("equinox", "pure"), ("equinox", "filter_jit"), ("equinox", "flat")),
    ("pure_jax", "transposed"),
    # the batch is the library's own, not vmap's: a bias is broadcast to it in another way
    ("haiku", "transform"),
    # layer by layer, six scans instead of two, and products for a whole chunk around them
    ("pure_jax", "tuned"),
}
"""Styles that do not compile to the same program as the baseline."""
TUNED = ("pure_jax", "tuned")
GRADIENT_ALONE = ("flax_linen", "blog")
"""Its optimiser is outside of jit, one small program for each operation and array. So no program
returns the state that it is given, and it cannot donate it."""
COUNT = 4
"""Bytes of a count of steps."""
STATE = 3 * 4 * TOY.model.parameters + COUNT


def program(step: TrainStep) -> Program:
    known = find_program(step, TOY)
    assert known is not None
    return known


@cache
def baseline_graph(step_of: StepOf) -> Graph:
    return Graph.from_lowered(program(step_of(impls.BASELINE, "pure", TOY)).lower())


def fingerprint(function: Callable[..., Any], *arguments: Any) -> str:
    return Graph.from_lowered(jax.jit(function).lower(*arguments)).fingerprint()


# The entrants' programs.


@every_style(ROWS)
def test_what_a_style_compiles(entrant: str, style: str, step_of: StepOf) -> None:
    """The baseline's program, or one that differs a little; and nothing after three calls.

    Nor after another load: its buffers are fresh, its program is not.
    """
    step, baseline = step_of(entrant, style, TOY), baseline_graph(step_of)
    ours = Graph.from_lowered(program(step).lower())
    facts = (ProgramFacts(True, "", it.operations(), {}) for it in (ours, baseline))
    away = next(facts).count_differences(next(facts))
    same = ours.fingerprint() == baseline.fingerprint()
    assert bool(away) == (not same)
    if (entrant, style) == GRADIENT_ALONE:
        assert "stablehlo.sqrt" not in ours.operations()
        assert max(away.values()) < 0
    else:
        assert same == ((entrant, style) not in DIFFERENT)
        if entrant == "equinox" and style != "filter_jit":
            transposed = program(step_of(impls.BASELINE, "transposed", TOY)).lower()
            assert ours.fingerprint() == Graph.from_lowered(transposed).fingerprint()
        # `haiku/transform` has 13 others, and `flax_linen/scan` 18: they add up the gradients of
        # two streams' biases at once.
        assert sum(map(abs, away.values())) < 20 or (entrant, style) == TUNED

    hidden, data = random_hidden(TOY), pair(TOY)
    checkpoint = fresh_checkpoint(random_weights(TOY.model))
    for _ in range(2):
        step.load(checkpoint)
        for i in range(3):
            hidden, _ = step(hidden, data[i % 2])
        checkpoint = step.save()
    programs = watch_compilations()
    for i in range(9):
        hidden, _ = step(hidden, data[i % 2])
    step.load(step.save())
    step(hidden, data[0])
    assert programs() == 0


def test_the_facts_of_compiled_programs(step_of: StepOf) -> None:
    """Of the baseline, of a program that also counts steps, and of one with more products."""
    names = [(impls.BASELINE, "pure"), ("flax_nnx", "jit"), TUNED]
    plain, counting, tuned = (facts(program(step_of(*name, TOY))).counts for name in names)
    arguments = fresh_checkpoint(random_weights(TOY.model))[:3], random_hidden(TOY), pair(TOY)[0]
    given = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(arguments))
    assert plain["argument_bytes"] == tuned["argument_bytes"] == given + COUNT
    assert counting["argument_bytes"] == given + 2 * COUNT
    assert plain["alias_bytes"] == 0
    assert 0 <= counting["flops"] - plain["flops"] <= 1
    more = "a loop's body counts once: what left it counts more"
    assert tuned["flops"] > 2 * plain["flops"], more
    text = program(step_of(impls.BASELINE, "pure", TOY)).lower().compile().as_text()
    assert text is not None
    lines = [line for line in text.splitlines() if re.match(r"\s+(ROOT )?[%\w.\-]+ = ", line)]
    assert any(" while(" in line for line in lines), "a long tuple, with comments in its shape"
    assert plain["hlo_instructions"] == len(lines)
    jitted = jax.jit(jnp.matmul)
    product = Program.from_trace(lambda: jitted.trace(jnp.ones((3, 4)), jnp.ones((4, 5))))
    assert facts(product).counts["flops"] == 2 * 3 * 4 * 5


# Donation, and what is kept between calls.


@every_style(row for row in ROWS if row != GRADIENT_ALONE)
def test_who_can_donates_all_of_its_state_and_nothing_else(
    entrant: str, style: str, step_of: StepOf
) -> None:
    baseline = trajectory(step_of(impls.BASELINE, "pure", TOY), TOY)
    before = list_live_arrays("cpu")
    step = make(impls.load(entrant).style(style, donate=True), TOY)
    assert find_donated_arguments(step, TOY) == ""
    deviation(step, TOY, baseline)[0].require()
    state = STATE + COUNT * ((entrant, style) in COUNTS_TWICE)
    assert count_live_bytes(step, TOY, before, "cpu") == state
    assert facts(program(step)).counts["alias_bytes"] == state
    require_unchanged_by_calls(step)


def require_unchanged_by_calls(step: TrainStep) -> None:
    """Assert that a checkpoint stays as it is, loaded or saved, though a step donates its state.

    Also where a buffer might be read in place: JAX's own arrays lie as XLA:CPU wants them.
    """
    hidden, chunk = random_hidden(TOY), random_chunk(TOY, 1)
    weights, mu, nu = (
        jax.tree.map(lambda a: np.asarray(jnp.square(a)), random_weights(TOY.model, seed))
        for seed in range(3)
    )
    given = Checkpoint(weights, mu, nu, updates=3)
    expected, losses = jax.tree.map(np.array, given), []
    for _ in range(2):
        step.load(given)
        losses.append([float(step(hidden, chunk)[1]) for _ in range(3)])
        saved = step.save()
        copy = jax.tree.map(np.array, saved)
        step(hidden, chunk)
        assert all(map(np.array_equal, jax.tree.leaves(saved), jax.tree.leaves(copy)))
    assert losses[0] == losses[1]
    assert all(map(np.array_equal, jax.tree.leaves(given), jax.tree.leaves(expected)))


def test_a_style_that_cannot_donate_is_left_out() -> None:
    offer = offers.describe(Mock(), Describe([]))
    assert [(n, s) for n, styles in offer.not_donating.items() for s in styles] == [GRADIENT_ALONE]
    assert "blog" not in {cell.style for cell in Selection().cells(offer.donating)}


def test_a_second_copy_is_counted() -> None:
    before, kept = list_live_arrays("cpu"), list[jax.Array]()
    step = make(impls.load(impls.BASELINE).style("pure"), TOY)
    assert count_live_bytes(step, TOY, before, "cpu") == STATE
    kept.append(jnp.zeros(7))
    assert count_live_bytes(step, TOY, before, "cpu") == STATE + 28


# The fingerprint, of pairs of functions of two arrays.

X, Y = jnp.ones(4), jnp.arange(4.0)


def affine(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.tanh(x @ jnp.outer(x, y) + y) - y


def scanned(x: jax.Array, y: jax.Array) -> Any:
    def body(carry: tuple[jax.Array, jax.Array], t: jax.Array) -> tuple[Any, jax.Array]:
        a, b = carry
        return (jnp.sin(a) + t, a * b), a - b

    (a, b), out = jax.lax.scan(body, (x, y), jnp.arange(3.0))
    return a / b, out


def scanned_the_other_way_round(x: jax.Array, y: jax.Array) -> Any:
    def body(carry: dict[str, jax.Array], t: jax.Array) -> tuple[Any, jax.Array]:
        after = {"a": carry["b"] * carry["a"], "b": t + jnp.sin(carry["b"])}
        return after, carry["b"] - carry["a"]

    carry, out = jax.lax.scan(body, {"a": y, "b": x}, jnp.arange(3.0))
    return out, carry["b"] / carry["a"]


SAME: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "names and order of arguments": (affine, lambda y, x: affine(x, y)),
    "nested jit": (affine, lambda x, y: jax.jit(jax.jit(affine))(x, y)),
    "named scopes": (affine, jax.named_scope("scope")(affine)),
    "operands of a sum": (lambda x, y: jnp.sin(x) + y, lambda x, y: y + jnp.sin(x)),
    "order of results": (
        lambda x, y: (jnp.sin(x), jnp.cos(y)),
        lambda x, y: {"b": jnp.sin(x), "a": jnp.cos(y)},
    ),
    "what is computed twice": (
        lambda x, y: jnp.sin(x) * jnp.sin(x) + y,
        lambda x, y: (lambda s: s * s)(jnp.sin(x)) + y,
    ),
    "what nobody reads": (affine, lambda x, y: (affine(x, y), jnp.cos(x))[0]),
    "order of carries": (scanned, scanned_the_other_way_round),
    # A bias swapped between equal layers is another name for the same program. So the same program
    # is no proof of the same numbers; that proof is in test_equality.py.
    "which of two equal arguments is which": (
        lambda a, b: jnp.tanh(jnp.tanh(1 + a) + b),
        lambda a, b: jnp.tanh(jnp.tanh(1 + b) + a),
    ),
}


def loop(body: Callable[[Any, Any], Any], length: int = 3) -> Callable[..., Any]:
    def function(x: jax.Array, y: jax.Array) -> jax.Array:
        (a, b), _ = jax.lax.scan(lambda c, _: (body(*c), None), (x, y), None, length)
        return a - b

    return function


def branches(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: jax.lax.cond(x[0] > 0, first, second, x, y)


def loud(x: jax.Array, y: jax.Array) -> jax.Array:
    jax.debug.callback(lambda _: None, x)
    return x - y


BIG = np.arange(5000, dtype=np.float32)
OTHER_BIG = np.where(BIG == 2500, 0, BIG)

OTHER: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "constant": (lambda x, y: x * 2 + y, lambda x, y: x * 3 + y),
    "number in a long constant": (lambda x, y: x[0] + BIG, lambda x, y: x[0] + OTHER_BIG),
    "operation": (lambda x, y: jnp.tanh(x) + y, lambda x, y: jax.nn.relu(x) + y),
    "swapped operands": (lambda x, y: jnp.sin(x) - y, lambda x, y: y - jnp.sin(x)),
    "shape": (lambda x, y: x + y, lambda x, y: x[:3] + y[:3]),
    "dtype": (lambda x, y: x + y, lambda x, y: (x + y).astype(jnp.bfloat16)),
    "one result twice": (lambda x, y: x + y, lambda x, y: (x + y, x + y)),
    "axis": (lambda x, y: jnp.outer(x, y).sum(0), lambda x, y: jnp.outer(x, y).sum(1)),
    "reduction": (lambda x, y: jnp.sum(x) + y, lambda x, y: jnp.max(x) + y),
    "wiring": (
        lambda x, y: jnp.tanh(jnp.tanh(x * y + x) * y + y),
        lambda x, y: jnp.tanh(jnp.tanh(x * y + y) * y + x),
    ),
    "trip count": (loop(lambda a, b: (a + b, b)), loop(lambda a, b: (a + b, b), 4)),
    "body": (loop(lambda a, b: (a + b, b)), loop(lambda a, b: (a * b, b))),
    "carries crossed": (loop(lambda a, b: (a + b, a * b)), loop(lambda a, b: (a * b, a + b))),
    "branches swapped": (branches(jnp.add, jnp.multiply), branches(jnp.multiply, jnp.add)),
    # Each node sees the same neighbours in both, as far as one may look: refining labels alone
    # does not tell one ring of eight from two of four.
    "pairing": (
        lambda x, y: (jnp.sin(x) + jnp.cos(y), jnp.sin(y) + jnp.cos(x)),
        lambda x, y: (jnp.sin(x) + jnp.cos(x), jnp.sin(y) + jnp.cos(y)),
    ),
    "call of the host": (lambda x, y: x - y, loud),
}


@pytest.mark.parametrize("what", [*SAME, *OTHER])
def test_the_fingerprint_tells_what_is_another_program(what: str) -> None:
    one, other = (SAME | OTHER)[what]
    assert fingerprint(one, X, Y) == fingerprint(one, X, Y)
    assert (fingerprint(one, X, Y) == fingerprint(other, X, Y)) == (what in SAME)
