"""Measurement options: one dataclass that pytest and the command line build options from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, inspect

from bench.estimates import MARGIN
from common.config import check_size
from common.errors import BakeoffError

type CoreChoice = Literal["auto", "all", "one"]

LIMITS = {
    "budget": (1e-3, 7 * 24 * 3600.0, "give seconds"),  # a week: more is a typing error
    "margin": (1e-6, 0.5, "0.02 is 2 %"),  # half: more is a percentage that was meant as a fraction
}
"""Option → its least and largest value, and advice."""
MOST_COUNT = 100_000
"""Largest number of workers, blocks, rounds or cold samples: more is a typing error."""
BY_BUDGET = "to fit the budget"
"""Default shown for options whose value the planner chooses."""


AMOUNT = Meta(extra={"amount": True})
"""Mark of options that say how much is measured, or what is concluded from it."""


class Options(Struct, frozen=True):
    """Options of a measurement; `ABOUT` describes each.

    `rounds`, `cores` and `donate`, without the mark `AMOUNT`, say how it is measured: they have to
    be the same in a run that adds to another (`--resume`), and in runs that are compared.
    """

    budget: Annotated[float, AMOUNT] = 300.0
    margin: Annotated[float, Meta(gt=0), AMOUNT] = MARGIN
    processes: Annotated[int | None, AMOUNT] = None
    blocks: Annotated[int | None, AMOUNT] = None
    rounds: int | None = None
    cold_samples: Annotated[int | None, AMOUNT] = None
    cores: CoreChoice = "auto"
    donate: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether a number of blocks was given, which the budget does not change."""
        return self.blocks is not None

    def check(self) -> None:
        """Raise BakeoffError unless all numbers are within their limits."""
        for name, (least, most, advice) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:  # NaN is not, either
                allowed = f"from {least:g} to {most:g}"
                raise BakeoffError(f"--{name} is {value:g}; it must be {allowed}: {advice}")
        for name in ("processes", "blocks", "rounds", "cold_samples"):
            if (value := getattr(self, name)) is not None:
                check_size(f"--{name.replace('_', '-')}", value, most=MOST_COUNT)


METHOD = tuple(
    field.name
    for field in inspect.type_info(Options).fields  # type: ignore[attr-defined]
    if not isinstance(field.type, inspect.Metadata)
)
"""Options without that mark."""


def make_option(text: str, metavar: str = "N", type_: type = int, **more: Any) -> dict[str, Any]:
    """Return the keyword arguments of an option of pytest."""
    return {"help": text, "metavar": metavar, "type": type_, **more}


ABOUT = {
    "budget": make_option("wall time of measuring, shared out by a planner", "SECONDS", float),
    "margin": make_option(
        "within this fraction, two times are called equivalent", "FRACTION", float
    ),
    "processes": make_option("workers for each way of timing; 1 where --blocks is given"),
    "blocks": make_option("blocks of interleaved rounds over fresh buffers, in each worker"),
    "rounds": make_option("rounds in a block: one turn of every arm; two where compiling is timed"),
    "cold_samples": make_option("fresh processes for each cell's cold metrics"),
    "cores": make_option(
        "cores that workers use: all, as users run it; one each, pinned and several workers at a "
        "time, which is far more precise; auto takes all for the time of a step, and one for what "
        "the host costs and what happens once",
        "all|one|auto",
        str,
        choices=("auto", "all", "one"),
    ),
    "donate": {
        "help": "let every style donate its state, parameters and Adam's moments, as large models "
        "do; those that cannot are left out",
        "action": "store_true",
    },
}
"""Field of `Options` → keyword arguments of its option."""
NAMES = {
    "entrant": "the JAX libraries of this environment; all for every entrant, whose missing "
    "environments are built; an entrant of your own by the path of its .py file",
    "style": "all but those that are measured only if they are named; jit names a style of every "
    "library, flax_nnx/jit of one",
    "workload": "toy, seed and wide; sweep stands for widths 8 to 1024, depth for 3 to 154 layers, "
    "seedx12 for seed with 12 layers",
    "backend": "all that jax offers",
    "metric": "all; toy: host_cost; wide and sweep: step",
}
"""Option that takes names → its default, in words."""
