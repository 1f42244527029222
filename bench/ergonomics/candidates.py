"""Libraries that do not run on today's jax, why, and the last stack on which each was seen to run.

`python -m bench.ergonomics.candidates` lists them; with a name it tries again, by what
`candidates.json` says of that library: `uv pip install` with its arguments, once as today's stack
and once as the last, each into an empty environment that is thrown away, and `PROGRAMS` there. It
prints the last line of each. That is how the entries were made; of dates, those at the start of a
month were tried.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BakeoffError, unknown

FILE = Path(__file__).with_name("candidates.json")
MOST_SECONDS = 300
PROGRAMS = {
    "objax": """
import jax.numpy as jnp, objax

linear, x = objax.nn.Linear(4, 3), jnp.ones((2, 4))
objax.Jit(linear)(x)
gradient = objax.GradValues(lambda x: (linear(x) ** 2).mean(), linear.vars())
adam = objax.optimizer.Adam(linear.vars())

def step(x):
    grads, loss = gradient(x)
    adam(0.01, grads)
    return loss

objax.Jit(step, linear.vars() + adam.vars() + gradient.vars())(x)
print("runs")
""",
    "haliax": """
import equinox as eqx, haliax as hax, jax

rows, columns, batch = hax.Axis("rows", 4), hax.Axis("columns", 3), hax.Axis("batch", 2)
linear, x = hax.nn.Linear.init(rows, columns, key=jax.random.key(0)), hax.ones((batch, rows))

@eqx.filter_jit
@eqx.filter_value_and_grad
def loss(linear, x):
    return hax.mean(hax.tanh(linear(x)) ** 2).scalar()

loss(linear, x)
print("runs")
""",
    "treex": """
import importlib.metadata, jax, jax.numpy as jnp, treex

x, later = jnp.ones((2, 4)), importlib.metadata.version("treex") >= "0.7"
linear = treex.Linear(3).init(key=42)(x) if later else treex.Linear(3).init(42, x)

def loss(params, linear, x):
    return jnp.mean(linear.merge(params)(x) ** 2)

jax.jit(jax.value_and_grad(loss))(linear.filter(treex.Parameter), linear, x)
print("runs")
""",
    "elegy": """
import sys

if "shim" in sys.argv:
    import jax, jax._src.numpy.lax_numpy as lax_numpy
    lax_numpy.ndarray = jax.Array

import elegy, numpy as np, optax

class Model(elegy.Module):
    @elegy.compact
    def __call__(self, x):
        return elegy.nn.Linear(3)(x)

loss = [elegy.losses.MeanSquaredError()]
model = elegy.Model(module=Model(), loss=loss, optimizer=optax.adam(1e-3))
ones = np.ones((8, 4), np.float32), np.ones((8, 3), np.float32)
model.fit(*ones, epochs=1, batch_size=4, verbose=0)
print("runs")
""",
}
"""A linear layer, jitted, with its gradient, the library's own way; prints `runs` if it does."""


@dataclass(frozen=True)
class Stack:
    """Where a library was tried."""

    python: str
    """Minor version."""
    jax: str
    install: tuple[str, ...]
    """Arguments of `uv pip install`."""
    day: str = ""
    """Nothing newer was taken; empty where all there was could be."""
    said: str = ""
    """The last line of its error; empty where it runs."""
    note: str = ""
    shim: bool = False
    """Whether a line had to be put before its import, which `note` then gives."""


@dataclass(frozen=True)
class Candidate:
    """A library that is no entrant."""

    name: str
    release: str
    reason: str
    """In a sentence."""
    seen_on: str
    """The day on which both stacks were tried."""
    today: Stack
    last: Stack


def candidates() -> list[Candidate]:
    """Return what is known of each."""
    found = json.loads(FILE.read_text("utf-8"))
    return [candidate(one) for one in found["candidates"]]


def candidate(one: dict[str, Any]) -> Candidate:
    """Return a candidate from its JSON."""
    stacks = {
        name: Stack(**{**one[name], "install": tuple(one[name]["install"])})
        for name in ("today", "last")
    }
    return Candidate(**{**one, **stacks})


def tried(name: str, stack: Stack) -> str:
    """Return the last line that the library's program says on a stack, which is built for it.

    Raises:
        UnsolvableError: there is no such stack any more.
        NetworkError: the index cannot be reached.
    """
    from bench.environments.store import binary
    from bench.environments.uv import find_python, uv

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "environment"
        interpreter = find_python(stack.python, print)
        uv("venv", "--quiet", "--no-project", "--python", interpreter, str(folder))
        python = str(folder / binary("python"))
        uv("pip", "install", "--quiet", "--python", python, *stack.install)
        done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
            [python, "-c", PROGRAMS[name], *(["shim"] if stack.shim else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MOST_SECONDS,
            cwd=scratch,
            check=False,
        )
    return last_line(done.stdout)


def last_line(text: str) -> str:
    """Return the last line that says something, without what JAX adds to a traceback.

    Paths are cut to their file's name, for those of an environment mean nothing to anybody else.
    """
    lines = text.split("--------------------\nFor simplicity, JAX has removed")[0].splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
    return " ".join(word for word in last.split() if "site-packages" not in word)


def main(names: list[str]) -> None:
    """Try the candidates that are named, or list all."""
    known = {one.name: one for one in candidates()}
    for name in names or known:
        if name not in known:
            raise unknown("candidate", name, known)
        one = known[name]
        if not names:
            print(f"{name} {one.release}: {one.reason}")
            continue
        for when, stack in (("today", one.today), ("last", one.last)):
            print(f"{name}, {when}, jax {stack.jax}: {tried(name, stack)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BakeoffError as error:
        sys.exit(str(error))
