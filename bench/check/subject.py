"""What is judged, as a check sees it: an entrant's file, its model, and one style's step."""

from __future__ import annotations

import ast
import traceback
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.check.finding import Finding
from common.config import ModelConfig, OptimiserConfig
from common.contract import fresh_checkpoint
from common.equality import Case, make, random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.contract import Model, TrainStep

SMALL = Case(ModelConfig(5, width=8, layers=3), chunk=8, batch=1)
RAGGED = Case(
    ModelConfig(7, width=6, layers=2),
    chunk=5,
    batch=3,
    optimiser=OptimiserConfig(learning_rate=0.005, weight_decay=0.1),
)
"""Another number in everything, so that one that stands in the file shows."""
LONG = Case(ModelConfig(5, width=24, layers=3), chunk=512, batch=1)
"""Of what is timed: a call that takes long beside a load and a save of so few weights."""


LONGEST = 400
"""Characters of an exception that are shown: JAX's can be pages."""


class Subject:
    """An entrant and, unless the file as a whole is looked at, one of its styles."""

    def __init__(self, name: str, style: str, extra: tuple[Case, ...] = ()) -> None:
        self.name, self.style_name, self.extra = name, style, extra
        self.path = impls.source(name).resolve()
        self.steps: dict[Case, TrainStep] = {}
        self.fresh: dict[tuple[Case, int], Any] = {}

    @cached_property
    def entrant(self) -> impls.Entrant:
        """The entrant, imported."""
        return impls.load(self.name)

    @cached_property
    def jax(self) -> bool:
        """Whether it says that it computes with JAX."""
        return impls.declared(self.name).jax

    @property
    def cases(self) -> tuple[Case, ...]:
        """The sizes that numbers are compared at."""
        return (SMALL, RAGGED, *self.extra)

    def model(self, case: Case) -> Model:
        """Return its pure functions."""
        return self.entrant.build(case.model)

    def initial(self, case: Case, seed: int = 0) -> Any:
        """Return parameters by the library's own initialisers; made once for each seed."""
        if (case, seed) not in self.fresh:
            self.fresh[case, seed] = self.model(case).init(jax.random.key(seed))
        return self.fresh[case, seed]

    def another(self, case: Case) -> TrainStep:
        """Return a step of its own, not loaded yet."""
        return make(self.entrant.style(self.style_name), case)

    def step(self, case: Case) -> TrainStep:
        """Return the step of these sizes, loaded; compiled once, whatever it held is gone."""
        if case not in self.steps:
            self.steps[case] = self.another(case)
        self.steps[case].load(fresh_checkpoint(random_weights(case.model)))
        return self.steps[case]

    def at(self, *names: str) -> str:
        """Return where the first of these names is defined in the file; the file, if nowhere."""
        for name in names:
            for line, found in self.definitions:
                if found == name:
                    return f"{self.path}:{line}, {name}"
        return str(self.path)

    @property
    def style_at(self) -> str:
        """Where the style is defined."""
        return self.at(self.style_name, "STYLES")

    @cached_property
    def definitions(self) -> list[tuple[int, str]]:
        """Lines and names of all functions, classes and constants of the file."""
        found = []
        for node in ast.walk(ast.parse(self.path.read_bytes())):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.append((node.lineno, name))
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    found.append((node.lineno, name))
        return sorted(found)

    def raised(self, expected: str, error: BaseException) -> Finding:
        """Return the finding that something was raised where it should not have been."""
        what = " ".join("".join(traceback.format_exception_only(error)).split())
        if isinstance(error, SystemExit):
            what = f"called sys.exit({error.code!r})"
        elif isinstance(error, MemoryError):
            what = f"it asked for more memory than it may have: {what}"
        else:
            what = f"raised {what}"
        return Finding(expected, what[:LONGEST], self.frame(error), raised=True)

    def frame(self, error: BaseException) -> str:
        """Return the innermost line of the entrant's file that an exception came through."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename) == self.path]
        if not own:
            return str(self.path)
        return f"{own[-1].filename}:{own[-1].lineno}, {own[-1].name}"


def array(value: Any) -> np.ndarray[Any, Any]:
    """Return an array of any library as NumPy's."""
    return np.asarray(value)


def number(value: Any) -> float:
    """Return a scalar of any library as Python's."""
    return float(array(value))


def arrays(weights: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield each array of weights with its name, bottom up."""
    for index, cell in enumerate(weights.cells):
        yield f"cells[{index}].kernel", array(cell.kernel)
        yield f"cells[{index}].bias", array(cell.bias)
    yield "readout.kernel", array(weights.readout.kernel)
    yield "readout.bias", array(weights.readout.bias)


def sizes(case: Case) -> str:
    """Return the sizes of a case in words."""
    model = case.model
    return (
        f"vocabulary {model.vocab_size}, width {model.width}, {model.layers} layers, "
        f"{case.chunk} characters, batch {case.batch}"
    )
