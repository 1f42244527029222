"""From the options of `bakeoff train`, and the file that is resumed, to a run."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.cli.where import Devices
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from jaxtyping import Int

    from common.contract import Model, TrainStep
    from common.corpus import Corpus
    from common.weights import Saved


ALONE = Devices()


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
    where: Devices = ALONE


def assemble(
    given: dict[str, Any],
    epochs: int,
    epoch_mode: str,
    sample_every: int,
    prompt: str,
    resume: Path | None,
    where: Devices = ALONE,
) -> TrainingRun:
    """Return the run that options ask for; raise BakeoffError before anything is written."""
    from bench.cells import read_style
    from common import corpus as corpora
    from common import weights as disk
    from common.config import check_size
    from common.steps import adamw

    check_size("epochs", epochs, least=0)
    check_size("sample-every", sample_every, least=0)
    if epoch_mode not in ("chunk", "scan"):
        raise BakeoffError(
            f"epoch-mode is {epoch_mode!r}; it must be 'chunk' or 'scan': choose one"
        )
    style, devices, _ = read_style(given["style"] or "")
    if devices:
        raise BakeoffError(f"style is {given['style']!r}; give --style {style} --devices {devices}")
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
    start, model = resumed(saved, given, corpus) if saved else fresh(given, corpus)
    start.vocab.encode(prompt, "the prompt")
    tokens = start.vocab.encode(corpus.text, f"the corpus {corpus.name!r}")
    if epoch_mode == "scan" and start.style != "pure":
        raise BakeoffError(
            f"epoch-mode 'scan' is given for style {start.style!r}; it is allowed for 'pure', "
            "whose update can be traced as a whole: leave one of the two out"
        )
    import impls

    about = asdict(replace(start, checkpoint=None, vocab=None))  # type: ignore[arg-type]
    where.together(about | {"epochs": epochs, "epoch mode": epoch_mode})
    chosen_style = impls.load(start.entrant).style(start.style, where.sharing)
    step = chosen_style(start.model, adamw(start.optimiser))
    if where.devices or where.peers:
        check_shared(start, step)
    return TrainingRun(
        start, corpus, tokens, model, step, epochs, epoch_mode, sample_every, prompt, where
    )


def check_shared(start: Saved, step: TrainStep) -> None:
    """Raise BakeoffError unless the streams of a run can be shared between its devices."""
    import impls
    from common.parallel import Sharded, check_batch

    if not impls.declared(start.entrant).jax:
        raise BakeoffError(
            f"entrant {start.entrant!r} is not JAX, and runs on one device: leave --devices and "
            "--processes out"
        )
    assert isinstance(step, Sharded)
    check_batch(start.data.batch, step.place.devices)


def fresh(given: dict[str, Any], corpus: Corpus) -> tuple[Saved, Model]:
    """Return a run's beginning: weights from the entrant's own initialisers."""
    import jax

    import impls
    from common.config import DataConfig, ModelConfig, OptimiserConfig
    from common.contract import fresh_checkpoint
    from common.sample import check_seed
    from common.steps import on_host
    from common.vocab import Vocab
    from common.weights import Saved

    seed = given["seed"] or 0
    check_seed(seed)
    vocab = Vocab.of(corpus.text)
    config = ModelConfig(len(vocab), **chosen(given["model"]))
    data, optimiser = (
        DataConfig(**chosen(given["data"])),
        OptimiserConfig(**chosen(given["optimiser"])),
    )
    entrant = impls.load(impls.BASELINE if given["entrant"] is None else given["entrant"])
    style = "pure" if given["style"] is None else given["style"]
    entrant.style(style)
    model = entrant.build(config)
    weights = on_host(model.to_weights(model.init(jax.random.key(seed))))
    return Saved(
        checkpoint=fresh_checkpoint(weights),
        vocab=vocab,
        model=config,
        data=data,
        optimiser=optimiser,
        seed=seed,
        epoch=0,
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        entrant=entrant.name,
        style=style,
    ), model


def resumed(saved: Saved, given: dict[str, Any], corpus: Corpus) -> tuple[Saved, Model]:
    """Return a run's beginning from a file; what is given anew replaces what is saved."""
    import impls
    from common.sample import check_seed

    for name, value in chosen(given["model"]).items():
        if value != getattr(saved.model, name):
            raise BakeoffError(
                f"{name} is given as {value}, but the resumed model has "
                f"{getattr(saved.model, name)}: leave --{name} out, or start a new run"
            )
    if given["seed"] is not None:
        check_seed(given["seed"])
    # A style belongs to its library: with another entrant and no style named, it starts as `pure`.
    same = given["entrant"] in (None, saved.entrant)
    entrant = impls.load(saved.entrant if given["entrant"] is None else given["entrant"])
    style = given["style"]
    if style is None:
        style = saved.style if same else "pure"
    entrant.style(style)
    start = replace(
        saved,
        data=replace(saved.data, **chosen(given["data"])),
        optimiser=replace(saved.optimiser, **chosen(given["optimiser"])),
        seed=saved.seed if given["seed"] is None else given["seed"],
        entrant=entrant.name,
        style=style,
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
    )
    return start, entrant.build(start.model)


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
