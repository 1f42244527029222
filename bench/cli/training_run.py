"""From the options of `bakeoff train`, and the file that is resumed, to a training run."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from jaxtyping import Int

    from common.contract import Model, TrainStep
    from common.corpus import Corpus
    from common.train import Epoch
    from common.weights import Saved

CHUNK, SCAN = "chunk", "scan"
"""Modes of an epoch: a call of the step for each chunk, or one compiled scan over all chunks."""


@dataclass(frozen=True)
class Options:
    """What was asked for; None leaves it to the resumed file, or to the defaults of a new run."""

    entrant: str | None = None
    style: str | None = None
    corpus: str | None = None
    seed: int | None = None
    model: dict[str, int | None] | None = None
    """Fields of `ModelConfig`."""
    data: dict[str, int | None] | None = None
    """Fields of `DataConfig`."""
    optimiser: dict[str, float | None] | None = None
    """Fields of `OptimiserConfig`."""
    epochs: int = 100
    """All epochs, those of a resumed run included."""
    epoch_mode: str = CHUNK
    sample_every: int = 25
    """Epochs between two samples; 0 for none."""
    prompt: str = ""


@dataclass(frozen=True)
class TrainingRun:
    """A run put together from options and, where one is resumed, from its file."""

    start: Saved
    options: Options
    corpus: Corpus
    tokens: Int[np.ndarray, " characters"]
    model: Model
    step: TrainStep

    def epochs(self) -> Iterator[Epoch]:
        """Train from the start; yield each epoch when it is done."""
        from common.train import by_chunk, by_scan, epochs

        start, step = self.start, self.step
        step.load(start.checkpoint)
        run = by_scan(step) if self.options.epoch_mode == SCAN else by_chunk(step)  # type: ignore[arg-type]
        numbers = range(start.epoch, self.options.epochs)
        return epochs(run, step, self.tokens, start.model, start.data, start.seed, numbers)


def assemble(options: Options, resume: Path | None) -> TrainingRun:
    """Return the run that options ask for; raise BakeoffError before anything is written."""
    import impls
    from common import corpus as corpora
    from common import weights as disk
    from common.config import check_size
    from common.steps import adamw

    check_size("epochs", options.epochs, least=0)
    check_size("sample-every", options.sample_every, least=0)
    if options.epoch_mode not in (CHUNK, SCAN):
        raise BakeoffError(
            f"epoch-mode is {options.epoch_mode!r}; it must be '{CHUNK}' or '{SCAN}': choose one"
        )
    saved = disk.load(resume) if resume else None
    if saved and options.epochs < saved.epoch:
        raise BakeoffError(
            f"epochs is {options.epochs}, but the resumed run has done {saved.epoch} already; "
            "it counts those in: give a larger number"
        )
    name = options.corpus or (saved.corpus if saved else "synthetic")
    corpus = corpora.load(name)
    if saved and corpus.sha256 != saved.corpus_sha256 and options.corpus is None:
        print(f"bakeoff: the text of {name!r} is not the one that was trained on", file=sys.stderr)
    start, model = beginning(saved, options, corpus)
    start.vocab.encode(options.prompt, "the prompt")
    tokens = start.vocab.encode(corpus.text, f"the corpus {corpus.name!r}")
    if options.epoch_mode == SCAN and start.style != "pure":
        raise BakeoffError(
            f"epoch-mode '{SCAN}' is given for style {start.style!r}; it is allowed for 'pure', "
            "whose update can be traced as a whole: leave one of the two out"
        )
    step = impls.load(start.entrant).style(start.style)(start.model, adamw(start.optimiser))
    return TrainingRun(start, options, corpus, tokens, model, step)


def beginning(saved: Saved | None, options: Options, corpus: Corpus) -> tuple[Saved, Model]:
    """Return where a run begins, and its model.

    Options replace what was saved, or the defaults of a new run, whose weights come from the
    entrant's own initialisers.
    """
    import jax

    import impls
    from common.config import MAX_SEED, DataConfig, ModelConfig, OptimiserConfig, check_size
    from common.contract import fresh_checkpoint
    from common.steps import on_host
    from common.vocab import Vocab
    from common.weights import Saved

    if saved is None:
        vocab = Vocab.of(corpus.text)
        start: dict[str, Any] = {"vocab": vocab, "model": ModelConfig(len(vocab))}
        start |= {"data": DataConfig(), "optimiser": OptimiserConfig(), "seed": 0, "epoch": 0}
        start |= {"entrant": impls.BASELINE, "style": "pure"}
    else:
        start = asdict(saved)
        for name, value in given(options.model).items():
            if value != getattr(saved.model, name):
                raise BakeoffError(
                    f"{name} is given as {value}, but the resumed model has "
                    f"{getattr(saved.model, name)}: leave --{name} out, or start a new run"
                )
    if options.entrant not in (None, start["entrant"]):
        start["style"] = "pure"  # a style belongs to its library
    start |= given({name: getattr(options, name) for name in ("seed", "entrant", "style")})
    check_size("seed", start["seed"], least=0, most=MAX_SEED)
    for name in ("model", "data", "optimiser"):
        start[name] = replace(start[name], **given(getattr(options, name)))
    entrant = impls.load(start["entrant"])
    entrant.style(start["style"])
    model = entrant.build(start["model"])
    if saved is None:
        weights = on_host(model.to_weights(model.init(jax.random.key(start["seed"]))))
        start["checkpoint"] = fresh_checkpoint(weights)
    start |= {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
    return Saved(**start), model


def given(options: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in (options or {}).items() if value is not None}
