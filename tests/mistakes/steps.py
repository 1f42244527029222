"""Steps that do less, or something else, than plain JAX's update, each in a style."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from common.compatibility import tree_get, tree_set
from common.loss import scan_loss
from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
PATIENCE = 3
"""Calls with the same inputs that are computed."""
LOSSES = 20
"""Calls of one step with the same chunk whose own loss is returned."""
FROM = 31
"""Call after a load that leaves its update out."""
EVERY = 25
"""Calls after which a style forgets what it has compiled."""
REBUILD_SECONDS = 0.05


def around(mistake: Any) -> Any:
    """Return a style of plain JAX's update with something around it.

    Args:
        mistake: Returns the function that is called in place of the update, given a function that
            makes a new update.
    """

    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)
        new = lambda: jax.jit(pure_update(model, optimiser))  # noqa: E731
        return functional(mistake(new), model, optimiser, stages_of(new()))

    return style


# Results that are kept.


def kept_by(choose: Any) -> Any:
    """Return a mistake that keeps results by the content of some of its inputs."""

    def mistake(new: Any) -> Any:
        update, kept = new(), dict[bytes, Any]()

        def cached(*inputs: Any) -> Any:
            leaves = jax.tree.leaves(choose(*inputs))
            name = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
            if name not in kept:
                kept[name] = update(*inputs)
            return kept[name]

        return cached

    return mistake


def by_identity(new: Any) -> Any:
    """Keep results by the identity of inputs, which a benchmark does not change."""
    update, seen = new(), dict[tuple[int, int], tuple[int, Any, Any]]()

    def cached(state: Any, hidden: Any, chunk: Any) -> Any:
        name = id(hidden), id(chunk)
        calls, kept, _ = seen.get(name, (0, None, None))
        if calls < PATIENCE:
            kept = update(state, hidden, chunk)
        seen[name] = calls + 1, kept, (hidden, chunk)
        return kept

    return cached


# Updates that are left out.


def never_updates(new: Any) -> Any:
    """Return the loss alone."""
    update = new()

    def forward(state: Any, hidden: Any, chunk: Any) -> Any:
        _, hidden, loss = update(state, hidden, chunk)
        return state, hidden, loss

    return forward


def sometimes_updates(new: Any) -> Any:
    """Make an update in every other call."""
    update, calls = new(), 0

    def sometimes(state: Any, hidden: Any, chunk: Any) -> Any:
        nonlocal calls
        calls += 1
        after, hidden, loss = update(state, hidden, chunk)
        return (after if calls % 2 else state), hidden, loss

    return sometimes


def leaves_out(count_on: bool, last: int) -> Any:
    """Return a style that leaves some updates out.

    Args:
        count_on: Whether they are counted all the same.
        last: Call before which they are left out.
    """

    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)
        update, calls = jax.jit(pure_update(model, optimiser)), 0

        def skipping(state: Any, hidden: Any, chunk: Any) -> Any:
            nonlocal calls
            calls += 1
            after, hidden, loss = update(state, hidden, chunk)
            if not FROM <= calls < last:
                return after, hidden, loss
            params, opt_state = state
            if count_on:
                opt_state = tree_set(opt_state, count=tree_get(after[1], "count"))
            return (params, opt_state), hidden, loss

        step = functional(skipping, model, optimiser, stages_of(update))
        usual_load = step.load

        def load(checkpoint: Any) -> None:
            nonlocal calls
            calls = 0
            usual_load(checkpoint)

        step.load = load  # type: ignore[method-assign]
        return step

    return style


# Another result.


def old_loss(new: Any) -> Any:
    """Train as it should, and return from many calls with one chunk a loss from before."""
    update, calls, last, kept = new(), 0, None, None

    def with_old_loss(state: Any, hidden: Any, chunk: Any) -> Any:
        nonlocal calls, last, kept
        calls, last = (calls + 1 if chunk is last else 0), chunk
        state, hidden, loss = update(state, hidden, chunk)
        kept = loss if calls < LOSSES else kept
        return state, hidden, kept

    return with_old_loss


def returns(change: Any) -> Any:
    """Return a mistake that changes the hidden state and the loss that are returned."""

    def mistake(new: Any) -> Any:
        update = new()

        def other(state: Any, hidden: Any, chunk: Any) -> Any:
            state, hidden, loss = update(state, hidden, chunk)
            return state, *change(hidden, loss)

        return other

    return mistake


SHARED: dict[Any, Any] = {}


def shares_state(config: Any, optimiser: Any) -> Any:
    """Keep the state in a global variable, which all steps of these sizes share."""
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    step = functional(update, model, optimiser, stages_of(update))
    usual_load = step.load

    def load(checkpoint: Any) -> None:
        usual_load(checkpoint)
        SHARED[config] = step.state

    def with_shared(state: Any, hidden: Any, chunk: Any) -> Any:
        SHARED[config], hidden, loss = update(SHARED[config], hidden, chunk)
        return SHARED[config], hidden, loss

    step.load, step.update = load, with_shared  # type: ignore[method-assign]
    return step


# Work at another time.


def postponed(begin: Any) -> Any:
    """Return a style that returns the loss at once and makes the update after that.

    Args:
        begin: Given the update as a function without arguments; returns a function that finishes
            it, which is called before the state is read.
    """

    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser))
        inner = functional(update, model, optimiser, stages_of(update))

        @jax.jit
        def forward(params: Any, hidden: Any, chunk: Any) -> Any:
            loss, hidden = scan_loss(partial(model.step, params), hidden, chunk)
            return hidden, loss

        class Postponed:
            finish: Any = None

            def finished(self) -> None:
                if self.finish is not None:
                    self.finish()
                self.finish = None

            def load(self, checkpoint: Any) -> None:
                self.finished()
                inner.load(checkpoint)

            def save(self) -> Any:
                self.finished()
                return inner.save()

            def __call__(self, hidden: Any, chunk: Any) -> Any:
                self.finished()
                results = jax.block_until_ready(forward(inner.state[0], hidden, chunk))
                self.finish = begin(lambda: jax.block_until_ready(inner(hidden, chunk)))
                return results

            program = inner.program

        return Postponed()

    return style


def in_a_thread(work: Any) -> Any:
    thread = threading.Thread(target=work)
    thread.start()
    return thread.join


def later(work: Any) -> Any:
    def finish() -> None:
        work()
        time.sleep(0.01)  # more than a busy machine adds to anything

    return finish


def rebuilds(config: Any, optimiser: Any) -> Any:
    """Build something large anew in load(): slow, and no mistake in what is timed."""
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    step = functional(update, model, optimiser, stages_of(update))
    usual_load = step.load

    def load(checkpoint: Any) -> None:
        time.sleep(REBUILD_SECONDS)
        usual_load(checkpoint)

    step.load = load  # type: ignore[method-assign]
    return step


# Compilations.


def retraces(new: Any) -> Any:
    """Jit a function of its own in each call."""
    return lambda *inputs: new()(*inputs)


def compiles_again(new: Any) -> Any:
    """Forget the compiled program every 25 calls: a mean shows it, a median does not."""
    update, calls = new(), 0

    def forgetful(*inputs: Any) -> Any:
        nonlocal calls, update
        calls += 1
        if calls % EVERY == 0:
            update = new()
        return update(*inputs)

    return forgetful


STYLES = {
    "by_chunk": around(kept_by(lambda state, hidden, chunk: chunk)),
    "by_all": around(kept_by(lambda *inputs: inputs)),
    "by_identity": around(by_identity),
    "never_updates": around(never_updates),
    "sometimes_updates": around(sometimes_updates),
    "leaves_one_out": leaves_out(count_on=True, last=FROM + 1),
    "stops": leaves_out(count_on=True, last=10**9),
    "forgets_one": leaves_out(count_on=False, last=FROM + 1),
    "old_loss": around(old_loss),
    "numpy_arrays": around(returns(lambda hidden, loss: (tuple(map(np.asarray, hidden)), loss))),
    "nan": around(returns(lambda hidden, loss: (hidden, loss * np.float32("nan")))),
    "other_shape": around(returns(lambda hidden, loss: (hidden, loss[None]))),
    "shares_state": shares_state,
    "in_a_thread": postponed(in_a_thread),
    "later": postponed(later),
    "rebuilds": rebuilds,
    "retraces": around(retraces),
    "compiles_again": around(compiles_again),
}
