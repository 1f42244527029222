"""The table of costs: the law of each style on one machine, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.cells import Arm, Cell
from bench.metrics import HOST
from bench.stats.law import Law
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from bench.estimates import Estimate

KIND, VERSION = "jax-bakeoff cost", 5
PUBLISHED = Path(__file__).parent / "host-cost.json"
MAKE_ONE = "make one with `bakeoff cost --from RUN.json --format json`"


class StyleCost(msgspec.Struct, frozen=True, kw_only=True):
    """The law of one style: seconds that it adds to plain JAX's call."""

    entrant: str
    style: str
    law: Law

    @property
    def arm(self) -> Arm:
        """Its entrant and style."""
        return Arm(self.entrant, self.style)

    @property
    def cell(self) -> Cell:
        """The cells that the law was fitted to, as one."""
        return self.arm.at("depth", "cpu")

    def at(self, arrays: int) -> Estimate:
        """Return what it adds to a call with so many parameter arrays."""
        return self.law.estimate(self.cell, HOST, arrays=arrays)

    @property
    def per_array(self) -> Estimate:
        """What it adds for each array."""
        return self.law.estimate(self.cell, HOST, fixed=0.0, arrays=1)

    @property
    def fixed(self) -> Estimate:
        """What it adds to a call without arrays."""
        return self.law.estimate(self.cell, HOST, arrays=0)


class CostTable(msgspec.Struct, frozen=True, kw_only=True):
    """The laws of all styles on one machine."""

    kind: str = ""
    version: int = 0
    machine: str
    versions: dict[str, str]
    when: str
    """Year to second, UTC."""
    run: str
    """Name of the run file that the laws were fitted to."""
    arrays: tuple[int, int]
    """Fewest and most that were measured."""
    styles: tuple[StyleCost, ...]

    @property
    def by_style(self) -> dict[str, StyleCost]:
        """Costs by `entrant/style`."""
        return {str(style.arm): style for style in self.styles}


class _Claim(msgspec.Struct):
    kind: str = ""
    version: int = 0


def read_table(path: Path = PUBLISHED) -> CostTable:
    """Return a table of costs from its file.

    Raises:
        BakeoffError: it cannot be read, or is no table.
    """
    try:
        content = read_regular(path, MOST_JSON)
        claim = msgspec.json.decode(content, type=_Claim)
        if (claim.kind, claim.version) != (KIND, VERSION):
            raise BakeoffError(
                f"{path} is {claim.kind or 'something else'} {claim.version or ''}; needed is "
                f"{KIND} {VERSION}: {MAKE_ONE}"
            )
        return msgspec.json.decode(content, type=CostTable)
    except OSError as error:
        raise BakeoffError(
            f"the table of costs {path} cannot be read ({error.strerror}); {MAKE_ONE}"
        ) from error
    except msgspec.MsgspecError as error:
        raise BakeoffError(f"{path} is no table of costs ({error}); {MAKE_ONE}") from error


def is_table(path: Path) -> bool:
    """Tell whether a file claims to be a table of costs."""
    try:
        return msgspec.json.decode(read_regular(path, MOST_JSON), type=_Claim).kind == KIND
    except (OSError, msgspec.MsgspecError):
        return False


def json_of(costs: CostTable) -> str:
    """Return a table as the content of its file."""
    return msgspec.json.format(msgspec.json.encode(costs), indent=1).decode() + "\n"
