"""The entrant that is checked: its file, its model, and the training step of one style."""

from __future__ import annotations

import ast
import traceback
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import impls
from bench.check.findings import ERROR, CheckFinding
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, Dense, flat, fresh_checkpoint, unflat
from common.equality import Case, answers, gradient_of, make, pair, random_hidden, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from common import reference
    from common.contract import Chunk, Hidden, Model, TrainStep, Weights

SMALL = Case(ModelConfig(5, width=8, layers=3), chunk=8, batch=1)
RAGGED = Case(
    ModelConfig(7, width=6, layers=2),
    chunk=5,
    batch=3,
    optimiser=OptimiserConfig(learning_rate=0.005, weight_decay=0.1),
)
"""Differs from SMALL in every number, so that a number that the file has fixed shows."""
CASES = (SMALL, RAGGED)
PARTS = ("weights", "mu", "nu")
"""Of a checkpoint, each with an array for every weight."""
UPDATES = 7
"""Made before `checkpoint_under_way`."""
LONGEST_EXCEPTION = 400
"""Characters of an exception that are shown: JAX's can be pages."""


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

    def __init__(self, name: str, style: str, workloads: tuple[Case, ...] = ()) -> None:
        self.name, self.style = name, style
        self.cases = (*CASES, *workloads)
        """Sizes at which numbers are compared."""
        self.path = impls.source(name).resolve()
        self.jax = impls.readable(name).jax
        self.steps: dict[Case, TrainStep] = {}
        self.first_calls: dict[Case, list[FirstCall]] = {}

    @cached_property
    def entrant(self) -> impls.Entrant:
        """The entrant, imported."""
        return impls.load(self.name)

    def model(self, case: Case) -> Model:
        """Return its pure functions."""
        return self.entrant.build(case.model)

    def new_step(self, case: Case) -> TrainStep:
        """Return another step, which is not loaded yet."""
        return make(self.entrant.style(self.style), case)

    def step(self, case: Case) -> TrainStep:
        """Return the step of these sizes, compiled once, with the usual weights loaded."""
        if case not in self.steps:
            self.steps[case] = self.new_step(case)
        self.steps[case].load(fresh_checkpoint(random_weights(case.model)))
        return self.steps[case]

    def calls(self, cases: Sequence[Case]) -> Iterator[FirstCall]:
        """Yield two calls for each case: of two chunks in a row, the second one padded.

        Each is made once, from the usual weights.
        """
        for case in cases:
            if case not in self.first_calls:
                self.first_calls[case] = list(self._calls(case))
            yield from self.first_calls[case]

    def _calls(self, case: Case) -> Iterator[FirstCall]:
        hidden = random_hidden(case)
        for chunk, answer in zip(pair(case), answers(case), strict=True):
            step = self.step(case)
            after, loss = step(hidden, chunk)
            gradient, saved = gradient_of(step), step.save()
            yield FirstCall(case, hidden, chunk, after, loss, saved, gradient, answer)
            hidden = tuple(jax.device_put(rows.astype(np.float32)) for rows in answer.hidden)

    def finding(self, expected: str, seen: str, *names: str, severity: str = ERROR) -> CheckFinding:
        """Return a finding that points at the first of `names`, as `location` does."""
        return CheckFinding(expected, seen, self.location(*names), severity)

    def location(self, *names: str) -> str:
        """Return where the first of `names` is defined; else the style, and else the file."""
        for name in (*names, *((self.style, "STYLES") if self.style else ())):
            if name in self.definitions:
                return f"{self.path}:{self.definitions[name]}, {name}"
        return str(self.path)

    @cached_property
    def definitions(self) -> dict[str, int]:
        """First line of each function, class and constant of the file, by name."""
        lines: dict[str, int] = {}
        for node in ast.walk(ast.parse(self.path.read_bytes())):
            match node:
                case (
                    ast.FunctionDef(name=name)
                    | ast.ClassDef(name=name)
                    | ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    lines[name] = min(node.lineno, lines.get(name, node.lineno))
        return lines

    def exception(self, expected: str, error: BaseException) -> CheckFinding:
        """Return the finding that an exception was raised."""
        seen = " ".join("".join(traceback.format_exception_only(error)).split())
        match error:
            case SystemExit():
                seen = f"called sys.exit({error.code!r})"
            case MemoryError():
                seen = f"it asked for more memory than it may have: {seen}"
            case BakeoffError():
                seen = str(error)
            case _:
                seen = f"raised {seen}"
        frames = traceback.extract_tb(error.__traceback__)
        if error.__cause__ is not None:
            frames += traceback.extract_tb(error.__cause__.__traceback__)
        own = [frame for frame in frames if Path(frame.filename) == self.path]
        where = f"{self.path}:{own[-1].lineno}, {own[-1].name}" if own else str(self.path)
        return CheckFinding(expected, seen[:LONGEST_EXCEPTION], where)


@cache
def plain_step(case: Case) -> TrainStep:
    """Return plain JAX's step, which is not loaded yet."""
    return make(impls.load(impls.BASELINE).style("pure"), case)


def checkpoint_under_way(config: ModelConfig) -> Checkpoint:
    """Return a checkpoint with moments, as after a few updates."""
    squares = unflat(
        Dense(kernel**2 + 0.01, bias**2 + 0.01) for kernel, bias in flat(random_weights(config, 2))
    )
    return Checkpoint(random_weights(config), random_weights(config, 1), squares, UPDATES)


def named_arrays(weights: Weights) -> dict[str, Any]:
    """Return the arrays of weights by name, bottom up, as the library gives them."""
    layers = {f"cells[{index}]": cell for index, cell in enumerate(weights.cells)}
    layers["readout"] = weights.readout
    return {
        f"{name}.{part}": getattr(layer, part)
        for name, layer in layers.items()
        for part in ("kernel", "bias")
    }


def arrays(weights: Weights) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of weights by name, bottom up, as NumPy's."""
    return {name: np.asarray(value) for name, value in named_arrays(weights).items()}


def difference(given: Weights, back: Weights) -> str:
    """Return in words how the first array that differs does, bit by bit; empty if none does."""
    returned = arrays(back)
    for name, ours in arrays(given).items():
        theirs = returned[name]
        if ours.shape != theirs.shape:
            return f"{name} is {theirs.shape} instead of {ours.shape}"
        if not np.array_equal(ours, theirs):
            away = np.abs(ours.astype(np.float64) - theirs)
            transpose = "; it is the transpose" if np.array_equal(ours.T, theirs) else ""
            return (
                f"{name} differs in {np.sum(away > 0)} of {away.size} numbers, by up to "
                f"{away.max():.2g}{transpose}"
            )
    return ""


def sizes(case: Case) -> str:
    """Return the sizes of a case in words."""
    model = case.model
    return (
        f"vocabulary {model.vocab_size}, width {model.width}, {model.layers} layers, "
        f"{case.chunk} characters, batch {case.batch}"
    )
