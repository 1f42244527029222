"""Another initialiser in each library, as a change of a few lines to the entrant's file.

A change is pairs of texts, old and new, that are replaced in the entrant's source. The changed
source is what runs, and the diff that readers see is made of both.
"""

from __future__ import annotations

import difflib
import sys
import types
from typing import TYPE_CHECKING, NamedTuple

import impls
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.config import ModelConfig
    from common.contract import Model

    type Changes = tuple[tuple[str, str], ...]

LECUN = "lecun_normal"
SEPARATOR = "+"

ALTERNATIVES: dict[tuple[str, str], Changes] = {
    ("equinox", LECUN): (
        (
            "class Cell(eqx.Module):",
            '''\
def linear(rows: int, width: int, key: PRNGKeyArray) -> eqx.nn.Linear:
    """Return a layer with a LeCun-normal kernel and no bias to begin with."""
    made = eqx.nn.Linear(rows, width, key=key)
    kernel = jax.nn.initializers.lecun_normal(in_axis=1, out_axis=0)(key, made.weight.shape)
    return eqx.tree_at(lambda it: (it.weight, it.bias), made, (kernel, jnp.zeros(width)))


class Cell(eqx.Module):''',
        ),
        (
            "Cell(eqx.nn.Linear(rows, config.width, key=key))",
            "Cell(linear(rows, config.width, key))",
        ),
        (
            "eqx.nn.Linear(config.width, config.vocab_size, key=readout_key)",
            "linear(config.width, config.vocab_size, readout_key)",
        ),
    ),
    ("haiku", LECUN): (
        (
            "class Cell(hk.RNNCore):",
            """\
INIT = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")


class Cell(hk.RNNCore):""",
        ),
        ("hk.Linear(self.width)", "hk.Linear(self.width, w_init=INIT)"),
        (
            'hk.Linear(config.vocab_size, name="readout")',
            'hk.Linear(config.vocab_size, w_init=INIT, name="readout")',
        ),
    ),
}
"""Changes, by entrant and initialiser."""


class Named(NamedTuple):
    """A start as the command line names it: `equinox`, or `equinox+lecun_normal`."""

    entrant: str
    initialiser: str = ""

    @classmethod
    def of(cls, text: str) -> Named:
        """Return what a text names.

        Raises:
            BakeoffError: there is no such entrant, or no such initialiser of it.
        """
        entrant, plus, initialiser = text.partition(SEPARATOR)
        if entrant.endswith(".py"):
            entrant = impls.add(entrant)
        impls.require_here(entrant)
        if not impls.declared(entrant).jax:
            raise BakeoffError(
                f"entrant {entrant!r} is not JAX; give one of {', '.join(impls.usual())}"
            )
        known = [name for of, name in ALTERNATIVES if of == entrant]
        if plus and initialiser not in known:
            if not known:
                raise BakeoffError(
                    f"{text!r}: no other initialiser is known for {entrant}; give {entrant}, or "
                    f"one of {', '.join(map(str, others()))}"
                )
            raise unknown(f"initialiser of {entrant}", initialiser, known)
        return cls(entrant, initialiser)

    def __str__(self) -> str:
        return SEPARATOR.join(filter(None, self))


def others() -> list[Named]:
    """Return the starts that are no library's own."""
    return [Named(*each) for each in ALTERNATIVES]


def build(start: Named) -> Callable[[ModelConfig], Model]:
    """Return what builds an entrant's model with that initialiser."""
    if not start.initialiser:
        return impls.load(start.entrant).build
    impls.load(start.entrant)  # says what is missing, if something is
    name = f"impls.{start.entrant}_{start.initialiser}"
    if name not in sys.modules:
        sys.modules[name] = module = types.ModuleType(name)  # dataclasses look themselves up there
        code = compile(changed(start), f"{start.entrant} with {start.initialiser}", "exec")
        exec(code, vars(module))  # noqa: S102 -- our own text
    return sys.modules[name].build


def changed(start: Named) -> str:
    """Return an entrant's source with another initialiser."""
    text = impls.source(start.entrant).read_text("utf-8")
    for old, new in ALTERNATIVES[start]:
        assert text.count(old) == 1, f"{old!r} is to be found once in {start.entrant}"
        text = text.replace(old, new)
    return text


def diff(start: Named) -> str:
    """Return the change as a unified diff, as `git apply` takes it."""
    before = impls.source(start.entrant).read_text("utf-8").splitlines()
    name = f"impls/{start.entrant}.py"
    lines = difflib.unified_diff(
        before, changed(start).splitlines(), f"a/{name}", f"b/{name}", n=1, lineterm=""
    )
    return "\n".join(lines)
