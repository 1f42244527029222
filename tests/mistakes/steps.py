"""Steps and models that do less than plain JAX's, or something else, each in a style."""

import _thread
import os
import subprocess
import sys
import time
from functools import partial
from threading import Thread
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.compatibility import tree_get, tree_set
from common.steps import functional, pure_step, pure_style
from impls import pure_jax
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
PURE = pure_style(build)
FROM = 31
"""Call after a load from which on some steps are wrong: later than the calls of a proof."""


def around(mistake: Any) -> Any:
    """Return a style of plain JAX's update with something around it.

    Args:
        mistake: Called in place of the update, with what the step remembers and the update's
            arguments. That is a function for a new update, an update, the number of this call
            since the last load, and a dict for more.
    """

    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)

        def new() -> Any:
            jitted = jax.jit(pure_step(model, optimiser))

            def update(state: Any, hidden: Any, chunk: Any) -> Any:
                *state, hidden, loss = jitted(*state, hidden, chunk)
                return tuple(state), hidden, loss

            return update

        step = SimpleNamespace(new=new, update=new(), kept={}, calls=0)

        def call(params: Any, opt_state: Any, hidden: Any, chunk: Any) -> Any:
            state = step.kept.get("state", (None,))
            if params is not state[0]:
                state, step.calls = (params, opt_state), 0
            step.calls += 1
            step.kept["state"], hidden, loss = mistake(step, state, hidden, chunk)
            return *step.kept["state"], hidden, loss

        return functional(call, model, optimiser, jax.jit(pure_step(model, optimiser)))

    return style


# Results that are kept.


def by_chunk(step: Any, state: Any, hidden: Any, chunk: Any) -> Any:
    """Keep results by the content of the chunk."""
    name = b"".join(np.asarray(part).tobytes() for part in chunk)
    if name not in step.kept:
        step.kept[name] = step.update(state, hidden, chunk)
    return step.kept[name]


def by_identity(step: Any, state: Any, hidden: Any, chunk: Any) -> Any:
    """Keep the third results for the same objects, which a benchmark does not change."""
    name = id(hidden), id(chunk)
    calls, results, _ = step.kept.get(name, (0, None, None))
    if calls < 3:
        results = step.update(state, hidden, chunk)
    step.kept[name] = calls + 1, results, (hidden, chunk)
    return results


# Updates that are left out.


def leaves_out(left_out: Any, *, count_on: bool) -> Any:
    """Return a mistake that leaves some updates out.

    Args:
        left_out: Given the number of a call since the last load, tells whether it makes none.
        count_on: Whether such updates are counted all the same.
    """

    def skipping(step: Any, state: Any, hidden: Any, chunk: Any) -> Any:
        after, hidden, loss = step.update(state, hidden, chunk)
        if left_out(step.calls):
            count = tree_get((after if count_on else state)[1], "count")
            after = state[0], tree_set(state[1], count=count)
        return after, hidden, loss

    return skipping


# Another result.


def old_loss(step: Any, *inputs: Any) -> Any:
    """Train as it should, and return from the 20th call on a loss from before."""
    state, hidden, loss = step.update(*inputs)
    if step.calls < 20:
        step.kept["loss"] = loss
    return state, hidden, step.kept["loss"]


def returns(change: Any) -> Any:
    """Return a mistake that changes the hidden state and the loss that are returned."""

    def other(step: Any, *inputs: Any) -> Any:
        state, hidden, loss = step.update(*inputs)
        return state, *change(hidden, loss)

    return other


# From a call on.


def late(action: Any) -> Any:
    """Return a mistake that does something in each call from `FROM` on, given the step."""

    def acting(step: Any, *inputs: Any) -> Any:
        if step.calls >= FROM:
            action(step)
        return step.update(*inputs)

    return acting


def compile_again(step: Any) -> None:
    step.update = step.new()


def jits_when_loaded(step: Any, *inputs: Any) -> Any:
    """Compile again for the first call after each load."""
    if step.calls == 1:
        compile_again(step)
    return step.update(*inputs)


def fail(_: Any) -> None:
    raise OSError("no such planet")


def leave_child(_: Any) -> None:
    subprocess.Popen(["sleep", "300"], start_new_session=True)


def leave_thread(step: Any) -> None:
    if not ("thread" in step.kept and step.kept["thread"].is_alive()):
        step.kept["thread"] = Thread(target=compute, daemon=True)
        step.kept["thread"].start()


def leave_native_thread(step: Any) -> None:
    """Leave a thread that Python's `threading` does not know."""
    if step.calls == FROM:
        _thread.start_new_thread(compute, ())


def compute() -> None:
    """Go on for longer than is waited for, and not for ever: others use this worker, too."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        pass


def change_setting(_: Any) -> None:
    jax.config.update("jax_debug_nans", True)


MISTAKES = {
    "by_chunk": by_chunk,
    "by_identity": by_identity,
    "never_updates": leaves_out(lambda _: True, count_on=True),
    "sometimes_updates": leaves_out(lambda call: call % 2 == 0, count_on=False),
    "leaves_one_out": leaves_out(lambda call: call == FROM, count_on=True),
    "forgets_one": leaves_out(lambda call: call == FROM, count_on=False),
    "old_loss": old_loss,
    "numpy_arrays": returns(lambda hidden, loss: (tuple(map(np.asarray, hidden)), loss)),
    "nan": returns(lambda hidden, loss: (hidden, loss * np.float32("nan"))),
    "retraces": lambda step, *inputs: step.new()(*inputs),
    "jits_when_loaded": jits_when_loaded,
    "compiles_again": late(compile_again),
    "fails": late(fail),
    "changes_setting": late(change_setting),
    "leaves_child": late(leave_child),
    "leaves_thread": late(leave_thread),
    "leaves_native_thread": late(leave_native_thread),
    "gives_way": late(lambda _: os.nice(1)),
}


# Models.


def detached(inner: Any, params: Any, state: Any, token: Any) -> Any:
    """Stop the gradient at the state of the character before."""
    return inner(params, jax.lax.stop_gradient(state), token)


def input_first(_: Any, params: Any, state: Any, token: Any) -> Any:
    """Join the input and the state in the other order."""
    *cells, readout = params
    x, after = jax.nn.one_hot(token, readout["bias"].shape[0]), []
    for cell, hidden in zip(cells, state, strict=True):
        x = jnp.tanh(pure_jax.dense(cell, jnp.concatenate([x, hidden])))
        after.append(x)
    return tuple(after), pure_jax.dense(readout, x)


def in_bfloat16(inner: Any, params: Any, state: Any, token: Any) -> Any:
    """Round the logits."""
    after, logits = inner(params, state, token)
    return after, logits.astype(jnp.bfloat16).astype(jnp.float32)


def with_step(change: Any) -> Any:
    """Return a style of plain JAX's model with another step, `change`, which is given its step."""

    def changed(config: Any) -> Any:
        model = build(config)
        return model._replace(step=partial(change, model.step))

    return pure_style(changed)


# Ends of the process, and what is left running.


def leaves(*_: Any) -> Any:
    sys.exit(3)


def ends_at_once(*_: Any) -> Any:
    os._exit(0)


def leaves_a_child(config: Any, optimiser: Any) -> Any:
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    return PURE(config, optimiser)


def leaves_orphans(*_: Any) -> Any:
    """Fork a child that leaves the process group and forks again, and end."""
    if not os.fork():
        os.setsid()
        os.fork()
        time.sleep(60)
        os._exit(0)
    time.sleep(0.5)
    os._exit(3)


# Donations.


def donating(*numbers: int) -> Any:
    """Return a style whose step donates these of its arguments: 0 and 1 are its state."""

    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)
        train_step = jax.jit(pure_step(model, optimiser), donate_argnums=numbers)
        return functional(train_step, model, optimiser)

    return style


def donates_if_asked(config: Any, optimiser: Any, *, donate: bool = False) -> Any:
    return donating(*([0, 1, 2] if donate else []))(config, optimiser)


STYLES = {
    **{name: around(mistake) for name, mistake in MISTAKES.items()},
    **{change.__name__: with_step(change) for change in (detached, input_first, in_bfloat16)},
    **{end.__name__: end for end in (leaves, ends_at_once, leaves_a_child, leaves_orphans)},
    "pure": PURE,
    "donates_state": donating(0, 1),
    "donates_hidden": donating(0, 1, 2),
    "donates_if_asked": donates_if_asked,
    "donates_nothing": donating(),
}
