"""The files that `bakeoff new` writes: a skeleton, or an entrant's file with one of its styles.

Files are read, not run: an import of some libraries takes seconds.
"""

from __future__ import annotations

import ast
import re
from importlib import resources

import impls
from common.errors import unknown

TEMPLATE = "skeleton.py.txt"
PURE = "pure"
STYLE_CONSTANTS = ("ALONE", "IF_NAMED", "LIMITS", "REFERENCES", "WAITS")
"""Constants of an entrant's file that name some of its styles."""

ABOUT = '''"""{docstring}

This is impls/{entrant}.py with one of its styles, `{style}`. You may change how the step is
written: the loss, its gradient, the update, what is compiled and how, and what is kept between
calls. What a call computes has to stay the same. `TrainStep` in common/contract.py describes the
methods of a step.

Does it compute the same, with all work done in the timed call?
    bakeoff check {name}.py
How fast is it, beside plain JAX and beside the original?
    pytest bench --entrant {name}.py --workload toy --budget 30
    pytest bench --entrant {name}.py,{entrant} --style {style} --workload toy --budget 30
"""
'''
PURE_IMPORTS = ("import optax", "import common.loss", "import common.steps")
PURE_STEP = '''def pure(config, optimiser, *, donate=False):
    """One `jax.jit` over parameters and the optimiser's state."""
    model = build(config)

    def update(state, hidden, chunk):
        params, opt_state = state

        def loss_fn(params):
            def step(state, token):
                return model.step(params, state, token)

            return common.loss.scan_loss(step, hidden, chunk)

        (loss, hidden_after), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden_after, loss

    update = jax.jit(update, donate_argnums=(0,) if donate else ())
    return common.steps.functional(update, model, optimiser, common.steps.stages_of(update))


STYLES = {"pure": pure}
'''
"""The style `pure` written out: entrants have it from `common.steps`."""


def skeleton(name: str) -> str:
    """Return the text of a new entrant's file."""
    text = resources.files("bench.check").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return text.replace("NAME", name)


def chosen_style(given: str) -> tuple[str, str]:
    """Return the entrant and the style that `ENTRANT/STYLE` or `ENTRANT` names.

    An entrant alone stands for the first style that is its library's own; the baseline, which has
    no library, for `pure`.

    Raises:
        BakeoffError: there is no such entrant or style.
    """
    entrant, slash, style = given.partition("/")
    if entrant not in impls.names():
        raise unknown("entrant", entrant, impls.names())
    styles = impls.styles_of(entrant)
    if slash and style not in styles:
        raise unknown(f"style of {entrant}", style, styles)
    others = [name for name in styles if name != PURE and entrant != impls.BASELINE]
    return entrant, style or [*others, PURE][0]


def style_file(name: str, entrant: str, style: str) -> str:
    """Return the text of the file NAME.py: a copy of an entrant's file with one style, to change.

    Functions that are other styles, and constants about those, are left out.
    """
    text = impls.source(entrant).read_text("utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    *_, last_import = (s for s in tree.body if isinstance(s, ast.Import | ast.ImportFrom))
    about = {"name": name, "entrant": entrant, "style": style}
    others = _other_styles(tree, style)
    for statement in reversed(tree.body):  # so that numbers of lines stay right
        first = min(node.lineno for node in (statement, *getattr(statement, "decorator_list", [])))
        kept = lines[first - 1 : statement.end_lineno]
        match statement:
            case ast.Expr(ast.Constant(str(docstring))) if statement is tree.body[0]:
                new = ABOUT.format(docstring=docstring.rstrip(), **about)
            case ast.Import() | ast.ImportFrom() if style == PURE and statement is last_import:
                new = "\n".join([*kept, *(line for line in PURE_IMPORTS if line not in lines)])
            case ast.Assign([ast.Name("STYLES")]):
                value = _styles(statement).get(style)
                new = f'STYLES = {{"{style}": {ast.unparse(value)}}}' if value else "STYLES = {}"
                new = PURE_STEP if style == PURE else new
            case ast.Assign([ast.Name(constant)], value) if constant in STYLE_CONSTANTS:
                new = _constant(constant, ast.literal_eval(value), style)
            case ast.Assign([ast.Name("COLOUR")]):  # it is the original's
                new = ""
            case ast.FunctionDef(function) if function in others:
                new = ""
            case ast.If() if _styles(statement) and style not in _styles(statement):
                new = ""
            case _:
                continue
        lines[first - 1 : statement.end_lineno] = new.splitlines()
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)) + "\n"


def _other_styles(tree: ast.Module, style: str) -> set[str]:
    """Return the functions that are other styles, and that nothing else of the file uses."""
    styles = _styles(tree).items()
    names = {v.id for key, v in styles if key != style and isinstance(v, ast.Name)}
    for statement in tree.body:
        if not _styles(statement):
            names -= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return names


def _constant(name: str, value: tuple[str, ...] | dict[str, str], style: str) -> str:
    """Return a constant with what it says of one style; nothing if that is nothing."""
    if style not in value or name == "IF_NAMED":  # the copy is named, or not measured
        return ""
    return f"{name} = { {style: value[style]} if isinstance(value, dict) else (style,) }"


def _styles(code: ast.AST) -> dict[str, ast.expr]:
    """Return the expressions that some code puts into STYLES, by style."""
    styles: dict[str, ast.expr] = {}
    for node in ast.walk(code):
        match node:
            case ast.Assign([ast.Name("STYLES")], ast.Dict(keys, values)):
                pairs = list(zip(keys, values, strict=True))
            case ast.Assign([ast.Subscript(ast.Name("STYLES"), key)], value):
                pairs = [(key, value)]
            case _:
                continue
        styles |= {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
    return styles
