"""From the options of `bakeoff train`, and the file that is resumed, to a training run."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from jaxtyping import Int

    from bench.cli.devices import Devices
    from common.contract import Model, TrainStep
    from common.corpus import Corpus
    from common.weights import Saved


@dataclass(frozen=True)
class TrainingRun:
    """A run put together from options and, where one is resumed, from its file."""

    start: Saved
    corpus: Corpus
    tokens: Int[np.ndarray, " characters"]
    model: Model
    step: TrainStep
    epochs: int
    epoch_mode: str
    sample_every: int
    prompt: str
    devices: Devices


def assemble(
    given: dict[str, Any],
    epochs: int,
    epoch_mode: str,
    sample_every: int,
    prompt: str,
    resume: Path | None,
    devices: Devices,
) -> TrainingRun:
    """Return the run that options ask for; raise BakeoffError before anything is written."""
    import impls
    from bench.cells import read_style
    from common import corpus as corpora
    from common import weights as disk
    from common.config import check_size
    from common.hosts import require_alike
    from common.parallel import Sharded, check_batch
    from common.steps import adamw

    check_size("epochs", epochs, least=0)
    check_size("sample-every", sample_every, least=0)
    if epoch_mode not in ("chunk", "scan"):
        raise BakeoffError(
            f"epoch-mode is {epoch_mode!r}; it must be 'chunk' or 'scan': choose one"
        )
    plain, number, _ = read_style(given["style"] or "")
    if number:
        raise BakeoffError(f"style is {given['style']!r}; give --style {plain} --devices {number}")
    saved = disk.load(resume) if resume else None
    if saved and epochs < saved.epoch:
        raise BakeoffError(
            f"epochs is {epochs}, but the resumed run has done {saved.epoch} already; "
            "it counts those in: give a larger number"
        )
    name = given["corpus"]
    if name is None:
        name = saved.corpus if saved else "synthetic"
    corpus = corpora.load(name)
    if saved and corpus.sha256 != saved.corpus_sha256 and given["corpus"] is None:
        print(f"bakeoff: the text of {name!r} is not the one that was trained on", file=sys.stderr)
    start, model = beginning(saved, given, corpus)
    start.vocab.encode(prompt, "the prompt")
    tokens = start.vocab.encode(corpus.text, f"the corpus {corpus.name!r}")
    if epoch_mode == "scan" and start.style != "pure":
        raise BakeoffError(
            f"epoch-mode 'scan' is given for style {start.style!r}; it is allowed for 'pure', "
            "whose update can be traced as a whole: leave one of the two out"
        )
    if devices.peers:
        require_alike(described(start) | {"epochs": epochs, "epoch mode": epoch_mode})
    style = impls.load(start.entrant).style(start.style, devices.sharing)
    step = style(start.model, adamw(start.optimiser))
    if isinstance(step, Sharded):
        if not impls.declared(start.entrant).jax:
            raise BakeoffError(
                f"entrant {start.entrant!r} is not JAX, and runs on one device: leave --devices "
                "and --processes out"
            )
        check_batch(start.data.batch, step.place.devices)
    return TrainingRun(
        start, corpus, tokens, model, step, epochs, epoch_mode, sample_every, prompt, devices
    )


def beginning(saved: Saved | None, given: dict[str, Any], corpus: Corpus) -> tuple[Saved, Model]:
    """Return where a run begins, and its model.

    What is given replaces what is saved, or the defaults of a new run, whose weights come from the
    entrant's own initialisers.
    """
    import jax

    import impls
    from common.config import DataConfig, ModelConfig, OptimiserConfig
    from common.contract import fresh_checkpoint
    from common.sample import check_seed
    from common.steps import on_host
    from common.vocab import Vocab
    from common.weights import Saved

    if saved is None:
        vocab = Vocab.of(corpus.text)
        start: dict[str, Any] = {"vocab": vocab, "model": ModelConfig(len(vocab))}
        start |= {"data": DataConfig(), "optimiser": OptimiserConfig(), "seed": 0, "epoch": 0}
        start |= {"entrant": impls.BASELINE, "style": "pure"}
    else:
        start = dict(vars(saved))
        for name, value in chosen(given["model"]).items():
            if value != getattr(saved.model, name):
                raise BakeoffError(
                    f"{name} is given as {value}, but the resumed model has "
                    f"{getattr(saved.model, name)}: leave --{name} out, or start a new run"
                )
    if given["entrant"] not in (None, start["entrant"]):
        start["style"] = "pure"  # a style belongs to its library
    start |= chosen({name: given[name] for name in ("seed", "entrant", "style")})
    check_seed(start["seed"])
    for name in ("model", "data", "optimiser"):
        start[name] = replace(start[name], **chosen(given[name]))
    entrant = impls.load(start["entrant"])
    entrant.style(start["style"])
    model = entrant.build(start["model"])
    if saved is None:
        weights = on_host(model.to_weights(model.init(jax.random.key(start["seed"]))))
        start["checkpoint"] = fresh_checkpoint(weights)
    start |= {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
    return Saved(**start), model


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def described(start: Saved) -> dict[str, Any]:
    """Return what JSON can say of a run's beginning: all but weights and vocabulary."""
    unfit = ("checkpoint", "vocab")
    about = {name: value for name, value in vars(start).items() if name not in unfit}
    return about | {name: asdict(about[name]) for name in ("model", "data", "optimiser")}
