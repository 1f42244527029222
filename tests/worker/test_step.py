"""A user's own step: every style is proven to be the same step; what a file offers or has wrong."""

import ast
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bench import own_steps
from bench.cells import BASELINE, Arm
from bench.metrics import STAGES
from bench.worker.arms import catch_failure
from bench.worker.block import TimedBlock
from bench.worker.offers import count_uncached
from bench.worker.proof import prove_arm
from bench.worker.protocol import Failed, TimeBlock, Timed
from bench.worker.step_arms import StepArms
from bench.worker.step_file import CarryingStep
from common.errors import BakeoffError
from tests.commands import ROOT
from tests.worker.step_files import DATA, MODEL, PLAIN, WHOLE, arms_of, begun, offered, written

pytestmark = pytest.mark.usefixtures("own_folder")

LIBRARIES = [
    pytest.param(name, marks=() if name in ("haiku", "pure_jax") else pytest.mark.slow)
    for name in ("equinox", "flax_nnx", "flax_linen", "haiku", "pure_jax")
]
"""Libraries with a model of their own; those with many styles take long."""
STYLES = {
    "equinox": {"pure", "filter_jit"},
    "flax_nnx": {"pure", "jit", "jit_tree", "cached_partial", "jit_partial", "jax_jit"},
    "flax_linen": {"pure", "train_state"},
    "haiku": {"pure"},
    "pure_jax": {"pure"},
}
"""Library → styles that train a person's own model."""
NAMED = """\
class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.readout = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.first(x))
        return self.readout(jax.nn.relu(self.second(x)))
"""
"""Class of a model of NNX whose layers have names."""
CONSTANT_DRAWS = {
    "": "jax.random.normal(jax.random.key(0), (2, 4))",
    "KEY = jax.random.PRNGKey(7)": "jax.random.uniform(jax.random.split(KEY)[1], (2, 4))",
    "NOISE = jax.checkpoint(jax.jit(lambda k: jax.random.normal(k, (2, 4))))": (
        "NOISE(jax.random.key(0))"
    ),
    "DRAW = lambda x: jax.random.uniform(jax.random.key(0), (4,)) * x": (
        "jax.lax.map(DRAW, batch) + 0"
    ),
}
"""Code before a loss → numbers that it draws, the same in each step."""
HOW_TO = re.findall(
    r"Replace ([^\n]*) in the (\w+) file with:\n\n```python\n(.*?)```",
    (ROOT / "docs" / "your-model.md").read_text("utf-8"),
    re.S,
)
"""Names that a block of the page takes the place of, the library, and the block."""


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_style_of_a_new_file_is_the_same_step(library: str) -> None:
    name = begun(library)
    assert len(Path(f"{name}.py").read_text("utf-8").split("\n")) <= 70
    arms = arms_of(name)
    assert arms.file.entrant == library
    assert {arm.style for arm in arms.file.arms} == STYLES[library]
    for arm in arms.file.arms:
        proof = prove_arm(arms, arm)
        assert proof.proof.gradient <= arms.tolerance
        assert proof.proof.whole_step
        assert len(proof.losses) == 10
        counts = {sample.metric: sample.value for sample in proof.samples}
        assert counts["parameter_arrays"] == 8


def how_to(names: str, library: str, block: str) -> str:
    """Return a new file in which a block of the how-to takes the place of some names."""
    text = Path(f"{begun(library)}.py").read_text("utf-8")
    lines = text.splitlines(keepends=True)
    for node in reversed(ast.parse(text).body):
        target = node.targets[0] if isinstance(node, ast.Assign) else node
        name = getattr(target, "name", getattr(target, "id", ""))
        if f"`{name}`" in names:
            lines[node.lineno - 1 : node.end_lineno] = []
    return "".join(lines) + block


@pytest.mark.parametrize(
    ("names", "library", "block"),
    [
        pytest.param(*row, marks=() if row[1] == "haiku" else pytest.mark.slow)
        for row in [*HOW_TO, ("", "pure_jax", "")]
    ],
)
def test_a_block_of_the_how_to_is_the_same_step_in_every_style(
    names: str, library: str, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state moves in each of them by as much, keys are new; a state that stays is not equal."""
    text = how_to(names, library, block) if names else PLAIN
    arms = arms_of(written(text, "how_to"))
    assert arms.file.entrant == library
    carries, losses = bool(arms.file.takes), arms.compute_losses(arms.make(BASELINE))
    for arm in arms.file.arms:
        step = arms.make(arm)
        assert arms.judge_step(step, losses)[0].gradient <= arms.tolerance
        assert isinstance(step, CarryingStep) == carries
    norms = any(word in text for word in ("BatchNorm", "mean = "))
    assert any(map(np.any, arms.baseline_course[1][1:])) == norms
    if not carries:
        return
    assert arms.file.takes == ["state", "key"]
    if names:  # of plain JAX, a tuple of dictionaries may be a model
        untaken = text.replace("*, state, key", "s=1, key=1")
        [why] = offered(written(untaken, "untaken")).problems.values()
        assert "loss does not take that: write" in why
    right = arms.file.compute_loss

    def stays(model: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        value, after = right(model, carried, batch)
        assert after["key"] is not carried["key"]
        return value, after | {"state": carried["state"]}

    monkeypatch.setattr(arms.file, "compute_loss", stays)
    with pytest.raises(BakeoffError, match="not equal"):
        arms.judge_step(arms.make(arm), losses)


def test_the_how_to_has_blocks() -> None:
    assert len(HOW_TO) == (ROOT / "docs" / "your-model.md").read_text("utf-8").count("```python")


def test_a_state_that_is_set_outside_of_vmap_and_begins_at_infinity() -> None:
    """As Equinox's documentation writes it: what was read from is not used again."""
    text = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax

class Net(eqx.Module):
    best: eqx.nn.StateIndex
    linear: eqx.nn.Linear

    def __init__(self, key):
        self.best = eqx.nn.StateIndex(jnp.array(jnp.inf, "f4"))
        self.linear = eqx.nn.Linear(16, 4, key=key)

def make_model():
    return eqx.nn.make_with_state(Net)(jax.random.key(0))

def loss(model, batch, *, state, key):
    value = mean_loss(jax.vmap(model.linear)(batch[0] + jax.random.normal(key, (8, 16))), batch[1])
    return value, state.set(model.best, jnp.minimum(value, state.get(model.best)))
"""
    name = written(text + DATA, "best")
    assert offered(name).styles["equinox"] == ["pure", "filter_jit"]
    arms = arms_of(name)
    for arm in arms.file.arms:
        prove_arm(arms, arm)


def test_variables_of_linen_without_a_state_stay_as_they_are() -> None:
    text = Path(f"{begun('flax_linen')}.py").read_text("utf-8").replace('["params"]', "")
    text = text.replace('apply({"params": params}', "apply(params")
    prove_arm(arms_of(written(text, "variables")), BASELINE)


def test_a_step_that_computes_something_else_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = arms_of(begun("equinox"))
    right = arms.file.compute_loss
    arm = Arm("equinox", "filter_jit")
    prove_arm(arms, arm)

    def compute_other_loss(*given: Any) -> tuple[Any, tuple[()]]:
        return 1.01 * right(*given)[0], ()

    monkeypatch.setattr(arms.file, "compute_loss", compute_other_loss)
    with pytest.raises(BakeoffError, match="not equal: ten steps' losses are off by"):
        prove_arm(arms, arm)


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        MODEL.replace("return jnp.", "return jnp.nan * jnp."): "the loss is nan in step 1",
        PLAIN.replace("mean = 0.9", "mean = jnp.nan + 0.9").replace(
            "logits - mean", "logits"
        ): r"the state\['mean'\] is not a number after 10 steps",
    }.items(),
)
def test_what_is_no_number_is_told(text: str, problem: str) -> None:
    arms = arms_of(written(text))
    with pytest.raises(BakeoffError, match=rf"^mine.py:\d+: {problem}"):
        prove_arm(arms, BASELINE)


def test_no_bytecode_is_left_beside_a_file_and_that_of_libraries_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / ".venv" / "lib" / "site-packages"
    for path, text in {
        tmp_path / "mine.py": "import beside_it\n",
        tmp_path / "beside_it" / "__init__.py": "from beside_it import inner\n",
        tmp_path / "beside_it" / "inner.py": "import beside_no_step\n",
        library / "beside_no_step.py": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(library)
    before = count_uncached()
    own_steps.import_step(tmp_path / "mine.py")
    assert [path.parent for path in tmp_path.rglob("__pycache__")] == [library]
    assert count_uncached() == before, "a run does not warn of what it does on purpose"


def test_a_file_uses_what_lies_beside_it_and_a_mask() -> None:
    """An optimiser may leave parameters alone, and a batch may have keys of random numbers."""
    Path("beside.py").write_text("WIDTH = 64\n", "utf-8")
    np.save("numbers.npy", np.ones((32, 64), np.float32))
    text = begin_named().replace("import jax\n", "import jax\nfrom beside import WIDTH\n")
    numbers = "random.normal(size=(32, WIDTH)).astype(np.float32)"
    text = text.replace(numbers, "np.load('numbers.npy')")
    text = text.replace("random.integers(8, size=32)", "(random.integers(8, size=32), KEY)")
    text = text.replace("inputs, labels = batch", "inputs, (labels, _) = batch")
    text = text.replace("def make_model", "KEY = jax.random.key(1)\n\n\ndef make_model")
    text += """
def trained(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: "first" not in str(path), params)

optimizer, optimiser = optax.masked(optax.adam(1e-3), trained), None
"""
    arms = arms_of(written(text, "masked"))
    for style in ("jit", "jit_partial", "pure"):
        assert prove_arm(arms, Arm("flax_nnx", style)).proof.gradient < 1e-3


def begin_named() -> str:
    """Return a new file of NNX with a model whose layers have names."""
    text = Path(f"{begun('flax_nnx')}.py").read_text("utf-8")
    before, after = text.index("class Net"), text.index("def make_model")
    return f"{text[:before]}{NAMED}\n\n{text[after:]}"


# What a file offers, and what is wrong with it.


def test_modules_with_the_names_of_this_project_s_are_refused_where_they_are_imported() -> None:
    for path, text in {
        "common/numbers.py": "",
        "bench.py": "",
        "a_package/__init__.py": "",
        "a_package/unused.py": "import bench",
        "a_package/used.py": "def late():\n    from bench import number",
        "a_package/model.py": "from . import used",
    }.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)
    for imports in ("", "import impls, a_package\n"):
        written(imports + MODEL)
    for imports, what in {
        "from common.numbers import one": "mine.py imports `common`, which is a package of jax-b",
        "from a_package.model import used": "used.py imports `bench`, which is a package of",
    }.items():
        with pytest.raises(BakeoffError, match=f"^{what}.* here: rename (common|bench.py) beside"):
            written(f"{imports}\n{MODEL}")


def test_modules_that_a_file_imports_are_offered_with_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement goes on only with the same; those of libraries have versions."""
    paths = "a_helper.py", "a_package/inner.py", "other/elsewhere.py", "last.py"
    for path in map(Path, paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {path}")
    monkeypatch.syspath_prepend(tmp_path / "other")
    imports = "import a_helper, elsewhere\nfrom a_package import inner\n"
    Path("late.py").write_text("def work():\n    import last, json.tool")
    later = "def work():\n    from late import work\n    import absent, jax\n"
    modules = offered(written(imports + later + MODEL, "importing")).modules
    own = {"step_importing", "a_helper", "a_package.inner", "elsewhere", "late", "last"}
    assert own <= modules.keys()
    assert not {"ast", "jax", "numpy", "bench.offer", "common.errors", "bench.own_steps"} & {
        *modules
    }
    assert modules["a_helper"] == hashlib.sha256(b"# a_helper.py").hexdigest()


def test_modules_without_variables_may_be_in_two_places() -> None:
    text = begin_named()
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
    text = begin_named().replace(
        "self.second = nnx.Linear(64, 64, rngs=rngs)", "self.second = self.first"
    )
    told = offered(written(text, "tied"))
    [note] = told.notes
    unsuited = "jit_tree, jit_partial and jax_jit cannot train it."
    assert note == f"tied.py: `first` and `second` share a Variable, so {unsuited}"
    assert set(told.styles["flax_nnx"]) == {"pure", "jit", "cached_partial"}
    many = text.replace("self.second = ", "self.second = self.c = self.d = self.e = self.f = ")
    [note] = offered(written(many, "many")).notes
    assert "many.py: `c`, `d`, `e` and 3 more share a Variable, so" in note


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        MODEL.replace(
            "jnp.full((4, 4), 0.1)", "jnp.asarray(np.random.rand(4, 4))"
        ): "make_model returns other parameters in its second call",
        MODEL.replace("- 1)", "- np.random.rand())"): (
            "mine.py:13: loss is another program each time it is traced: take a `key`, draw "
            "numbers with a fixed seed, and use no counter"
        ),
        MODEL.replace("- 1)", "- np.random.rand(2, 4))"): "mine.py:13: loss is another program",
        MODEL.replace(
            "    return jnp.",
            "    count.append(1)\n    if len(count) % 2: batch = -batch\n    return jnp.",
        )
        + "count = []\n": "mine.py:13: loss is another program each time",
        MODEL.replace("batch @", "batch[np.random.randint(9999) % 2 :] @")
        .replace("np.ones((2, ", "np.ones((9999, ")
        .replace("% 2", ""): "mine.py:13: loss is another program each",
        MODEL.replace("return {", "s = np.random.rand()\n    return {")
        .replace("((1, 4))}", "((1, 4))}, lambda p, x: s * x @ p['w'] + p['b']")
        .replace('batch @ model["w"] + model["b"]', "model[1](model[0], batch)"): (
            "mine.py:7: make_model draws other numbers in its second call"
        ),
        PLAIN.replace("jnp.zeros((1, 4))}", "np.random.rand(1, 4)}"): "returns other state in its",
    }.items(),
)
def test_a_model_or_loss_that_draws_other_numbers_has_no_reference(text: str, problem: str) -> None:
    """It is known once it is made really: a skeleton has no numbers."""
    name = written(text)
    assert not offered(name).problems
    failed = catch_failure(lambda: arms_of(name).reference)
    assert isinstance(failed, Failed)
    assert problem in failed.failure
    assert failed.failure.startswith("mine.py")


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        MODEL.replace("make_batch", "batch_of"): "mine.py has no function make_batch; write one",
        MODEL.replace("def loss", "def cost"): "mine.py has no function loss; write one",
        MODEL.replace("jnp.mean(", "("): "loss returns an array of shape (2, 4); it has to be one",
        MODEL.replace("jnp.mean(", "str("): "loss returns a str; it has to be one floating",
        MODEL.replace("** 2)", "** 2).astype(int)"): "loss returns a number of type int32; it has",
        MODEL.replace("np.ones((2, 4), np.float32)", "np.random.rand(2, 4)"): "other data in its",
        MODEL.replace("return np.ones", "yield np.ones"): (
            "mine.py:10: make_batch returns a generator; it has to return one batch, a tree of "
            "arrays, such as next(...) of these batches"
        ),
        MODEL.replace("return np.ones((2, 4), np.float32)", "return iter([np.ones((2, 4))])"): (
            "mine.py:10: make_batch returns a list_iterator; it has to return one batch"
        ),
        MODEL.replace(
            'return {"w"', 'return "a model"\n    return {"w"'
        ): "'str', which no library",
        MODEL.replace("jnp.full", "jnp.fill"): "AttributeError: module 'jax.numpy' has no attr",
        MODEL + "optimiser = 1e-3\n": "optimiser is a float; give what a function of optax",
        MODEL
        + "optimiser = optax.adam\n": "mine.py: optimiser is a function; give what a function",
        MODEL.replace(
            "jnp.zeros((1, 4))", "0.5"
        ): "['b'] is a float; give an array: jnp.asarray(0.5)",
        MODEL.replace(
            '0.1), "b": jnp.zeros((1, 4))}', '0.1), "b": 0.5}, lambda p, x: x @ p["w"]'
        ): "mine.py:7: the parameter ['b'] is a float",
        MODEL.replace('0.1), "b": jnp.zeros((1, 4))}', '0.1), "b": 4}, lambda p, x: x @ p["w"]'): (
            "['b'] is an int; leave it out of the parameters: it cannot be trained"
        ),
        MODEL.replace("jnp.zeros((1, 4))", "jnp.asarray(4)"): (
            "['b'] is an array of type int32; leave it out of the parameters"
        ),
        PLAIN.replace('{"mean": mean}', '{"mean": mean, "n": 1}'): "loss is given nothing as",
        PLAIN.replace('{"mean": mean}', '{"mean": mean[0]}'): "and returns float32[4]: a step",
        PLAIN.replace('{"mean": mean}', "(mean,)"): "as ['state']['mean'] and returns nothing",
        PLAIN.replace(', {"mean": mean}', ""): "takes `state` and does not return it",
        PLAIN.replace(', {"mean": jnp.zeros((1, 4))}', ""): "and make_model returns none",
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


@pytest.mark.parametrize(
    ("text", "note"),
    {
        PLAIN.replace("jax.random.bernoulli(key, 0.5, logits.shape)", "logits > 0"): (
            "mine.py:7: loss takes `key` and does not use it."
        ),
        PLAIN.replace('{"mean": mean}', "state"): (
            "mine.py:7: loss returns its `state` as it was given: nothing in it changes."
        ),
        "from library import draw\n"
        + PLAIN.replace(
            "jax.random.bernoulli(key, 0.5, logits.shape)", "draw(key, logits.shape)"
        ): (
            "mine.py:11: loss uses a key twice, in library.py:5: what it draws may not be "
            "independent. jax.random.split makes new keys."
        ),
        PLAIN.replace("logits - mean", "jax.random.normal(key, (8, 4)) * logits"): (
            "mine.py:11: loss uses a key twice, in mine.py:11: what it draws may not be "
        ),
        **dict.fromkeys(
            [
                MODEL.replace("- 1)", f"- {made})").replace("def loss", f"{before}\ndef loss")
                for before, made in CONSTANT_DRAWS.items()
            ],
            "mine.py:14: loss draws the same numbers in each step, by a constant key. For dropout, "
            "take `key`.",
        ),
    }.items(),
)
def test_what_is_unusual_in_a_loss_is_told_and_measured(text: str, note: str) -> None:
    Path("library.py").write_text(
        "import jax\n\ndef draw(key, shape):\n"
        "    kept = jax.random.bernoulli(key, 0.5, shape)\n"
        "    return kept & jax.random.bernoulli(key, 0.5, shape)\n"
    )
    sys.modules.pop("library", None)
    told = offered(written(text))
    assert not told.problems
    [remark] = told.notes
    assert remark.startswith(note)
    prove_arm(arms_of("mine"), BASELINE)


def test_an_ordinary_loss_has_no_remarks() -> None:
    assert offered(written(PLAIN)).notes == []
    closed = PLAIN.replace("import jax,", "import jax\nKEY = jax.random.key(1)\nimport jax,")
    closed = closed.replace("logits - mean", "logits - mean + jax.random.normal(KEY, (8, 4))")
    told = offered(written(closed, "closed"))
    assert not told.problems
    assert ["draws the same numbers" in note for note in told.notes] == [True], "of KEY, not of key"


MEMOISED = """
CALLS = []

def make_step():
    real, kept = make_real_step(), {}
    def step(batch):
        CALLS.append(batch)
        if len(CALLS) < FIRST or id(batch) not in kept:
            FORGET
            kept[id(batch)] = real(batch)
        return kept[id(batch)]
    return step
"""
MEMOISED = WHOLE.replace("def make_step", "def make_real_step") + MEMOISED


@pytest.mark.parametrize("forget", ["kept.clear()", "pass"])
def test_a_step_that_keeps_results_by_object_is_told(forget: str) -> None:
    """Those of all objects, or of the last one."""
    text = MEMOISED.replace("FORGET", forget)
    arms, arm = arms_of(written(text.replace("FIRST", "0"), "kept")), Arm("kept", "step")
    with pytest.raises(
        BakeoffError, match=r"^kept.py:\d+: the step returns a kept result when it gets the same"
    ):
        prove_arm(arms, arm)
    arms, arm = arms_of(written(text.replace("FIRST", "60"), "late")), Arm("late", "step")
    prove_arm(arms, arm)
    timed = take_block(arms, [arm])
    assert re.match(r"late.py:\d+: the step returns a kept result", timed.failures[str(arm)])
    assert not timed.samples


def take_block(arms: StepArms, members: list[Arm]) -> Timed:
    """Return a block of 123 calls."""
    command = TimeBlock(arms.workload, "cpu", "step", [*map(str, members)], 40, seed=1)
    return TimedBlock(arms, command, lambda _: None, lambda: 0, str).run()


TWO = (
    MODEL
    + """
optimiser = optax.sgd(RATE)

@jax.jit
def update(params, batch):
    value, gradients = jax.value_and_grad(loss)(params, batch)
    return jax.tree.map(lambda p, g: p - OTHER * g, params, gradients), value

def make_step():
    params, calls, kept = make_model(), 0, {}
    def step(batch):
        nonlocal params, calls
        calls += 1
        if (CHEATS) and batch.shape in kept:
            return kept[batch.shape]
        after, value = update(params, batch)
        if not (SKIPS):
            params = after
        kept[batch.shape] = value
        return value
    return step
"""
)
"""A model, and a whole step that trains it by hand."""


def take_block_of_both(cheats: str = "False", skips: str = "False", **rates: str) -> str:
    """Return in words what is wrong with the whole step after a block; empty if nothing."""
    text = TWO.replace("CHEATS", cheats).replace("SKIPS", skips)
    rate = rates.get("rate", "0.001")
    text = text.replace("RATE", rate).replace("OTHER", rates.get("other", rate))
    arms, arm = arms_of(written(text, "two")), Arm("two", "step")
    prove_arm(arms, BASELINE)
    prove_arm(arms, arm)
    for _ in range(2):
        timed = take_block(arms, [BASELINE, arm])
        assert set(timed.failures) <= {str(arm)}
    return timed.failures.get(str(arm), "")


@pytest.mark.parametrize(
    ("cheats", "skips"),
    [
        ("calls > 60", "False"),
        ("calls > 120", "False"),
        ("False", "calls > 40"),
        ("False", "calls > 40 and calls % 2"),
    ],
    ids=["kept", "kept at the end", "stops", "every second"],
)
def test_a_step_that_does_less_after_its_proof_is_told(cheats: str, skips: str) -> None:
    told = take_block_of_both(cheats, skips)
    assert re.search(r"after 12[0-9] calls its loss is [\d.]+, and the baseline's", told)
    assert "the first 10 were the same. Compute each call anew" in told


@pytest.mark.parametrize(
    "rates",
    [
        {},
        {"rate": "0.5"},  # it has converged by the end of a block
        {"rate": "0.0"},
        {"rate": "lambda n: 0.1 * (n > 12)", "other": "0.0"},
        {"other": "0.002"},  # another training from the first call on: its proof says that
    ],
)
def test_a_step_that_goes_on_as_its_proof_is_not_refused(rates: dict[str, str]) -> None:
    assert not take_block_of_both(**rates)


@pytest.mark.parametrize("rate", ["0.0", "0.1 * (state[1] > 12)"], ids=["never", "warm-up"])
@pytest.mark.parametrize("noise", ["", "+ state[1] % 2", "+ (state[1] % 3 == 0)"])
def test_a_training_that_stands_still_is_not_refused(rate: str, noise: str) -> None:
    """Nor one whose loss alternates, as two networks' do that train in turns."""
    text = WHOLE.replace("[jnp.zeros(4)]", "[jnp.zeros(4), 0]").replace(
        "state[0], loss = update(state[0], batch)",
        f"after, loss = update(state[0], batch)\n"
        f"        state[:] = state[0] + ({rate}) * (after - state[0]), state[1] + 1",
    )
    arms = arms_of(written(text.replace("return loss", f"return loss {noise}"), "still"))
    prove_arm(arms, Arm("still", "step"))


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("return None", "make_step returns None; it has to return a function, which takes"),
        ("return step, state", "make_step returns a tuple; it has to return a function"),
    ],
)
def test_what_make_step_returns_is_a_function(returned: str, problem: str) -> None:
    arms = arms_of(written(WHOLE.replace("return step", returned), "whole"))
    with pytest.raises(BakeoffError, match=rf"^whole.py:\d+: {problem}"):
        prove_arm(arms, Arm("whole", "step"))


LAZY = """
class Lazy:
    def __init__(self, *given):
        self.given = given

    def __float__(self):
        return float(self.given[0](*self.given[1:]))
"""


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ("None", "None"),
        ("loss, state", "a tuple"),
        ("batch", r"an array of shape \(4,\)"),
        ("Lazy(jnp.sum, batch)", "a Lazy"),
    ],
)
def test_what_a_step_returns_is_its_loss(returned: str, what: str) -> None:
    """And not a promise to compute it later, of which nothing would be timed."""
    arms = arms_of(written(LAZY + WHOLE.replace("return loss", f"return {returned}"), "whole"))
    problem = rf"^whole.py:\d+: the step returns {what}; it has to return the loss, one number of"
    with pytest.raises(BakeoffError, match=problem):
        prove_arm(arms, Arm("whole", "step"))


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


def test_a_failure_names_the_line_of_a_user_s_file(tmp_path: Path) -> None:
    path = tmp_path / "nu.py"
    path.write_text("def loss():\n    raise OSError('no such planet')\n")
    scope: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    answer = catch_failure(scope["loss"], str(path))
    assert isinstance(answer, Failed)
    assert answer.failure == "nu.py:2 raised OSError: no such planet"


def test_an_arm_whose_program_another_one_compiles_has_stages_too() -> None:
    name = begun("haiku")
    arms, names = arms_of(name), [str(BASELINE), "haiku/pure"]
    programs = dict.fromkeys(names, "one")
    command = TimeBlock(name, "cpu", STAGES, names, rounds=1, seed=1, programs=programs)
    timed = TimedBlock(arms, command, lambda _: None, int, str).run()
    assert not timed.failures
    assert {str(sample.cell.arm) for sample in timed.samples} == {*names}
