"""Lines of code, counted the same way for every entrant."""

from __future__ import annotations

import ast
import io
import tokenize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NOT_CODE = {
    *(tokenize.COMMENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER),
    *(tokenize.INDENT, tokenize.NEWLINE, tokenize.NL),
}
OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
"""What can have a docstring."""


def code_lines(path: Path) -> int:
    """Return the lines of a Python file that hold code: no blank line, comment or docstring."""
    return len(code_line_numbers(path))


def code_line_numbers(path: Path) -> set[int]:
    """Return the numbers of the lines that hold code, from 1.

    Raises:
        OSError: the file cannot be read.
        SyntaxError: it is not Python.
    """
    raw = path.read_bytes()
    found: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(raw).readline):
        if token.type not in NOT_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(raw, str(path))):
        if isinstance(node, OWNERS) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            found.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return found
