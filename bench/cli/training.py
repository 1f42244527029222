"""A training run of `bakeoff train`: put together from options and a resumed file, then trained."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from bench.streams import say
from common.config import MAX_SEED, DataConfig, Device, ModelConfig, OptimiserConfig, check_size
from common.errors import BakeoffError, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from jaxtyping import Int

    from common.contract import Model, TrainStep
    from common.corpus import Corpus
    from common.train import Epoch
    from common.weights import Saved

SAMPLE_LENGTH = 100
"""Characters of a sample after its prompt."""


def use(name: str | None) -> None:
    """Have JAX compute on a backend, or on one device of it, with matrix products in float32.

    To be called before JAX computes anything.

    Args:
        name: `cpu`, `gpu`, `gpu:1`, …; None leaves the choice to JAX.

    Raises:
        BakeoffError: there is no such backend or device here.
    """
    device = None if name is None else Device.of(name)
    import jax

    jax.config.update("jax_default_matmul_precision", "float32")  # as in workers
    if device is not None:
        jax.config.update("jax_platforms", device.backend)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: JAX does not know the name
        reason = f" (jax says: {words_of(error)})" if str(error) else ""
        raise BakeoffError(
            f"backend {name!r} cannot be used here{reason}; `bakeoff doctor` lists those that can"
        ) from error
    if device is not None:
        device.require(len(devices))
        jax.config.update("jax_default_device", devices[device.number])


@dataclass(frozen=True)
class TrainingRun:
    """A run put together from options and, where one is resumed, from its file."""

    start: Saved
    corpus: Corpus
    tokens: Int[np.ndarray, " characters"]
    model: Model
    step: TrainStep
    until: int
    """Epochs in all, those of a resumed run included."""
    sample_every: int
    """Epochs between two samples; 0 for none."""
    prompt: str

    def epochs(self) -> Iterator[Epoch]:
        """Train from the start; yield each epoch when it is done."""
        from common.train import by_chunk, epochs

        start, step = self.start, self.step
        step.load(start.checkpoint)
        numbers = range(start.epoch, self.until)
        return epochs(
            by_chunk(step), step, self.tokens, start.model, start.data, start.seed, numbers
        )

    @property
    def heading(self) -> str:
        """What is trained, on which text."""
        start, entropy = self.start, self.corpus.entropy
        return (
            f"{start.entrant} {start.style}: {start.model.layers} layers of {start.model.width}, "
            f"{start.corpus}, {len(self.corpus.text)} characters, {len(start.vocab)} distinct"
            + ("" if entropy is None else f", entropy {entropy:.4f} nats per character")
        )

    def lines(self, epoch: Epoch) -> str:
        """Return an epoch as the tutorial prints it, with what the model then writes, greedily.

        There is a sample after every `sample_every` epochs, and after the last one.
        """
        text = f"epoch {epoch.number:4d}  loss {epoch.loss:.4f}  {epoch.seconds:.2f} s"
        every, start = self.sample_every, self.start
        if not every or (epoch.number % every and epoch.number != self.until - 1):
            return text
        from common.sample import sample

        params = self.model.from_weights(epoch.checkpoint.weights)
        written = sample(
            *(self.model, params, start.model, start.vocab, self.prompt, SAMPLE_LENGTH),
            seed=start.seed,
        )
        return f"{text}\n{written}"


def prepared(
    given: Mapping[str, Any], resume: Path | None, until: int, sample_every: int, prompt: str
) -> TrainingRun:
    """Return the run that is asked for, before anything is written.

    Args:
        given: Options by their names. They replace what a resumed file has, or the defaults of a
            new run, whose weights come from the entrant's own initialisers.
        resume: A file of weights.
        until: Epochs in all.
        sample_every: Epochs between two samples.
        prompt: Start of samples.

    Raises:
        BakeoffError: an option, the file or the text is wrong.
    """
    import jax

    import impls
    from common import corpus as corpora
    from common import weights as disk
    from common.contract import fresh_checkpoint
    from common.steps import adamw, on_host
    from common.vocab import Vocab

    saved = disk.load(resume) if resume else None
    if saved and until < saved.epoch:
        raise BakeoffError(
            f"epochs is {until}, but the resumed run has done {saved.epoch} already; "
            "it counts those in: give a larger number"
        )
    corpus = corpora.load(given.get("corpus") or (saved.corpus if saved else "synthetic"))
    if saved:
        start = asdict(saved)
        if corpus.sha256 != saved.corpus_sha256 and "corpus" not in given:
            say(f"the text of {corpus.name!r} is not the one that was trained on")
    else:
        vocab = Vocab.of(corpus.text)
        start = {"vocab": vocab, "model": ModelConfig(len(vocab)), "data": DataConfig()}
        start |= {"optimiser": OptimiserConfig(), "seed": 0, "epoch": 0}
        start |= {"entrant": impls.BASELINE, "style": "pure"}
    if given.get("entrant", start["entrant"]) != start["entrant"]:
        start["style"] = "pure"  # a style belongs to its library
    start |= {name: given[name] for name in ("entrant", "style", "seed") if name in given}
    start |= {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
    check_size("seed", start["seed"], least=0, most=MAX_SEED)
    for part in ("model", "data", "optimiser"):
        names = [field.name for field in fields(start[part]) if field.name in given]
        start[part] = replace(start[part], **{name: given[name] for name in names})
    for name in ("width", "layers"):
        if saved and (size := getattr(saved.model, name)) != getattr(start["model"], name):
            raise BakeoffError(
                f"{name} is given as {given[name]}, but the resumed model has {size}: leave "
                f"--{name} out, or start a new run"
            )
    entrant = impls.load(start["entrant"])
    style = entrant.style(start["style"])
    model = entrant.build(start["model"])
    if not saved:
        weights = on_host(model.to_weights(model.init(jax.random.key(start["seed"]))))
        start["checkpoint"] = fresh_checkpoint(weights)
    start["vocab"].encode(prompt, "the prompt")
    tokens = start["vocab"].encode(corpus.text, f"the corpus {corpus.name!r}")
    step = style(start["model"], adamw(start["optimiser"]))
    return TrainingRun(
        disk.Saved(**start), corpus, tokens, model, step, until, sample_every, prompt
    )
