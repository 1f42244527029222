"""`bakeoff cost` of a user's own step, and the published check of what it says."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx
from msgspec.structs import replace
from uv import find_uv_bin

from bench.cells import BASELINE, CONTROL, WHOLE, Arm, Selection
from bench.cli.cost import FirstAnswer
from bench.engine.process import Interpreter
from bench.engine.task import Environment
from bench.estimates import Estimate, Verdict
from bench.metrics import HOST, STEP
from bench.prepare.run import ASKED
from bench.prepare.sides import choose_cells
from bench.report.documents.ab import describe_comparison
from bench.report.documents.cost import advise, describe_costs
from bench.runfile import (
    DISTURBED,
    CellResult,
    EnvironmentInfo,
    Results,
    RunOptions,
    TimeSpent,
)
from bench.runfile.reader import read
from bench.samples import Proof, Sample
from bench.track.own_cost import OwnCost, find_better, find_status
from bench.worker.offers import check_step
from bench.worker.skeleton import OutlineFile, SkeletonFile, describe_trees
from bench.worker.step_arms import StepArms
from bench.worker.step_file import StepFile
from common.versions import PYTHON
from results.cost import truth
from results.cost.models import MODELS
from tests.commands import ROOT, SCAN, command, done_for_real, how, script
from tests.estimates import added, amount, ratio
from tests.report.runs import section
from tests.report.test_renderers import terminal
from tests.worker import step_files
from tests.worker.step_files import MODEL, begun, offered, written

PINNED = ("python", "jax", "jaxlib", "optax", "numpy", "flax")
check = script("results/cost/check.py")
SMALL = [model._replace(layers=2, width=8, batch=4) for model in MODELS]
FILES = {model.file(): model for model in SMALL}

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize("styles", [(), ("pure",), ("whole/step",)])
def test_a_whole_step_alone_is_one_cell_under_its_own_name(styles: tuple[str, ...]) -> None:
    """Also in a history and a bisection, which measure the style `pure` unless told."""
    name = written(step_files.WHOLE, "whole")
    offer = offered(name)
    side = Environment(Interpreter(), EnvironmentInfo(), offer=offer)
    selection = Selection((), styles, (name,), (), (HOST,), {name: str(Path("whole.py").resolve())})
    cells = choose_cells(selection, {"base": side, "new": side})
    assert {tuple(map(str, of_side)) for of_side in cells.values()} == {("whole-step-whole-cpu",)}


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A function as a static part of a tree."""

    value: Any


def results(costs: dict[str, tuple[float, float]], step: float) -> Results:
    """Return a measurement in which styles add so many seconds, and their half widths."""
    arms = [BASELINE, *(Arm("flax_nnx", style) for style in costs)]
    cells = [arm.make_cell("mine.skeleton", "cpu") for arm in arms]
    real = BASELINE.make_cell("mine", "cpu")
    rows = [amount(step, cell=real, metric=metric) for metric in ASKED]
    rows.append(amount(1e-4, cell=cells[0], metric=HOST))
    for cell, (value, half) in zip(cells[1:], costs.values(), strict=True):
        about = {"cell": cell, "metric": HOST, "against": "pure_jax/pure"}
        rows.append(added(value, value - half, value + half, **about))
    results = [CellResult(cell=cell) for cell in (*cells, real)]
    return Results(kind="cost", cells=results, estimates=rows)


def test_the_advice_names_the_cheapest_style_and_what_to_change() -> None:
    costs = {"jit": (6e-4, 2e-5), "jit_partial": (1e-5, 2e-6), "jax_jit": (0.0, 1e-6)}
    advice, change, _ = advise(OwnCost(results(costs, 2.3e-4)))
    assert advice == (
        "Write `flax_nnx/jit_partial`: it adds 10 µs (8 to 12) to a call; `flax_nnx/jit` adds "
        "600 µs (580 to 620)."
    )
    assert "- @nnx.jit" in change
    assert "+ train_step = nnx.jit_partial(train_step, model, optimizer, graph=False)" in change
    advice, change, _ = advise(OwnCost(results(costs, 1.0)))
    assert (advice.count("no other style is worth it"), change) == (1, "")
    unsure = {"jit": (6e-4, 7e-4), "jit_partial": (1e-5, 2e-4)}
    advice, change, _ = advise(OwnCost(results(unsure, 2.3e-4)))
    assert ("no style is known to add less" in advice, change) == (True, "")
    lacking = results(unsure, 2.3e-4)
    lacking.cells.append(CellResult(cell=Arm("flax_nnx", "pure").make_cell("mine.skeleton", "cpu")))
    advice, _, _ = advise(OwnCost(lacking))
    assert advice.endswith("(-100 to 1300) to a call. Not measured yet: `flax_nnx/pure`.")
    lacking.estimates = [row for row in lacking.estimates if row.form == "amount"]
    lacking.options = RunOptions(budget=60.0)
    asked = "`flax_nnx/jit`, `flax_nnx/jit_partial` and `flax_nnx/pure`"
    assert advise(OwnCost(lacking))[0] == f"There was no time for {asked}: give --budget 120."
    needs = {HOST: "not measured (about 21 s needed)", STEP: "not measured (about 9 s needed)"}
    lacking.cells[-1].missing = needs
    assert advise(OwnCost(lacking))[0] == f"There was no time for {asked}: give --budget 90."
    shown = describe_costs(lacking)
    assert (shown.status, find_status(lacking)) == ("open", 2)
    only = {"jit": (6e-4, 2e-5)}
    advice, change, _ = advise(OwnCost(results(only, 2.3e-4)))
    assert advice.startswith("Write `flax_nnx/flat` (a list of arrays): it adds nothing"), (
        "the baseline itself, where no usual style is cheaper"
    )
    assert advice.endswith(" to a call; `flax_nnx/jit` adds 600 µs (580 to 620).")
    assert "jax.tree.unflatten(structure, arrays)" in change


@pytest.mark.parametrize(
    ("added", "factor", "half", "words"),
    [
        (6e-4, 3.0, 0.1, "690 µs here, +575 µs (549 to 601) compared with {}: expect that on this"),
        (6e-4, 0.7, 0.3, "161 µs here, +46 µs (-24 to 116) compared with {}: expect that on this"),
        (6e-5, 0.7, 0.3, "161 µs here, +46 µs (-24 to 116) compared with {}: expect the times a"),
        (6e-4, 0.7, 9.9, "161 µs here; how much the styles differ in it is not known yet."),
    ],
)
def test_a_timed_real_step_says_what_to_expect(
    added: float, factor: float, half: float, words: str
) -> None:
    """What real steps show of a difference is not what a skeleton does."""
    made = results({"jit": (added, 2e-6), "jit_partial": (1e-5, 2e-6)}, 2.3e-4)
    assert any("often a third more" in line for line in describe_costs(made).fine_print) is False
    for style, value, doubt in (("jit", factor, half), ("jit_partial", 0.5, 0.05)):
        cell = Arm("flax_nnx", style).make_cell("mine", "cpu")
        ends = value - doubt, value + doubt
        made.estimates.append(ratio(value, *ends, cell=cell, metric=STEP, verdict=None))
        made.estimates.append(amount(2.3e-4 * value, cell=cell, metric=STEP))
    advice, _, _ = advise(OwnCost(made))
    assert f". Your real step takes {words.format('`flax_nnx/jit_partial`')}" in advice


def test_beside_other_processes_no_larger_budget_is_advised() -> None:
    made = results({"jit": (6e-4, 2e-5)}, 2.3e-4)
    made.estimates = []
    made.cells[1].missing = {HOST: DISTURBED}
    made.options = RunOptions(budget=25.0)
    assert advise(OwnCost(made)).text == (
        "Nothing could be measured in 25 s; other processes had the workers' cores, so measure "
        "again in a quieter hour."
    )


def test_a_first_answer_fits_a_terminal_of_thirty_lines() -> None:
    styles = "jit", "jit_tree", "jax_jit", "cached_partial", "pure", "jit_partial"
    made = results({style: (6e-3 - 1e-3 * n, 1e-4) for n, style in enumerate(styles)}, 2.3e-4)
    made.estimates = [row for row in made.estimates if row.cell.workload != "mine"]
    made.estimates.append(amount(147, cell=made.cells[0].cell, metric="parameter_arrays"))
    tracing = {"metric": "trace", "against": "pure_jax/pure", "verdict": Verdict.INCONCLUSIVE}
    made.estimates.append(ratio(1.1, 0.1, 9.0, cell=made.cells[1].cell, **tracing))
    made.estimates.append(amount(2e-4, cell=made.cells[0].cell, metric="dispatch"))
    made.arguments = ["cost", "--arrays", "147"]
    made.environments = {"": EnvironmentInfo(versions=dict.fromkeys(PINNED, "0.12.12"))}
    made.spent = TimeSpent(wall_seconds=20, processes=6)
    lines = terminal(describe_costs(made), 80).splitlines()
    assert len(lines) <= 30, "the command that README.md begins with"
    assert sum("jit_partial" in line for line in lines) > 5, "each other style has a remedy"
    assert not any("To settle" in line for line in lines), "no table compares traces"
    assert not any("empty arrays" in line for line in lines), "the least is above plain JAX's call"


def test_an_answer_that_is_not_known_is_not_good() -> None:
    by_one = results({"cached_partial": (3e-5, 0.0)}, 2.3e-4)
    [row] = [row for row in by_one.estimates if row.form == "added"]
    ends = {"low": None, "high": None, "level": 2e-4, "workers": 1, "verdict": None}
    by_one.estimates[by_one.estimates.index(row)] = replace(row, **ends)
    shown = describe_costs(by_one)
    name = "`flax_nnx/cached_partial`"
    assert shown.headline == f"At 230 µs a step, {name}: not known yet (one process)."
    assert (shown.status, find_status(by_one)) == ("open", 0)
    plain = results({}, 2.3e-4)
    assert (describe_costs(plain).status, find_status(plain)) == ("good", 0)
    other = Proof(loss=0, gradient=0, trajectory=0.5, equal=False)
    plain.cells.append(CellResult(cell=Arm("mine", WHOLE).make_cell("mine", "cpu"), proof=other))
    shown = describe_costs(plain)
    assert shown.headline.endswith("plain JAX has one style, and `mine/step` cannot be compared.")
    assert shown.status == "open"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("not measured (about 21 s needed)", ": a first answer needs about 21 s; give --budget 40"),
        ("not measured within the budget", "; give --budget 30"),
    ],
)
def test_nothing_measured_is_the_answer_and_has_no_tables(reason: str, words: str) -> None:
    arms = BASELINE, Arm("flax_nnx", "jit")
    cells = [arm.make_cell("mine.skeleton", "cpu") for arm in arms]
    rows = [CellResult(cell=cells[0]), CellResult(cell=cells[1], missing={HOST: reason})]
    nothing = Results(kind="cost", cells=rows, options=RunOptions(budget=15.0))
    shown = describe_costs(nothing)
    assert shown.headline == f"Nothing could be measured in 15 s{words}."
    assert not any(part.tables for part in shown.sections)
    assert not any("same losses" in text for text in shown.fine_print)
    assert (shown.status, find_status(nothing)) == ("open", 2)
    rows[1].failure = "it broke"
    assert find_status(nothing) == 1


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
            line = "cost my_equinox.py --budget 25 --resume cost.json -o more.json"
            done_for_real(tmp_path, line)
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
    [computed] = section(describe_comparison(results), "What is computed").lines
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
    computed, still = section(describe_comparison(made), "What is computed").lines
    assert computed.startswith(words)
    assert still.startswith("equinox/pure: the loss is the same in each of ten steps.")


def test_a_document_without_numbers_says_what_is_missing() -> None:
    cell = Arm("flax_nnx", "jit").make_cell("mine.skeleton", "cpu")
    lacking = CellResult(cell=cell, missing={HOST: "not measured within the budget"})
    cells = [CellResult(cell=BASELINE.make_cell("mine", "cpu")), lacking]
    made = describe_costs(Results(kind="cost", cells=cells))
    [line] = section(made, "Not measured").lines
    assert line == "Not measured within the budget: call."
    assert describe_costs(Results(kind="cost", cells=cells)).warnings == ()
    control = CellResult(cell=Arm("control", "pure").make_cell("mine", "cpu"), losses=[2.0] * 10)
    real = CellResult(cell=lacking.cell._replace(workload="mine"), losses=[2.0] * 10)
    still = [control, real, replace(cells[0], losses=[2.0, 1.0])]
    [warning] = describe_costs(Results(kind="cost", cells=still)).warnings
    assert warning.startswith("flax_nnx/jit: the loss is the same in each of ten steps. Either")
    plain = Results(kind="cost", cells=[replace(cells[0], failure="it broke")])
    [failures] = describe_costs(plain).sections[:1]
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


# The check of `bakeoff cost`: its step files, its second method, and what its tables say


each_model = pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            model, id=model.name, marks=() if model.library == "haiku" else pytest.mark.slow
        )
        for model in FILES.values()
    ],
)


@each_model
def test_both_methods_have_the_same_losses(model: Any) -> None:
    path = Path(f"{model.name}.py")
    path.write_text(model.file(), "utf-8")
    arms = StepArms(StepFile(path.resolve()), "cpu", donate=False)
    assert check_step(OutlineFile(path.resolve())) == []
    assert arms.file.entrant == model.library
    offered = {arm.style for arm in arms.file.arms}
    styles = {style for each in SMALL if each.name == model.name for style in each.styles}
    assert styles <= offered
    expected = arms.compute_losses(arms.make(arms.file.arms[0]))[:3]
    for make in (truth.arrays_alone, *(truth.STYLES[style] for style in styles)):
        step = make(truth.Training(truth.module(path), model.library))
        losses = [float(step(arms.case.data())) for _ in expected]
        assert losses == pytest.approx(expected, rel=1e-4), make
    assert (WHOLE in offered) == (not (model.norm or model.written or model.library == "flax_nnx"))


@each_model
def test_the_second_methods_skeleton_has_the_trees_of_its_real_step(model: Any) -> None:
    """Structures, types, ranks and static parts; and its program takes all that the real one takes.

    A real step may take fewer: Haiku's BatchNorm does not read the averages that it writes.
    """
    path = Path(f"{model.name}.py")
    path.write_text(model.file(), "utf-8")
    real = truth.module(path)
    trees, taken = [], []
    for file in (real, truth.skeleton(real, model.library)):
        training = truth.Training(file, model.library)
        batch = jax.device_put(file.make_batch())
        program = jax.jit(training.update).lower(training.first(), batch)
        whole = nnx.graphdef(training.model) if training.is_nnx else training.merge(training.params)
        program_trees = describe_trees(program, file.optimiser)
        trees.append((program_trees, str(jax.tree.structure(whole))))
        inputs = program.as_text().partition("@main(")[2].partition(") -> ")[0]
        taken.append(inputs.count("%arg"))
    assert trees[0] == trees[1]
    assert taken[0] <= taken[1]
    assert max(leaf.size for leaf in jax.tree.leaves(training.first())) == 1


def test_a_skeletons_optimiser_is_the_same_part_of_trees() -> None:
    """Older releases of Flax have its class in their trees, with each of its functions apart."""
    skeleton = SkeletonFile(Path(f"{begun('equinox')}.py").resolve())
    texts = []
    for optimiser in (skeleton.real_optimiser, skeleton.optimiser):
        parts = type(optimiser)(*map(Static, optimiser))
        program = jax.jit(lambda _, x: x).lower(parts, 1.0)
        texts.append(describe_trees(program, optimiser))
    assert "ExtraArgs" in texts[0][0]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("told", "true", "near", "held", "precise"),
    [
        ([31, 29.5, 32.5], 32, True, True, False),
        ([31, 30.5, 31.5], 33, True, False, True),  # 2 µs
        ([500, 490, 510], 480, True, False, True),  # 5 %
        ([500, 300, 700], 450, False, True, False),
        ([-50, -51, -49], 0, False, False, True),
        ([31, 29, None], 32, True, True, False),
        ([31, None, None], 32, True, False, False),  # of one worker
        (None, 32, False, False, False),
    ],
)
@pytest.mark.parametrize("style", ["jit", WHOLE])
def test_what_is_right(
    told: Any, true: float, near: bool, held: bool, precise: bool, style: str
) -> None:
    """A style is judged by the skeleton, the file's own step by a real one on one core.

    At one speed, also if it was told while the machine took twice as long for a call.
    """
    several = {"added": [true - 0.1, true, true + 0.1], "calls": [50.0] * 3}
    truths = {"one core": several} if style == WHOLE else {"skeleton": several}
    record = {"style": style, "told": told, "call": 50.0, "one core": {"added": [9e9]}} | truths
    assert check.judged(record)[2:] == (near, held)
    assert (check.half_interval(record) <= check.PRECISE) is precise
    slow = told and [None if number is None else 2 * number for number in told]
    late = record | {"told": slow, "call": 100.0}
    assert check.judged(late, at_one_speed=True)[2:] == (near, held)
    several["added"] = [true - 40, true, true + 40]
    assert check.judged(record)[3] == (told is not None and told[1] is not None), "a poor truth"


def test_the_second_method_goes_on_until_it_is_certain_or_has_enough() -> None:
    told = {"jit": {"told": [100.0, 97.0, 103.0]}, "pure": {"told": None}}

    def is_enough(count: int, apart: float) -> bool:
        made = [
            {"style": style, "added": 100.0 + apart * (-1) ** n, "call": 50.0}
            for n in range(count)
            for style in told
        ]
        return bool(check.is_enough(made, told, [*told]))

    assert not is_enough(check.FEWEST_PROCESSES - 2, 0.1), "too few"
    assert is_enough(check.FEWEST_PROCESSES, 1.0)
    assert not is_enough(check.FEWEST_PROCESSES, 3.0), "an error of 1.1 µs, for one of 1.5"
    assert is_enough(check.MOST_PROCESSES, 30.0)


def test_the_published_tables_are_of_the_published_records() -> None:
    folder = ROOT / "results" / "cost"
    text = (folder / check.TABLES).read_text("utf-8")
    assert check.markdown(check.read(folder / check.RECORDS)) == text


def test_the_first_answer_is_told_once_as_soon_as_it_has_intervals() -> None:
    told = list[str]()
    tell = FirstAnswer(0.02, told.append)
    arms = {BASELINE: 1e-3, CONTROL: 1e-3, Arm("equinox", "filter_jit"): 5e-3}

    def sample(arm: Arm, worker: int) -> Sample:
        cell = arm.make_cell("mine.skeleton", "cpu")
        value = arms[arm] * (1 + 1e-3 * (worker % 2) * (arm.style != "pure"))
        return Sample(cell, HOST, value, 24, value, value, worker=worker, block=worker, cores=1)

    samples = [sample(arm, worker) for worker in (1, 2, 3) for arm in arms]
    for count in (0, 3, 9, 9):
        assert not tell(samples[:count]), "there is more to measure"
        assert bool(told) == (count == 9)
    [text] = told
    assert text.startswith("added to a call, so far: equinox/filter_jit +4.00 ms (4.00 to 4.01)")


def test_a_step_whose_loss_is_not_finite_comes_first_and_nothing_is_advised() -> None:
    """As found by ten steps of the real step, with the skeleton's numbers beside it."""
    made = results({"jit": (6e-4, 2e-5), "pure": (2e-5, 2e-6)}, 2.3e-4)
    made.estimates = [row for row in made.estimates if row.cell.workload != "mine"]
    untried = "Your real step was not run, so it is not known whether it works."
    shown = describe_costs(made)
    assert shown.headline.startswith("Write `flax_nnx/pure`: it adds 20 µs")
    assert shown.headline.endswith(f". {untried}")
    assert find_status(made) == 0
    made.cells[-1].failure = "mine.py:20: the loss is nan in step 1"
    shown = describe_costs(made)
    assert shown.headline == "Your real step fails: mine.py:20: the loss is nan in step 1."
    assert (shown.status, find_status(made)) == ("bad", 1)
    assert not section(shown, "Change").lines
    assert not find_better(OwnCost(made), "jit"), "no table advises anything"


def test_a_files_own_step_whose_loss_is_not_finite_comes_first() -> None:
    made = results({"jit": (6e-4, 2e-5), "pure": (2e-5, 2e-6)}, 2.3e-4)
    why = "mine.py:30: the loss is inf in step 3"
    made.cells.append(CellResult(cell=Arm("mine", WHOLE).make_cell("mine", "cpu"), failure=why))
    shown = describe_costs(made)
    assert shown.headline.startswith(f"`mine/step` fails: {why}. Write `flax_nnx/pure`: it adds")
    assert find_status(made) == 1


def test_nothing_is_advised_past_styles_that_are_not_known_yet() -> None:
    made = results({"jit": (6e-4, 2e-5), "pure": (2e-5, 2e-6), "jit_partial": (1e-5, 0)}, 2.3e-4)
    [row] = [row for row in made.estimates if row.cell.style == "jit_partial"]
    unknown = replace(row, low=None, high=None, level=2e-4, workers=1)
    made.estimates[made.estimates.index(row)] = unknown
    cell = Arm("flax_nnx", "cached_partial").make_cell("mine.skeleton", "cpu")
    made.cells.append(CellResult(cell=cell))
    shown = describe_costs(made)
    assert shown.headline == (
        "So far, `flax_nnx/pure` adds least to a call: 20 µs (18 to 22); `flax_nnx/jit` adds "
        "600 µs (580 to 620). Not measured yet: `flax_nnx/jit_partial` and "
        "`flax_nnx/cached_partial`."
    )
    assert shown.status == "open"
    assert not section(shown, "Change").lines


def test_plain_jax_has_the_times_of_its_call_and_step() -> None:
    made = results({}, 2.3e-4)
    shown = describe_costs(made)
    assert shown.headline == (
        "A call takes 100 µs and a step takes 230 µs; there is nothing to choose: plain JAX has "
        "one style."
    )
    [call] = [row for row in made.estimates if row.metric == HOST]
    made.estimates = [call]
    made.cells[-1].missing = {STEP: "not measured within the budget"}
    shown = describe_costs(made)
    assert shown.headline.startswith("A call takes 100 µs; there is nothing to choose")
    assert section(shown, "Not measured").lines[0].startswith("Not measured within the budget: ste")
    assert find_status(made) == 0, "its call has a number"


def test_a_style_whose_real_step_failed_is_not_advised() -> None:
    made = results({"jit": (6e-4, 2e-5), "jit_partial": (1e-5, 2e-6), "pure": (2e-5, 2e-6)}, 2.3e-4)
    real = Arm("flax_nnx", "jit_partial").make_cell("mine", "cpu")
    made.cells.append(CellResult(cell=real, failure="not equal"))
    assert advise(OwnCost(made))[0].startswith("Write `flax_nnx/pure`: it adds 20 µs")
