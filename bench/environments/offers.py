"""Asks the workers of environments what these offer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

import impls
from bench.engine.process import HEAVY_SILENCE, SILENCE_SECONDS, Place, WorkerFailedError, ask_once
from bench.offer import Offer
from bench.worker.protocol import Describe
from bench.worker.settings import conditions, restore_user_settings
from common.errors import BakeoffError
from impls import steps

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
        silence: Seconds without an answer after which a worker counts as hanging.
        place: Where the worker runs; in the running environment if None.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
        msgspec.ValidationError: its answer is another revision's.
    """
    facts = conditions()
    names = list(dict.fromkeys([impls.BASELINE, *(entrants or impls.list_usual())]))
    if steps.find_step(outside):  # there is nothing beside it that might do
        facts["environment"] = restore_user_settings(facts["environment"])
        names = names[:1]
    asked = names if len(names) == 1 or entrants else []  # another revision may have others
    problems: dict[str, str] = {}
    while True:
        command = Describe(asked, dict(outside))
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
    located = {name: impls.locate(name, outside) for name in entrants}
    apart = [name for name in entrants if impls.find_declaration(located[name]).own_environment]
    shared = tuple(name for name in entrants if name not in apart)
    result = offer(shared or ((impls.BASELINE,) if apart else ()), outside, silence, place)
    places = {"": place or Place()}
    for name in apart:
        try:
            there = builder.build_place(located[name])
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
