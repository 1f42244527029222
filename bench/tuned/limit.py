"""The least time of a training step: what it has to compute, at the best rates of a machine.

The model is back-propagation through time with ordinary matrix products, in float32. At every
character each layer multiplies its state by its own kernel, forwards and backwards, and the next
product has to wait for it: the chain. All else is known for the whole chunk at once, so it counts
at the best rate of any matrix product: projections between layers, the readout, the gradients of
both by their inputs, and those of all kernels. The first layer reads rows of its kernel, which
counts nothing. Then come the tanh, the exponentials of the softmax, and AdamW's streams of memory.
What only costs more is left out: other elementwise work, activations that leave the cache, loops.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.config import ModelConfig

STREAMS = 7
"""AdamW reads parameters, gradients and two moments, and writes all but gradients."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Counts:
    """What one training step computes."""

    chain: int
    """Products of the state of a layer by its own kernel, forwards and backwards."""
    longest: int
    """Of the chain, those that wait for each other when each layer works beside the others."""
    flops: float
    """Of the products over the whole chunk; a multiplication and an addition are two."""
    tanh: int
    exp: int
    stream_bytes: int
    """What the optimiser reads and writes."""


@dataclass(frozen=True)
class Rates:
    """What some cores do at best together, measured."""

    product_seconds: float
    """Of one product of the chain: the states of all streams by a layer's own kernel."""
    flops: float
    """Of matrix products, a second."""
    tanh: float
    """A second; and so are the others."""
    exp: float
    stream_bytes: float
    """Of arrays of the optimiser's size."""
    memory_bytes: float = 0.0
    """Of arrays that no cache holds. It is in no limit: what leaves the cache only costs more."""


@dataclass(frozen=True)
class Parts:
    """Least seconds of a step's parts."""

    chain: float
    products: float
    elementwise: float
    optimiser: float

    @property
    def total(self) -> float:
        """Seconds of all parts, one after another."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Limit:
    """The least time of a step, in seconds, on one core and on all."""

    one_core: Parts
    """What no program beats that keeps to one core."""
    all_cores: Parts
    """The same work, perfectly shared between all cores."""
    waiting: float
    """Of the longest sequence of products that wait for each other, each over all cores' rows."""

    @property
    def seconds(self) -> float:
        """The lower bound on this machine: neither work nor waiting can take less."""
        return max(self.all_cores.total, self.waiting)

    @property
    def chain_on_one(self) -> float:
        """The bound of a program that runs the chain on one core and all else on all, as XLA's."""
        return self.one_core.chain + self.all_cores.total - self.all_cores.chain


def counts(model: ModelConfig, chunk: int, batch: int) -> Counts:
    """Return what a training step computes.

    With layers beside each other, layer l can begin when the one below has done a character: the
    last one ends after `chunk + layers - 1` products, forwards, and as many backwards.

    Args:
        model: Sizes of the network.
        chunk: Characters of a step.
        batch: Streams side by side.
    """
    width, vocab, layers = model.width, model.vocab_size, model.layers
    rows = chunk * batch
    own = layers * width * width  # gradients of the kernels over the state
    between = 3 * (layers - 1) * width * width  # projection, and its gradients by both factors
    readout = 3 * width * vocab
    return Counts(
        chain=2 * chunk * layers,
        longest=2 * (chunk + layers - 1),
        flops=2.0 * rows * (own + between + readout),
        tanh=rows * width * layers,
        exp=rows * vocab,
        stream_bytes=STREAMS * FLOAT_BYTES * model.parameters,
    )


def parts(work: Counts, rates: Rates) -> Parts:
    """Return the seconds that a step's parts take at given rates."""
    return Parts(
        chain=work.chain * rates.product_seconds,
        products=work.flops / rates.flops,
        elementwise=work.tanh / rates.tanh + work.exp / rates.exp,
        optimiser=work.stream_bytes / rates.stream_bytes,
    )


def least(work: Counts, one: Rates, together: Rates, share_seconds: float) -> Limit:
    """Return the limits of a step.

    Args:
        work: What the step computes.
        one: Rates of one core.
        together: Rates of all cores, each with work of its own.
        share_seconds: Of a product of the chain on one core, of that core's share of the streams.
    """
    return Limit(
        one_core=parts(work, one),
        all_cores=parts(work, together),
        waiting=work.longest * share_seconds,
    )
