"""What is measured: cells of entrant × style × workload × backend, and what was found in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from common import devices
from common.config import SWEEP, WORKLOADS
from common.devices import Device
from common.errors import BakeoffError, unknown

BASELINE = ("pure_jax", "pure")
CONTROL = ("control", "pure")
"""The baseline under a second name: what differs from it is noise."""
DEFAULT_WORKLOADS = ("toy", "seed")
"""Measured unless others are asked for: the two ends, dispatch alone and the blog's size."""
TOGETHER = {"sweep": tuple(workload.name for workload in SWEEP)}
"""Names that stand for several workloads."""


class Cell(NamedTuple):
    """One combination, which has one result for each metric."""

    entrant: str
    style: str
    workload: str
    backend: str

    def __str__(self) -> str:
        return "-".join(self)


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

    @property
    def sides(self) -> dict[str, str]:
        """What has workers of its own: entrants by their environment, and styles, `torch/eager`."""
        arms = (f"{name}/{style}" for name, styles in self.alone.items() for style in styles)
        return {name: name for name in self.apart} | {arm: arm for arm in arms}

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

    def cells(self, offer: Offer) -> list[Cell]:
        """Return the selected cells, the baseline's first.

        Raises:
            BakeoffError: a name is unknown, or no entrant has a style that is asked for.
        """
        known_styles = sorted({style for styles in offer.styles.values() for style in styles})
        known_entrants = [*offer.styles, *offer.problems]
        for kind, given, known in (
            ("entrant", self.entrants, known_entrants),
            ("style", self.styles, known_styles),
            ("workload", self.workloads, [*WORKLOADS, *TOGETHER]),
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
            Cell(entrant, style, workload, backend)
            for backend in self.backends or offer.backends
            for workload in workloads
            for entrant in entrants
            if Device.of(backend).backend not in offer.lacking.get(entrant, ())
            for style in offer.styles.get(entrant, ["pure"])
            if not self.styles or style in self.styles
            for style in (style, *self.over(entrant, style, offer))
        ]
        if not chosen:
            having = sorted({s for e in entrants for s in offer.styles.get(e, [])})
            raise unknown(f"style of {', '.join(entrants)}", ", ".join(self.styles), having)
        return chosen

    def over(self, entrant: str, style: str, offer: Offer) -> list[str]:
        """Return the names of a style over the devices that are asked for."""
        return [] if entrant in offer.foreign else devices.names(style, self.devices)
