"""Contents of an environment: entrants, styles and backends, as its worker reports them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

NOT_IMPORTING = "does not import with"
"""Words of the problem of an entrant whose library does not fit this release of jax."""
BY_ENTRANT = ("styles", "problems", "missing", "if_named", "not_donating")
"""Fields of an offer that are needed of an entrant whose environment is its own."""


@dataclass(frozen=True)
class Offer:
    """Contents of an environment; of a run, with the entrants of other environments added."""

    styles: dict[str, list[str]] = field(default_factory=dict)
    """Entrant → its styles."""
    problems: dict[str, str] = field(default_factory=dict)
    """Entrant that cannot be loaded → why."""
    backends: list[str] = field(default_factory=list)
    """Backends, in jax's words, as in `cpu` and `gpu`."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package → its version; `python` is one of them."""
    devices: dict[str, str] = field(default_factory=dict)
    """Backend → kind of its first device."""
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Backend → number of devices, and the driver."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """Conditions of measuring: flags, affinity."""
    notes: list[str] = field(default_factory=list)
    """Remarks on a user's own step."""
    too_large: list[str] = field(default_factory=list)
    """Backends into whose memory a user's real step does not fit: only its skeleton does."""
    modules: dict[str, str] = field(default_factory=dict)
    """Imported module of a user's own → SHA-256 of its file."""
    uncached: int = 0
    """Modules that each process compiles from source, since Python can keep no bytecode of them."""
    unfit: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Entrant or user's own step → the package and release that it could not import."""
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Entrant → styles that its library's release cannot have, and why."""
    if_named: dict[str, list[str]] = field(default_factory=dict)
    """Entrant → styles that are measured where they or the entrant are named."""
    not_donating: dict[str, list[str]] = field(default_factory=dict)
    """Entrant → styles that cannot donate their state."""
    lacking: dict[str, list[str]] = field(default_factory=dict)
    """Entrant → backends that its own environment lacks."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that a journal keeps: a run that goes on must find the same."""
        return {"versions": self.versions, "devices": self.devices, **self.conditions}

    @property
    def donating(self) -> Offer:
        """This offer without the styles that cannot donate their state."""
        styles = {
            entrant: [style for style in names if style not in self.not_donating.get(entrant, ())]
            for entrant, names in self.styles.items()
        }
        return replace(self, styles=styles)

    def add_entrant(self, name: str, other: Offer) -> Offer:
        """Return this offer with an entrant of another offer, that of its own environment."""
        added: dict[str, Any] = {
            what: getattr(self, what) | {k: v for k, v in getattr(other, what).items() if k == name}
            for what in BY_ENTRANT
        }
        if name not in other.problems:
            lacking = [backend for backend in self.backends if backend not in other.backends]
            added |= {
                "versions": other.versions | self.versions,
                "modules": other.modules | self.modules,
                "uncached": self.uncached + other.uncached,
                "lacking": self.lacking | {name: lacking},
            }
        return replace(self, **added)
