"""Code of a style for a person's own step: the text of the function that was timed.

The function is read from the file of its library, and is not run. It trains any model, with values
that are carried from step to step; a person's file has `loss(model, batch)`. So names change, and
the carried values go.
"""

from __future__ import annotations

import ast
import difflib
import re
from copy import deepcopy
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import impls
from bench.cells import FLAT, PURE, WHOLE

if TYPE_CHECKING:
    from pathlib import Path

STEPS = impls.FOLDER.with_name("common") / "steps.py"
"""File of the step over a list of arrays, which is the same for all libraries."""
NAMES = {"loss": "value", "loss_fn": "loss", "chunk": "batch"}
"""Name in a style's function → name in a person's file, whose loss is called `loss`."""
RETURNED = re.compile(r"^( *)return \((.*)\)$")
"""Pattern of a line that returns several things, which `ast` writes in brackets."""
MOST_BETWEEN = 2
"""Most lines between two changes that are printed: a person knows the own step."""
CARRIED = "hidden"
"""Name of the values that are carried from step to step."""


class Personal(ast.NodeTransformer):
    """Rewrites a style's function with a person's names, without annotations and carried values."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename."""
        return ast.Name(NAMES.get(node.id, node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg | None:
        """Rename a parameter, or leave it out."""
        return None if node.arg == CARRIED else ast.arg(NAMES.get(node.arg, node.arg))

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        """Leave carried values out of a tuple; what is alone needs none."""
        parts = [self.visit(part) for part in node.elts if not is_carried(part)]
        return parts[0] if len(parts) == 1 < len(node.elts) else ast.Tuple(parts, node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Leave carried values out of a call, and that a loss returns some."""
        arguments = [self.visit(argument) for argument in node.args if not is_carried(argument)]
        named = [self.visit(word) for word in node.keywords if word.arg != "has_aux"]
        return ast.Call(self.visit(node.func), arguments, named)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave out what a function returns in words."""
        node.returns = None
        return self.generic_visit(node)  # type: ignore[return-value]


def is_carried(node: ast.expr) -> bool:
    """Tell whether a part of an expression is the carried values."""
    return isinstance(node, ast.Name) and node.id == CARRIED


@cache
def read_functions(path: Path) -> dict[str, ast.FunctionDef]:
    """Return the functions of a module by their names."""
    body = ast.parse(path.read_bytes()).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def write_code(entrant: str, style: str) -> list[str]:
    """Return lines that make a style's step and call it; none where they are not known."""
    if not impls.find_declaration(entrant).models:  # persons' models are not of this library
        return []
    function = read_functions(impls.source(entrant)).get(PURE if style == FLAT else style)
    last: Any = function.body[-1] if function else None
    if function is None or not isinstance(last.value, ast.Tuple):  # it makes no step of a model
        return []
    _docstring, *body, returned = [Personal().visit(deepcopy(node)) for node in function.body]
    made, state = returned.value.elts
    step, names = "train_step", [ast.unparse(part) for part in state.elts]
    [written] = [part for part in body if isinstance(part, ast.FunctionDef) and part.name == step]
    changed, given = names if is_threaded(written) else [], names
    bound = len(written.args.args) == 1  # it takes a batch alone
    if not isinstance(made, ast.Name):
        body.append(ast.Assign([ast.Name(step)], made))
        bound = {*names} <= {part.id for part in ast.walk(made) if isinstance(part, ast.Name)}
    if style == FLAT:
        body += flatten(names)
        step, changed, given = body[-1].name, ["arrays"], ["arrays"]
    called = f"{step}({', '.join([*([] if bound else given), 'batch'])})"
    call = f"{', '.join([*changed, 'value'])} = {called}"
    texts = [ast.unparse(ast.fix_missing_locations(part)) for part in body]
    texts.append(f"for batch in batches:\n    {call}")
    lines = [line for text in texts for line in text.splitlines() if line]
    return [RETURNED.sub(r"\1return \2", line) for line in lines]


def flatten(names: list[str]) -> list[Any]:
    """Return the statements that make a step over a list of arrays, from a state with names."""
    [step, _] = [Personal().visit(deepcopy(n)) for n in read_functions(STEPS)["flatten"].body[1:]]
    step.decorator_list = [ast.parse("jax.jit", mode="eval").body]
    return [ast.parse(f"arrays, structure = jax.tree.flatten(({', '.join(names)}))"), step]


def is_threaded(step: ast.FunctionDef) -> bool:
    """Tell whether a step returns its state, beside the loss."""
    returned: Any = step.body[-1]
    return isinstance(returned.value, ast.Tuple)


def write_change(entrant: str, before: str, after: str) -> list[str]:
    """Return the lines of one style that become another's, each as Markdown's code.

    `-` and `+` stand before lines that go and come: in text, such a sign would begin a list. Of
    lines that stay, there are those between, and `…` for more than `MOST_BETWEEN`.
    """
    old, new = (write_code(entrant, style) or [f"your {style}"] for style in (before, after))
    if before == WHOLE:
        old = ["your make_step()"]
    _, _, _, *changed = difflib.unified_diff(old, new, n=len(old), lineterm="")
    lines: list[str] = []
    for stays, several in groupby(changed, key=lambda line: line[0] == " "):
        run = [f"{line[0]} {line[1:]}" for line in several]
        lines += ["  …"] if stays and len(run) > MOST_BETWEEN else run
    places = [place for place, line in enumerate(lines) if line[0] in "-+"]
    last = places[-1] + (lines[places[-1]][0] == "+")  # what is new stands before it
    return [f"`{line}`" for line in lines[places[0] : last + 1]]
