"""`bakeoff cost`: the law in a run, and what it says of a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.cells import BASELINE, CONTROL, TOGETHER, Arm
from bench.cost import advice, measure, prediction
from bench.cost.document import Asked, document, repeated
from bench.cost.fit import arrays_of, cost_table
from bench.cost.measure import MeasuredCost, ModelSpec, beside_rnn, with_check
from bench.cost.prediction import Size
from bench.cost.table import Checked, CostTable, StyleCost, json_of, read_table
from bench.estimates import Arms, Group
from bench.metrics import HOST
from bench.runfile import BakeoffSection
from bench.runfile.reader import Run
from bench.samples import Samples
from bench.stats.law import Range, law
from common import weights
from common.config import WORKLOADS
from common.errors import BakeoffError
from tests.commands import saved

if TYPE_CHECKING:
    from tests.commands import Bakeoff

PLANTED = {"flax_nnx/jit": (5e-5, 9e-5), "equinox/filter_jit": (1e-5, 1.7e-5)}
"""Fixed cost, and cost of each array, in seconds."""
PLAIN = (6e-5, 1e-6)


def run(workers: int = 5, depths: int = 6) -> Run:
    """Return a run whose workers are as fast as they please."""
    rng, samples, number = np.random.default_rng(0), dict[Group, Arms](), 0
    speed = rng.normal(1, 0.1, workers)
    for workload in TOGETHER["depth"][:depths]:
        arms: dict[Any, list[Samples]] = {}
        for worker in range(workers):
            number += 1
            slow = speed[worker] * rng.normal(1, 0.2)  # the same for all arms of a block
            for name in ("/".join(BASELINE), "/".join(CONTROL), *PLANTED):
                fixed, each = PLANTED.get(name, (0.0, 0.0))
                n = arrays_of(workload)
                seconds = PLAIN[0] + fixed + (PLAIN[1] + each) * n
                values = [slow * seconds * rng.normal(1, 0.002)]
                cell = Arm.of(name).at(workload, "cpu")
                arms.setdefault(cell, []).append(Samples(worker, number, 0.0, values))
        samples[Group(HOST, workload, "cpu")] = arms
    return Run("deep", BakeoffSection(cells=[]), samples, when="2026-11-26T00:00:00")


@pytest.fixture(scope="module")
def table() -> CostTable:
    return cost_table([run()])


@pytest.fixture
def file(table: CostTable, tmp_path: Path) -> Path:
    path = tmp_path / "costs.json"
    path.write_text(json_of(table), "utf-8")
    return path


def test_the_law_of_a_run_is_what_was_planted_whatever_the_speed_of_its_blocks(
    table: CostTable,
) -> None:
    assert {f"{s.entrant}/{s.style}" for s in table.styles} == set(PLANTED)
    for style in table.styles:
        _fixed, each = PLANTED[f"{style.entrant}/{style.style}"]
        assert style.each == pytest.approx(each, rel=0.2)  # the level is that of a few workers
        low, high = style.law.of_each[1:]
        assert (high - low) / 2 < 0.03 * style.each, "blocks' speed is no part of the doubt"
        assert len(style.measured) == 6
    ratio = {s.style: s.each for s in table.styles}
    assert ratio["jit"] / ratio["filter_jit"] == pytest.approx(9 / 1.7, rel=0.02)
    assert table.most_arrays == 194


def test_times_of_fresh_processes_grow_with_a_power_of_the_depth() -> None:
    rng, samples = np.random.default_rng(1), dict[Group, Arms]()
    for workload in ("depth3", "depth12", "depth48"):
        layers = WORKLOADS[workload].layers
        arms = {
            Arm.of(name).at(workload, "cpu"): [
                Samples(i, i, 0.0, [scale * layers**power * rng.normal(1, 0.01)]) for i in range(5)
            ]
            for name, scale, power in (("pure_jax/pure", 0.1, 1.5), ("haiku/pure", 0.2, 1.0))
        }
        samples[Group("compile", workload, "cpu")] = arms
    cold = Run("cold", BakeoffSection(cells=[]), samples)
    found = {each.entrant: each for each in cost_table([run(), cold]).growth}
    for name, power, scale in (("pure_jax", 1.5, 0.1), ("haiku", 1.0, 0.2)):
        each = found[name]
        assert each.low < power < each.high
        assert each.power == pytest.approx(power, abs=0.02)
        assert each.seconds == pytest.approx((scale * 3**power, scale * 48**power), rel=0.03)


@pytest.fixture(scope="module")
def with_lines(table: CostTable) -> StyleCost:
    """The cost of `nnx.jit`, with 30 lines for each array at three of its depths."""
    rnn = [
        in_workers(ModelSpec("rnn", n, whole=True), 30 * arrays, arrays, 1e-3, "jit")
        for n in (3, 12, 48)
        for arrays in (arrays_of(f"depth{n}"),)
    ]
    return with_check(table, rnn, "a machine").by_style["flax_nnx", "jit"]


def test_lines_are_those_that_were_counted(with_lines: StyleCost, table: CostTable) -> None:
    assert [point.lines for point in with_lines.measured] == [240, None, 780, None, 2940, None]
    assert with_lines.lines_of_an_array == 30
    for style in table.styles:
        assert (style.lines_of_an_array, style.at_lines(780)) == (None, None), "not counted"


def test_a_model_costs_what_the_rnn_costs_that_runs_as_many_lines(with_lines: StyleCost) -> None:
    first, _, middle, _, last, _ = with_lines.measured
    assert with_lines.at_lines(780) == pytest.approx((middle.seconds, middle.low, middle.high))
    between, beyond = with_lines.at_lines(510), with_lines.at_lines(4000)
    assert between is not None
    assert between.value == pytest.approx((first.seconds + middle.seconds) / 2)
    slope = (last.seconds - middle.seconds) / (2940 - 780)
    assert beyond is not None
    assert beyond.value == pytest.approx(last.seconds + 1060 * slope)


RNN_LINES = [30 * depth for depth in measure.DEPTHS]


def in_workers(model: ModelSpec, lines: int, arrays: int, cost: float, style: str) -> MeasuredCost:
    """Return what three workers measure of different speeds."""
    added = tuple(speed * cost for speed in (1.0, 1.5, 0.8))
    library = "equinox" if style == "filter_jit" else "flax_nnx"
    return MeasuredCost(library, model, arrays, style, lines, added)


def test_other_models_stand_beside_the_rnn_of_the_same_process() -> None:
    def beside(lines: int, *, grow: int = 1, cost: float = 4e-4) -> list[Checked]:
        rnn = [
            in_workers(ModelSpec("rnn", n, whole=True), grow * c, n * 2, 1e-6 * c, "jit")
            for n, c in zip(measure.DEPTHS, RNN_LINES, strict=True)
        ]
        mlp = in_workers(ModelSpec("mlp", 8), grow * lines, 20, cost, "jit")
        return list(beside_rnn([*rnn, mlp]))

    [found] = beside(440)
    assert (found.kind, found.depth, found.library, found.style) == ("mlp", 8, "flax_nnx", "jit")
    assert found.by_lines == pytest.approx((0.1, 0.1, 0.1)), "however fast the worker is"
    assert found.by_arrays == pytest.approx((-0.25, -0.25, -0.25)), "30 lines an array"
    [alike] = beside(440, grow=0)
    assert alike.by_lines is None, "lines do not grow with the RNN"
    assert alike.by_arrays == found.by_arrays
    assert beside(440, cost=-1e-6) == [], "it is not told from plain JAX"
    assert beside(-500) == [], "it is predicted to cost nothing"


def test_a_check_is_kept_beside_the_table(
    file: Path, monkeypatch: pytest.MonkeyPatch, bakeoff: Bakeoff
) -> None:
    models = [ModelSpec("rnn", n, whole=True) for n in measure.DEPTHS]
    found = [
        in_workers(m, c, 2 * m.depth + 2, 1e-6 * c, "jit")
        for m, c in zip(models, RNN_LINES, strict=True)
    ]
    found.append(in_workers(ModelSpec("mlp", 8), 440, 20, 4e-4, "jit"))
    monkeypatch.setattr(measure, "measured", lambda *_: iter(found))
    done = bakeoff("cost", "--check", "--from", str(file), "--format", "json")
    assert (done.status, done.err) == (0, "")
    costs = msgspec.json.decode(done.out, type=CostTable)
    [each] = costs.checked
    assert each.kind == "mlp"
    assert each.by_lines == pytest.approx((0.1, 0.1, 0.1))
    assert costs.checked_machine
    lines = {s.style: [p.lines for p in s.measured] for s in costs.styles}
    assert lines == {"jit": [90, None, 360, 720, 1440, None], "filter_jit": [None] * 6}
    said = bakeoff("cost", "--check", "--from", str(file), "--arrays", "8")
    assert f"Measured on {costs.checked_machine}." in " ".join(said.out.split())


def checked_model(by_lines: float, by_arrays: float, *, whole: bool = False) -> Checked:
    off = (Range(value, value - 0.04, value + 0.04) for value in (by_lines, by_arrays))
    return Checked("mlp", 8, whole, "flax_nnx", "jit", 34, 1000, 1e-3, *off)


def test_how_far_predictions_are_off(table: CostTable, with_lines: StyleCost) -> None:
    found = (
        checked_model(0.1, 0.3),
        checked_model(-0.2, 0.1),
        checked_model(0.4, 0.4, whole=True),
    )
    costs = msgspec.structs.replace(table, styles=(with_lines,), checked=found)
    [row] = prediction.table(costs).rows
    assert (row.cells[0], row.cells[1]) == ("flax_nnx jit", "30.0")
    assert row.cells[2].number == pytest.approx(with_lines.each / 30)  # type: ignore[union-attr]
    assert row.cells[3:] == ("-20 to +10 %", "+40 to +40 %", "+10 to +40 %")
    assert [row.cells[1:] for row in prediction.agreement(costs).rows] == [
        (*("1 of 2", "1 of 2", "1 of 2"), *("1 of 2", "1 of 2", "1 of 2")),
        (*("0 of 1", "0 of 1", "1 of 1"), *("0 of 1", "0 of 1", "1 of 1")),
    ]
    unchecked = prediction.table(msgspec.structs.replace(costs, checked=()))
    assert (len(unchecked.columns), unchecked.notes) == (3, ()), "nothing is said of a check"
    first, *_ = prediction.each_model(costs).rows
    assert (first.cells[0], first.cells[1]) == ("mlp, 8 blocks", "flax_nnx jit")
    assert [str(each) for each in first.cells[2:5]] == ["34", "1 000", "+1.00 ms"]
    assert first.cells[5:] == ("+10 % (6 to 14)", "+30 % (26 to 34)")


def test_ranges_are_by_how_far_predictions_of_other_models_were_off(
    table: CostTable, with_lines: StyleCost
) -> None:
    found = (checked_model(0.1, 0.3), checked_model(-0.2, -0.1))
    costs = msgspec.structs.replace(table, styles=(with_lines,), checked=found)
    by_lines = prediction.predicted(costs, with_lines, Size(34, {"jit": 780}))
    alike = with_lines.at_lines(780)
    assert alike is not None
    assert by_lines == pytest.approx((alike.value, alike.low / 1.1, alike.high / 0.8))
    expected = with_lines.law.at(34)
    for size in (Size(34), Size(34, {"jit_tree": 780})):
        by_arrays = prediction.predicted(costs, with_lines, size)
        ends = expected.low / 1.3, expected.high / 0.9
        assert by_arrays == pytest.approx((expected.value, *ends))
    free = Range(-2e-6, -3e-6, 1e-6)
    assert prediction.Deviation(-0.2, 0.1).around(free) == free, "costs above zero were checked"
    assert prediction.Deviation(-0.2, 0.1).around(Range(1.0, -1.0, 3.0)) == (1.0, -1.0, 3.75)
    alone = msgspec.structs.replace(costs, checked=())
    assert prediction.predicted(alone, with_lines, Size(34)) == with_lines.law.at(34)
    assert prediction.predicted(alone, with_lines, Size(34, {"jit": 780})) == alike


def test_two_runs_stand_side_by_side(table: CostTable) -> None:
    again = msgspec.structs.replace(
        table,
        styles=tuple(msgspec.structs.replace(s, each=1.1 * s.each) for s in table.styles[1:]),
    )
    [row] = repeated(table, again).rows  # of the style that both have
    assert row.cells[0] == table.styles[1].name
    assert row.cells[3] == "+10 %"


def test_changes_are_named_that_save_something(table: CostTable) -> None:
    assert advice.table(table).rows == ()  # no style of the table replaces another
    jit, filtered = ({s.style: s for s in table.styles}[name] for name in ("jit", "filter_jit"))
    tree = msgspec.structs.replace(jit, style="jit_tree", each=jit.each / 2)
    flat = msgspec.structs.replace(filtered, style="flat")  # as dear
    more = msgspec.structs.replace(table, styles=(*table.styles, tree, flat))
    [row] = advice.table(more).rows
    assert row.cells[:2] == ("flax_nnx `jit`", "`jit_tree`")
    assert row.cells[2].number == pytest.approx(jit.each / 2)  # type: ignore[union-attr]


def test_a_table_has_what_its_laws_are_fitted_to(table: CostTable) -> None:
    for style in (*table.styles, *read_table().styles):
        sizes = np.array([point.arrays for point in style.measured], float)
        again = law(sizes, np.array(style.seconds, float), np.array(style.levels))
        assert again is not None
        assert again.covariance == pytest.approx(style.covariance)
        assert (again.fixed, again.each) == pytest.approx((style.fixed, style.each))
        assert again.workers == style.workers


def test_a_table_comes_back_from_its_file(table: CostTable, file: Path) -> None:
    assert read_table(file) == table


def test_too_little_to_fit() -> None:
    for few in (run(workers=2), run(depths=1), run(depths=0)):
        with pytest.raises(BakeoffError, match="no host costs at two depths from three workers"):
            cost_table([few])


def test_what_is_said_of_a_model(table: CostTable) -> None:
    [first, second] = (
        document(table, Asked(Size(147), 0.040), table.styles).sections[0].tables[0].rows
    )
    assert first.cells[0] == "equinox filter_jit"
    style = {s.style: s for s in table.styles}["jit"]
    added = style.fixed + 147 * style.each
    assert second.cells[1].number == pytest.approx(added)  # type: ignore[union-attr]
    assert second.cells[2].number == pytest.approx(added / 0.040)  # type: ignore[union-attr]
    assert second.cells[3].number == 0.0  # type: ignore[union-attr]  # the device may take longer
    assert second.cells[4].number == pytest.approx(added / 0.01)  # type: ignore[union-attr]
    rows = (
        document(table, Asked(Size(147), 0.001, host=2.0), table.styles).sections[0].tables[0].rows
    )
    least = 2 * added - 0.001  # of the host, which the device cannot hide
    assert rows[1].cells[3].number == pytest.approx(least / 0.001)  # type: ignore[union-attr]
    said = " ".join(document(table, Asked(Size(500), 0.04), table.styles).sections[0].lines)
    assert "more is extrapolated" in said


def test_lines_have_a_column_where_they_are_known(table: CostTable) -> None:
    [own] = document(table, Asked(Size(8, {"jit": 780}), 0.01), table.styles).sections[0].tables
    assert [column.title for column in own.columns][:2] == ["style", "Python lines"]
    assert [str(row.cells[1]) for row in own.rows] == ["", "780"]
    [alone] = document(table, Asked(Size(8), 0.01), table.styles).sections[0].tables
    assert "Python lines" not in [column.title for column in alone.columns]


def test_arrays_are_counted_in_weights(file: Path, tmp_path: Path, bakeoff: Bakeoff) -> None:
    save_file({f"w{i}": np.zeros(2, np.float32) for i in range(5)}, tmp_path / "w.safetensors")
    (tmp_path / "mine.py").write_text("import numpy\ndef tree(): return [numpy.ones(2, 'f')] * 3\n")
    save_file({"w": np.zeros(2, np.float16), "steps": np.zeros(1, np.int32)}, tmp_path / "i")
    weights.save(tmp_path / "own", saved())  # with the two moments of each
    own = len(weights.named(saved().checkpoint.weights))
    for model, count in (("w.safetensors", 5), ("mine.py:tree", 3), ("i", 1), ("own", own)):
        done = bakeoff("cost", "--model", f"{tmp_path / model}", "--from", str(file))
        assert (done.status, done.err) == (0, "")
        assert f"{count} parameter arrays" in done.out


@pytest.mark.slow
def test_the_lines_of_a_users_model_are_counted(
    table: CostTable, tmp_path: Path, bakeoff: Bakeoff
) -> None:
    rnn = [
        in_workers(ModelSpec("rnn", n, whole=True), 1000 * n, 2 * n + 2, 1e-3, "filter_jit")
        for n in measure.DEPTHS
    ]
    (tmp_path / "costs.json").write_text(json_of(with_check(table, rnn, "a machine")), "utf-8")
    (tmp_path / "mine.py").write_text(
        "import equinox as eqx, jax\n"
        "def model(): return eqx.nn.MLP(2, 2, 4, 3, key=jax.random.key(0))\n"
    )
    given = ["cost", "--model", f"{tmp_path / 'mine.py'}:model"]
    source = ["--from", str(tmp_path / "costs.json")]
    done = bakeoff(*given, *source)
    assert (done.status, done.err.count("\n")) == (0, 1)
    assert "8 parameter arrays" in done.out
    words = " ".join(done.out.split())
    assert "By the lines of Python that a step runs, on the table's machine." in words
    assert "equinox filter_jit" in done.out
    assert "flax" not in done.out.split("Measured")[0]
    page = bakeoff(*given, *source, "--format", "html")
    assert "By the lines of Python" in page.out
    assert "<input" not in page.out, "numbers to enter are of a law of arrays"


def test_a_model_whose_lines_cannot_be_counted_is_predicted_by_arrays(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bakeoff: Bakeoff
) -> None:
    def counted(*_: object) -> None:
        raise BakeoffError("models in equinox could not be measured: no luck")

    monkeypatch.setattr(measure, "counted", counted)
    (tmp_path / "mine.py").write_text(
        "import equinox as eqx, jax\n"
        "def model(): return eqx.nn.Linear(2, 2, key=jax.random.key(0))\n"
    )
    done = bakeoff("cost", "--model", f"{tmp_path / 'mine.py'}:model", "--from", str(file))
    assert done.status == 0
    assert "no luck; so what follows is by arrays" in done.err
    assert "By arrays alone" in done.out


def test_a_table_that_knows_no_lines_says_so(table: CostTable) -> None:
    [made] = document(table, Asked(Size(8, {"jit": 780}), 0.01), table.styles).sections
    said = " ".join(made.lines)
    assert "By arrays alone: the table does not know what the RNN's lines cost." in said
    assert "20 seconds" not in said, "--here measures a model for longer"


def test_a_model_is_predicted_by_the_lines_that_a_check_has_counted(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bakeoff: Bakeoff
) -> None:
    rnn = [
        in_workers(ModelSpec("rnn", n, whole=True), 1000 * n, 2 * n + 2, 1e-3, "filter_jit")
        for n in measure.DEPTHS
    ]
    own = MeasuredCost("equinox", ModelSpec("mine.py:model"), 2, "filter_jit", 2000)
    monkeypatch.setattr(measure, "measured", lambda *_: iter(rnn))
    monkeypatch.setattr(measure, "counted", lambda *_: [own])
    (tmp_path / "mine.py").write_text(
        "import equinox as eqx, jax\n"
        "def model(): return eqx.nn.Linear(2, 2, key=jax.random.key(0))\n"
    )
    model = f"{tmp_path / 'mine.py'}:model"
    done = bakeoff("cost", "--model", model, "--from", str(file), "--check")
    assert done.status == 0
    assert "By the lines of Python" in done.out


def test_a_style_that_cannot_take_a_model_is_left_out_with_its_reason(table: CostTable) -> None:
    model = ModelSpec("mine.py:net")
    found = [MeasuredCost("flax_nnx", model, 34, "jit", failure="ValueError: shared")]
    made = document(table, Asked(Size(34), 0.01), table.styles, found)
    [section] = made.sections
    assert [row.cells[0] for row in section.tables[0].rows] == ["equinox filter_jit"]
    assert "flax_nnx jit cannot take this model: ValueError: shared" in section.lines
    others = [style for style in table.styles if style.style != "jit"]
    [alone] = document(table, Asked(Size(34), 0.01), others, found).sections
    assert "shared" not in " ".join(alone.lines), "it was not asked for"


@pytest.mark.slow
def test_a_users_model_is_measured_in_the_styles_of_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bakeoff: Bakeoff
) -> None:
    monkeypatch.setattr("bench.cost.measure.SECONDS", 0.1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the machine's lock is
    (tmp_path / "sizes.py").write_text("WIDTH = 2\n")
    (tmp_path / "mine.py").write_text(
        "import equinox as eqx, jax, sizes\n"
        "print('a word of its own')\n"
        "def model(): return eqx.nn.MLP(2, 2, sizes.WIDTH, 3, key=jax.random.key(0))\n"
    )
    model = f"{tmp_path / 'mine.py'}:model"
    done = bakeoff("cost", "--model", model, "--here", "--style", "equinox/filter_jit")
    assert (done.status, done.err.count("/4 equinox")) == (0, 4)
    assert "8 parameter arrays" in done.out
    assert "equinox filter_jit" in done.out
    assert "flax" not in done.out
    assert "a word" not in done.out
    other = bakeoff("cost", "--model", model, "--here", "--style", "flax_nnx/jit")
    assert (other.status, other.out) == (2, "")
    assert "unknown style 'flax_nnx/jit'" in other.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "neither is given"),
        (["--arrays", "0"], "--arrays is 0"),
        (["--arrays", "-3"], "--arrays is -3"),
        (["--arrays", "8", "--step-ms", "0"], "--step-ms is 0"),
        (["--arrays", "8", "--step-ms", "nan"], "--step-ms is nan"),
        (["--arrays", "8", "--model", "x"], "both are given"),
        (["--arrays", "8", "--check", "--from", "old.json"], "and the table is of jax 0.4.1"),
        (["--arrays", "8", "--here"], "the table has no flax_nnx/cached_partial"),
        (["--arrays", "8", *["--from", "costs.json"] * 2], "is a table of costs: give it alone"),
        (["--arrays", "8", "--format", "json"], "JSON has the whole table"),
        (["--model", "missing.safetensors"], "there is no file missing.safetensors"),
        (["--model", "bad.safetensors"], "is no safetensors file"),
        (["--model", "mine.py:raises"], "raised ValueError: no luck"),
        (["--model", "mine.py:nothing"], "has no arrays"),
        (["--model", "mine.py:unknown"], "raised AttributeError"),
        (["--arrays", "8", "--style", "flax_nnx/jet"], "unknown style 'flax_nnx/jet'"),
        (["--arrays", "8", "--from", "missing.json"], "missing.json"),
        (["--arrays", "8", "--from", "bad.safetensors"], "bad.safetensors"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str],
    said: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bakeoff: Bakeoff,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.safetensors").write_text("{}")
    old = msgspec.structs.replace(read_table(file), versions={"jax": "0.4.1"})
    Path("old.json").write_text(json_of(old))
    Path("mine.py").write_text(
        "def raises(): raise ValueError('no luck')\ndef nothing(): return [1, 'a']\n"
    )
    source = [] if "--from" in given else ["--from", str(file)]
    done = bakeoff("cost", *given, *source)
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_it_needs_no_jax(file: Path) -> None:
    code = (
        "import sys; from bench.cli import main\n"
        f"assert main(['cost', '--arrays', '8', '--from', {str(file)!r}]) == 0\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_json_is_the_table(table: CostTable, file: Path, bakeoff: Bakeoff) -> None:
    done = bakeoff("cost", "--from", str(file), "--format", "json")
    assert msgspec.json.decode(done.out, type=CostTable) == table
