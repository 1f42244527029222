"""The table of costs: the law of each style on one machine, and its file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec

from bench.cells import Arm
from bench.report import wording
from bench.stats.law import Law, Range, along
from common.errors import BakeoffError

KIND, VERSION = "jax-bakeoff cost", 4
ENDS = "seconds", "low", "high"
ROUGH, LITTLE = 0.2, 2e-6
"""Half of an interval, as a part of a cost; seconds of an array that nobody has to care about."""
PUBLISHED = Path(__file__).parent / "host-cost.json"


class Measured(msgspec.Struct, frozen=True):
    """What a style was measured to add to a call of the character RNN."""

    arrays: int
    seconds: float
    low: float
    high: float
    lines: int | None = None
    """Lines of Python that run beyond those of plain JAX's step; None if they were not counted."""


class StyleCost(msgspec.Struct, frozen=True):
    """The law of one style: seconds added to a call of plain JAX."""

    entrant: str
    style: str
    fixed: float
    each: float
    """Seconds for each parameter array."""
    covariance: tuple[float, float, float]
    """Of both parts, as in `bench.stats.law.Law`."""
    workers: int
    misfit: float
    t: float
    """Student's quantile, as there."""
    measured: tuple[Measured, ...] = ()
    """The fewest arrays first."""
    seconds: tuple[tuple[float | None, ...], ...] = ()
    """What the law is fitted to: added to a call in each worker, at each of these numbers."""
    levels: tuple[float, ...] = ()
    """Seconds of a whole call there, which the fit weighs them by."""

    @property
    def known(self) -> bool:
        """Whether its cost of an array is more than a rough guess, or than next to nothing."""
        _, low, high = self.law.of_each
        return (high - low) / 2 <= ROUGH * abs(self.each) and abs(self.each) >= LITTLE

    @property
    def law(self) -> Law:
        """The law itself."""
        return Law(self.fixed, self.each, self.covariance, self.workers, self.misfit, self.t)

    @property
    def lines_of_an_array(self) -> float | None:
        """The lines that an array adds to a step; None if it adds none, or none is known."""
        if len(self.counted) < 2 or any(a >= b for (a, _), (b, _) in pairwise(self.counted)):
            return None
        (fewest, first), *_, (most, last) = self.counted
        return (most - fewest) / (last.arrays - first.arrays)

    @property
    def counted(self) -> list[tuple[int, Measured]]:
        """The lines that were counted, and what was measured with them."""
        return [(point.lines, point) for point in self.measured if point.lines is not None]

    def at_lines(self, lines: int) -> Range | None:
        """Return what the RNN costs that runs so many lines, in seconds; None if none is known.

        What a line costs grows with a model, as its data outgrow the processor's caches, so the
        RNN's depths are joined by lines, of which the last goes on.
        """
        if self.lines_of_an_array is None:
            return None
        sizes = [counted for counted, _ in self.counted]
        ends = ([getattr(point, end) for _, point in self.counted] for end in ENDS)
        return Range(*(along(lines, sizes, costs) for costs in ends))

    @property
    def name(self) -> str:
        """The entrant, and its style where that needs a name."""
        return wording.name(Arm(self.entrant, self.style))


class Growth(msgspec.Struct, frozen=True):
    """How a time of a fresh process grows with the depth of a model: seconds ~ layers ** power."""

    entrant: str
    style: str
    metric: str
    power: float
    low: float
    high: float
    seconds: tuple[float, float]
    """Medians at the fewest and at the most layers."""
    layers: tuple[int, int]

    @property
    def name(self) -> str:
        """The entrant, and its style where that needs a name."""
        return wording.name(Arm(self.entrant, self.style))


class Checked(msgspec.Struct, frozen=True):
    """What a style was measured to add to a call of another model.

    Beside it is how far predictions from the RNN's costs in the same processes are off: predicted
    over measured cost, less one.
    """

    kind: str
    depth: int
    """Blocks."""
    whole: bool
    """Whether a step computed what the model does, or next to nothing."""
    library: str
    style: str
    arrays: int
    lines: int | None
    """Lines of Python that run beyond those of plain JAX's step."""
    seconds: float
    by_lines: Range | None
    by_arrays: Range

    @property
    def name(self) -> str:
        """The kind of model, its depth, and whether its step is whole."""
        return f"{self.kind}, {self.depth} blocks{', whole' * self.whole}"


class CostTable(msgspec.Struct, frozen=True):
    """The laws of all styles on one machine."""

    kind: str
    version: int
    machine: str
    versions: dict[str, str]
    when: str
    run: str
    """Name of the run file."""
    styles: tuple[StyleCost, ...]
    growth: tuple[Growth, ...] = ()
    growth_machine: str = ""
    checked: tuple[Checked, ...] = ()
    checked_machine: str = ""

    @property
    def by_style(self) -> dict[tuple[str, str], StyleCost]:
        """Costs by entrant and style."""
        return {(style.entrant, style.style): style for style in self.styles}

    @property
    def most_arrays(self) -> int:
        """The largest number that was measured."""
        return max(point.arrays for style in self.styles for point in style.measured)


def read_table(path: Path = PUBLISHED) -> CostTable:
    """Return a table of costs from its file.

    Raises:
        BakeoffError: it cannot be read, or is none.
    """
    try:
        content = path.read_bytes()
        claim = msgspec.json.decode(content, type=Claim)
        if (claim.kind, claim.version) != (KIND, VERSION):
            raise BakeoffError(
                f"{path} is {claim.kind or 'something else'} {claim.version or ''}; needed is "
                f"{KIND} {VERSION}: make one with `bakeoff cost --from RUN.json --format json`"
            )
        return msgspec.json.decode(content, type=CostTable)
    except OSError as error:
        raise BakeoffError(
            f"the table of costs {path} cannot be read ({error.strerror}); make one with "
            "`bakeoff cost --from RUN.json --format json`"
        ) from error
    except msgspec.MsgspecError as error:
        raise BakeoffError(f"{path} is no table of costs ({error})") from error


def json_of(costs: CostTable) -> str:
    """Return a table as the content of its file."""
    return msgspec.json.format(msgspec.json.encode(costs), indent=1).decode() + "\n"


def is_table(path: Path) -> bool:
    """Tell whether a file claims to be a table of costs."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Claim).kind == KIND
    except (OSError, msgspec.MsgspecError):
        return False


class Claim(msgspec.Struct):
    """What a file says that it is."""

    kind: str = ""
    version: int = 0
