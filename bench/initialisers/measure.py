"""A measurement from what is asked for: weights, their sizes, then one training after another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

import impls
from bench.initialisers import start, training
from bench.initialisers.alternatives import Named, build, others
from bench.initialisers.losses import KIND, VERSION, Measurement, Settings, Start, Text
from common.chunker import chunks
from common.config import OptimiserConfig, check_size
from common.errors import BakeoffError
from common.versions import versions
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from jaxtyping import Int

    from bench.initialisers.training import Job
    from common.contract import Weights
    from common.corpus import Corpus

    type Tokens = Int[np.ndarray, " characters"]

MOST_SEEDS, MOST_EPOCHS = 1000, 100_000


def usual() -> list[Named]:
    """Return the starts that are measured where none is named, the baseline first."""
    return [*map(Named, impls.usual()), *others()]


def settings_of(corpus: Corpus, options: dict[str, Any]) -> tuple[Settings, Tokens]:
    """Return what trainings on a text share, and its tokens.

    Args:
        corpus: The text.
        options: Fields of `Settings` that are not the defaults.

    Raises:
        BakeoffError: a number is wrong, or the text is too short.
    """
    vocab = Vocab.of(corpus.text)
    text = Text(corpus.name, corpus.sha256, corpus.entropy)
    settings = Settings(text, len(vocab), steps=0, **options)
    check_size("--seeds", settings.seeds, most=MOST_SEEDS)
    check_size("--epochs", settings.epochs, most=MOST_EPOCHS)
    training.model_config(settings)
    data = training.data_config(settings)
    OptimiserConfig(settings.learning_rate, settings.weight_decay)
    tokens = vocab.encode(corpus.text, f"the corpus {corpus.name!r}")
    if len(tokens) <= data.epoch_chars:
        raise BakeoffError(
            f"the corpus {corpus.name!r} has {len(tokens)} characters, and each epoch reads "
            f"{data.epoch_chars} of them, other ones than before; give a longer text, or a smaller "
            "--epoch-chars"
        )
    steps = len(chunks(tokens[: data.epoch_chars], data.chunk).inputs)
    return msgspec.structs.replace(settings, steps=steps), tokens


def require_same(before: Settings, now: Settings) -> None:
    """Raise BakeoffError unless trainings with these settings belong to the same measurement."""
    changed = [
        f"{name} {getattr(now, name)} instead of {getattr(before, name)}"
        for name in Settings.__struct_fields__
        if getattr(now, name) != getattr(before, name)
    ]
    if now.text.sha256 == before.text.sha256:  # the same, wherever it lies
        changed = [each for each in changed if not each.startswith("text ")]
    if changed:
        raise BakeoffError(
            f"the measurement to go on with has other settings ({'; '.join(changed)}): give the "
            "same, or begin another by --save"
        )


class Trainings:
    """A measurement under way."""

    def __init__(
        self,
        settings: Settings,
        tokens: Tokens,
        named: Sequence[Named],
        before: Measurement | None = None,
    ) -> None:
        """Make the weights of all starts.

        Args:
            settings: That all share.
            tokens: Of the text.
            named: Starts that are asked for.
            before: A measurement to go on with; its starts come first.

        Raises:
            BakeoffError: `before` has other settings.
        """
        self.tokens = tokens
        done: dict[str, dict[int, list[float]]] = {}
        if before is not None:
            require_same(before.settings, settings)
            settings = before.settings
            named = [*(Named(s.entrant, s.initialiser) for s in before.starts), *named]
            done = {each.name: each.losses for each in before.starts}
        config, seeds = training.model_config(settings), range(settings.seeds)
        weights: dict[str, list[Weights]] = {}
        for each in dict.fromkeys(named):
            model = build(each)(config)
            weights[str(each)] = [training.weights_of(model, seed) for seed in seeds]
        like, first = start.alike(weights), tokens[: settings.chunk]
        self.weights = weights
        self.measurement = Measurement(
            KIND,
            VERSION,
            settings,
            [
                Start(
                    name := str(each),
                    *each,
                    like[name],
                    start.layers(weights[name], config, first),
                    done.get(name, {}),
                )
                for each in dict.fromkeys(named)
            ],
            versions(),
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
        )

    @property
    def missing(self) -> list[Job]:
        """What has to be trained, every start's first seed before any second one."""
        starts = self.measurement.starts
        seeds = range(self.measurement.settings.seeds)
        return [(each.name, seed) for seed in seeds for each in starts if seed not in each.losses]

    def run(self, workers: int) -> Iterator[Job]:
        """Train what is missing; yield each when it is in the measurement."""
        losses = {each.name: each.losses for each in self.measurement.starts}

        def weights(job: Job) -> Weights:
            return self.weights[job[0]][job[1]]

        settings = self.measurement.settings
        for job, curve in training.curves(settings, self.tokens, self.missing, weights, workers):
            losses[job[0]][job[1]] = curve
            yield job
