"""Commands as tests run them, in this process or as a user does, and the styles that are quick."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench import weights
from bench.corpus import TOY as TOY_TEXT
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import TrainStep, fresh_checkpoint
from common.equality import Case, random_weights
from common.errors import BakeoffError
from common.vocab import Vocab

ROOT = Path(__file__).parents[1]
NIGHTLY = os.environ.get("BAKEOFF_CASES", "")
"""Number of examples of each property in a night's tests, which also kill in every phase."""
QUICK = {
    *(("pure_jax", "pure"), ("pure_jax", "tuned"), ("equinox", "filter_jit"), ("stax", "pure")),
    *(("flax_linen", "train_state"), ("flax_nnx", "jit"), ("haiku", "transform")),
    ("numpy", "loop"),
}
"""One style of each library or two: what is tested of every style, quick tests look at in these.
Each takes seconds to compile, and every run proves its arms anyway."""

TOY = Case(ModelConfig(5, 8), 8, batch=2, optimiser=OptimiserConfig(0.01, weight_decay=10.0))
"""Sizes at which every style is tested, so that a session compiles each step once: a batch, and a
decay that ten steps show. A run proves each arm once more at the sizes that it measures."""

type StepOf = Callable[[str, str, Case], TrainStep]


def every_style(rows: Iterable[tuple[str, str]]) -> pytest.MarkDecorator:
    """Return what tests every entrant and style of `rows`; all but the quick ones are slow."""
    params = [
        pytest.param(*row, id="-".join(row), marks=() if row in QUICK else pytest.mark.slow)
        for row in rows
    ]
    return pytest.mark.parametrize(("entrant", "style"), params)


class Done(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


type Bakeoff = Callable[..., Done]


def refusal(call: Callable[..., object], *arguments: Any, **more: Any) -> str:
    """Return how a call is refused, which is told in one line."""
    with pytest.raises(BakeoffError) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.cli", *arguments]


def bench(*options: str) -> list[str]:
    """Return the command that measures; its options are `pytest bench`'s."""
    return [sys.executable, "-m", "pytest", str(ROOT / "bench"), "-p", "no:cacheprovider", *options]


def how(folder: Path, *paths: Path, **variables: str) -> dict[str, Any]:
    """Return how a command is started: in a folder, with a lock and temporary files of its own.

    Args:
        folder: It is in.
        paths: Folders that Python looks for modules in, before this project's.
        variables: Of its environment.
    """
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    python_path = os.pathsep.join(map(str, [*paths, ROOT]))
    # It is no worker of the tests' own pytest: pytest-benchmark would switch itself off.
    env = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    env |= {"TMPDIR": str(temporary), "BAKEOFF_LOCK_FOLDER": str(temporary)}
    env |= {"PYTHONPATH": python_path, "NO_COLOR": "1", **variables}
    return {"cwd": folder, "env": env, "text": True}


def done_for_real(folder: Path, given: str) -> None:
    """Run a slow command as a user does, with programs that are optimised; it has to succeed."""
    optimised = how(folder, JAX_DISABLE_MOST_OPTIMIZATIONS="false")
    subprocess.run(command(*given.split()), **optimised, timeout=900, check=True)


TWIN = 'from impls.pure_jax import STYLES, build\nDISTRIBUTION = "jax"\n'
"""A correct entrant: plain JAX under another name."""
SCAN = """
import jax, jax.numpy as jnp, numpy as np

def make_model():
    return {"w": jnp.full((128, 128), 0.01)}

def make_batch():
    return np.ones((256, 128), np.float32)

def loss(model, batch):
    def cell(hidden, x):
        hidden = jnp.tanh(hidden @ model["w"] + x)
        return hidden, jnp.mean(hidden**2)
    return jnp.mean(jax.lax.scan(cell, jnp.zeros(128), batch)[1])
"""
"""A training step of a user's own that jax 0.7.1 made twice as fast on a CPU: a small scan."""


def script(path: str) -> Any:
    """Return a published study's script as a module; `path` is from the project's root."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(**about: Any) -> weights.Saved:
    """Return a run of 3 epochs on the toy corpus that is quickly made."""
    vocab = Vocab.from_text(TOY_TEXT)
    config = ModelConfig(len(vocab), width=8, layers=3)
    return weights.Saved(
        **{
            "checkpoint": fresh_checkpoint(random_weights(config)),
            "vocab": vocab,
            "model": config,
            "data": DataConfig(chunk=16),
            "optimiser": OptimiserConfig(),
            "seed": 0,
            "epoch": 3,
            "corpus": "toy",
            "corpus_sha256": "a7096eb0d137e69a3fd613a8dce4134734ba811e4f05640d9cae7335de15fbe5",
            "entrant": "equinox",
            "style": "filter_jit",
            **about,
        }
    )
