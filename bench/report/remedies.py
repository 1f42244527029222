"""Another way to write a step: the lines to change."""

from __future__ import annotations

import impls
from bench.cells import FLAT, WHOLE

FLAT_CODE = """\
arrays, structure = jax.tree.flatten((params, opt_state))
@jax.jit
def step(arrays, batch):
    params, opt_state = jax.tree.unflatten(structure, arrays)
    params, opt_state, loss = train_step(params, opt_state, batch)
    return jax.tree.leaves((params, opt_state)), loss
arrays, loss = step(arrays, batch)"""
"""Code of a step over a list of arrays, for a library whose `WRITE` lacks it."""


def write_change(entrant: str, before: str, after: str) -> list[str]:
    """Return the lines of code that change from one style to another, `-` and `+` before them."""
    code = {FLAT: FLAT_CODE, WHOLE: "your make_step()"} | impls.find_declaration(entrant).write
    return [
        f"`{sign} {line}`"  # as code: in Markdown, a sign would begin a list
        for sign, style in (("-", before), ("+", after))
        for line in code.get(style, f"your {style}").splitlines()
    ]
