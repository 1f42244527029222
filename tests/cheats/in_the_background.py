"""Returns the loss at once, and makes the update in a thread of its own."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import jax

from common.loss import scan_loss
from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def threaded(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    inner = functional(update, model, optimiser, stages_of(update))

    @jax.jit
    def forward(params: Any, hidden: Any, chunk: Any) -> Any:
        loss, hidden = scan_loss(partial(model.step, params), hidden, chunk)
        return hidden, loss

    class Threaded:
        thread: Any = None

        def wait(self) -> None:
            if self.thread is not None:
                self.thread.join()
            self.thread = None

        def load(self, checkpoint: Any) -> None:
            self.wait()
            inner.load(checkpoint)

        def save(self) -> Any:
            self.wait()
            return inner.save()

        def __call__(self, hidden: Any, chunk: Any) -> Any:
            self.wait()
            found = jax.block_until_ready(forward(inner.state[0], hidden, chunk))
            work = lambda: jax.block_until_ready(inner(hidden, chunk))  # noqa: E731
            self.thread = threading.Thread(target=work)
            self.thread.start()
            return found

        program = inner.program

    return Threaded()


STYLES = {"threaded": threaded}
