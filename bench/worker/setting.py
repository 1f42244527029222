"""What a workload means on a backend: sizes, text, and the device that is the default one."""

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


class Setting(NamedTuple):
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


def setting(workload: str, backend: str) -> Setting:
    """Make `backend` the default, and return what `workload` is."""
    use(backend)
    chosen = WORKLOADS[workload]
    corpus = corpora.load(chosen.corpus)
    vocab = Vocab.of(corpus.text)
    return Setting(Case.of(chosen, len(vocab)), corpus, vocab.encode(corpus.text))


def case_of(workload: str, backend: str) -> Case:
    """Make `backend` the default, and return the sizes of `workload`."""
    return setting(workload, backend).case
