"""The entrant that is checked, its file, model and a style's step, and what is found in it."""

from __future__ import annotations

import re
import resource
import traceback
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import impls
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, on_arrays
from common.equality import Case, answers, gradient_of, make, pair, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from common import reference
    from common.contract import Chunk, Hidden, TrainStep, Weights

ERROR, NOTE = "error", "note"
FILE = None
"""Stands in the place of a style's name where the file as a whole is checked."""
DONATES = "a step that donates its state is measured beside others that do, with --donate"
"""What is expected of a step that always donates: `pytest bench` needs the option for it."""
SMALL = Case(ModelConfig(5, width=8, layers=3), chunk=8, batch=1)
RAGGED = Case(
    ModelConfig(7, width=6, layers=2),
    chunk=5,
    batch=3,
    optimiser=OptimiserConfig(learning_rate=0.005, weight_decay=0.1),
)
"""Sizes that differ from SMALL's in every number, so that a number fixed in the file shows."""
PARTS = ("weights", "mu", "nu")
"""Fields of a checkpoint that have an array for every weight."""


@dataclass(frozen=True)
class CheckFinding:
    """One mistake in an entrant, or something worth a note."""

    expected: str
    """What the contract asks for."""
    seen: str
    """What happened instead."""
    where: str = ""
    """The place to look at: `file:line, function`."""
    severity: str = ERROR
    """`error`, or `note` for what does not keep an entrant from being measured."""
    check: str = ""
    style: str | None = FILE


class FirstCall(NamedTuple):
    """A call of a step that has just loaded the usual weights, and the reference's answer."""

    case: Case
    hidden: Hidden
    chunk: Chunk
    after: Hidden
    loss: Any
    saved: Checkpoint
    gradient: Weights
    answer: reference.Gradient


class Subject:
    """An entrant and one of its styles; no style if the file as a whole is checked."""

    def __init__(self, name: str, style: str | None) -> None:
        self.name, self.style = name, style
        self.cases = SMALL, RAGGED
        self.path = impls.source(name).resolve()
        self.jax = impls.readable(name).jax
        self.compiled = cache(self.new_step)
        """The step of some sizes, made once: what it has loaded is of the call before."""
        self.calls = cache(self._calls)
        """Two calls at some sizes, made once: of two chunks in a row, the second one padded."""

    @cached_property
    def entrant(self) -> impls.Entrant:
        """The entrant, imported."""
        return impls.load(self.name)

    def new_step(self, case: Case) -> TrainStep:
        """Return another step, which is not loaded yet."""
        assert self.style is not None
        return make(self.entrant.style(self.style), case)

    def step(self, case: Case) -> TrainStep:
        """Return the step of these sizes, compiled once, with the usual weights loaded."""
        step = self.compiled(case)
        step.load(case.fresh())
        return step

    def _calls(self, case: Case) -> list[FirstCall]:
        hidden, calls = case.hidden(), []
        for chunk, answer in zip(pair(case), answers(case), strict=True):
            step = self.step(case)
            after, loss = step(hidden, chunk)
            gradient, saved = gradient_of(step), step.save()
            calls.append(FirstCall(case, hidden, chunk, after, loss, saved, gradient, answer))
            hidden = tuple(jax.device_put(rows.astype(np.float32)) for rows in answer.hidden)
        return calls

    def finding(self, expected: str, seen: str, *names: str, severity: str = ERROR) -> CheckFinding:
        """Return a finding that points at the first of `names`, as `location` does."""
        return CheckFinding(expected, seen, self.location(*names), severity)

    def location(self, *names: str) -> str:
        """Return where the first of `names` is defined; else the style, and else the file."""
        text = self.path.read_text("utf-8", "replace")
        for name in (*names, *((self.style, "STYLES") if self.style else ())):
            assigned = rf"|^ *{name} *(?::[^=\n]*)?=(?!=)" if name.isupper() else ""
            definition = rf"^ *(?:def|class) +{re.escape(name)}\b{assigned}"
            if match := re.search(definition, text, re.MULTILINE):
                return f"{self.path}:{text.count(chr(10), 0, match.start()) + 1}, {name}"
        return str(self.path)

    def exception(self, expected: str, error: BaseException) -> CheckFinding:
        """Return the finding that an exception was raised, and in which line of the file."""
        words = " ".join("".join(traceback.format_exception_only(error)).split())
        seen = str(error) if isinstance(error, BakeoffError) else f"raised {words}"
        if isinstance(error, MemoryError):
            gib = resource.getrlimit(resource.RLIMIT_DATA)[0] / (1 << 30)
            seen += f"; the process of a check may use {gib:g} GiB"
        frames = traceback.extract_tb(error.__traceback__)
        if error.__cause__ is not None:
            frames += traceback.extract_tb(error.__cause__.__traceback__)
        lines = [frame for frame in frames if Path(frame.filename) == self.path]
        where = f"{self.path}:{lines[-1].lineno}, {lines[-1].name}" if lines else str(self.path)
        return CheckFinding(expected, seen, where)


def checkpoint_under_way(config: ModelConfig) -> Checkpoint:
    """Return a checkpoint with moments, as after seven updates."""
    weights, mu, squares = (random_weights(config, seed) for seed in range(3))
    return Checkpoint(weights, mu, on_arrays(lambda array: array**2 + 0.01, squares), updates=7)


def named_arrays(tree: Any) -> dict[str, Any]:
    """Return the arrays of a tree by their paths: `cells.0.bias`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def difference(given: Weights, returned: Weights) -> str:
    """Return in words how the first array that differs does, bit by bit; empty if none does."""
    arrays = named_arrays(returned)
    for name, array in named_arrays(given).items():
        ours, theirs = np.asarray(array), np.asarray(arrays[name])
        if ours.shape != theirs.shape:
            return f"{name} is {theirs.shape} instead of {ours.shape}"
        if not np.array_equal(ours, theirs):
            away = np.abs(ours.astype(np.float64) - theirs)
            count, most = np.sum(away > 0), away.max()
            seen = f"{name} differs in {count} of {away.size} numbers, by up to {most:.2g}"
            return seen + "; it is the transpose" * np.array_equal(ours.T, theirs)
    return ""
