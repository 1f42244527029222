"""A file of a user's own step: what it offers, and what is wrong with it."""

from pathlib import Path

import jax
import pytest

from bench.cells import Arm
from bench.worker.proof import prove_arm
from tests.worker.step_files import MODEL, PLAIN, WHOLE, arms_of, begun, offered, written

pytestmark = pytest.mark.usefixtures("own_folder")


def test_modules_without_variables_may_be_in_two_places() -> None:
    text = Path(f"{begun('flax_nnx')}.py").read_text("utf-8")
    text = text.replace(
        "self.readout = ", "self.a = self.b = nnx.Dropout(0.0)\n        self.readout = "
    )
    assert offered(written(text, "twice")).notes == []


def test_arrays_without_a_gradient_and_shared_variables_are_told() -> None:
    still = MODEL.replace('"b": ', '"mean": jnp.zeros(4), "b": ')
    [note] = offered(written(still)).notes
    assert "mine.py: 1 of 3 arrays get no gradient (['mean'])" in note
    linear = still.replace("return jnp.mean(", 'return model["mean"].sum() + jnp.mean(')
    assert not offered(written(linear, "linear")).notes, "a constant gradient is one"
    text = Path(f"{begun('flax_nnx')}.py").read_text("utf-8")
    text = text.replace("self.second = nnx.Linear(64, 64, rngs=rngs)", "self.second = self.first")
    told = offered(written(text, "tied"))
    [note] = told.notes
    assert "`first` and `second` share a Variable, so jit_tree, jit_partial, jax_jit" in note
    assert set(told.styles["flax_nnx"]) == {"pure", "jit", "cached_partial"}


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        MODEL.replace("make_batch", "batch_of"): "mine.py has no function make_batch; write one",
        MODEL.replace("def loss", "def cost"): "mine.py has no function loss; write one",
        MODEL.replace("jnp.mean(", "("): "loss returns an array of shape (2, 4); it has to be one",
        MODEL.replace("jnp.mean(", "str("): "loss returns a str; it has to be one floating",
        MODEL.replace("** 2)", "** 2).astype(int)"): "loss returns a number of type int32; it has",
        MODEL.replace("np.ones((2, 4), np.float32)", "np.random.rand(2, 4)"): "other data in its",
        MODEL.replace(
            'return {"w"', 'return "a model"\n    return {"w"'
        ): "'str', which no library",
        MODEL.replace(
            "jnp.full((4, 4), 0.1)", "jnp.asarray(np.random.rand(4, 4))"
        ): "make_model returns other parameters in its second call",
        MODEL.replace("jnp.full", "jnp.fill"): "AttributeError: module 'jax.numpy' has no attr",
        MODEL + "optimiser = 1e-3\n": "optimiser is a float; give one of optax",
        PLAIN.replace('{"mean": mean}', '{"mean": mean, "n": 1}'): "loss is given nothing as",
        PLAIN.replace('{"mean": mean}', '{"mean": mean[0]}'): "and returns float32[4]: a step",
        PLAIN.replace('{"mean": mean}', "(mean,)"): "as ['state']['mean'] and returns nothing",
        PLAIN.replace(', {"mean": mean}', ""): "takes `state` and does not return it",
        PLAIN.replace(', {"mean": jnp.zeros((1, 4))}', ""): "and make_model returns none",
        PLAIN.replace("logits - mean", "keep - jax.random.normal(key, (8, 4))"): "key twice",
        MODEL.replace(
            "return jnp.mean((batch",
            "key = jax.random.key(0)\n    batch = batch + jax.random.normal(key, (2, 4))\n"
            "    return jnp.mean((jax.random.uniform(key, (2, 4)) + batch",
        ): "key twice",
        PLAIN.replace("keep, logits - mean", "keep, 0.0"): "no array of the model gets a gradient",
    }.items(),
)
def test_what_is_wrong_with_a_file_is_one_line(text: str, problem: str) -> None:
    told = offered(written(text))
    [why] = told.problems.values()
    assert problem in why
    assert why.startswith("mine.py")
    assert "\n" not in why
    assert not told.styles


def test_a_library_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the line of the file that imports it."""
    package = Path("site/broken")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from jax import gone\n", "utf-8")
    about = Path("site/broken-1.2.3.dist-info")
    about.mkdir()
    (about / "METADATA").write_text("Name: broken\nVersion: 1.2.3\n", "utf-8")
    (about / "top_level.txt").write_text("broken\n", "utf-8")
    monkeypatch.syspath_prepend("site")
    told = offered(written("import broken\n" + MODEL))
    assert list(told.unfit.values()) == [("broken", "1.2.3")]
    [why] = told.problems.values()
    assert why.startswith(f"broken 1.2.3 does not import with jax {jax.__version__}: ImportError")
    assert "line" not in why


def test_plain_jax_and_a_whole_step() -> None:
    plain = offered(written(MODEL))
    assert plain.styles == {"pure_jax": ["pure"]}
    whole = written(WHOLE, "whole")
    assert offered(whole).styles == {"whole": ["step"], "pure_jax": ["pure"]}
    arms = arms_of(whole)
    losses = prove_arm(arms, Arm(whole, "step")).losses
    assert losses[0] == 4
    assert losses == sorted(losses, reverse=True)
