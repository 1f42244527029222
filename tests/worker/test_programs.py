"""What compiles to the same program, where the others differ, and that nothing compiles twice."""

from __future__ import annotations

import re
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from bench.worker.counts import compilations
from bench.worker.program import Graph, ProgramFacts, count_equations, difference, facts
from common.config import ModelConfig
from common.contract import Program, fresh_checkpoint
from common.equality import Case, make, pair, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]

ENTRANTS = impls.usual()
ROWS = [(entrant, style) for entrant in ENTRANTS for style in impls.load(entrant).styles]
TOY = Case(ModelConfig(5, 8), 8, 1)

DIFFERENT = {
    # weights are stored out by in: each layer's product comes out the other way round
    *(("equinox", "pure"), ("equinox", "filter_jit"), ("equinox", "flat")),
    # TrainState and nnx.Optimizer count steps, besides Adam's own count
    *(("flax_linen", "train_state"), ("flax_nnx", "jit")),
    *(("flax_nnx", "jit_tree"), ("flax_nnx", "cached_partial"), ("flax_nnx", "jit_partial")),
    *(("flax_nnx", "jax_jit"), ("flax_nnx", "flat")),
    # the batch is Haiku's own, not vmap's: a bias is broadcast to it in another way
    ("haiku", "transform"),
    # layer by layer, six scans instead of two, and products for a whole chunk around them
    ("pure_jax", "tuned"),
}
"""Styles that do not compile to the same program as the baseline."""
TUNED = ("pure_jax", "tuned")
GRADIENT_ALONE = ("flax_linen", "blog")
"""Its optimiser is outside of jit, one small program for each operation and array."""


def program(step: TrainStep, case: Case) -> Program:
    step.load(fresh_checkpoint(random_weights(case.model)))
    made = step.program(random_hidden(case), random_chunk(case, 1))
    assert made is not None
    return made


@cache
def facts_of(step_of: StepOf, entrant: str, style: str) -> ProgramFacts:
    return facts(program(step_of(entrant, style, TOY), TOY))


def baseline(step_of: StepOf) -> ProgramFacts:
    return facts_of(step_of, impls.BASELINE, "pure")


def graph(function: Callable[..., Any], *arguments: Any) -> Graph:
    return Graph.of(jax.jit(function).lower(*arguments))


def fingerprint(function: Callable[..., Any], *arguments: Any) -> str:
    return graph(function, *arguments).fingerprint()


def facts_about(function: Callable[..., Any], *arguments: Any, **options: Any) -> ProgramFacts:
    jitted = jax.jit(function, **options)
    return facts(Program.traced(lambda: jitted.trace(*arguments)))


# The entrants' programs.


@pytest.mark.parametrize(("entrant", "style"), ROWS, ids=map("-".join, ROWS))
def test_the_same_program_or_where_it_differs(entrant: str, style: str, step_of: StepOf) -> None:
    ours, base = facts_of(step_of, entrant, style), baseline(step_of)
    same, away = ours.fingerprint == base.fingerprint, difference(ours.operations, base.operations)
    assert ours.alias_bytes == 0, "no style donates"
    assert bool(away) == (not same)
    if (entrant, style) == GRADIENT_ALONE:
        assert "stablehlo.sqrt" not in ours.operations
        assert max(away.values()) < 0
        return
    assert same == ((entrant, style) not in DIFFERENT)
    if (entrant, style) == TUNED:
        assert ours.argument_bytes == base.argument_bytes
        assert ours.flops > 2 * base.flops, "a loop's body counts once: what left it counts more"
        return
    assert sum(map(abs, away.values())) < 10
    assert abs(ours.jaxpr_equations - base.jaxpr_equations) < 10
    assert 0 <= ours.flops - base.flops <= 1
    counters = 4 * ((entrant, style) in DIFFERENT and entrant in ("flax_linen", "flax_nnx"))
    assert ours.argument_bytes == base.argument_bytes + counters
    if (entrant, style) not in DIFFERENT:
        assert ours.hlo_instructions == base.hlo_instructions
        assert ours.temp_bytes == base.temp_bytes


def test_a_new_step_has_the_same_facts(step_of: StepOf) -> None:
    again = make(impls.load(impls.BASELINE).style("pure"), TOY)
    assert facts(program(again, TOY)) == baseline(step_of)


def test_argument_bytes_are_those_of_the_arguments(step_of: StepOf) -> None:
    adam = fresh_checkpoint(random_weights(TOY.model))
    arguments = [*adam[:3], random_hidden(TOY), random_chunk(TOY, 1)]
    count = 4
    assert baseline(step_of).argument_bytes == count + sum(
        np.asarray(leaf).nbytes for leaf in jax.tree.leaves(arguments)
    )


@pytest.mark.parametrize(("entrant", "style"), ROWS, ids=map("-".join, ROWS))
def test_nothing_compiles_after_three_calls(entrant: str, style: str, step_of: StepOf) -> None:
    """Nor after another load: its buffers are fresh, its program is not."""
    step, hidden = step_of(entrant, style, TOY), random_hidden(TOY)
    checkpoint, data = fresh_checkpoint(random_weights(TOY.model)), pair(TOY)
    for _ in range(2):
        step.load(checkpoint)
        for i in range(3):
            hidden, _ = step(hidden, data[i % 2])
        checkpoint = step.save()
    programs = compilations()
    for i in range(9):
        hidden, _ = step(hidden, data[i % 2])
    step.load(step.save())
    step(hidden, data[0])
    assert programs() == 0


def test_donation_would_be_seen() -> None:
    x = jnp.zeros(8)
    assert facts_about(lambda x: x * 2, x).alias_bytes == 0
    assert facts_about(lambda x: x * 2, x, donate_argnums=0).alias_bytes == 32


# The fingerprint.

X, Y, Z = jnp.ones(4), jnp.arange(4.0), jnp.ones((4, 4))


def affine(x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
    return jnp.tanh(x @ z + y) - y


def renamed(apple: jax.Array, pear: jax.Array, plum: jax.Array) -> jax.Array:
    return jnp.tanh(apple @ plum + pear) - pear


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


SAME: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "names of functions and arguments": ((affine, X, Y, Z), (renamed, X, Y, Z)),
    "order of arguments": ((affine, X, Y, Z), (lambda z, y, x: affine(x, y, z), Z, Y, X)),
    "arguments in a dict": (
        (affine, X, Y, Z),
        (lambda d: affine(d["z"], d["b"], d["a"]), {"z": X, "b": Y, "a": Z}),
    ),
    "nested jit": ((affine, X, Y, Z), (lambda *args: jax.jit(jax.jit(affine))(*args), X, Y, Z)),
    "jit of a part": (
        (affine, X, Y, Z),
        (lambda x, y, z: jnp.tanh(jax.jit(jnp.matmul)(x, z) + y) - y, X, Y, Z),
    ),
    "named scopes": ((affine, X, Y, Z), (jax.named_scope("scope")(affine), X, Y, Z)),
    "operands of a sum": (
        (lambda x, y: jnp.sin(x) + y, X, Y),
        (lambda x, y: y + jnp.sin(x), X, Y),
    ),
    "order of results": (
        (lambda x: (jnp.sin(x), jnp.cos(x)), X),
        (lambda x: {"b": jnp.sin(x), "a": jnp.cos(x)}, X),
    ),
    "what is computed twice": (
        (lambda x: jnp.sin(x) * jnp.sin(x), X),
        (lambda x: (lambda s: s * s)(jnp.sin(x)), X),
    ),
    "what nobody reads": ((jnp.sin, X), (lambda x: (jnp.sin(x), jnp.cos(x))[0], X)),
    "order of carries": ((scanned, X, Y), (scanned_the_other_way_round, X, Y)),
    "symmetric arguments": (
        (lambda x, y, z: (x - z, y - z), X, X, X),
        (lambda x, y, z: (y - x, z - x), X, X, X),
    ),
    # A bias swapped between equal layers is another name for the same program. So the same program
    # is no proof of the same numbers; that proof is in test_equality.py.
    "which of two equal arguments is which": (
        (lambda a, b, x: jnp.tanh(jnp.tanh(x + a) + b), X, X, X),
        (lambda a, b, x: jnp.tanh(jnp.tanh(x + b) + a), X, X, X),
    ),
}


def loop(body: Callable[[Any, Any], Any], length: int = 3) -> Callable[..., Any]:
    def function(x: jax.Array, y: jax.Array) -> jax.Array:
        (a, b), _ = jax.lax.scan(lambda c, _: (body(*c), None), (x, y), None, length)
        return a - b

    return function


def branches(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: jax.lax.cond(x[0] > 0, first, second, x, y)


def reduction(*, crossed: bool) -> Callable[..., Any]:
    def both(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        total, product = a[0] + b[0], a[1] * b[1]
        return (product, total) if crossed else (total, product)

    def function(x: jax.Array, y: jax.Array) -> jax.Array:
        start = (jnp.float32(0), jnp.float32(0))
        total, product = jax.lax.reduce((x, y), start, both, (0,))
        return total - product

    return function


def loud(x: jax.Array, y: jax.Array) -> jax.Array:
    jax.debug.callback(lambda _: None, x)
    return x - y


def bias_of_its_own(x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
    return jnp.tanh(jnp.tanh(x @ z + x) @ z + y)


def one_bias_twice(x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
    return jnp.tanh(jnp.tanh(x @ z + y) @ z + x)


BIG = np.arange(5000, dtype=np.float32)
OTHER_BIG = np.where(BIG == 2500, 0, BIG)

OTHER: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "constant": (lambda x, y: x * 2 + y, lambda x, y: x * 3 + y),
    "number in a long constant": (lambda x, y: x[0] + BIG, lambda x, y: x[0] + OTHER_BIG),
    "operation": (lambda x, y: jnp.tanh(x) + y, lambda x, y: jax.nn.relu(x) + y),
    "swapped operands": (lambda x, y: jnp.sin(x) - y, lambda x, y: y - jnp.sin(x)),
    "shape": (lambda x, y: x + y, lambda x, y: x[:3] + y[:3]),
    "dtype": (lambda x, y: x + y, lambda x, y: (x + y).astype(jnp.bfloat16)),
    "one tanh fewer": (lambda x, y: jnp.tanh(jnp.tanh(x)) + y, lambda x, y: jnp.tanh(x) + y),
    "one result more": (lambda x, y: x + y, lambda x, y: (x + y, x)),
    "one result twice": (lambda x, y: x + y, lambda x, y: (x + y, x + y)),
    "axis": (lambda x, y: jnp.outer(x, y).sum(0), lambda x, y: jnp.outer(x, y).sum(1)),
    "reduction": (lambda x, y: jnp.sum(x) + y, lambda x, y: jnp.max(x) + y),
    "wiring": (
        lambda x, y: partial(bias_of_its_own, z=jnp.outer(x, y))(x, y),
        lambda x, y: partial(one_bias_twice, z=jnp.outer(x, y))(x, y),
    ),
    "trip count": (loop(lambda a, b: (a + b, b)), loop(lambda a, b: (a + b, b), 4)),
    "body": (loop(lambda a, b: (a + b, b)), loop(lambda a, b: (a * b, b))),
    "carries crossed": (loop(lambda a, b: (a + b, a * b)), loop(lambda a, b: (a * b, a + b))),
    "state not carried": (loop(lambda a, b: (a + 1, b)), loop(lambda a, b: (b + 1, b))),
    "branches swapped": (branches(jnp.add, jnp.multiply), branches(jnp.multiply, jnp.add)),
    "results of a reduction crossed": (reduction(crossed=False), reduction(crossed=True)),
    # Each node sees the same neighbours in both, as far as one may look: refining labels alone
    # does not tell one ring of eight from two of four.
    "pairing": (
        lambda x, y: (jnp.sin(x) + jnp.cos(y), jnp.sin(y) + jnp.cos(x)),
        lambda x, y: (jnp.sin(x) + jnp.cos(x), jnp.sin(y) + jnp.cos(y)),
    ),
    "call of the host": (lambda x, y: x - y, loud),
}


@pytest.mark.parametrize("what", SAME)
def test_fingerprint_does_not_see(what: str) -> None:
    one, other = SAME[what]
    assert fingerprint(*one) == fingerprint(*other)


@pytest.mark.parametrize("what", OTHER)
def test_fingerprint_sees(what: str) -> None:
    one, other = OTHER[what]
    assert fingerprint(one, X, Y) == fingerprint(one, X, Y)
    assert fingerprint(one, X, Y) != fingerprint(other, X, Y)


# The counts.


def test_equations_nested_and_inlined() -> None:
    """A loop is one, and its body once; a call of a jitted function is what it calls."""

    def body(c: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.sin(c) * 2, None

    def function(x: jax.Array) -> jax.Array:
        return jax.jit(jnp.cos)(jax.lax.scan(body, x, None, length=7)[0])

    assert count_equations(jax.make_jaxpr(function)(X).jaxpr) == len(["scan", "sin", "mul", "cos"])
    crossing = branches(lambda x, y: jnp.tanh(x), lambda x, y: jnp.tanh(jnp.exp(x)))
    by_hand = len(["slice", "squeeze", "gt", "convert", "cond", "tanh", "tanh", "exp"])
    assert count_equations(jax.make_jaxpr(crossing)(X, Y).jaxpr) == by_hand


def test_operations_live_and_once() -> None:
    def function(x: jax.Array) -> jax.Array:
        jnp.exp(x)
        return jax.jit(jnp.sin)(x) * jnp.sin(x) + jnp.cos(x)

    assert graph(function, X).operations() == {
        "stablehlo.add": 1,
        "stablehlo.cosine": 1,
        "stablehlo.multiply": 1,
        "stablehlo.sine": 1,
    }


def test_flops_of_a_product() -> None:
    assert facts_about(jnp.matmul, jnp.ones((3, 4)), jnp.ones((4, 5))).flops == 2 * 3 * 4 * 5


def test_every_instruction_is_counted(step_of: StepOf) -> None:
    """Those with long tuples too, such as loops, whose shapes have comments in them."""
    text = program(step_of(impls.BASELINE, "pure", TOY), TOY).lower().compile().as_text()
    assert text is not None
    lines = [line for line in text.splitlines() if re.match(r"\s+(ROOT )?[%\w.\-]+ = ", line)]
    counts = baseline(step_of).hlo_instructions
    assert sum(counts.values()) == len(lines)
    assert counts["while"] == sum(" while(" in line for line in lines) == 2
    assert counts["tanh"] == TOY.model.layers


def test_difference() -> None:
    assert difference({"a": 1, "b": 2, "d": 1}, {"b": 2, "c": 3, "d": 2}) == {
        "a": 1,
        "c": -3,
        "d": -1,
    }
    assert difference({}, {}) == {}
