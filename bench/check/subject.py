"""The subject of a check: an entrant's file, its model, and the step of one of its styles."""

from __future__ import annotations

import ast
import traceback
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import impls
from bench.check.findings import ERROR, Finding
from common.config import ModelConfig, OptimiserConfig
from common.contract import fresh_checkpoint
from common.equality import Case, make, random_weights

if TYPE_CHECKING:
    from common.contract import Model, TrainStep

SMALL = Case(ModelConfig(5, width=8, layers=3), chunk=8, batch=1)
RAGGED = Case(
    ModelConfig(7, width=6, layers=2),
    chunk=5,
    batch=3,
    optimiser=OptimiserConfig(learning_rate=0.005, weight_decay=0.1),
)
"""Differs from SMALL in every number, so that a number that the file has fixed shows."""
LONGEST_EXCEPTION = 400
"""Characters of an exception that are shown: JAX's can be pages."""


class Subject:
    """An entrant and, unless the file as a whole is judged, one of its styles."""

    def __init__(self, name: str, style: str, workloads: tuple[Case, ...] = ()) -> None:
        self.name, self.style = name, style
        self.cases = (SMALL, RAGGED, *workloads)
        """Sizes at which numbers are compared."""
        self.path = impls.source(name).resolve()
        self.steps: dict[Case, TrainStep] = {}

    @cached_property
    def entrant(self) -> impls.Entrant:
        """The entrant, imported."""
        return impls.load(self.name)

    @property
    def imported(self) -> bool:
        """Whether it has been imported, without an exception."""
        return "entrant" in vars(self)

    @cached_property
    def jax(self) -> bool:
        """Whether it declares that it computes with JAX."""
        return impls.declared(self.name).jax

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

    def finding(self, expected: str, seen: str, *names: str, severity: str = ERROR) -> Finding:
        """Return a finding that points at the first of `names`, as `location` does."""
        return Finding(expected, seen, self.location(*names), severity)

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

    def exception(self, expected: str, error: BaseException) -> Finding:
        """Return the finding that something was raised where it should not have been."""
        what = " ".join("".join(traceback.format_exception_only(error)).split())
        if isinstance(error, SystemExit):
            what = f"called sys.exit({error.code!r})"
        elif isinstance(error, MemoryError):
            what = f"it asked for more memory than it may have: {what}"
        else:
            what = f"raised {what}"
        return Finding(expected, what[:LONGEST_EXCEPTION], self.frame(error), raised=True)

    def frame(self, error: BaseException) -> str:
        """Return the innermost line of the entrant's file that an exception came through."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename) == self.path]
        if not own:
            return str(self.path)
        return f"{own[-1].filename}:{own[-1].lineno}, {own[-1].name}"


def named_arrays(weights: Any) -> dict[str, Any]:
    """Return the arrays of weights by name, bottom up, as the library gives them."""
    layers = {f"cells[{index}]": cell for index, cell in enumerate(weights.cells)}
    layers["readout"] = weights.readout
    return {
        f"{name}.{part}": getattr(layer, part)
        for name, layer in layers.items()
        for part in ("kernel", "bias")
    }


def arrays(weights: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of weights by name, bottom up, as NumPy's."""
    return {name: np.asarray(value) for name, value in named_arrays(weights).items()}


def sizes(case: Case) -> str:
    """Return the sizes of a case in words."""
    model = case.model
    return (
        f"vocabulary {model.vocab_size}, width {model.width}, {model.layers} layers, "
        f"{case.chunk} characters, batch {case.batch}"
    )
