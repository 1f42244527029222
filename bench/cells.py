"""What is measured: cells of entrant × style × workload × backend × devices."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import impls
from common.config import DEPTH, SWEEP, WORKLOADS
from common.devices import Device
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.contract import Style

AT, WEAK = "@", "x"
"""In the text of a style over devices: what stands before their number, and after it."""
BASELINE = ("pure_jax", "pure")
CONTROL = ("control", "pure")
"""The baseline under a second name: what differs from it is noise."""
DEFAULT_WORKLOADS = ("toy", "seed")
"""Measured unless others are asked for: the two ends, dispatch alone and the blog's size."""
TOGETHER = {
    "sweep": tuple(workload.name for workload in SWEEP),
    "depth": tuple(workload.name for workload in DEPTH),
}
"""Names that stand for several workloads."""


def read_style(text: str) -> tuple[str, int, bool]:
    """Return the style, `devices` and `weak` of what `Arm.full_style` returns.

    Raises:
        BakeoffError: what stands behind the `@` is no number of devices.
    """
    style, at, given = text.partition(AT)
    number = given.removesuffix(WEAK)
    if at and not (number.isdecimal() and int(number)):
        raise BakeoffError(
            f"style {text!r} is to run on {given!r} devices; give a number, as in "
            f"{style}{AT}4, or {style}{AT}4{WEAK} for as many streams on each"
        )
    return style, int(number or 0), given.endswith(WEAK)


class Arm(NamedTuple):
    """An entrant's style over some devices, named `pure_jax/pure` or `pure_jax/pure@4`."""

    entrant: str
    style: str
    devices: int = 0
    """That share the streams of a batch; 0: the step knows of no mesh."""
    weak: bool = False
    """Each device has as many streams as there are without others (weak scaling)."""

    @property
    def full_style(self) -> str:
        """The style with its devices: `pure`, `pure@4`, or `pure@4x` for weak scaling."""
        return f"{self.style}{AT}{self.devices}{WEAK * self.weak}" if self.devices else self.style

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the arm of this name."""
        entrant, _, style = name.partition("/")
        return cls(entrant, *read_style(style))

    def __str__(self) -> str:
        return f"{self.entrant}/{self.full_style}"

    @property
    def code(self) -> Arm:
        """Whose code it runs: the control runs the baseline's."""
        return Arm(*BASELINE) if self == Arm(*CONTROL) else self

    def load(self, *, donate: bool = False) -> Style:
        """Return its style, imported if it was not; one that donates its state if it can."""
        entrant, style, devices, weak = self.code
        return impls.load(entrant).style(style, devices, copies=weak, donate=donate)

    def at(self, workload: str, backend: str) -> Cell:
        """Return its cell at a workload on a backend."""
        return Cell(self.entrant, self.style, workload, backend, self.devices, self.weak)


@dataclass(frozen=True)
class Cell:
    """One combination, which has one result for each metric."""

    entrant: str
    style: str
    workload: str
    backend: str
    devices: int = 0
    """As in `Arm`."""
    weak: bool = False

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Return the cell that a row of a file is about, whatever else the row says."""
        return cls(**{name: facts[name] for name in CELL if name in facts})

    @property
    def facts(self) -> dict[str, Any]:
        """What such a row says of it: nothing of devices, where it knows of no mesh."""
        return {name: value for name, value in vars(self).items() if value != 0}

    @property
    def arm(self) -> Arm:
        """What is measured in it."""
        return Arm(self.entrant, self.style, self.devices, self.weak)

    @property
    def is_pure(self) -> bool:
        """Whether it is the step that all entrants share, without a mesh."""
        return self.style == BASELINE[1] and not self.devices

    @property
    def is_baseline(self) -> bool:
        """Whether ratios refer to it."""
        return self.is_pure and self.entrant == BASELINE[0]

    @property
    def is_control(self) -> bool:
        """Whether it is the baseline under its second name."""
        return self.is_pure and self.entrant == CONTROL[0]

    @property
    def baseline(self) -> Cell:
        """The cell that its ratios refer to."""
        return Cell(*BASELINE, self.workload, self.backend)

    def __str__(self) -> str:
        return f"{self.entrant}-{self.arm.full_style}-{self.workload}-{self.backend}"


CELL = tuple(each.name for each in fields(Cell))
"""What a cell is told by, in a row of a file."""


@dataclass(frozen=True)
class Offer:
    """What this environment has, and under which conditions."""

    styles: dict[str, list[str]]
    problems: dict[str, str]
    """Entrants that cannot be loaded, and why."""
    backends: list[str]
    versions: dict[str, str]
    devices: dict[str, str]
    conditions: dict[str, Any] = field(default_factory=dict)
    """Flags, affinity, load."""
    uncached: int = 0
    """Modules that each process compiles from source, for Python can keep no bytecode of them."""
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """By entrant: styles that its library's release cannot have, and why."""
    apart: dict[str, dict[str, str]] = field(default_factory=dict)
    """By entrant with an environment of its own: the versions that are in it."""
    lacking: dict[str, list[str]] = field(default_factory=dict)
    """By entrant: backends that its environment does not have."""
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By backend: how many devices, the memory of one, and the driver."""
    foreign: list[str] = field(default_factory=list)
    """Entrants that are not JAX's, and know of no mesh."""
    alone: dict[str, list[str]] = field(default_factory=dict)
    """By entrant: styles that have workers of their own."""
    if_named: dict[str, list[str]] = field(default_factory=dict)
    """By entrant: styles that are measured where they or the entrant are named, and at depths."""
    keeping: dict[str, dict[str, str]] = field(default_factory=dict)
    """By entrant: styles that cannot donate their state, and why."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a run file says of it."""
        return {"versions": self.versions, "devices": self.devices, **self.conditions}

    @property
    def sides(self) -> dict[str, str]:
        """What has workers of its own: entrants by their environment, and styles, `torch/eager`."""
        arms = (f"{name}/{style}" for name, styles in self.alone.items() for style in styles)
        return {name: name for name in self.apart} | {arm: arm for arm in arms}

    @property
    def kept_styles(self) -> dict[str, str]:
        """Why styles cannot donate their state, by `entrant/style`."""
        found = self.keeping.items()
        return {f"{name}/{style}": why for name, styles in found for style, why in styles.items()}

    @property
    def donating(self) -> Offer:
        """The same without the styles that cannot donate their state."""
        styles = {
            entrant: [style for style in found if style not in self.keeping.get(entrant, ())]
            for entrant, found in self.styles.items()
        }
        return replace(self, styles=styles)

    def environment(self, side: str) -> str:
        """Return the entrant in whose environment a side's workers run; empty: everybody's."""
        entrant, _, _ = side.partition("/")
        return entrant if entrant in self.apart else ""


@dataclass(frozen=True)
class Selection:
    """Names asked for on the command line; empty stands for the default."""

    entrants: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    devices: tuple[int, ...] = ()
    """Numbers of devices that streams are shared between, beside one that knows of no others."""

    def has(self, arm: str) -> bool:
        """Tell whether an arm, `entrant/style`, is among what was asked for."""
        entrant, _, style = arm.partition("/")
        return entrant in (self.entrants or (entrant,)) and style in (self.styles or (style,))

    def cells(self, offer: Offer) -> list[Cell]:
        """Return the selected cells, the baseline's first.

        Raises:
            BakeoffError: a name is unknown, or no entrant has a style that is asked for.
        """
        known_styles = sorted({style for styles in offer.styles.values() for style in styles})
        known_entrants = [*offer.styles, *offer.problems]
        others = [name for name in self.workloads if name not in WORKLOADS]
        for kind, given, known in (
            ("entrant", self.entrants, known_entrants),
            ("style", self.styles, known_styles),
            ("workload", others, [*WORKLOADS, *TOGETHER]),
            ("backend", [Device.of(name).backend for name in self.backends], offer.backends),
        ):
            for name in given:
                if name not in known:
                    raise unknown(kind, name, known)
        for backend in self.backends or offer.backends:
            device = Device.of(backend)
            most = offer.details.get(device.backend, {}).get("count", 1)
            device.require(most)
            if self.devices and max(self.devices) > most:
                raise BakeoffError(
                    f"devices is {max(self.devices)}, and {backend} has {most} here: give a number "
                    f"from 1 to {most}, or choose another backend"
                )
        entrants = [name for name in known_entrants if name in (self.entrants or known_entrants)]
        workloads = dict.fromkeys(
            name
            for given in self.workloads or DEFAULT_WORKLOADS
            for name in TOGETHER.get(given, (given,))
        )
        for workload, number in product(workloads, self.devices):
            streams = WORKLOADS[workload].batch
            if streams % number:
                raise BakeoffError(
                    f"the {streams} streams of {workload} do not divide among {number} devices; "
                    "choose another --workload, as batched, or --devices"
                )
        chosen = [
            Cell(entrant, style, workload, backend, number, weak)
            for backend in self.backends or offer.backends
            for workload in workloads
            for entrant in entrants
            if Device.of(backend).backend not in offer.lacking.get(entrant, ())
            for style in offer.styles.get(entrant, ["pure"])
            if self.wants(entrant, style, workload, offer)
            for number, weak in [(0, False), *([] if entrant in offer.foreign else self.meshes)]
        ]
        if not chosen:
            having = sorted({s for e in entrants for s in offer.styles.get(e, [])})
            raise unknown(f"style of {', '.join(entrants)}", ", ".join(self.styles), having)
        return chosen

    def wants(self, entrant: str, style: str, workload: str, offer: Offer) -> bool:
        """Tell whether a style of an entrant is measured at a workload."""
        if self.styles:
            return style in self.styles
        named = entrant in self.entrants or workload in TOGETHER["depth"]
        return named or style not in offer.if_named.get(entrant, ())

    @property
    def meshes(self) -> list[tuple[int, bool]]:
        """The devices and `weak` of further cells: strong scaling first, then weak."""
        strong = [(number, False) for number in self.devices]
        return strong + [(number, True) for number in self.devices if number > 1]
