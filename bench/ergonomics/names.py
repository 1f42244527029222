"""Which names a piece of Python uses that it does not bind itself, as chains of attributes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    type Chain = tuple[str, ...]
    type Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def uses(*nodes: ast.AST) -> set[Chain]:
    """Return the free names of some code, each with the attributes that follow it.

    `nnx.jit(f)(x.T)` gives `("nnx", "jit")`, `("f",)` and `("x", "T")`; a name that a function
    binds, as a parameter or by assignment, is not free in it. Annotations are code. Imports inside
    of functions bind nothing here, so that what they import is found as if it were on top.
    """
    visitor = Uses()
    for node in nodes:
        visitor.visit(node)
    return visitor.found


class Uses(ast.NodeVisitor):
    """Collects chains; `bound` has the names of each scope that surrounds a node."""

    def __init__(self) -> None:
        self.found: set[Chain] = set()
        self.bound: list[set[str]] = []

    def add(self, root: str, attributes: Chain) -> None:
        """Take a chain, unless its root is bound."""
        if not any(root in names for names in self.bound):
            self.found.add((root, *attributes))

    def visit_Name(self, node: ast.Name) -> None:
        """Take a name that is read."""
        if isinstance(node.ctx, ast.Load):
            self.add(node.id, ())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Take a chain whole, not its beginnings."""
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.add(inner.id, tuple(reversed(attributes)))
        else:
            self.visit(inner)

    def generic_visit(self, node: ast.AST) -> None:
        """Visit what is inside, in the scope that the node opens, if it opens one."""
        if not isinstance(node, (*FUNCTIONS, *COMPREHENSIONS)):
            super().generic_visit(node)
            return
        inside: list[ast.AST] = [node]
        if isinstance(node, FUNCTIONS):
            inside = list(node.body) if isinstance(node.body, list) else [node.body]
            for field, value in ast.iter_fields(node):
                outside = value if isinstance(value, list) else [value]
                for each in outside:
                    if field != "body" and isinstance(each, ast.AST):
                        self.visit(each)
        self.bound.append(binds(node))
        for each in inside:
            super().generic_visit(each) if each is node else self.visit(each)
        self.bound.pop()


def binds(scope: ast.AST) -> set[str]:
    """Return the names that are local to a function or a comprehension."""
    names: set[str] = set()
    free: set[str] = set()
    for node in within(scope):
        match node:
            case ast.Name(name, ast.Store() | ast.Del()) | ast.arg(name):
                names.add(name)
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
            case ast.MatchStar(str(name)) | ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.Global(names=outer):
                free.update(outer)
    return names - free


def within(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, and of none that it contains."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)):
            yield from within(node)
