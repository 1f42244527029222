"""Overheads: pauses for garbage, and calls of a program with nothing to compute."""

import gc

import jax
import pytest

from bench.worker import overhead
from bench.worker.overhead import (
    copy_state,
    disable_collector,
    measure_collections,
    measure_dispatch,
)


def test_pauses_for_garbage_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is looked at, too; afterwards nothing listens."""
    monkeypatch.setattr(overhead, "COLLECTED_CALLS", 10)
    before = list(gc.callbacks)
    gc.freeze()
    pauses = measure_collections(gc.collect)
    assert pauses["gc_pauses"] == 1000
    assert 0 < pauses["gc_share"] < 1
    assert pauses["gc_longest"] > 0
    assert gc.get_freeze_count() == 0
    assert gc.callbacks == before
    with disable_collector():
        assert measure_collections(bool) == {"gc_pauses": 0, "gc_longest": 0, "gc_share": 0}


def test_an_empty_call_returns_other_arrays_than_it_is_given() -> None:
    assert measure_dispatch(2, 1) > 0
    given = [jax.numpy.zeros(0)]
    assert jax.jit(copy_state)(given, given)[0] is not given[0], "it makes new ones, as a step does"
