"""An entrant's file in parts: what each style adds, and the core that remains.

A top-level function, class, assignment or type alias is a definition. A definition reaches those
whose names it uses, and what these reach. The core's definitions are those that `build` reaches,
and the style `pure` where there is one.

* What a style **adds** is what its entry in `STYLES` reaches and the core does not. Styles may add
  the same lines (NNX's three share one class), so that these do not sum to the file.
* Of that, what is its **alone** is reached by no other style.
* The **core** is the file without what the styles add: cell, model and `build`, the imports,
  constants, the table `STYLES`, and definitions that nothing reaches.

So the core and the union of what styles add are the file, without a line left or counted twice.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from bench.ergonomics.names import uses
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    type Lines = frozenset[int]

PURE = "pure"


class Part(NamedTuple):
    """What a style adds to the core."""

    adds: Lines
    """Lines of the file, from 1."""
    alone: Lines
    """Those of them that no other style adds."""
    nodes: tuple[ast.stmt, ...]
    """The definitions that it adds."""


class Parts(NamedTuple):
    """A file in parts."""

    core: Lines
    styles: Mapping[str, Part]
    """All but `pure`, which is the core."""
    core_nodes: tuple[ast.stmt, ...]
    """Top-level statements of the core."""
    pure: bool
    """Whether there is a style `pure`."""


def parts(tree: ast.Module, name: str = "this entrant") -> Parts:
    """Return the parts of an entrant's file.

    Raises:
        BakeoffError: it has no `STYLES` that can be read without running it.
    """
    known = definitions(tree)
    styles = style_values(tree)
    if not styles:
        raise BakeoffError(
            f"{name}: its styles cannot be counted, for STYLES is not a dict that is written out; "
            'write STYLES = {"pure": pure_style(build), …}'
        )
    # Names of STYLES' own statements are no way from one style to another.
    known.pop("STYLES", None)
    core = reached([ast.Name("build", ast.Load()), *styles.pop(PURE, [])], known)
    found = {style: reached(values, known) - core for style, values in styles.items()}
    spans = {style: lines(nodes) for style, nodes in found.items()}
    added = frozenset[int]().union(*spans.values())
    own = {
        style: Part(
            span,
            span.difference(*(other for each, other in spans.items() if each != style)),
            tuple(node for node in tree.body if node in found[style]),
        )
        for style, span in spans.items()
    }
    everywhere = frozenset(range(1, 1 + max((n.end_lineno or 0 for n in tree.body), default=0)))
    rest = tuple(node for node in tree.body if not any(node in nodes for nodes in found.values()))
    return Parts(everywhere - added, own, rest, PURE in style_values(tree))


def definitions(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Return the top-level statements that define each name; imports are none."""
    found: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for name in dict.fromkeys(defined(node)):
            found.setdefault(name, []).append(node)
    return found


def defined(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module defines, in branches too."""
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name
        case ast.Import() | ast.ImportFrom():
            return
        case _:
            for child in ast.iter_child_nodes(node):
                match child:
                    case ast.Name(name, ast.Store()):
                        yield name
                    case ast.stmt():
                        yield from defined(child)
                    case ast.Tuple(elts, ast.Store()) | ast.List(elts, ast.Store()):
                        yield from (each.id for each in elts if isinstance(each, ast.Name))


def style_values(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Return what `STYLES` says of each style: a dict that is written out, and items set later."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign([ast.Name("STYLES")], ast.Dict(keys, values))
                | ast.AnnAssign(ast.Name("STYLES"), _, ast.Dict(keys, values))
                | ast.AugAssign(ast.Name("STYLES"), ast.BitOr(), ast.Dict(keys, values))
            ):
                pairs: Iterable[tuple[ast.expr | None, ast.expr]] = zip(keys, values, strict=True)
            case ast.Assign([ast.Subscript(ast.Name("STYLES"), key)], value):
                pairs = [(key, value)]
            case _:
                continue
        for named, said in pairs:
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                found.setdefault(named.value, []).append(said)
    return found


def reached(roots: Iterable[ast.AST], known: Mapping[str, list[ast.stmt]]) -> set[ast.stmt]:
    """Return the definitions that some code uses, and those that these use, and so on."""
    found: set[ast.stmt] = set()
    open_ = list(roots)
    while open_:
        names = {root for root, *_ in uses(open_.pop())}
        new = {node for name in names for node in known.get(name, [])} - found
        found |= new
        open_ += new
    return found


def lines(nodes: Iterable[ast.stmt]) -> Lines:
    """Return the lines of some statements, with their decorators."""
    return frozenset(
        line
        for node in nodes
        for line in range(
            min(each.lineno for each in [node, *getattr(node, "decorator_list", [])]),
            (node.end_lineno or node.lineno) + 1,
        )
    )
