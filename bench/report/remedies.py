"""Another way to write a step: the cheaper style of a library, and the lines to change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import impls
from bench.cells import FLAT, WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.estimates import Estimate

FLAT_CODE = """\
arrays, structure = jax.tree.flatten((params, opt_state))
@jax.jit
def step(arrays, batch):
    params, opt_state = jax.tree.unflatten(structure, arrays)
    params, opt_state, loss = train_step(params, opt_state, batch)
    return jax.tree.leaves((params, opt_state)), loss
arrays, loss = step(arrays, batch)"""
"""Code of a step over a list of arrays, for a library whose `WRITE` lacks it."""


def find_cheaper(entrant: str, style: str, costs: Mapping[str, Estimate]) -> str:
    """Return the cheapest style of a library, of those that certainly cost less; or "".

    Styles that a run measures only if they are named are unusual: they count if there is no other.
    Styles for comparison alone never do. The correlation of two styles of the same workers is left
    out, which is stricter than needed.

    Args:
        entrant: The library's entrant.
        style: The style that another one may replace.
        costs: Seconds that styles of the library add, by their names.
    """
    about, before = impls.find_declaration(entrant), costs[style]

    def saves(after: Estimate) -> bool:
        doubt = math.hypot(before.half_width, after.half_width)
        return after.value + doubt < before.value

    better = [s for s, cost in costs.items() if s not in about.references and saves(cost)]
    return min(better, key=lambda s: (s in about.if_named, costs[s].value), default="")


def write_change(entrant: str, before: str, after: str) -> list[str]:
    """Return the lines of code that change from one style to another, `-` and `+` before them."""
    code = {FLAT: FLAT_CODE, WHOLE: "your make_step()"} | impls.find_declaration(entrant).write
    return [
        f"`{sign} {line}`"  # as code: in Markdown, a sign would begin a list
        for sign, style in (("-", before), ("+", after))
        for line in code.get(style, f"your {style}").splitlines()
    ]
