"""The skeleton of a user's own step: its trees are the real step's, whatever the file has."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bench.cells import BASELINE, WHOLE, Arm
from bench.cli.cost import write_stacks
from bench.worker import skeleton, step_file
from bench.worker.counts import count_step
from bench.worker.proof import prove_arm
from bench.worker.skeleton import OutlineFile, SkeletonArms
from common.equality import NotEqualError
from common.errors import BakeoffError
from tests.worker.step_files import MODEL, PLAIN, arms_of, begun, offered, written

pytestmark = pytest.mark.usefixtures("own_folder")

NNX = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx

class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(4, 4, rngs=rngs, param_dtype=jnp.bfloat16)
        self.rngs, self.activate = rngs, jax.nn.relu

    def __call__(self, x):
        return self.last(self.drop(self.activate(self.norm(self.first(x)))))

def make_model():
    return Net(nnx.Rngs(0))

def make_batch():
    return np.ones((2, 4), np.float32)

def loss(model, batch):
    return jnp.mean((model(batch) - 1) ** 2)
"""
"""A model with statistics, dropout, a shared `Rngs`, and two types of arrays."""
EQUINOX = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax

class Net(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    places: jax.Array
    table: np.ndarray

    def __init__(self, key):
        self.first = eqx.nn.Linear(4, 4, key=key)
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        self.places, self.table = jnp.arange(4), np.arange(4)

    def __call__(self, x, state):
        x, state = self.norm(self.first(x[self.places]), state)
        return x + self.table, state

def make_model():
    return eqx.nn.make_with_state(Net)(jax.random.key(0))

def make_batch():
    return np.ones((2, 4), np.float32)

def loss(model, batch, *, state, key):
    apply = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    values, state = apply(batch + jax.random.normal(key, batch.shape), state)
    return jnp.mean((values - 1) ** 2), state
"""
"""A model with statistics, and with arrays that are not trained, of JAX and of NumPy."""
LARGE = """
import jax, jax.numpy as jnp, numpy as np, optax

def make_model():
    return {"w": jnp.zeros((1 << 18, 1 << 18)), "b": jnp.zeros((1, 1 << 18), jnp.bfloat16)}

def make_batch():
    return np.ones((2, 1 << 18), np.float32)

def loss(model, batch):
    return jnp.mean((batch @ model["w"] + model["b"]) ** 2)
"""
"""A model of 256 GiB, with as much twice in its optimiser."""


def skeleton_of(name: str) -> SkeletonArms:
    return SkeletonArms(Path(f"{name}.py").resolve(), "cpu", donate=False)


def lower(arms: SkeletonArms, arm: Arm) -> jax.stages.Lowered:
    return arms.with_program(arm, lambda program: program.lower())


def prove_all(arms: SkeletonArms) -> None:
    for arm in [BASELINE, *arms.file.arms]:
        if arm.style != WHOLE:
            assert prove_arm(arms, arm).proof.trajectory == 0
            arms.check_lowered(arm, lower(arms, arm))


@pytest.mark.parametrize(
    "library",
    [
        pytest.param(name, marks=() if name in ("haiku", "pure_jax") else pytest.mark.slow)
        for name in ("equinox", "flax_nnx", "flax_linen", "haiku", "pure_jax")
    ],
)
def test_a_new_file_has_a_skeleton_that_does_the_same(library: str) -> None:
    name = begun(library)
    arms, real = skeleton_of(name), arms_of(name)
    prove_all(arms)
    assert {array.size for array in jax.tree.leaves(arms.case.start.params)} == {1}
    for arm in [BASELINE, *real.file.arms]:
        ours, theirs = (count_step(each.make(arm), each.case) for each in (arms, real))
        assert ours["python_starts"] == theirs["python_starts"], arm
        assert ours["python_calls"] == theirs["python_calls"], arm
    parameters = arms.measure_facts(BASELINE)["parameters"]
    assert parameters == real.measure_facts(BASELINE)["parameters"]


@pytest.mark.parametrize("text", [NNX, EQUINOX, PLAIN], ids=["nnx", "equinox", "plain"])
def test_state_keys_types_and_sharing_are_kept(text: str) -> None:
    if text == PLAIN:
        text += "\ndef make_batch():\n    return np.ones((2, 16), np.float32), np.ones(2, int)\n"
        text += "\ndef mean_loss(logits, labels):\n    return logits.mean()\n"
    arms, real = skeleton_of(name := written(text)), arms_of("mine")
    prove_all(arms)
    for arm in [BASELINE, *real.file.arms]:
        ours, theirs = (count_step(each.make(arm), each.case) for each in (arms, real))
        assert ours["python_starts"] == theirs["python_starts"], (name, arm)


@pytest.mark.parametrize(
    "optimiser",
    [
        "optax.adafactor(1e-3)",
        "optax.masked(optax.adam(1e-3), lambda p: jax.tree.map(lambda x: x.ndim > 1, p))",
        "optax.masked(optax.adam(1e-3), lambda p: jax.tree.map(lambda x: x.size > 100, p))",
        "optax.multi_transform({'a': optax.adam(1e-3), 'b': optax.sgd(1e-3)}, "
        "lambda p: {'w': 'a', 'b': 'b'})",
        "optax.MultiSteps(optax.adam(1e-3), 4)",
        "optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)",
        "optax.contrib.muon(1e-3)",
        "optax.contrib.schedule_free_adamw(1e-3)",
        "optax.adam(optax.linear_schedule(1e-3, 0, 100))",
        "optax.lion(1e-3)",
    ],
)
def test_each_optimiser_has_its_own_state(optimiser: str) -> None:
    sizes = MODEL.replace("(4, 4)", "(160, 160)").replace("(1, 4)", "(1, 160)")
    sizes = sizes.replace("(2, 4)", "(2, 160)")
    arms = skeleton_of(written(f"{sizes}\nimport optax.contrib\noptimiser = {optimiser}\n"))
    prove_all(arms)


def test_a_model_that_does_not_fit_into_memory_is_measured_and_traced() -> None:
    arms = skeleton_of(written(LARGE))
    prove_all(arms)
    assert arms.measure_facts(BASELINE)["parameters"] == 2**36 + 2**18


@pytest.mark.parametrize(
    "change",
    [
        ("return {", "assert float(jnp.ones(())) == 1\n    return {"),
        ("def make_model():", "KEPT = []\ndef make_model():\n    KEPT.append(jnp.ones((1, 4)))"),
        ("jnp.zeros((1, 4))", "make_row()"),
    ],
    ids=["number", "kept", "cached"],
)
def test_a_model_that_cannot_be_traced_is_made_really(change: tuple[str, str]) -> None:
    cached = "\nimport functools\n@functools.cache\ndef make_row():\n    return jnp.zeros((1, 4))\n"
    name = written(MODEL.replace(*change) + cached)
    assert offered(name).problems == {}
    prove_all(skeleton_of(name))
    prove_arm(arms_of(name), BASELINE)


def test_files_beside_that_keep_arrays_of_a_trace_are_imported_again() -> None:
    helper = "import functools, jax.numpy as jnp\n@functools.cache\ndef make_row():\n"
    Path("helper_of_mine.py").write_text(f"{helper}    return jnp.zeros((1, 4))\n")
    text = "from helper_of_mine import make_row\n" + MODEL.replace(
        "jnp.zeros((1, 4))", "make_row()"
    )
    name = written(text)
    assert offered(name).problems == {}
    prove_all(skeleton_of(name))


def test_a_file_that_reads_numbers_is_not_run_twice() -> None:
    runs = "with open('runs', 'a') as file:\n    file.write('x')\n"
    reads = "def make_model():\n    assert float(jnp.ones(())) == 1"
    name = written(runs + MODEL.replace("def make_model():", reads))
    prove_all(skeleton_of(name))
    assert Path("runs").read_text() == "x"


def test_an_array_that_a_model_keeps_in_a_function_is_no_tracer() -> None:
    text = EQUINOX.replace("table: np.ndarray", "table: object").replace("+ self.table", "")
    text = text.replace("np.arange(4)\n", "keep(jnp.arange(4))\n").replace("x[", "self.table(x)[")
    text += "\ndef keep(row):\n    return lambda x: x + row\n"
    prove_all(skeleton_of(written(text)))


@pytest.mark.parametrize("kind", ["key", "PRNGKey"])
def test_a_model_may_have_keys_that_are_not_trained(kind: str) -> None:
    text = EQUINOX.replace("jnp.arange(4), np.arange(4)", f"jnp.arange(4), jax.random.{kind}(0)")
    text = text.replace("+ self.table", "+ jax.random.normal(self.table)")
    name = written(text)
    assert offered(name).problems == {}
    prove_all(skeleton_of(name))


def test_sharded_arrays_have_an_element_in_each_shard() -> None:
    text = MODEL.replace("jnp.full((4, 4), 0.1)", "jax.device_put(jnp.full((4, 4), 0.1), SHARDED)")
    mesh = "jax.sharding.Mesh(np.array(jax.devices()), ('x',))"
    sharding = f"jax.sharding.NamedSharding({mesh}, jax.sharding.PartitionSpec(None, 'x'))"
    name = written(f"{text}\nSHARDED = {sharding}\n")
    code = f"""
import jax
from bench.cells import BASELINE
from tests.worker.test_skeleton import prove_all, skeleton_of
arms = skeleton_of({name!r})
prove_all(arms)
for tree in (arms.case.start.params, arms.case.start.opt_state[0].mu):
    array = tree["w"]
    print(array.shape, tuple(array.sharding.spec), len(array.sharding.device_set), tree["b"].shape)
"""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    lines = ["(1, 4) (None, 'x') 4 (1, 1)"] * 2
    assert done.stdout.splitlines() == lines, done.stderr


@pytest.mark.parametrize(
    "optimiser", ["optax.contrib.muon(1e-3)", "optax.inject_hyperparams(optax.adam)(1e-3)"]
)
def test_what_an_optimiser_leaves_alone_is_left_alone(optimiser: str) -> None:
    text = NNX.replace(", param_dtype=jnp.bfloat16", "")  # injected numbers make it float32
    text += f"\nimport optax.contrib\noptimiser = {optimiser}\n"
    prove_all(skeleton_of(written(text)))


def test_a_real_step_that_does_not_fit_into_memory_is_told_before_it_is_made() -> None:
    name = written(LARGE)
    offer = offered(name)
    assert "cpu" in offer.too_large
    [note] = offer.notes
    assert "the real step of mine.py does not fit into memory: " in note
    assert "its optimiser's state, 3 times, have 2474 GB, and cpu has " in note
    with pytest.raises(BakeoffError, match="does not fit into memory"):
        arms_of(name)
    assert offered(written(MODEL, "small")).too_large == []


@pytest.mark.parametrize("text", [NNX, EQUINOX], ids=["nnx", "equinox"])
def test_a_skeleton_may_donate(text: str) -> None:
    text = text.replace("jnp.arange(4), np.arange(4)", "slice(None), 0")
    arms = SkeletonArms(Path(f"{written(text)}.py").resolve(), "cpu", donate=True)
    for arm in [BASELINE, *arms.file.arms]:
        prove_arm(arms, arm)
        arms.check_lowered(arm, lower(arms, arm))
    donating = lower(arms, BASELINE)
    arms.donate = False
    with pytest.raises(NotEqualError, match=r"\(donated\)"):
        arms.check_lowered(BASELINE, donating)


def test_weak_types_stay() -> None:
    weak = MODEL.replace("jnp.zeros((1, 4))", "jnp.full((1, 4), 0.0)")
    arms = skeleton_of(written(weak))
    assert jax.tree.leaves(arms.case.start.params)[0].weak_type
    prove_all(arms)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "complex64"])
def test_losses_are_exact_in_each_type(kind: str) -> None:
    loss = "jnp.mean(jnp.abs(batch @ model['w'] + model['b'] - 1) ** 2)"
    text = MODEL.partition("def loss")[0] + f"def loss(model, batch):\n    return {loss}\n"
    text = text.replace("0.1)", f"0.1, '{kind}')").replace("(1, 4))", f"(1, 4), '{kind}')")
    prove_all(skeleton_of(written(text)))


def test_another_tree_than_the_real_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = written(MODEL)
    monkeypatch.setattr(skeleton, "touch", lambda array: jnp.asarray(array, "f4"))
    arms = skeleton_of(name)
    prove_arm(arms, BASELINE)
    with pytest.raises(NotEqualError, match=r"array \d+ is float32 of rank 0 in place of int32"):
        arms.check_lowered(BASELINE, lower(arms, BASELINE))


def test_a_loss_that_adds_a_variable_has_another_tree() -> None:
    adds = "    model.sown = nnx.Intermediate(batch.mean())\n    return jnp.mean"
    text = NNX.replace("    return jnp.mean", adds)
    name = written(text)
    assert "mine.py:22: loss adds arrays to the model" in offered(name).problems[name]
    arms = skeleton_of(name)
    with pytest.raises(NotEqualError, match="has other trees than its real step: "):
        prove_all(arms)


def test_an_outline_has_no_numbers() -> None:
    file = OutlineFile(Path(f"{written(LARGE)}.py").resolve())
    assert all(isinstance(outline, jax.ShapeDtypeStruct) for outline in file.outlines)


@pytest.mark.parametrize(("limit", "has_less"), [("8000", True), ("max", False)])
def test_a_container_has_the_memory_that_it_may_have(
    monkeypatch: pytest.MonkeyPatch, limit: str, has_less: bool
) -> None:
    file = Path("memory.max")
    file.write_text(limit)
    monkeypatch.setattr(step_file, "CONTAINER", file)
    assert step_file.measure_memory("cpu", 1) == 8000 or not has_less
    monkeypatch.setattr(step_file, "CONTAINER", Path("gone"))
    assert step_file.measure_memory("cpu", 1) > 8000


BATCHES = {
    "traced": "    return jax.random.normal(jax.random.key(0), (64, 4))",
    "reads numbers": "    return np.asarray(jax.random.normal(jax.random.key(0), (64, 4)))",
    "keeps an array": "    return kept[0] if kept else (kept.append(jnp.ones((64, 4))) or kept[0])",
}


@pytest.mark.parametrize("make", BATCHES.values(), ids=BATCHES)
def test_a_batch_is_outlined_however_it_is_made(make: str) -> None:
    text = MODEL.partition("def make_batch")[0] + f"kept = []\ndef make_batch():\n{make}\n"
    text += "def loss" + MODEL.partition("def loss")[2]
    arms = skeleton_of(written(f"import jax\n{text}"))
    assert arms.file.batch_outline.shape == (64, 4)
    assert arms.case.batch.shape == (1, 1)
    prove_all(arms)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["equinox", "flax_nnx", "flax_linen", "haiku"])
def test_a_stack_has_its_number_of_arrays(library: str, tmp_path: Path) -> None:
    [path] = write_stacks({library: ()}, 7, tmp_path)
    arms = SkeletonArms(path, "cpu", donate=False)
    assert arms.measure_facts(BASELINE)["parameter_arrays"] == 7
    prove_all(arms)
