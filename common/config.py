"""Frozen configurations; each checks itself, so that a wrong number is named where it was given."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from common.errors import BakeoffError

MAX_SIZE = 1 << 20
"""Largest number accepted for a chunk, a length, …: a typo should not ask for a terabyte."""
MAX_LAYERS = 256
MAX_PARAMETERS = 1 << 28
"""Most weights and biases: one gigabyte in float32, and Adam keeps twice as much beside them."""
MAX_SEED = (1 << 31) - 1
"""Largest seed that both JAX and NumPy take."""
LOSS_TOLERANCE = 1e-6
"""Largest relative difference to the reference's loss with which a style counts as equal."""
GRADIENT_TOLERANCE = 1e-5
"""Largest norm of the difference to an array of the reference's gradient, relative to its norm."""
TRAJECTORY_TOLERANCE = 1e-5
"""Largest difference to the baseline's loss in each of ten steps, in nats per character."""


def check_size(name: str, value: int, least: int = 1, most: int = MAX_SIZE) -> None:
    """Raise BakeoffError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        allowed = f"a whole number from {least} to {most}"
        raise BakeoffError(f"{name} is {value!r}; it must be {allowed}: give another one")


def check_rate(name: str, value: float, *, zero: bool = False) -> None:
    """Raise BakeoffError unless `value` is finite and positive, or zero if that means off."""
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
        check_size("layers", self.layers, most=MAX_LAYERS)
        if self.parameters > MAX_PARAMETERS:
            raise BakeoffError(
                f"width {self.width} and layers {self.layers} make {self.parameters} parameters; "
                f"at most {MAX_PARAMETERS} are allowed: give a smaller width or fewer layers"
            )

    @property
    def in_features(self) -> tuple[int, ...]:
        """Rows of each layer's kernel: it reads its own hidden state, then the layer below."""
        below = (self.vocab_size, *[self.width] * (self.layers - 1))
        return tuple(self.width + size for size in below)

    @property
    def kernels(self) -> tuple[tuple[int, int], ...]:
        """Shapes of all kernels, bottom up, the readout's last."""
        return (*((r, self.width) for r in self.in_features), (self.width, self.vocab_size))

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum((rows + 1) * columns for rows, columns in self.kernels)


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
    """Sizes by which an epoch is cut out of a text."""

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


class Device(NamedTuple):
    """One device of a backend; the name `gpu` is its first, `gpu:1` its second."""

    backend: str
    number: int

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the device with this name; raise BakeoffError if its index is not a number."""
        backend, colon, number = name.partition(":")
        if not backend or (colon and not number.isdecimal()):
            raise BakeoffError(
                f"backend is {name!r}; give its name, or that and a device's index, as in cpu:0"
            )
        return cls(backend, int(number or 0))

    def require(self, count: int) -> None:
        """Raise BakeoffError if the backend, which has `count` devices, lacks this one."""
        if self.number >= count:
            raise BakeoffError(
                f"backend is '{self.backend}:{self.number}', and {self.backend} has {count} "
                f"device{'s' * (count != 1)} here: give {self.backend}:0, for example"
            )


@dataclass(frozen=True)
class Workload:
    """Sizes, corpus and batch that entrants are compared at."""

    name: str
    """Name that `--workload` selects."""
    corpus: str
    """Name of the corpus."""
    width: int
    """Units of each hidden layer."""
    chunk: int
    """Characters of one step."""
    batch: int = 1
    """Streams side by side."""
    learning_rate: float = 0.002
    """Step size of Adam; smaller where training is unstable, which would amplify the last digits of
    ten steps."""
    layers: int = 3
    """Tanh layers."""

    @property
    def work(self) -> int:
        """Multiplications of a step, up to a factor: its time, unless dispatch dominates."""
        return self.width**2 * self.chunk * self.batch * self.layers


SWEEP = tuple(
    Workload(
        f"width{width}",
        corpus="synthetic",
        width=width,
        chunk=64,
        learning_rate=0.002 if width < 256 else 0.25 / width,
    )
    for width in (8, 16, 32, 64, 128, 256, 512, 1024)
)
"""Workloads of growing width, which show where a difference stops mattering; above 128, the
learning rate falls with the width, since training is unstable there."""
DEEP = Workload("depth12", corpus="toy", width=8, chunk=4, layers=12)
"""Workload that shows what each further array costs the host, beside `toy`: the device has next to
nothing to do."""


class Workloads(dict[str, Workload]):
    """Workloads by name; `seedx12` is `seed` with 12 layers, and so on for others."""

    def get(self, name: Any, default: Any = None) -> Any:
        """Return a workload, with another number of layers or not; the default if none is named so.

        Raises:
            BakeoffError: the number of layers is not allowed.
        """
        names, (base, _, layers) = list(self), str(name).rpartition("x")
        if name in names or base not in names or not layers.isdecimal():
            return super().get(name, default)
        check_size(f"the number of layers of {name}", int(layers), most=MAX_LAYERS)
        return replace(self[base], name=name, layers=int(layers))

    def __missing__(self, name: str) -> Workload:
        if name not in self:
            raise KeyError(name)
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None


WORKLOADS = Workloads(
    (workload.name, workload)
    for workload in (
        Workload("toy", corpus="toy", width=8, chunk=8),
        Workload("seed", corpus="synthetic", width=128, chunk=256),
        Workload("wide", corpus="synthetic", width=512, chunk=64, learning_rate=0.0005),
        Workload("batched", corpus="synthetic", width=128, chunk=256, batch=8),
        Workload("crowded", corpus="synthetic", width=128, chunk=256, batch=64),
        *SWEEP,
        DEEP,
    )
)
"""`toy` is dispatch alone, `seed` is the tutorial's size; `wide`, `batched` and `crowded` stretch
one size each, the sweep the width alone, and `depth12` the number of layers."""
