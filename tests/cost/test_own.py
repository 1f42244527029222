"""A training step of a user's own: read, proven, measured, compared, and what is wrong with it."""

import ast
import re
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from msgspec import convert
from msgspec.structs import replace
from uv import find_uv_bin

from bench.cells import BASELINE, Arm, Selection, name_step
from bench.cli import main
from bench.cost.step import OwnCost, advise, document
from bench.engine.process import Place
from bench.engine.task import Environment
from bench.estimates import Estimate
from bench.metrics import HOST, STEP
from bench.offer import Offer
from bench.prepare.sides import choose_cells
from bench.prepare.step import ASKED
from bench.runfile import CellResult, EnvironmentInfo, Results
from bench.runfile.reader import read
from bench.samples import Proof
from bench.track.comparison import Comparison
from bench.worker.offers import describe
from bench.worker.proof import prove_arm
from bench.worker.protocol import Describe
from bench.worker.step_arms import StepArms
from bench.worker.step_file import CarryingStep
from common.errors import BakeoffError
from common.versions import PYTHON
from tests.commands import ROOT, SCAN, command, done_for_real, how
from tests.estimates import added, amount
from tests.report.runs import section

MODEL = """
import jax
import jax.numpy as jnp
import numpy as np
import optax

def make_model():
    return {"w": jnp.full((4, 4), 0.1), "b": jnp.zeros((1, 4))}

def make_batch():
    return np.ones((2, 4), np.float32)

def loss(model, batch):
    return jnp.mean((batch @ model["w"] + model["b"] - 1) ** 2)
"""
WHOLE = """
import jax, jax.numpy as jnp, numpy as np

def make_batch():
    return np.ones(4, np.float32)

update = jax.jit(lambda w, batch: (w - 0.1 * jax.grad(lambda w: jnp.sum((w * batch - 1) ** 2))(w),
                                   jnp.sum((w * batch - 1) ** 2)))

def make_step():
    state = [jnp.zeros(4)]
    def step(batch):
        state[0], loss = update(state[0], batch)
        return loss
    return step
"""
LIBRARIES = [
    pytest.param(name, marks=() if name in ("haiku", "pure_jax") else pytest.mark.slow)
    for name in ("equinox", "flax_nnx", "flax_linen", "haiku", "pure_jax")
]
"""Libraries with a model of their own; those with many styles take long."""
HOW_TO = re.findall(
    r"In place of ([^\n]*) of (\w+):\n\n```python\n(.*?)```",
    (ROOT / "docs" / "your-model.md").read_text("utf-8"),
    re.S,
)
"""Names that a block of the page takes the place of, the library, and the block."""


@pytest.fixture(autouse=True)
def in_its_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "mine") -> str:
    path = Path(f"{name}.py")
    path.write_text(text, "utf-8")
    return name_step(path)


def begun(library: str) -> str:
    main(["new", f"my_{library}", "--model", library])
    return name_step(Path(f"my_{library}.py"))


def arms_of(name: str) -> StepArms:
    return StepArms(Path(f"{name}.py").resolve(), "cpu", donate=False)


def offered(name: str) -> dict[str, Any]:
    return describe(Mock(), Describe([], {name: str(Path(f"{name}.py").resolve())}))


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_style_of_a_new_file_is_the_same_step(library: str) -> None:
    name = begun(library)
    assert len(Path(f"{name}.py").read_text("utf-8").split("\n")) <= 45
    arms = arms_of(name)
    assert arms.file.entrant == library
    named = {"pure", *arms.file.library.styles} - {"flat"}
    assert {arm.style for arm in arms.file.arms} == named
    for arm in arms.file.arms:
        proof = prove_arm(arms, arm)
        assert proof.proof.gradient <= arms.tolerance
        assert proof.proof.whole_step
        assert len(proof.losses) == 10
        counts = {sample.metric: sample.value for sample in proof.samples}
        assert counts["parameter_arrays"] == (6 if library == "flax_nnx" else 8)


DATA = """
def make_batch():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 16)).astype(np.float32), random.integers(4, size=8)

def mean_loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
"""
PLAIN = (
    """
import jax, jax.numpy as jnp, numpy as np, optax

def make_model():
    return {"w": jnp.ones((16, 4)) / 4}, {"mean": jnp.zeros((1, 4))}

def loss(model, batch, *, state, key):
    logits = batch[0] @ model["w"]
    mean = 0.9 * state["mean"] + 0.1 * logits.mean(0, keepdims=True)
    keep = jax.random.bernoulli(key, 0.5, logits.shape)
    return mean_loss(jnp.where(keep, logits - mean, 0), batch[1]), {"mean": mean}
"""
    + DATA
)
"""A model of plain JAX with a state and dropout."""


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
        kept_apart = isinstance(step, CarryingStep)
        assert kept_apart == (carries and arm.style not in arms.file.library.carrying)
    norms = any(word in text for word in ("BatchNorm", "mean = "))
    assert any(map(np.any, arms.baseline_displacement[1])) == norms
    if not carries:
        return
    assert arms.file.takes == ["state", "key"]
    if names:  # of plain JAX, a tuple of dictionaries may be a model
        untaken = text.replace("*, state, key", "s=1, key=1")
        [why] = offered(written(untaken, "untaken"))["problems"].values()
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
    assert offered(name)["styles"]["equinox"] == ["pure", "filter_jit"]
    arms = arms_of(name)
    for arm in arms.file.arms:
        prove_arm(arms, arm)


def test_variables_of_linen_without_a_state_stay_as_they_are() -> None:
    text = Path(f"{begun('flax_linen')}.py").read_text("utf-8").replace('["params"]', "")
    text = text.replace('apply({"params": params}', "apply(params")
    prove_arm(arms_of(written(text, "variables")), BASELINE)


def test_modules_without_variables_may_be_in_two_places() -> None:
    text = Path(f"{begun('flax_nnx')}.py").read_text("utf-8")
    text = text.replace(
        "self.readout = ", "self.a = self.b = nnx.Dropout(0.0)\n        self.readout = "
    )
    assert offered(written(text, "twice"))["notes"] == []


def test_arrays_without_a_gradient_and_shared_variables_are_told() -> None:
    still = MODEL.replace('"b": ', '"mean": jnp.zeros(4), "b": ')
    [note] = offered(written(still))["notes"]
    assert "mine.py: 1 of 3 arrays get no gradient (['mean'])" in note
    linear = still.replace("return jnp.mean(", 'return model["mean"].sum() + jnp.mean(')
    assert not offered(written(linear, "linear"))["notes"], "a constant gradient is one"
    text = Path(f"{begun('flax_nnx')}.py").read_text("utf-8")
    text = text.replace("self.second = nnx.Linear(64, 64, rngs=rngs)", "self.second = self.first")
    told = offered(written(text, "tied"))
    [note] = told["notes"]
    assert "`first` and `second` share a Variable, so jit_tree, jit_partial, jax_jit" in note
    assert set(told["styles"]["flax_nnx"]) == {"pure", "jit", "cached_partial"}


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
        MODEL.replace("make_batch", "batch_of"): "mine.py has no function make_batch; write one",
        MODEL.replace("def loss", "def cost"): "mine.py has no function loss; write one",
        MODEL.replace("jnp.mean(", "("): "loss returns an array of shape (2, 4); it has to be one",
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
        PLAIN.replace("keep, logits - mean", "keep, 0.0"): "no array of the model gets a gradient",
    }.items(),
)
def test_what_is_wrong_with_a_file_is_one_line(text: str, problem: str) -> None:
    told = offered(written(text))
    [why] = told["problems"].values()
    assert problem in why
    assert why.startswith("mine.py")
    assert "\n" not in why
    assert not told["styles"]


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        MODEL.replace("return jnp.", "return jnp.nan * jnp."): "the loss is nan in step 1",
        PLAIN.replace("mean = 0.9", "mean = jnp.nan + 0.9").replace(
            "logits - mean", "logits"
        ): "the state is not a number after 10 steps",
    }.items(),
)
def test_what_is_no_number_is_told(text: str, problem: str) -> None:
    arms = arms_of(written(text))
    with pytest.raises(BakeoffError, match=rf"^mine.py:\d+: {problem}"):
        prove_arm(arms, BASELINE)


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
    assert list(told["unfit"].values()) == [("broken", "1.2.3")]
    [why] = told["problems"].values()
    assert why.startswith(f"broken 1.2.3 does not import with jax {jax.__version__}: ImportError")
    assert "line" not in why


def test_a_file_uses_what_lies_beside_it_and_a_mask() -> None:
    """An optimiser may leave parameters alone, and a batch may have keys of random numbers."""
    Path("beside.py").write_text("WIDTH = 64\n", "utf-8")
    np.save("numbers.npy", np.ones((32, 64), np.float32))
    text = Path(f"{begun('flax_nnx')}.py").read_text("utf-8")
    text = text.replace("import jax\n", "import jax\nfrom beside import WIDTH\n")
    text = text.replace("random.normal(size=(32, 64)).astype(np.float32)", "np.load('numbers.npy')")
    text = text.replace("random.integers(10, size=32)", "(random.integers(10, size=32), KEY)")
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


def test_plain_jax_and_a_whole_step() -> None:
    plain = offered(written(MODEL))
    assert plain["styles"] == {"pure_jax": ["pure"]}
    whole = written(WHOLE, "whole")
    assert offered(whole)["styles"] == {"whole": ["step"], "pure_jax": ["pure"]}
    arms = arms_of(whole)
    losses = prove_arm(arms, Arm(whole, "step")).losses
    assert losses[0] == 4
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("styles", [(), ("pure",), ("whole/step",)])
def test_a_whole_step_alone_is_one_cell_under_its_own_name(styles: tuple[str, ...]) -> None:
    """Also in a history and a bisection, which measure the style `pure` unless told."""
    name = written(WHOLE, "whole")
    offer = convert(offered(name), Offer)
    side = Environment(Place(), EnvironmentInfo(), offer=offer)
    selection = Selection((), styles, (name,), (), (HOST,), {name: str(Path("whole.py").resolve())})
    cells = choose_cells(selection, {"base": side, "new": side})
    assert {tuple(map(str, of_side)) for of_side in cells.values()} == {("whole-step-whole-cpu",)}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["cost", "gone.py"], "there is no Python file gone.py"),
        (["cost", "."], "there is no Python file ."),
        (["cost", "text.py"], "text.py has neither make_model nor make_step"),
        (["cost", "broken.py"], "syntax error in line 1"),
        (["cost", "mine.py", "--arrays", "3"], "leave one of them out"),
        (["cost", "mine.py", "--style", "wrong"], "unknown style 'wrong'"),
        (["ab", "--base", "current", "--step", "mine.py", "--entrant", "haiku"], "--step is"),
        (["ab", "--base", "current", "--entrant", "mine.py"], "is a training step, and no entrant"),
    ],
)
def test_wrong_use(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(MODEL, "utf-8")
    Path("text.py").write_text("x = 1\n", "utf-8")
    Path("broken.py").write_text("def (\n", "utf-8")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert problem in " ".join(error.split())


def results(costs: dict[str, tuple[float, float]], step: float) -> Results:
    """Return a measurement in which styles add so many seconds, and their half widths."""
    arms = [BASELINE, *(Arm("flax_nnx", style) for style in costs)]
    cells = [arm.make_cell("mine", "cpu") for arm in arms]
    rows = [amount(step, cell=cells[0], metric=metric) for metric in ASKED]
    for cell, (value, half) in zip(cells[1:], costs.values(), strict=True):
        about = {"cell": cell, "metric": HOST, "against": "pure_jax/pure"}
        rows.append(added(value, value - half, value + half, **about))
    return Results(kind="cost", cells=[CellResult(cell=cell) for cell in cells], estimates=rows)


def test_the_advice_names_the_cheapest_style_and_what_to_change() -> None:
    costs = {"jit": (6e-4, 2e-5), "jit_partial": (1e-5, 2e-6), "jax_jit": (0.0, 1e-6)}
    advice, change = advise(OwnCost(results(costs, 2.3e-4)))
    assert advice == (
        "At 230 µs a step, write `flax_nnx/jit_partial`: `flax_nnx/jit` adds 600 µs (580 to 620) "
        "to plain JAX's call on one core, and `flax_nnx/jit_partial` 10 µs (8 to 12)."
    )
    assert "- step = nnx.jit(train_step)" in change
    assert "+ step = nnx.jit_partial(train_step, model, optimizer, graph=False)" in change
    advice, change = advise(OwnCost(results(costs, 1.0)))
    assert (advice.count("no other style is worth it"), change) == (1, "")
    unsure = {"jit": (6e-4, 7e-4), "jit_partial": (1e-5, 2e-4)}
    advice, change = advise(OwnCost(results(unsure, 2.3e-4)))
    assert ("no style certainly adds less" in advice, change) == (True, "")
    lacking = results(unsure, 2.3e-4)
    lacking.cells.append(CellResult(cell=Arm("flax_nnx", "pure").make_cell("mine", "cpu")))
    advice, _ = advise(OwnCost(lacking))
    assert advice.endswith("(-100 to 1300). Not measured yet: `flax_nnx/pure`.")
    lacking.estimates = [row for row in lacking.estimates if row.form == "amount"]
    lacking.options.budget_seconds = 60.0
    asked = "`flax_nnx/jit`, `flax_nnx/jit_partial` and `flax_nnx/pure`"
    assert advise(OwnCost(lacking))[0] == f"There was no time for {asked}: give --budget 120."
    only = {"jit": (6e-4, 2e-5)}
    advice, change = advise(OwnCost(results(only, 2.3e-4)))
    assert "write `flax_nnx/flat` (a list of arrays): `flax_nnx/jit` adds" in advice, (
        "the baseline itself, where no usual style is cheaper"
    )
    assert advice.endswith(" on one core, and `flax_nnx/flat` nothing.")
    assert "jax.tree.unflatten(structure, arrays)" in change


def styles_added() -> set[str]:
    """Return the styles of which cost.json has what they add to a call."""
    rows = [row for row in read(Path("cost.json")).results.estimates if row.metric == HOST]
    return {row.cell.style for row in rows if row.form == "added"}


@pytest.mark.slow
def test_a_step_is_measured_shown_and_reported(tmp_path: Path) -> None:
    begun("equinox")
    done_for_real(tmp_path, "cost my_equinox.py --budget 25 -o cost.json")
    added = styles_added()
    for _ in range(3):  # a slow machine has compiled by then, and no more: it goes on
        if not added >= {"filter_jit", "pure"}:
            done_for_real(tmp_path, "cost my_equinox.py --budget 25 --more cost.json -o more.json")
            Path("more.json").replace("cost.json")
            added = styles_added()
    assert added >= {"filter_jit", "pure"}
    shown = how(tmp_path) | {"capture_output": True, "check": True}
    report = subprocess.run(command("report", "cost.json", "--format", "text"), **shown)
    assert "equinox/filter_jit" in report.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_the_installed_tool_compares_in_an_empty_folder(tmp_path: Path) -> None:
    """A wheel is built, and workers of another release find its code."""
    tool = [find_uv_bin(), "tool", "run", "--python", PYTHON, "--from", str(ROOT), "bakeoff"]
    started = how(tmp_path) | {"capture_output": True, "check": False}
    started["env"] = {k: v for k, v in started["env"].items() if not k.startswith("PYTHON")}
    Path("scan.py").write_text(SCAN)
    given = "ab --base jax==0.7.0 --new jax==0.7.1 --step scan.py --metric step -o ab.json"
    done = subprocess.run([*tool, *given.split(), "--budget", "15"], **started)
    assert done.returncode in (0, 1, 2), done.stderr  # in a bad hour, nothing is settled
    results = read(Path("ab.json")).results
    assert {row.cell.workload for row in results.estimates} == {"scan"}
    [computed] = Comparison(results).computation_sentences
    assert computed.startswith("Both sides have the same losses in ten steps")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1.0, 5.0001], "Both sides have the same losses in ten steps: equinox/pure."),
        ([1.0, 4.0], "The state of equinox/pure differs after ten steps: 1 of 2 arrays, by up to "),
        ([1.0], "The state of equinox/pure differs after ten steps: it has 2 and 1 arrays."),
        (None, "Both sides have the same losses in ten steps: equinox/pure."),
    ],
)
def test_sides_whose_states_differ_are_told(state: list[float] | None, words: str) -> None:
    cell, ten = Arm("equinox", "pure").make_cell("mine", "cpu"), [1.0] * 10
    proofs = (Proof(loss=0, gradient=0, trajectory=0, state=n) for n in ([1.0, 5.0], state))
    sides = [
        CellResult(cell=cell, environment=name, proof=proof, losses=ten)
        for name, proof in zip(("base", "new"), proofs, strict=True)
    ]
    row = Estimate(cell=cell, environment="new", metric=STEP, form="amount", value=1.0)
    environments = {"base": EnvironmentInfo(), "new": EnvironmentInfo()}
    made = Results(kind="ab", environments=environments, cells=sides, estimates=[row])
    [computed] = Comparison(made).computation_sentences
    assert computed.startswith(words)


def test_a_document_without_numbers_says_what_is_missing() -> None:
    cell = Arm("flax_nnx", "jit").make_cell("mine", "cpu")
    lacking = CellResult(cell=cell, missing={HOST: "not measured within the budget"})
    cells = [CellResult(cell=BASELINE.make_cell("mine", "cpu")), lacking]
    made = document(Results(kind="cost", cells=cells))
    [line] = section(made, "Not measured").lines
    assert line == "Not measured within the budget: host cost."
    plain = Results(kind="cost", cells=[replace(cells[0], failure="it broke")])
    [failures] = document(plain).sections[:1]
    assert failures.lines == ("pure_jax/pure failed: it broke",)
    assert Selection(files={}).step == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "problem"),
    {
        "import jax\njax.config.update('jax_enable_x64', True)\n" + MODEL: "µs",
        MODEL.replace("return jnp.mean", "n = 1 // (MADE := 0)\n    return jnp.mean"): "divis",
    }.items(),
)
def test_what_is_measured_fails_or_is_set_by_the_file_is_told(
    text: str, problem: str, tmp_path: Path
) -> None:
    Path("mine.py").write_text(text, "utf-8")
    given = command("cost", "mine.py", "--budget", "15")
    done = subprocess.run(given, **how(tmp_path), capture_output=True, check=False)
    assert problem in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
