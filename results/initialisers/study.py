"""Steps to a target loss from each library's initialiser: trains, or makes tables and a picture.

    python results/initialisers/study.py losses.json --train metamorphosis   # into a new file
    python results/initialisers/study.py losses.json --picture losses.svg    # tables, in Markdown

All entrants compute the same function, so trainings differ by their first weights alone, and plain
JAX's fastest step trains for all. Ten seeds take a minute and a half for each on two cores.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import altair
import jax
import numpy as np
from scipy import stats

import impls
from common import corpus as corpora
from common.chunker import chunks
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import Model, Weights, flat, fresh_checkpoint, zero_hidden
from common.errors import require_new
from common.steps import adamw, move_to_host
from common.train import DivergedError, epochs, make_epoch_scan
from common.versions import versions
from common.vocab import Vocab

NORMAL = "truncated normal, sd 1/√in; bias 0"
FORMULAS = {
    "pure_jax": NORMAL,
    "equinox": "uniform within ±1/√in, bias too: sd 0.58/√in",
    "flax_linen": NORMAL,
    "flax_nnx": NORMAL,
    "haiku": "normal of sd 1/√in, then truncated: sd 0.88/√in; bias 0",
    "stax": "truncated normal, sd √(2/(in+out)); bias normal, sd 0.01",
    "equinox+lecun_normal": NORMAL,
    "haiku+lecun_normal": NORMAL,
}
"""Distribution of each initialiser, as the library's source has it. `in` is what a layer reads: its
own state and the layer below. Truncated: at two standard deviations, and scaled after it. One with
a plus is not the library's default: a patch of this name changes the entrant's file."""
SMOOTHED, LAST = 5, 10
"""Epochs whose mean has to reach a target, and whose mean is the final loss: a single epoch's loss
depends on its part of the text."""
COLUMNS = ("kernel", "bias", "recurrent", "below", "activation")
"""Numbers of a layer before training: size of kernel and bias, largest singular values of the part
that reads the layer's own state and of the other part, standard deviation of the outputs."""


def build(name: str) -> Callable[[ModelConfig], Model]:
    """Return the function that builds a model with an entrant's initialiser, or a patched one."""
    entrant = name.partition("+")[0]
    if name == entrant:
        return impls.load(entrant).build
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "impls", f"{entrant}.py")
        source.parent.mkdir()
        source.write_bytes(impls.source(entrant).read_bytes())
        outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(Path(folder).resolve().parent)}
        patch = ["git", "apply", str(Path(__file__).resolve().with_name(f"{name}.patch"))]
        subprocess.run(patch, cwd=folder, env=outside, check=True)  # noqa: S603 -- our own patch
        return impls.load(source.rename(source.with_stem(name.replace("+", "_")))).build


def train(corpus: str, seeds: int, epoch_count: int) -> dict[str, Any]:
    """Return losses by initialiser, seed and epoch, and the sizes of the first weights."""
    text, data, optimiser = corpora.load(corpus), DataConfig(), OptimiserConfig()
    vocab = Vocab.from_text(text.text)
    tokens, config = vocab.encode(text.text), ModelConfig(len(vocab))
    weights: dict[str, list[Weights]] = {}
    for name in FORMULAS:
        model, keys = build(name)(config), map(jax.random.key, range(seeds))
        weights[name] = [move_to_host(model.to_weights(model.init(key))) for key in keys]
    style, local = impls.load(impls.BASELINE).style("tuned"), threading.local()

    def losses(name: str, seed: int) -> list[float]:
        if not hasattr(local, "step"):  # compiled once for each thread
            local.step = style(config, adamw(optimiser))
            local.run = make_epoch_scan(local.step)
        local.step.load(fresh_checkpoint(weights[name][seed]))
        curve, numbers = [], range(epoch_count)
        with suppress(DivergedError):  # then the curve ends early
            for epoch in epochs(local.run, local.step, tokens, config, data, seed, numbers):
                curve.append(round(epoch.loss, 5))
        print(f"{name}, seed {seed}", file=sys.stderr)
        return curve

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        curves = {name: pool.map(losses, [name] * seeds, range(seeds)) for name in FORMULAS}
    settings: dict[str, Any] = vars(config) | vars(data) | vars(optimiser)
    settings["text"] = {"name": text.name, "sha256": text.sha256, "entropy": text.entropy}
    steps = len(chunks(tokens[: data.epoch_chars], data.chunk).inputs)
    settings |= {"steps": steps, "epochs": epoch_count}
    starts = []
    for name, made in weights.items():
        about = {"name": name, "layers": layers(made, config, tokens[: data.chunk])}
        starts.append(about | {"losses": dict(enumerate(curves[name]))})
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"settings": settings, "starts": starts, "versions": versions(), "when": when}


def layers(seeds: list[Weights], config: ModelConfig, tokens: np.ndarray) -> list[dict[str, Any]]:
    """Return the `COLUMNS` of each layer, bottom up: means over seeds."""
    model, rows = impls.load(impls.BASELINE).build(config), []
    step = jax.jit(model.step)
    for weights in seeds:
        params, state = model.from_weights(weights), tuple(row[0] for row in zero_hidden(config))
        outputs = []
        for token in tokens:
            state, logits = step(params, state, token)
            outputs.append((*state, logits))
        for number, (kernel, bias) in enumerate(flat(weights)):
            parts = np.split(kernel, [config.width if number < config.layers else 0])
            norms = [np.linalg.norm(part, 2) if part.size else 0 for part in parts]
            spread = np.var([output[number] for output in outputs], axis=0).mean() ** 0.5
            rows.append([np.std(kernel), np.square(bias).mean() ** 0.5, *norms, spread])
    means = np.reshape(rows, (len(seeds), -1, len(COLUMNS))).mean(0).tolist()
    return [dict(zip(COLUMNS, mean, strict=True)) for mean in means]


class Curves:
    """Losses from one initialiser by seed and epoch; infinite from where a training diverged."""

    def __init__(self, study: dict[str, Any], number: int) -> None:
        start, self.steps = study["starts"][number], study["settings"]["steps"]
        size, curves = study["settings"]["epochs"], start["losses"].values()
        self.name, self.layers = start["name"], start["layers"]
        self.losses = np.array([curve + [math.inf] * (size - len(curve)) for curve in curves])
        self.final = self.losses[:, -LAST:].mean(1)
        self.width = min(SMOOTHED, size)
        views = np.lib.stride_tricks.sliding_window_view(self.losses, self.width, axis=1)
        self.smoothed = views.mean(-1)

    def steps_to(self, target: float) -> str:
        """Return the median of steps to a target, and how many seeds do not reach it."""
        reached = self.smoothed <= target
        ends = np.where(reached.any(1), np.argmax(reached, axis=1) + self.width, math.inf)
        lacking = int(np.isinf(ends).sum())
        note = f"; not by {lacking} of {len(ends)} seeds" if lacking else ""
        return f"{median(ends * self.steps, ',.0f')}{note}".replace(",", " ")

    def beside(self, other: "Curves", level: float) -> str:
        """Return the mean difference of final losses of the same seeds, with its t interval."""
        if self is other:
            return ""
        low, high = stats.ttest_rel(self.final, other.final).confidence_interval(level)
        text = f"{np.mean(self.final - other.final):+.3f} ({low:+.3f} to {high:+.3f})"
        return f"**{text}**" if low > 0 or high < 0 else f"? {text}"


def median(values: np.ndarray, form: str) -> str:
    """Return a median and its 95 % interval by order statistics, as far as there is one."""
    low, high = stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    middle = np.sort(values)[(values.size - 1) // 2 : values.size // 2 + 1].mean()
    value = format(middle, form).replace("inf", "never")
    upper = f" to {high:{form}}" if math.isfinite(high) else " or more"
    return f"{value} ({low:{form}}{upper})" if math.isfinite(low) else value


def tables(study: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of both tables, in Markdown."""
    starts = [Curves(study, number) for number in range(len(study["starts"]))]
    base, settings, level = starts[0], study["settings"], 1 - 0.05 / (len(starts) - 1)
    by_name = {start.name: start for start in starts}
    middle = np.median(base.smoothed, axis=0)
    ends = (round(part * (middle.size - 1)) for part in (1 / 10, 1 / 3))
    targets = [round(float(middle[end]), 2) for end in ends]  # what plain JAX's median loss reaches
    heads = ("initialiser of", "distribution", *(f"steps to {target:g}" for target in targets))
    yield row(*heads, "final loss", f"beside {base.name}", "beside the default")
    yield row("---", "---", *["--:"] * (len(targets) + 3))
    for start in starts:
        default = by_name[start.name.partition("+")[0]]
        differences = [start.beside(other, level) for other in (base, default)]
        steps = map(start.steps_to, targets)
        final = median(start.final, ".3f")
        yield row(start.name, FORMULAS[start.name], *steps, final, *differences)
    yield ""
    heads = ("recurrent part", "input part", "sd of activations")
    yield row("initialiser of", "layer", "sd of kernel", "gain", "sd of bias", *heads)
    yield row("---", "---", *["--:"] * 6)
    for start in (start for start in starts if start is base or FORMULAS[start.name] != NORMAL):
        for number, layer in enumerate(start.layers, 1):
            sd, bias, recurrent, *others = layer.values()
            readout = number == len(start.layers)
            fan_in = settings["width"] * (not readout)
            fan_in += settings["vocab_size" if number == 1 else "width"]
            numbers = [f"{x:.3g}" for x in (sd, sd * fan_in**0.5, bias, recurrent or 0, *others)]
            numbers[3] *= not readout
            yield row(start.name, "readout" if readout else str(number), *numbers)


def row(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def draw(study: dict[str, Any], path: Path) -> None:
    """Draw the median loss over seeds by epoch, with the middle half, for each initialiser."""
    rows = []
    for number in range(len(study["starts"])):
        start = Curves(study, number)
        quartiles = np.quantile(start.losses, (0.25, 0.5, 0.75), axis=0)
        for epoch, (low, middle, high) in enumerate(quartiles.T.round(4).tolist()):
            point = {"initialiser": start.name, "epoch": epoch}
            rows.append(point | {"low": low, "median": middle, "high": high})
    legend = altair.Legend(symbolOpacity=1)
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("epoch:Q", title="epoch", scale=altair.Scale(nice=False)),
        color=altair.Color("initialiser:N", title=None, sort=list(FORMULAS), legend=legend),
    )
    y = altair.Y("low:Q", title="mean loss, nats per character", scale=altair.Scale(zero=False))
    chart = base.mark_area(opacity=0.15).encode(y=y, y2="high:Q")
    chart += base.mark_line(opacity=0.9).encode(y="median:Q")
    chart = chart.properties(width=640, height=320, title=study["settings"]["text"]["name"])
    chart.configure(background="white").save(str(path), ppi=144)


def main() -> None:
    """Train if that is asked for; print the tables of a file, and draw its picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("losses", type=Path, help="file of the losses")
    parser.add_argument("--train", metavar="CORPUS", help="train on a text, into a new file")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--picture", type=Path, help=".svg or .png of the loss curves")
    options = parser.parse_args()
    if options.train:
        require_new(options.losses, "losses")
        study = train(options.train, options.seeds, options.epochs)
        options.losses.write_text(json.dumps(study))
    study = json.loads(options.losses.read_text("utf-8"))
    if options.picture:
        draw(study, options.picture)
    print("\n".join(tables(study)))


if __name__ == "__main__":
    main()
