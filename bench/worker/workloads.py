"""What a workload means: sizes and text; and the device that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from common import corpus as corpora
from common.config import WORKLOADS
from common.devices import Device
from common.equality import Case
from common.vocab import Vocab

if TYPE_CHECKING:
    from common.corpus import Corpus


class LoadedWorkload(NamedTuple):
    """A workload's sizes and text."""

    case: Case
    corpus: Corpus
    tokens: Any


def use(backend: str) -> None:
    """Make a device of `backend` the default one: the first, or that of the index in `gpu:1`.

    Raises:
        BakeoffError: there is no such device.
    """
    device = Device.of(backend)
    found = jax.devices(device.backend)
    device.require(len(found))
    jax.config.update("jax_default_device", found[device.number])


def load_workload(workload: str) -> LoadedWorkload:
    """Return a workload by its name, its text read."""
    chosen = WORKLOADS[workload]
    corpus = corpora.load(chosen.corpus)
    vocab = Vocab.of(corpus.text)
    return LoadedWorkload(Case.of(chosen, len(vocab)), corpus, vocab.encode(corpus.text))
