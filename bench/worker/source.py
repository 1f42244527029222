"""Lines and tokens of code, counted the same way for every entrant."""

from __future__ import annotations

import ast
import io
import tokenize
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}
OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
"""What can have a docstring."""


class Counts(NamedTuple):
    """How much there is of a Python file, or of some of its lines."""

    lines: int
    """That hold code: no blank line, comment or docstring."""
    tokens: int
    """Of code: names, numbers, strings, operators; neither layout, comments nor docstrings."""
    docstring_lines: int
    comment_lines: int
    """That hold a comment of any kind, alone or after code."""


class Source(NamedTuple):
    """A Python file, taken apart."""

    tree: ast.Module
    tokens: list[tokenize.TokenInfo]
    """Of code."""
    docstrings: frozenset[int]
    """Lines, from 1."""
    comments: frozenset[int]

    def counts(self, within: Collection[int] | None = None) -> Counts:
        """Return the counts of the whole file, or of the lines `within`."""
        tokens = [t for t in self.tokens if within is None or t.start[0] in within]
        lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
        docstrings, comments = (
            found if within is None else found.intersection(within)
            for found in (self.docstrings, self.comments)
        )
        return Counts(len(lines - self.docstrings), len(tokens), len(docstrings), len(comments))


def source(path: Path) -> Source:
    """Return a Python file, taken apart; raise OSError or SyntaxError where that cannot be."""
    raw = path.read_bytes()
    tree = ast.parse(raw, str(path))
    tokens = list(tokenize.tokenize(io.BytesIO(raw).readline))
    nodes = [_docstring(node) for node in ast.walk(tree) if isinstance(node, OWNERS)]
    spans = [(node.lineno, node.end_lineno or node.lineno) for node in nodes if node is not None]
    docstrings = frozenset(line for first, last in spans for line in range(first, last + 1))
    comments = frozenset(token.start[0] for token in tokens if token.type == tokenize.COMMENT)
    # The first string of a docstring's lines is the docstring; what else is there is code.
    code = [
        token
        for token in tokens
        if token.type not in NOT_CODE
        and not (token.type == tokenize.STRING and token.start[0] in docstrings)
    ]
    return Source(tree, code, docstrings, comments)


def code_lines(path: Path) -> int:
    """Return the lines of a Python file that hold code: no blank line, comment or docstring."""
    return source(path).counts().lines


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> ast.stmt | None:
    return node.body[0] if ast.get_docstring(node) is not None else None
