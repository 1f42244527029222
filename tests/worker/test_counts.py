"""Exact counts of starts, calls, compilations and lines of code; and overheads of calls."""

import gc
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import impls
from bench.worker import counts
from bench.worker.arms import find_program
from bench.worker.counts import (
    copy_state,
    count_code_lines,
    count_python,
    count_step,
    disable_collector,
    measure_collections,
    measure_dispatch,
    watch_compilations,
)
from common.equality import make
from tests.commands import TOY


def inner() -> None:
    abs(-1)


def outer() -> None:
    inner()
    inner()
    abs(-1)


def generator() -> None:
    for _ in (i for i in "abc"):
        pass


def tree_flatten() -> None:
    inner()


def taken_apart_twice() -> None:
    tree_flatten()
    inner()
    with suppress(KeyError):
        unflatten_badly()
    tree_flatten()


def unflatten_badly() -> None:
    raise KeyError


def told(starts: int | None, calls: int | None, flattening: int | None = 0) -> dict[str, Any]:
    return {"python_starts": starts, "python_calls": calls, "flattening_starts": flattening}


@pytest.mark.parametrize(
    ("call", "starts", "calls"),
    [
        (outer, ["outer", "inner", "inner"], ["inner", "abs", "inner", "abs", "abs"]),
        (generator, ["function", "generator"], ["generator"]),
        (partial(abs, -1), [], []),
    ],
    ids=["nested", "generator", "nothing of our own"],
)
def test_starts_and_calls_by_hand(
    call: Callable[[], Any], starts: list[str], calls: list[str]
) -> None:
    assert count_python(call) == told(len(starts), len(calls))


def test_what_takes_trees_apart_is_counted_with_all_that_it_starts() -> None:
    """Also after a function that raises."""
    ours = count_python(taken_apart_twice)
    assert ours["flattening_starts"] == 2 * 2 + 1
    assert count_python(tree_flatten)["flattening_starts"] == 2


def test_other_threads_are_not_counted() -> None:
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            outer()

    threading.Thread(target=work).start()
    try:
        assert count_python(lambda: time.sleep(0.05)) == told(1, 1)
    finally:
        done.set()


def test_what_is_not_the_same_every_time_is_not_known() -> None:
    done: list[int] = []

    def more_each_time() -> None:
        done.append(0)
        for _ in done:
            inner()

    assert count_python(more_each_time) == told(None, None, None)


@pytest.mark.parametrize("on", [True, False])
def test_everything_is_restored_after_an_exception(
    on: bool, request: pytest.FixtureRequest
) -> None:
    """The first calls are not counted, so it has to fail late."""
    request.addfinalizer(gc.enable if gc.isenabled() else gc.disable)
    (gc.enable if on else gc.disable)()
    collecting = [on] * counts.FILLING_CALLS

    def fails_late() -> None:
        assert gc.isenabled() == collecting.pop()

    with pytest.raises(IndexError):
        count_python(fails_late)
    assert gc.isenabled() == on
    assert sys.monitoring.get_tool(counts.TOOL_ID) is None
    assert count_python(inner) == told(1, 1)


def test_compilations_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody has cleared away the listener, and where JAX says nothing."""
    jitted, programs = jax.jit(lambda x: x + 1), watch_compilations()
    assert programs() == 0
    for size, compiled in ((3, 1), (3, 1), (4, 2)):
        jitted(np.ones(size, np.float32))
        assert programs() == compiled
    jax.monitoring.unregister_event_duration_listener(counts.hear_event)
    programs = watch_compilations()
    jax.jit(lambda: 1)()
    assert programs() == 1
    monkeypatch.setattr(counts, "COMPILE_EVENT", "/no/such/event")
    with pytest.raises(RuntimeError, match="does not say /no/such/event when it compiles"):
        watch_compilations()
    for _ in range(2):
        jax.monitoring.unregister_event_duration_listener(counts.hear_event)


@pytest.mark.parametrize(
    ("entrant", "style", "least", "most", "programs"),
    [
        # Optax's state has three NamedTuples, each made by a lambda and a call of tuple's.
        ("pure_jax", "pure", 1, 9, 1),
        pytest.param("flax_nnx", "cached_partial", 100, 10_000, 1, marks=pytest.mark.slow),
        pytest.param("flax_linen", "blog", 1000, 100_000, 20, marks=pytest.mark.slow),
    ],
)
def test_exact(entrant: str, style: str, least: int, most: int, programs: int) -> None:
    """Within these numbers of starts, and with at least so many programs; again the same.

    That is so whatever was compiled in between, and whichever arrays the process has used.
    """
    step = make(impls.load(entrant).style(style), TOY)
    ours: Any = count_step(step, TOY)
    assert least <= ours["python_starts"] <= most
    assert least <= ours["python_calls"]
    assert ours["compilations_first"] >= programs
    assert ours["compilations_warm"] == 0
    program = find_program(step, TOY)
    assert program is not None
    program.lower().compile()
    assert count_step(step, TOY) == ours


def test_a_step_that_compiles_in_each_call() -> None:
    step: Any = make(impls.load(impls.BASELINE).style("pure"), TOY)
    step.step = lambda *given: (*given[:2], *jax.jit(lambda *values: values)(given[2], 0.0))
    ours: Any = count_step(step, TOY)
    assert ours["compilations_first"] >= counts.FIRST_CALLS
    assert ours["compilations_warm"] == counts.WARM_CALLS
    assert ours["python_starts"] is ours["python_calls"] is None


def test_code_lines_are_counted_without_comments_and_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = """a\nb"""\n"what x is"\n\n\ndef f():\n    "d"\n'
        "    y = (\n        # comment\n        x,\n    )\n    return y\n"
    )
    code = ['x = """a', 'b"""', "def f():", "y = (", "x,", ")", "return y"]
    assert count_code_lines(path) == len(code)


def test_pauses_for_garbage_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is looked at, too; afterwards nothing listens."""
    monkeypatch.setattr(counts, "COLLECTED_CALLS", 10)
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
