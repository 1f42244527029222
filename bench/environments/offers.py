"""What entrants have, each asked in the environment that it runs in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import impls
from bench.engine.driver import HEAVY_SILENCE
from bench.engine.processes import Place, WorkerFailedError
from bench.environments.store import digest
from bench.environments.store import replace as replace_file
from bench.run import offer
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.cells import Offer
    from bench.environments.own import Home, Homes


def offers(
    entrants: tuple[str, ...],
    outside: Mapping[str, str],
    silence: float,
    homes: Homes,
    place: Place | None = None,
) -> tuple[Offer, dict[str, Place]]:
    """Return what is offered, and where each environment's workers run.

    An environment that cannot be built is its entrant's problem alone.

    Args:
        entrants: Those that are asked for; the usual ones if none.
        outside: Files of entrants that are not the project's, by name.
        silence: Seconds after which a worker is taken to hang.
        homes: Builds environments.
        place: Where everybody's workers run; here if it is None.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
    """
    apart = [name for name in entrants if lives_apart(name)]
    rest = tuple(name for name in entrants if name not in apart)
    files = dict(outside)
    found = offer(rest or ((impls.BASELINE,) if apart else ()), files, silence, place)
    places = {"": place or Place()}
    for name in apart:
        try:
            home = homes.built(name)
            homes.notify(f"asking {name} what it has")
            one = offer((name,), files, max(silence, HEAVY_SILENCE), home.place)
        except BakeoffError as error:
            found.problems[name] = str(error)
        except WorkerFailedError as error:
            last = error.stderr.splitlines()[-1:]
            found.problems[name] = ": ".join(["import failed", error.reason, *last])
        else:
            places[name] = home.place
            found = merged(found, name, one)
    return found, places


def described(home: Home, silence: float = HEAVY_SILENCE) -> dict[str, Any]:
    """Return an entrant's styles and its library's version in an environment that is ready.

    What was said once is kept beside it, until the entrant's file is another: some take long to
    import.

    Raises:
        BakeoffError: it cannot be loaded there; why.
    """
    kept = home.path / "described.json"
    file = impls.source(home.name)
    key = digest([file.read_text("utf-8")])
    if kept.exists() and (found := json.loads(kept.read_text("utf-8")))["file"] == key:
        return found
    try:
        one = offer((home.name,), {}, silence, home.place)
    except WorkerFailedError as error:
        raise BakeoffError(error.reason) from error
    if home.name in one.problems:
        raise BakeoffError(one.problems[home.name])
    version = one.versions.get(impls.declared(home.name).distribution)
    found = {"file": key, "styles": one.styles[home.name], "version": version}
    replace_file(kept, json.dumps(found))
    return found


def lives_apart(name: str) -> bool:
    """Tell whether an entrant has an environment of its own; no if its file cannot be read."""
    return name in impls.names() and impls.readable(name).own_environment


def merged(found: Offer, name: str, one: Offer) -> Offer:
    """Return what is offered with one entrant's own environment beside it."""
    if name not in one.styles:
        return replace(found, problems=found.problems | {name: one.problems[name]})
    return replace(
        found,
        styles=found.styles | {name: one.styles[name]},
        missing=found.missing | {n: m for n, m in one.missing.items() if n == name},
        alone=found.alone | {n: m for n, m in one.alone.items() if n == name},
        versions=one.versions | found.versions,
        foreign=[*found.foreign, *(n for n in one.foreign if n == name)],
        uncached=found.uncached + one.uncached,
        apart=found.apart | {name: one.versions},
        lacking=found.lacking | {name: [b for b in found.backends if b not in one.backends]},
    )


def places_of(names: Iterable[str], homes: Homes, place: Place | None = None) -> dict[str, Place]:
    """Return where the workers of some entrants' own environments run, and everybody else's.

    Raises:
        BakeoffError: an environment cannot be built.
    """
    return {"": place or Place()} | {name: homes.built(name).place for name in names}
