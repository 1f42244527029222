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

    `rounds`, `cores` and `donate` lack the mark `AMOUNT`: they say how a run is measured. They must
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
        "times that differ by at most this fraction are called equivalent", "FRACTION", float
    ),
    "processes": make_option("number of workers for each way of timing; 1 if --blocks is given"),
    "blocks": make_option("number of blocks in each worker, each over fresh buffers"),
    "rounds": make_option(
        "rounds in a block, each with one turn of every arm; always 1 where compiling is timed"
    ),
    "cold_samples": make_option("number of fresh processes for the cold metrics of each cell"),
    "cores": make_option(
        "cores of each worker; all: every core, as users run it; one: one pinned core, with "
        "several workers at a time, which is far more precise; auto: all for the time of a step, "
        "one for the time added to a call, compile and cold metrics",
        "all|one|auto",
        str,
        choices=("auto", "all", "one"),
    ),
    "donate": {
        "help": "let every style donate its state (parameters and Adam's moments), as large models "
        "do; styles that cannot are left out",
        "action": "store_true",
    },
}
"""Field of `Options` → keyword arguments of its option."""
NAMES = {
    "entrant": "the JAX libraries of this environment; other values: all for every entrant, which "
    "builds missing environments; the path of a .py file for an entrant of your own",
    "style": "all but those that are measured only if named; jit names this style of every "
    "library, flax_nnx/jit that of one library",
    "workload": "toy, seed and wide; other values: sweep for widths 8 to 1024, depth for 3 to 154 "
    "layers, seedx12 for seed with 12 layers",
    "backend": "all that jax offers",
    "metric": "all, but only host_cost at toy, and only step at wide and sweep",
}
"""Option that takes names → its default, in words."""
