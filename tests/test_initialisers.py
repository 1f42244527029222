"""`bakeoff initialisers`: trainings equal `bakeoff train`'s; what is said of their curves."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import pytest

import impls
from bench import result_pages
from bench.initialisers import alternatives, document, losses, measure, start, summary, training
from bench.initialisers.alternatives import Named
from bench.initialisers.losses import Layer, Measurement, Settings, Start, Text
from bench.report.charts import picture
from bench.report.table import amount
from bench.worker.settings import ROOT
from common import corpus as corpora
from common.config import ModelConfig, OptimiserConfig
from common.contract import flat, fresh_checkpoint, zero_hidden
from common.steps import adamw
from common.train import by_chunk, epochs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Bakeoff

TOY = corpora.load("toy")
SMALL = {"seeds": 2, "epochs": 3, "width": 8, "layers": 2, "chunk": 16, "epoch_chars": 40}
GIVEN = [
    text for name, value in SMALL.items() for text in (f"--{name.replace('_', '-')}", str(value))
]
SIZES = ModelConfig(64, width=128, layers=3)
SEEDS = 3


@pytest.fixture(scope="module")
def small() -> Measurement:
    settings, tokens = measure.settings_of(TOY, SMALL)
    trainings = measure.Trainings(settings, tokens, measure.usual())
    assert len(list(trainings.run(2))) == len(measure.usual()) * 2
    return trainings.measurement


def test_a_training_is_that_of_its_library(small: Measurement) -> None:
    """Plain JAX's fastest step for all seeds side by side, beside each library's own `pure`."""
    settings, tokens = measure.settings_of(TOY, SMALL)
    config, data = training.model_config(settings), training.data_config(settings)
    for each in small.starts:
        if each.initialiser:
            continue
        entrant = impls.load(each.entrant)
        model, seed = entrant.build(config), 1
        step = entrant.style("pure")(config, adamw(OptimiserConfig()))
        step.load(fresh_checkpoint(training.weights_of(model, seed)))
        done = epochs(by_chunk(step), step, tokens, config, data, seed, range(settings.epochs))
        own = [epoch.loss for epoch in done]
        assert each.losses[seed] == pytest.approx(own, abs=1e-5)


@pytest.fixture(scope="module")
def weights() -> dict[str, list[Any]]:
    found = {}
    for named in measure.usual():
        model = alternatives.build(named)(SIZES)
        found[str(named)] = [training.weights_of(model, seed) for seed in range(SEEDS)]
    return found


VARIANCES = {  # of a kernel's entries, by what a layer reads and gives
    "1/in": lambda rows, _: 1 / rows,
    "1/3in": lambda rows, _: 1 / (3 * rows),
    "0.77/in": lambda rows, _: 0.7737 / rows,  # of a standard normal truncated at 2: its variance
    "2/(in+out)": lambda rows, columns: 2 / (rows + columns),
}
SOURCES = {  # each kernel's variance, and the bias's standard deviation
    "pure_jax": ("1/in", lambda rows: 0.0),
    "equinox": ("1/3in", lambda rows: 1 / math.sqrt(3 * rows)),
    "flax_linen": ("1/in", lambda rows: 0.0),
    "flax_nnx": ("1/in", lambda rows: 0.0),
    "haiku": ("0.77/in", lambda rows: 0.0),
    "stax": ("2/(in+out)", lambda rows: 0.01),
    "equinox+lecun_normal": ("1/in", lambda rows: 0.0),
    "haiku+lecun_normal": ("1/in", lambda rows: 0.0),
}


def test_the_formulas_are_the_libraries(weights: dict[str, list[Any]]) -> None:
    """What `document.FORMULAS` says in words."""
    assert {tuple(Named.of(name)) for name in weights} == set(document.FORMULAS)
    for name, (formula, bias_sd) in SOURCES.items():
        for same in zip(*map(flat, weights[name]), strict=True):
            kernels, biases = (np.stack(arrays) for arrays in zip(*same, strict=True))
            rows, columns = kernels.shape[1:]
            assert np.var(kernels) == pytest.approx(VARIANCES[formula](rows, columns), rel=0.03)
            assert np.std(biases) == pytest.approx(bias_sd(rows), rel=0.15)


def test_starts_of_the_same_distribution_are_found(weights: dict[str, list[Any]]) -> None:
    like = start.alike(weights)
    own = {"pure_jax", "equinox", "haiku", "stax"}
    assert {name: of for name, of in like.items() if not of} == dict.fromkeys(own, "")
    assert {of for name, of in like.items() if name not in own} == {"pure_jax"}


@pytest.mark.parametrize("named", alternatives.others(), ids=str)
def test_a_change_is_a_few_lines_of_the_same_function(named: Named) -> None:
    lines = [line for line in alternatives.diff(named).splitlines() if line[:1] in "+-"]
    assert 3 < len(lines) <= 20
    assert f"--- a/impls/{named.entrant}.py" == lines[0]
    config = ModelConfig(5, width=8, layers=2)
    ours, own = alternatives.build(named)(config), impls.load(named.entrant).build(config)
    made = training.weights_of(ours, 0)
    state = tuple(rows[0] for rows in zero_hidden(config))
    for model in (ours, own):
        _, logits = model.step(model.from_weights(made), state, jnp.int32(3))
        expected = start.activations(made, config, np.array([3]))[-1][0]
        np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_steps_to_a_target() -> None:
    table = np.array(
        [[3, 2, 2, 2, 2, 2, 1, 1.0], [4] * 8, [1] * 8, [2, 2, 2, 2, 2, 2, 2, math.inf]]
    )
    steps = summary.steps_to(table, 2.0, steps=40)  # mean of five epochs
    assert steps.tolist() == [6 * 40, math.inf, 5 * 40, 5 * 40]
    assert summary.steps_to(table[:, :3], 2.5, steps=40).tolist() == [120, math.inf, 120, 120]


def test_a_median_has_the_order_statistics_around_it() -> None:
    """Of ten, the second and the ninth: 97.9 %; the ends of all of them for eight comparisons."""
    values = np.array([5, 3, 8, 1, 9, 2, 7, 4, math.inf, 6.0])
    assert summary.median(values) == (5.5, 2, 9)
    assert summary.median(values, comparisons=7) == (5.5, 1, math.inf)
    assert summary.median(np.array([1.0, math.inf, math.inf])) == (math.inf, -math.inf, math.inf)
    assert summary.median(values[:3]) == (5, -math.inf, math.inf)


def test_medians_are_covered_as_often_as_said() -> None:
    draws = np.random.default_rng(0).exponential(size=(1000, 10))
    intervals = [summary.median(row) for row in draws]
    covered = np.mean([low <= math.log(2) <= high for _, low, high in intervals])
    assert 0.95 <= covered <= 0.995


def planted(epochs: int = 60) -> Measurement:
    """Return a measurement of a start that is slow, one of whose seeds never gets there."""
    rng, at = np.random.default_rng(0), np.arange(epochs)
    settings = Settings(Text("planted", "0"), 5, steps=40, epochs=epochs)

    def made(name: str, initialiser: str, time: float, like: str = "") -> Start:
        curves = {
            seed: [*(1 + 2 * np.exp(-at / time * rng.uniform(0.9, 1.1)) + rng.normal(0, 0.01))]
            for seed in range(10)
        }
        layer = Layer(0.1, 0.0, 1.0, 1.0, 0.1)
        full = f"{name}+{initialiser}" if initialiser else name
        return Start(full, name, initialiser, like, [layer, layer], curves)

    slow = made("equinox", "", 40)
    slow.losses[3] = [3.0] * epochs
    slow.losses[4] = [3.0] * epochs
    starts = [made("pure_jax", "", 8), slow, made("equinox", "lecun_normal", 8, "pure_jax")]
    return Measurement(losses.KIND, losses.VERSION, settings, starts, {"jax": "1"}, "2026-11-26")


def test_a_slow_start_is_called_and_its_lost_seeds_counted() -> None:
    found = planted()
    said = document.document(found, [2.0, 1.2], figures=True)
    text = json.dumps([list(s.lines) for s in said.sections])
    assert "equinox: 2 of 10 seeds do not reach 2 within 2 400 steps." in text
    assert "a loss of 2 takes" in said.headline.lower()
    assert "from equinox's own initialiser" in said.headline
    assert "equinox with lecun_normal, final loss beside equinox's own: -0." in text
    rows = {str(row.cells[0]): row for row in said.sections[0].tables[0].rows}
    assert any("more than 2 400" in str(cell) for cell in rows["equinox"].cells)
    assert rows["equinox"].cells[-1].verdict == "slower"  # type: ignore[union-attr]
    assert rows["equinox with lecun_normal"].cells[-1].verdict == "inconclusive"  # type: ignore[union-attr]
    svg = io.StringIO()
    picture(said.sections[1].figures[0]).save(svg, format="svg")
    assert "lecun_normal" in svg.getvalue()


def test_what_has_diverged_never_gets_there() -> None:
    found = planted()
    found.starts[1].losses[4] = [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
    steps = summary.steps_to(summary.table(found.starts[1], 60), 1.2, steps=40)
    assert steps[4] == math.inf
    assert document.beside(found.starts[1], found.starts[0], found) == ""
    found.starts[1].losses = {seed: [3.0] for seed in range(10)}
    assert document.final(found.starts[1], 60) == "diverged"


def test_seconds_are_those_of_a_published_run() -> None:
    settings = Settings(Text("x", "0"), 64, steps=40)
    run = document.published(settings)
    assert run is not None
    times = document.step_seconds(run, "flax_nnx")
    nnx = Start("flax_nnx", "flax_nnx", "")
    expected = amount(1000 * times["pure"], "s"), f"{amount(1000 * times['jit'], 's')} (`jit`)"
    assert document.seconds(nnx, 1000, 6000, run) == expected
    never = document.seconds(nnx, math.inf, 6000, run)
    assert never[0] == f"more than {amount(6000 * times['pure'], 's')}"
    assert document.published(Settings(Text("x", "0"), 64, steps=40, width=8)) is None


def test_targets_are_what_the_first_start_reaches() -> None:
    first, second = summary.targets(planted())
    assert 1 < second < first < 3


def test_the_file_is_read_back(small: Measurement, tmp_path: Path) -> None:
    losses.write(small, tmp_path / "l.json")
    assert losses.read(tmp_path / "l.json") == small


def test_the_command_keeps_shows_and_goes_on(bakeoff: Bakeoff, tmp_path: Path) -> None:
    corpus = ("--corpus", "toy", *GIVEN)
    done = bakeoff("initialisers", *corpus, "--entrant", "pure_jax", "--save", "l.json")
    assert done.status == 0, done.err
    assert "pure_jax, seed 1" in done.err
    kept = losses.read(tmp_path / "l.json")
    assert [sorted(s.losses) for s in kept.starts] == [[0, 1]]
    del kept.starts[0].losses[1]
    losses.write(kept, tmp_path / "l.json")
    done = bakeoff("initialisers", "--resume", "l.json", "--entrant", "stax", "-o", "page.html")
    assert done.status == 0, done.err
    assert "pure_jax, seed 0" not in done.err
    went_on = losses.read(tmp_path / "l.json")
    assert [(s.name, sorted(s.losses)) for s in went_on.starts] == [
        ("pure_jax", [0, 1]),
        ("stax", [0, 1]),
    ]
    assert went_on.starts[0].losses[0] == kept.starts[0].losses[0]
    shown = bakeoff("initialisers", "--from", "l.json", "--target", "1.5", "--format", "md")
    assert shown.status == 0, shown.err
    assert "steps to 1.5" in shown.out
    other = bakeoff("initialisers", "--resume", "l.json", "--corpus", "synthetic")
    assert (other.status, "other settings (text" in other.err) == (2, True)
    other = bakeoff("initialisers", "--resume", "l.json", "--seeds", "3")
    assert (other.status, "(seeds 3 instead of 2)" in other.err) == (2, True)


def test_the_readme_says_what_was_found() -> None:
    found = losses.read(result_pages.INITIALISERS / "losses" / "metamorphosis.json")
    settings, [target, _] = found.settings, summary.targets(found)
    steps = {
        each.name: summary.steps_to(summary.table(each, settings.epochs), target, settings.steps)
        for each in found.starts
    }
    assert {each.size for each in steps.values()} == {settings.seeds}
    never = {name: int(np.isinf(each).sum()) for name, each in steps.items()}
    middle = {name: summary.median(each).value for name, each in steps.items()}
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert (
        f"from Equinox's default {never['equinox']} of {settings.seeds} trainings on a book do not "
        f"reach a loss of {target:g} within {amount(settings.steps * settings.epochs, 'count')} "
        f"steps; from plain JAX's {settings.seeds - never['pure_jax']} of {settings.seeds} do, "
        f"after {amount(middle['pure_jax'], 'count')} (median). [A few lines]"
    ) in text


def test_a_diff_is_printed(bakeoff: Bakeoff) -> None:
    done = bakeoff("initialisers", "--diff", "equinox+lecun_normal")
    assert done.status == 0
    assert done.out.startswith("--- a/impls/equinox.py\n+++ b/impls/equinox.py\n")


def test_interrupted_trainings_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.cli import initialisers
    from common.errors import InterruptedRunError

    settings, tokens = measure.settings_of(TOY, SMALL)
    trainings = measure.Trainings(settings, tokens, [Named("pure_jax")])
    run = trainings.run

    def cut(workers: int):  # type: ignore[no-untyped-def]
        yield next(run(1))
        raise KeyboardInterrupt

    monkeypatch.setattr(trainings, "run", cut)
    with pytest.raises(InterruptedRunError, match="after 1 of 2 trainings, kept in"):
        initialisers.follow(trainings, tmp_path / "l.json")
    assert sorted(losses.read(tmp_path / "l.json").starts[0].losses) == [0]


def test_every_jax_library_of_this_environment_takes_part() -> None:
    assert [each.entrant for each in measure.usual() if not each.initialiser] == impls.usual()
