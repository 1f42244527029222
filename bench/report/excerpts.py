"""The lines in which each library writes the model, taken from its entrant's file."""

from __future__ import annotations

import ast
from itertools import takewhile
from typing import TYPE_CHECKING

from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = ROOT / "impls"


def excerpts(entrants: Iterable[str]) -> dict[str, str]:
    """Return the models of those entrants that are this project's, by entrant."""
    paths = {name: FOLDER / f"{name}.py" for name in entrants if name.isidentifier()}
    return {name: model(p.read_text("utf-8")) for name, p in paths.items() if p.is_file()}


def model(text: str) -> str:
    """Return the model that a module defines before its `build`: classes, else functions."""
    defined = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    before = list(takewhile(lambda node: node.name != "build", defined))
    kept = [node for node in before if isinstance(node, ast.ClassDef)] or before
    return "\n\n".join("\n".join(without_docstrings(n, text.splitlines())) for n in kept)


def without_docstrings(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """Yield the lines of a definition but its docstrings, and the blank lines after those."""
    left_out = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            said = inner.body[0]
            after = said.end_lineno or said.lineno
            left_out |= set(range(said.lineno, after + 1))
            if after < len(lines) and not lines[after].strip():
                left_out.add(after + 1)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    for number in range(first, (node.end_lineno or node.lineno) + 1):
        if number not in left_out:
            yield lines[number - 1]
