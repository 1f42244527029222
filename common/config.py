"""Frozen configurations; each checks itself, so that a wrong number is named where it was given."""

import math
from dataclasses import dataclass

from common.errors import BakeoffError

MAX_SIZE = 1 << 20
"""Largest width, chunk, … accepted: a typo should not ask for a terabyte."""


def check_size(name: str, value: int, least: int = 1, most: int = MAX_SIZE) -> None:
    """Raise BakeoffError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BakeoffError(
            f"{name} is {value!r}; it must be a whole number from {least} to {most}: "
            "give another one"
        )


def check_rate(name: str, value: float, *, zero: bool = False) -> None:
    """Raise BakeoffError unless `value` is finite and positive (or zero, where that means off)."""
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        allowed = "zero or a positive number" if zero else "a positive number"
        raise BakeoffError(f"{name} is {value!r}; it must be {allowed}: give another one")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the character RNN."""

    vocab_size: int
    """Distinct characters: length of the one-hot input and of the logits."""
    width: int = 128
    """Units of each hidden layer."""
    layers: int = 3
    """Tanh layers between the input and the readout."""

    def __post_init__(self) -> None:
        check_size("vocabulary size", self.vocab_size)
        check_size("width", self.width, most=1 << 14)
        check_size("layers", self.layers, most=256)

    @property
    def in_features(self) -> tuple[int, ...]:
        """Rows of each layer's kernel: it reads its own hidden state, then the layer below."""
        below = (self.vocab_size, *[self.width] * (self.layers - 1))
        return tuple(self.width + size for size in below)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW as in the blog; its decay is decoupled, as flax.optim's was."""

    learning_rate: float = 0.002
    """Step size of Adam."""
    weight_decay: float = 1e-7
    """Decoupled decay per step, scaled by the learning rate; zero turns it off."""

    def __post_init__(self) -> None:
        check_rate("learning rate", self.learning_rate)
        check_rate("weight decay", self.weight_decay, zero=True)


@dataclass(frozen=True)
class DataConfig:
    """How an epoch is cut out of a text."""

    chunk: int = 256
    """Characters of one training step; the state is carried from chunk to chunk."""
    batch: int = 1
    """Streams read side by side: each epoch's window is cut into this many pieces."""
    epoch_chars: int = 10_000
    """Characters of one epoch's window, drawn anew for each epoch."""

    def __post_init__(self) -> None:
        check_size("chunk", self.chunk)
        check_size("batch", self.batch, most=1 << 14)
        check_size("epoch characters", self.epoch_chars, least=2, most=1 << 30)


@dataclass(frozen=True)
class Workload:
    """Sizes, corpus and batch that entrants are compared at."""

    name: str
    """What `--workload` selects by."""
    corpus: str
    """Name of the corpus."""
    width: int
    """Units of each hidden layer."""
    chunk: int
    """Characters of one step."""
    batch: int = 1
    """Streams side by side."""
    layers: int = 3
    """Tanh layers."""

    def model(self, vocab_size: int) -> ModelConfig:
        """Return the sizes of this workload's model over a vocabulary of `vocab_size`."""
        return ModelConfig(vocab_size, self.width, self.layers)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("toy", corpus="toy", width=8, chunk=8),
        Workload("seed", corpus="synthetic", width=128, chunk=256),
        Workload("wide", corpus="synthetic", width=512, chunk=64),
        Workload("batched", corpus="synthetic", width=128, chunk=256, batch=8),
    )
}
"""`toy` is dispatch alone, `seed` is the blog's size, the others stretch one size each."""
