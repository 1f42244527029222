"""The entrants, styles and backends of environments, as their workers report them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench.cells import Offer
from bench.engine.driver import HEAVY_SILENCE
from bench.engine.processes import SILENCE_SECONDS, Place, WorkerFailedError, ask_once
from bench.environments.builder import failure
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.environments.builder import Builder


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
        silence: Seconds after which a worker counts as hanging.
        place: Where the worker runs; in the running environment if None.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
    """

    def described(names: list[str]) -> Offer:
        command = {"do": "describe", "entrants": names, "outside": dict(outside)}
        return Offer(**ask_once(command, place, silence))

    named = list(dict.fromkeys([impls.BASELINE, *entrants])) if entrants else []
    with suppress(WorkerFailedError):  # an entrant may kill its worker: then each has its own
        return described(named)
    found = described([impls.BASELINE])
    for name in (named or impls.usual())[1:]:
        try:
            found = joined(found, name, described([name]))
        except WorkerFailedError as error:
            found.problems[name] = f"import failed: {failure(error)}"
    return found


def offers(
    entrants: tuple[str, ...],
    outside: Mapping[str, str],
    silence: float,
    builder: Builder,
    place: Place | None = None,
) -> tuple[Offer, dict[str, Place]]:
    """Ask the workers of all environments that some entrants need, and return where each is.

    An environment that cannot be built is a problem of its entrant only. Arguments are `offer`'s.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
    """
    apart = [name for name in entrants if impls.readable(name).own_environment]
    others = tuple(name for name in entrants if name not in apart)
    found = offer(others or ((impls.BASELINE,) if apart else ()), outside, silence, place)
    places = {"": place or Place()}
    for name in apart:
        try:
            there = builder.place_of(name)
            builder.notify(f"importing {name} in its environment")
            one = offer((name,), outside, max(silence, HEAVY_SILENCE), there)
        except BakeoffError as error:
            found.problems[name] = str(error)
        except WorkerFailedError as error:
            found.problems[name] = f"import failed: {failure(error)}"
        else:
            places[name] = there
            found = joined_apart(found, name, one)
    return found, places


def joined(found: Offer, name: str, one: Offer) -> Offer:
    """Return an offer with one entrant of another offer added."""
    named = {
        field: getattr(found, field) | {k: v for k, v in getattr(one, field).items() if k == name}
        for field in ("styles", "problems", "missing", "alone", "if_named", "keeping")
    }
    return replace(found, **named, foreign=[*found.foreign, *(n for n in one.foreign if n == name)])


def joined_apart(found: Offer, name: str, one: Offer) -> Offer:
    """Return an offer with one entrant added that has an environment of its own."""
    found = joined(found, name, one)
    if name in found.problems:
        return found
    return replace(
        found,
        versions=one.versions | found.versions,
        uncached=found.uncached + one.uncached,
        apart=found.apart | {name: one.versions},
        lacking=found.lacking | {name: [b for b in found.backends if b not in one.backends]},
    )
