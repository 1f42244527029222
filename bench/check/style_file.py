"""The file that `bakeoff new NAME --from ENTRANT/STYLE` writes: one style of an entrant, to change.

The definitions that only this style needs are copied from the entrant's file; everything else is
imported. Files are read, not run.
"""

from __future__ import annotations

import ast
import builtins
import sys
import textwrap
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import impls
from bench.library_details import (
    added_by_style,
    definitions_of,
    line_numbers,
    names_of,
    style_values,
    styles_of,
    used,
)
from common.declaration import BLOCK
from common.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PURE = "pure"
KEPT = ("functional", "stages_of")
"""Of `common.steps`: what the step of `pure` needs beside its update; imported, not copied."""
OURS = ("common", "impls")

ABOUT = '''"""The style `{style}` of {entrant}, to change; the model is that of impls/{entrant}.py.

You may change how the step is written: the loss, its gradient, the update, what is compiled and
how, and what is kept between calls. What a call computes has to stay the same. `TrainStep` in
common/contract.py describes the methods of a step.

Does it compute the same, with all work done in the timed call?
    bakeoff check {name}.py
How fast is it, beside plain JAX and beside the original?
    pytest bench --entrant {name}.py --workload toy --budget 30
    pytest bench --entrant {name}.py,{entrant} --style {style} --workload toy --budget 30
"""
'''


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
    styles = styles_of(entrant)
    if slash and style not in styles:
        raise unknown(f"style of {entrant}", style, styles)
    own = [each for each in styles if each != PURE and entrant != impls.BASELINE]
    return entrant, style or [*own, PURE][0]


def style_file(name: str, entrant: str, style: str) -> str:
    """Return the text of the file NAME.py, with a style of an entrant to change."""
    module = f"impls.{entrant}"
    source = Source.of(module)
    block, value = BLOCK.search(source.text), style_values(source.tree)[style][-1]
    if "pure_style" in names_of(value)[1]:
        source, code = pure_step()
        value = ast.Name(PURE, ast.Load())
    else:
        code = source.in_order(added_by_style(source.tree)[style])
    head = [
        ABOUT.format(name=name, entrant=entrant, style=style),
        *([f"{block[0]}\n"] if block else []),
        "from __future__ import annotations\n",
        *imports(source, [*code, value], module),
        constants(entrant, style),
    ]
    body = ["# Change the step from here on.\n", *map(source.text_of, code)]
    body.append(f'STYLES = {{"{style}": {ast.unparse(value)}}}\n')
    return "\n".join(head) + "\n" + "\n\n".join(body)


@dataclass(frozen=True)
class Source:
    """A module of this project, as a text."""

    module: str
    text: str

    @classmethod
    def of(cls, module: str) -> Source:
        """Return the source of a module."""
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        return cls(module, Path(spec.origin).read_text("utf-8"))

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.text)

    def in_order(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Return statements as they follow in the file, without those for type checkers."""
        code = [each for each in statements if not is_for_type_checkers(each)]
        return sorted(code, key=lambda each: each.lineno)

    def text_of(self, statement: ast.stmt) -> str:
        """Return a statement's lines with its comments and decorators, not indented."""
        numbers = line_numbers([statement])
        lines = self.text.splitlines()[min(numbers) - 1 : max(numbers)]
        return textwrap.dedent("\n".join(lines)) + "\n"


def pure_step() -> tuple[Source, list[ast.stmt]]:
    """Return where the style `pure` is, and the definitions of its update and its step."""
    source = Source.of("common.steps")
    definitions = definitions_of(source.tree)
    [maker] = definitions["pure_style"]
    [style] = [each for each in ast.iter_child_nodes(maker) if isinstance(each, ast.FunctionDef)]
    kept = used((ast.Name(name, ast.Load()) for name in KEPT), definitions)
    return source, [*source.in_order(used([style], definitions) - kept), style]


def constants(entrant: str, style: str) -> str:
    """Return what the file declares, which is what the entrant does."""
    about = impls.declared(entrant)
    lines = [f'DISTRIBUTION = "{about.distribution}"']
    lines += [] if about.jax else ["JAX = False"]
    lines += [f'ALONE = ("{style}",)'] if style in about.alone else []
    return "\n".join(lines) + "\n"


def imports(source: Source, code: Sequence[ast.AST], model: str) -> Iterator[str]:
    """Yield the imports that some code needs, then those that only a type checker reads.

    Args:
        source: The module that the code comes from, and that has what the code does not define.
        code: To be written.
        model: The module that has `build`.
    """
    defined = definitions_of(ast.Module([each for each in code if isinstance(each, ast.stmt)], []))
    read = set[str]().union(*(names_of(each)[1] for each in code)) - {*defined, *dir(builtins)}
    header = header_of(source.tree)
    read = read.union(*(names_of(each)[1] for each in header))  # an import reads nothing

    for_types = [each for each in source.tree.body if is_for_type_checkers(each)]
    inside = [each for block in for_types for each in ast.iter_child_nodes(block)]
    aliases = read & set[str]().union(*(names_of(block)[0] for block in for_types))
    types = [*kept(inside, read), *imported({source.module: aliases})]
    read |= {"TYPE_CHECKING"} if types else set()

    known = aliases.union(*(map(bound_name, names_in(each)) for each in (*header, *inside)))
    needed = {source.module: read - known - {"build"}}
    needed.setdefault(model, set()).add("build")
    yield grouped([*kept(header, read), *imported(needed)])
    if types:
        yield "if TYPE_CHECKING:\n" + textwrap.indent(grouped(types), " " * 4)


def header_of(tree: ast.Module) -> list[ast.stmt]:
    """Return a file's imports, and the calls between them, which set a library up."""
    last = max(i for i, each in enumerate(tree.body) if names_in(each))
    return [
        each
        for each in tree.body[: last + 1]
        if names_in(each) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Call))
    ]


def kept(statements: Iterable[ast.AST], read: set[str]) -> Iterator[ast.stmt]:
    """Yield statements, those that import without the names that are not read."""
    for statement in statements:
        names = [alias for alias in names_in(statement) if bound_name(alias) in read]
        match statement:
            case ast.Import() if names:
                yield ast.Import(names)
            case ast.ImportFrom(module, _, level) if names:
                yield ast.ImportFrom(module, names, level)
            case ast.Expr():
                yield statement


def imported(names: Mapping[str, set[str]]) -> Iterator[ast.stmt]:
    """Yield an import for each module, of names in the usual order: classes, then functions."""
    for module in sorted(names):
        if found := sorted(names[module], key=lambda name: (name[0].islower(), name)):
            yield ast.ImportFrom(module, [ast.alias(name) for name in found], 0)


def names_in(statement: ast.AST) -> list[ast.alias]:
    """Return what a statement imports, if it is an import, and none from the future."""
    match statement:
        case ast.ImportFrom("__future__"):
            return []
        case ast.Import(names) | ast.ImportFrom(names=names):
            return names
    return []


def bound_name(alias: ast.alias) -> str:
    """Return the name that an import defines."""
    return alias.asname or alias.name.partition(".")[0]


def is_for_type_checkers(statement: ast.AST) -> bool:
    """Tell whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def grouped(statements: Iterable[ast.stmt]) -> str:
    """Return imports as text: the standard library's, an empty line, packages', and so on."""
    lines, before = list[str](), None
    for statement in statements:
        match statement:
            case ast.Import([alias, *_]):
                module = alias.name
            case ast.ImportFrom(str(module)):
                pass
            case _:
                module = ""
        package = module.partition(".")[0]
        group = (package in OURS) - (package in sys.stdlib_module_names) if package else None
        lines += [""] if lines and (group is None or group != before) else []
        lines.append(ast.unparse(statement))
        before = group
    return "\n".join(lines) + "\n"
