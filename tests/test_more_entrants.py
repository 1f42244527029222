"""The entrants beyond the first five: stax and NumPy in full, the others as far as a file shows.

Keras, Penzai, Trax and PyTorch have environments of their own, where their equality is proven; what
can be read without their library is judged here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest

import impls
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, flat, fresh_checkpoint, unflat, zero_hidden
from common.equality import (
    Case,
    NotEqualError,
    deviation,
    loss_and_gradient_deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
    relative_norm,
    trajectory,
)
from common.errors import BakeoffError
from common.reference import adamw, loss_and_grads
from common.steps import FunctionalStep
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.contract import TrainStep, Weights

HERE = {"stax": "pure", "numpy": "loop"}
PACKAGES = {"keras": "keras", "penzai": "penzai", "trax": "trax", "torch": "torch"}
"""Entrants with an environment of their own, and the one package that each may import."""
CASES = {
    "toy": Case(ModelConfig(5, 8), chunk=8, batch=1),
    "small": Case(ModelConfig(7, 12, layers=2), chunk=6, batch=3),
}
TOY = CASES["toy"]

each_here = pytest.mark.parametrize("entrant", HERE)
each_elsewhere = pytest.mark.parametrize("entrant", PACKAGES)
each_file = pytest.mark.parametrize("entrant", [*HERE, *PACKAGES])
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def new_step(entrant: str, case: Case) -> TrainStep:
    return make(impls.load(entrant).style(HERE[entrant]), case)


step_at = cache(new_step)
"""Compiled once; load it before use."""


@cache
def baseline(case: Case) -> np.ndarray:
    return trajectory(make(impls.load(impls.BASELINE).style("pure"), case), case)


def described(tree: Any) -> list[tuple[tuple[int, ...], np.dtype]]:
    return [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in jax.tree.leaves(tree)]


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert that two trees are the same bit by bit, structure and dtypes included."""
    structure: Any = jax.tree.structure(ours)
    assert structure == jax.tree.structure(theirs)
    assert described(ours) == described(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def checkpoint_of(config: ModelConfig) -> Checkpoint:
    trees = [random_weights(config, seed) for seed in range(3)]
    return Checkpoint(trees[0], mu=trees[1], nu=jax.tree.map(np.square, trees[2]), updates=7)


# What the reference says.


@each_case
@each_here
def test_loss_gradient_and_ten_steps(entrant: str, case: Case) -> None:
    deviation(step_at(entrant, case), case, baseline(case)).require()


@pytest.mark.parametrize("layers", [1, 5])
@each_here
def test_any_number_of_layers(entrant: str, layers: int) -> None:
    case = Case(ModelConfig(7, 6, layers), chunk=4, batch=2)
    loss, gradient = loss_and_gradient_deviation(step_at(entrant, case), case)
    assert loss <= LOSS_TOLERANCE
    assert gradient <= GRADIENT_TOLERANCE


@each_case
@each_here
def test_the_state_after_a_chunk(entrant: str, case: Case) -> None:
    step = step_at(entrant, case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    before, chunk = random_hidden(case), random_chunk(case, 1)
    after, loss = step(before, chunk)
    answer = loss_and_grads(random_weights(case.model), before, chunk)
    assert described((after, loss)) == described((before, np.float32(0)))
    for ours, theirs in zip(after, answer.hidden, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@each_here
def test_decay_is_decoupled_and_scaled_by_the_learning_rate(entrant: str) -> None:
    """With a decay that shows, which the default one does not in three steps."""
    case = Case(ModelConfig(3, 4, 1), 4, 1, OptimiserConfig(0.01, weight_decay=10.0))
    step, checkpoint = step_at(entrant, case), fresh_checkpoint(random_weights(case.model))
    hidden, chunk = zero_hidden(case.model), random_chunk(case, 1)
    step.load(checkpoint)
    for _ in range(3):
        step(hidden, chunk)
        grads = loss_and_grads(checkpoint.weights, hidden, chunk).grads
        checkpoint = adamw(checkpoint, grads, case.optimiser)
    assert relative_norm(step.save().weights, checkpoint.weights) < 1e-5


@pytest.mark.parametrize("layer", range(TOY.model.layers + 1))
def test_a_bias_forgotten_by_hand_is_seen(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof must be able to fail: NumPy's gradient is written by hand, so break it there."""
    module = importlib.import_module("impls.numpy")
    right, (rows, columns) = module.backward, np.shape(flat(random_weights(TOY.model))[layer][0])

    def wrong(params: Any, grads: Any, *arrays: Any) -> Any:
        d_x = right(params, grads, *arrays)
        if params.kernel.shape == (rows, columns):
            grads.bias[...] = 0
        return d_x

    monkeypatch.setattr(module, "backward", wrong)
    with pytest.raises(NotEqualError, match="gradient off by"):
        deviation(step_at("numpy", TOY), TOY, baseline(TOY)).require()


@each_here
def test_one_character_is_the_baselines(entrant: str) -> None:
    weights, state = random_weights(TOY.model), tuple(row[0] for row in random_hidden(TOY))
    ours, theirs = (impls.load(name).build(TOY.model) for name in (entrant, impls.BASELINE))
    token: Any = np.int32(2)
    new_state, logits = ours.step(ours.from_weights(weights), state, token)
    expected = theirs.step(theirs.from_weights(weights), state, token)
    assert described((new_state, logits)) == described(expected)
    for a, b in zip((*new_state, logits), (*expected[0], expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@each_here
def test_large_logits_give_no_nan(entrant: str) -> None:
    """A gap of 90 nats, at which softmax and then its logarithm overflow."""
    layers = flat(random_weights(TOY.model))
    weights = unflat([*layers[:-1], layers[-1]._replace(kernel=layers[-1].kernel * 1000)])
    step, chunk = step_at(entrant, TOY), random_chunk(TOY, 1)
    step.load(fresh_checkpoint(weights))
    _, loss = step(random_hidden(TOY), chunk)
    expected = loss_and_grads(weights, random_hidden(TOY), chunk).loss
    assert expected > 90
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step.save()))


@each_here
def test_what_is_masked_does_not_count(entrant: str) -> None:
    step, chunk = step_at(entrant, TOY), random_chunk(TOY, 1, masked=3)
    other = chunk._replace(targets=(chunk.targets + (chunk.mask == 0)) % TOY.model.vocab_size)
    given = fresh_checkpoint(random_weights(TOY.model))
    results = []
    for each in (chunk, other):
        step.load(given)
        _, loss = step(random_hidden(TOY), each)
        results.append((np.asarray(loss), step.save()))
    assert_same(results[0], results[1])


# Weights, and what a step holds.


@each_here
def test_weights_in_and_out_is_the_identity(entrant: str) -> None:
    model, given = impls.load(entrant).build(TOY.model), random_weights(TOY.model)
    assert_same(model.to_weights(model.from_weights(given)), given)


@each_here
def test_a_fresh_init_comes_back(entrant: str) -> None:
    model = impls.load(entrant).build(TOY.model)
    fresh = model.init(jax.random.key(0))
    exported = model.to_weights(fresh)
    assert described(exported) == described(random_weights(TOY.model))
    assert_same(model.from_weights(exported), fresh)


@each_here
def test_init_depends_on_the_key(entrant: str) -> None:
    model = impls.load(entrant).build(TOY.model)
    one, again, other = (model.to_weights(model.init(jax.random.key(k))) for k in (0, 0, 1))
    assert_same(one, again)
    for a, b in zip(flat(one), flat(other), strict=True):
        assert not np.array_equal(a.kernel, b.kernel)
    assert not np.array_equal(one.cells[1].kernel, one.cells[2].kernel)


def test_numpy_draws_lecun_normal() -> None:
    """Standard deviation 1 / √rows, as in the baseline, and no bias."""
    config = ModelConfig(64, 256)
    weights = impls.load("numpy").build(config).init(jax.random.key(3))
    for kernel, bias in flat(weights):
        assert np.std(kernel) * np.sqrt(len(kernel)) == pytest.approx(1, abs=0.02)
        assert not bias.any()


@each_here
def test_a_checkpoint_comes_back(entrant: str) -> None:
    """Bit by bit, before and after training, and into a step that has been used."""
    step, given, hidden = step_at(entrant, TOY), checkpoint_of(TOY.model), random_hidden(TOY)
    step.load(given)
    assert_same(step.save(), given)
    for seed in range(2):
        hidden, _ = step(hidden, random_chunk(TOY, seed))
    trained = step.save()
    assert trained.updates == 9
    step.load(given)
    assert_same(step.save(), given)
    step.load(trained)
    assert_same(step.save(), trained)


@each_here
def test_what_was_given_or_given_back_is_left_alone(entrant: str) -> None:
    """Updates in place must not reach the caller's arrays, nor those of another step."""
    step, other = new_step(entrant, TOY), step_at(entrant, TOY)
    given, hidden, chunk = checkpoint_of(TOY.model), random_hidden(TOY), random_chunk(TOY, 1)
    step.load(given)
    other.load(given)
    after, loss = step(hidden, chunk)
    kept = jax.tree.map(np.array, (after, loss, saved := step.save()))
    step(after, chunk)
    assert_same((after, loss, saved), kept)
    assert_same(given, checkpoint_of(TOY.model))
    assert_same(hidden, random_hidden(TOY))
    assert_same(other.save(), given)


def test_a_second_load_compiles_nothing_anew() -> None:
    step = new_step("stax", TOY)
    assert isinstance(step, FunctionalStep)
    for seed in range(3):
        step.load(fresh_checkpoint(random_weights(TOY.model, seed)))
        hidden, _ = step(random_hidden(TOY), random_chunk(TOY, seed))
        step(hidden, random_chunk(TOY, seed))
    update: Any = step.update
    assert update._cache_size() == 1


def test_only_jax_has_a_program() -> None:
    for entrant in HERE:
        step = step_at(entrant, TOY)
        step.load(fresh_checkpoint(random_weights(TOY.model)))
        program = step.program(random_hidden(TOY), random_chunk(TOY, 1))
        assert (program is not None) == impls.declared(entrant).jax


def test_numpy_computes_in_float32() -> None:
    """Also where Python's numbers, or a float64 array, would widen it."""
    case = replace(TOY, optimiser=OptimiserConfig(0.01, weight_decay=0.1))
    step = step_at("numpy", case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    wide: Weights = jax.tree.map(np.float64, random_weights(case.model))
    for checkpoint in (step.save(), fresh_checkpoint(wide)):
        step.load(checkpoint)
        after, loss = step(random_hidden(case), random_chunk(case, 1))
        trees = (after, loss, step.save()[:3])
        assert {leaf.dtype for leaf in jax.tree.leaves(trees)} == {np.dtype(np.float32)}


# What a file says of itself, without its library.


def tree_of(entrant: str) -> ast.Module:
    return ast.parse(impls.source(entrant).read_text("utf-8"))


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """Yield the top-level packages that statements import, those for type checkers apart."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        for each in ast.walk(node):
            if isinstance(each, ast.Import):
                yield from (alias.name.split(".")[0] for alias in each.names)
            elif isinstance(each, ast.ImportFrom):
                assert each.level == 0
                yield str(each.module).split(".")[0]


@each_file
def test_imports_its_own_library_alone(entrant: str) -> None:
    own = {PACKAGES[entrant]} if entrant in PACKAGES else set()
    allowed = {*sys.stdlib_module_names, "common", "jax", "optax", "numpy", *own}
    found = set(imported(tree_of(entrant).body))
    assert found <= allowed
    assert own <= found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import a.b as c, d", {"a", "d"}),
        ("def f():\n    from e.f import g", {"e"}),
        ("if TYPE_CHECKING:\n    import h", set()),
    ],
)
def test_imports_are_seen(code: str, found: set[str]) -> None:
    assert set(imported(ast.parse(code).body)) == found


@each_file
def test_declares_what_it_is(entrant: str) -> None:
    about = impls.declared(entrant)
    assert about.distribution == {"stax": "jax"}.get(entrant, entrant)
    assert about.jax == (entrant not in {"numpy", "torch"})
    assert about.own_environment == (entrant in PACKAGES)
    assert about.note.endswith(".") or not about.note
    assert ast.get_docstring(tree_of(entrant))


def test_what_is_no_longer_kept_up_or_not_jax_is_said() -> None:
    assert "2021" in impls.declared("trax").note
    for entrant in ("torch", "numpy"):
        assert "not a JAX library" in impls.declared(entrant).note


@each_file
def test_styles_are_named_and_pure_is_first_where_there_is_jax(entrant: str) -> None:
    for node in tree_of(entrant).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STYLES":
            assert isinstance(node.value, ast.Dict)
            styles = [ast.literal_eval(key) for key in node.value.keys if key is not None]
    first = {"numpy": "loop", "torch": "eager"}.get(entrant, "pure")
    assert styles[0] == first
    assert all(style.isidentifier() for style in styles)


def test_keras_is_imported_after_its_backend_is_chosen() -> None:
    lines = [ast.unparse(node) for node in tree_of("keras").body]
    assert lines.index("os.environ.setdefault('KERAS_BACKEND', 'jax')") < lines.index(
        "import keras"
    )


@each_elsewhere
def test_a_library_that_is_not_installed_is_named(entrant: str) -> None:
    package = PACKAGES[entrant]
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    with pytest.raises(BakeoffError) as error:
        impls.load(entrant)
    assert str(error.value).startswith(
        f"entrant {entrant!r} needs the package {package!r}, which is not installed"
    )


def test_an_unknown_style() -> None:
    with pytest.raises(BakeoffError) as error:
        impls.load("numpy").style("pure")
    assert str(error.value) == "unknown style of numpy 'pure'; known: loop; choose one of them"
