"""What to write instead of a step that costs more, with the change as a diff.

The diffs are made from `bench.cost.models`, whose steps run for each published table and have the
same losses.
"""

from __future__ import annotations

import ast
import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.report.table import EACH, Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cost.table import CostTable

MODELS = Path(__file__).parent / "models"


class Change(NamedTuple):
    """One way to write a step, and another one of the same library."""

    library: str
    before: str
    after: str
    note: str = ""
    """When it is no replacement, or what else it changes."""


SHARED = "if no two places of the model share a Variable"
ASYNCHRONOUS = "`filter_jit` waits for the device in each call; this does not"
CHANGES = (
    Change("flax_nnx", "jit", "jit_tree", SHARED),
    Change("flax_nnx", "jit", "jit_partial", SHARED),
    Change("flax_nnx", "jit", "flat", SHARED),
    Change("flax_nnx", "cached_partial", "jit_partial", SHARED),
    Change("flax_nnx", "jax_jit", "flat"),
    Change("flax_nnx", "pure", "flat", SHARED),
    Change("equinox", "filter_jit", "pure", ASYNCHRONOUS),
    Change("equinox", "filter_jit", "flat", ASYNCHRONOUS),
    Change("equinox", "pure", "flat"),
)


def table(costs: CostTable) -> Table:
    """Return what each change saves, the most first; changes that save nothing are left out."""
    return Table(
        (
            Column("in place of"),
            Column("write"),
            Column("saves for each array", number=True, help="and step, with a 95 % interval"),
            Column("note"),
        ),
        tuple(
            Row((f"{c.library} `{c.before}`", f"`{c.after}`", saving, c.note))
            for c, saving in best(costs)
        ),
    )


def best(costs: CostTable) -> list[tuple[Change, Value]]:
    """Return the changes that save something, the one that saves most first."""
    return sorted(saved(costs), key=lambda each: -(each[1].number or 0))


def saved(costs: CostTable) -> Iterator[tuple[Change, Value]]:
    """Yield the changes that save something, and the seconds of each array and step."""
    known = costs.by_style
    for change in CHANGES:
        before = known.get((change.library, change.before))
        after = known.get((change.library, change.after))
        if before and after:
            less = before.each - after.each
            half = math.hypot(*(each.law.of_each.high - each.each for each in (before, after)))
            if less > half:
                yield change, Value(less, EACH, less - half, less + half)


def diff(change: Change) -> str:
    """Return the change as a unified diff of both steps."""
    tree = ast.parse((MODELS / f"{change.library}.py").read_text("utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    before, after = (
        [f"{line}\n" for each in functions[name].body for line in ast.unparse(each).splitlines()]
        for name in (change.before, change.after)
    )
    lines = difflib.unified_diff(before, after, change.before, change.after, n=20)
    return "".join(line for line in lines if not line.startswith("@@"))
