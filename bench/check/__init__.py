"""The entrant that is checked, its file, model and a style's step, and findings in it."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jax

import impls
from common.config import ModelConfig, OptimiserConfig
from common.equality import Case, make
from common.errors import BakeoffError

ERROR, NOTE = "error", "note"
FILE = None
"""Stand-in for a style's name where the file as a whole is checked."""
DONATES = "a step that donates its state is measured beside others that do, with --donate"
"""Expectation of a step that always donates: `pytest bench` needs the option for it."""
SMALL = Case(ModelConfig(5, width=8, layers=3), chunk=8, batch=1)
RAGGED = Case(
    ModelConfig(7, width=6, layers=2),
    chunk=5,
    batch=3,
    optimiser=OptimiserConfig(learning_rate=0.005, weight_decay=0.1),
)
"""Sizes that differ from SMALL's in every number, so that a number fixed in the file shows."""


@dataclass(frozen=True)
class CheckFinding:
    """One mistake in an entrant, or something worth a note."""

    expected: str
    """Demand of the contract."""
    seen: str
    """Behaviour that was seen instead."""
    where: str = ""
    """The place to look at: `file:line, function`."""
    severity: str = ERROR
    """`error`, or `note` if the entrant can be measured all the same."""


class Subject:
    """An entrant, by its name or file, and one of its styles; None stands for the whole file."""

    def __init__(self, source: str | Path, style: str | None) -> None:
        self.source, self.style = source, style
        self.path = impls.source(source).resolve()
        self.jax = impls.find_declaration(source).jax
        self.step = cache(lambda case: make(self.entrant.style(str(style)), case))
        """The step at some sizes, made once; it has to be loaded."""

    @property
    def is_imported(self) -> bool:
        """Whether a check has needed the entrant so far, and its import succeeded."""
        return "entrant" in vars(self)

    @cached_property
    def entrant(self) -> impls.Entrant:
        """The entrant, imported."""
        return impls.load(self.source)

    def finding(self, expected: str, seen: str, *names: str, severity: str = ERROR) -> CheckFinding:
        """Return a finding that points at the first of `names`, as `location` does."""
        return CheckFinding(expected, seen, self.location(*names), severity)

    def location(self, *names: str) -> str:
        """Return where a name is defined, the first that is; else the style, and else the file."""
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
        frames = traceback.extract_tb(error.__traceback__)
        if error.__cause__ is not None:
            frames += traceback.extract_tb(error.__cause__.__traceback__)
        lines = [frame for frame in frames if Path(frame.filename) == self.path]
        where = f"{self.path}:{lines[-1].lineno}, {lines[-1].name}" if lines else str(self.path)
        return CheckFinding(expected, seen, where)


def list_arrays(tree: Any) -> dict[str, Any]:
    """Return the arrays of a tree by their paths: `cells.0.bias`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
