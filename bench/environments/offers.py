"""The entrants, styles and backends of environments, as their workers report them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

import impls
from bench.engine.process import HEAVY_SILENCE, SILENCE_SECONDS, Place, WorkerFailedError, ask_once
from bench.worker.settings import conditions, restore_user_settings
from common.config import is_own
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.environments.builder import Builder


@dataclass(frozen=True)
class Offer:
    """The contents of an environment, as a worker reports them, with entrants of other ones."""

    styles: dict[str, list[str]]
    """Entrant → its styles."""
    problems: dict[str, str]
    """Entrant that cannot be loaded → why."""
    backends: list[str]
    """Backends, in jax's words, as in `cpu` and `gpu`."""
    versions: dict[str, str]
    """Package → its version; `python` is one of them."""
    devices: dict[str, str]
    """Backend → kind of its first device."""
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Backend → number of devices, and the driver."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """Conditions of measuring: flags, affinity."""
    notes: list[str] = field(default_factory=list)
    """Remarks on a user's own step."""
    uncached: int = 0
    """Modules that each process compiles from source, since Python can keep no bytecode of them."""
    unfit: dict[str, tuple[str, str]] = field(default_factory=dict)
    """User's own step that cannot be loaded → the package and release that does not import."""
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Entrant → styles that its library's release cannot have, and why."""
    if_named: dict[str, list[str]] = field(default_factory=dict)
    """Entrant → styles that are measured where they or the entrant are named, and at depths."""
    not_donating: dict[str, list[str]] = field(default_factory=dict)
    """Entrant → styles that cannot donate their state."""
    apart: dict[str, dict[str, str]] = field(default_factory=dict)
    """Entrant with its own environment → the versions that are in it."""
    lacking: dict[str, list[str]] = field(default_factory=dict)
    """Entrant with its own environment → backends that are not in it."""

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
            for what in ("styles", "problems", "missing", "if_named", "not_donating")  # by entrant
        }
        if name not in other.problems:
            lacking = [backend for backend in self.backends if backend not in other.backends]
            added |= {
                "versions": other.versions | self.versions,
                "uncached": self.uncached + other.uncached,
                "apart": self.apart | {name: other.versions},
                "lacking": self.lacking | {name: lacking},
            }
        return replace(self, **added)


def offer(
    entrants: tuple[str, ...],
    outside: Mapping[str, str],
    silence: float = SILENCE_SECONDS,
    place: Place | None = None,
) -> Offer:
    """Ask a worker of one environment for its entrants.

    Args:
        entrants: Names, beside the baseline; the usual ones if none.
        outside: Files of entrants that are not in `impls/`, by name.
        silence: Seconds without an answer after which a worker counts as hanging.
        place: Where the worker runs; in the running environment if None.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
        msgspec.ValidationError: its answer is another revision's.
    """
    facts = conditions()
    names = list(dict.fromkeys([impls.BASELINE, *(entrants or impls.list_usual())]))
    if any(map(is_own, outside)):  # there is nothing beside it that might do
        facts["environment"] = restore_user_settings(facts["environment"])
        names = names[:1]
    asked = names if len(names) == 1 or entrants else []  # another revision may have others
    problems: dict[str, str] = {}
    while True:
        command = {"do": "describe", "entrants": asked, "outside": dict(outside)}
        try:
            known = msgspec.convert(ask_once(command, place, silence), Offer)
            return replace(known, problems=known.problems | problems, conditions=facts)
        except WorkerFailedError as error:
            if not error.arm:
                raise
            if asked:
                problems[names.pop(error.arm)] = f"import failed: {error}"
            asked = names


def offers(
    entrants: tuple[str, ...],
    outside: Mapping[str, str],
    silence: float,
    builder: Builder,
    place: Place | None = None,
) -> tuple[Offer, dict[str, Place]]:
    """Ask the workers of all environments of some entrants; return the offer and each place.

    An environment that cannot be built is a problem of its entrant only. Arguments are `offer`'s.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
    """
    apart = [name for name in entrants if impls.find_declaration(name).own_environment]
    shared = tuple(name for name in entrants if name not in apart)
    result = offer(shared or ((impls.BASELINE,) if apart else ()), outside, silence, place)
    places = {"": place or Place()}
    for name in apart:
        try:
            there = builder.build_place(name)
            builder.notify(f"importing {name} in its environment")
            other = offer((name,), outside, max(silence, HEAVY_SILENCE), there)
        except BakeoffError as error:
            result.problems[name] = str(error)
        except WorkerFailedError as error:
            result.problems[name] = f"import failed: {error}"
        else:
            places[name] = there
            result = result.add_entrant(name, other)
    return result, places
