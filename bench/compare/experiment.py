"""The sides of an A/B, a history or a bisection: built, asked, measured, and journalled."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.engine.driver import Driver
from bench.engine.journal import FOLDER, Journal, newest
from bench.engine.machine import only_one
from bench.engine.process import WorkerFailedError
from bench.environments.builder import failure
from bench.environments.offers import offer
from bench.environments.uv import PYTHONS, UnsolvableError, installed, minor
from bench.report.wording import joined
from bench.run import CODE, code_digest, new_path
from bench.runfile.warnings import machine
from bench.worker.settings import conditions
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from msgspec import Struct

    from bench.cells import Cell, Offer, Selection
    from bench.engine.actions import Action, Options
    from bench.engine.driver import Plan
    from bench.engine.sides_plan import SidesPlan
    from bench.environments.builder import Builder, Environment
    from bench.environments.spec import Spec
    from bench.samples import Spent

RESUMED = ("ab", "history")
"""Kinds of runs that --resume goes on with: the journals of others end with them."""


@dataclass(frozen=True)
class Offered:
    """A side: where its workers run, and what they have."""

    environment: Environment
    offer: Offer

    @property
    def releases(self) -> dict[str, str]:
        """All its releases, by package; at hand, those of everything that is installed."""
        pins = self.environment.pins or installed()
        return dict(pin.split("==", 1) for pin in pins) | self.offer.versions

    def gap(self, entrant: str, style: str) -> str | None:
        """Return why this side has not got an entrant's style; None if it has."""
        if style in self.offer.styles.get(entrant, ()):
            return None
        missing = self.offer.missing.get(entrant, {}).get(style)
        return missing or self.offer.problems.get(entrant) or "there is no such style"


def built(specs: Sequence[Spec], builder: Builder) -> list[Environment]:
    """Return the environments of sides: of the same Python, if there is one that fits them all.

    Raises:
        BakeoffError: one of them cannot be built; which, and why.
    """
    # The oldest Python that fits is the one for which most releases of that time have wheels.
    pythons: tuple[str, ...] = PYTHONS
    if any(spec.current for spec in specs):
        pythons = (minor(),)
    elif any(spec.revision for spec in specs):  # one with this lock runs on the Python at hand
        pythons = tuple(dict.fromkeys([minor(), *PYTHONS]))
    for python in pythons:
        try:
            return [builder.environment(spec, (python,)) for spec in specs]
        except UnsolvableError:
            continue
    return [builder.environment(spec) for spec in specs]


def asked(environment: Environment, entrants: Iterable[str] = ()) -> Offered:
    """Ask a worker of a side what it has.

    Raises:
        BakeoffError: no worker of it can even load the baseline.
    """
    try:
        found = offer(tuple(entrants), {}, place=environment.place)
    except WorkerFailedError as error:
        raise BakeoffError(f"{environment.spec} cannot be measured: {failure(error)}") from error
    except (TypeError, OSError) as error:  # another revision's answer, or no such interpreter
        raise BakeoffError(f"{environment.spec} cannot be measured: {error}") from error
    return Offered(environment, replace(found, conditions=conditions()))


def selected(selection: Selection, sides: Mapping[str, Offered]) -> dict[str, list[Cell]]:
    """Return the cells that are asked for and that each side has, on one backend.

    Without a backend asked for, that is an accelerator, where all sides have one.

    Raises:
        BakeoffError: a name that no side knows.
    """
    found: dict[str, list[Cell]] = {}
    errors: list[BakeoffError] = []
    for name, side in sides.items():
        try:
            found[name] = selection.cells(side.offer)
        except BakeoffError as error:
            errors.append(error)
            found[name] = []
    if not any(found.values()):
        raise errors[0]
    having = [{cell.backend for cell in cells} for cells in found.values()]
    backends = sorted(set.intersection(*having) or set.union(*having))
    one = next((backend for backend in backends if backend != "cpu"), backends[0])
    return {name: [c for c in cells if c.backend == one] for name, cells in found.items()}


def common(found: Mapping[str, Sequence[Cell]]) -> list[Cell]:
    """Return the cells that all sides have.

    Raises:
        BakeoffError: there are none.
    """
    first, *others = found.values()
    cells = [cell for cell in first if all(cell in each for each in others)]
    if not cells:
        raise BakeoffError(
            f"{' and '.join(found)} have nothing in common that is asked for; choose other sides, "
            "entrants or styles"
        )
    return cells


def measure[P: Plan](
    plan: Callable[[Options, float], P],
    options: Options,
    sides: Mapping[str, Offered],
    header: Mapping[str, Any],
    *,
    kind: str,
    before: float = 0.0,
    resume: bool = False,
    told: Callable[[Action, Spent], None],
) -> tuple[P, Journal]:
    """Measure what a plan asks for on its sides; return it, and its journal.

    Args:
        plan: Makes it, given the options with the seed of this run, and the seconds spent before.
        options: How much is measured.
        sides: Where workers run.
        header: What else tells this run from others; the journal of another one is refused.
        kind: Of run; each has its folder of journals.
        before: Seconds of the budget that have gone already.
        resume: Go on with the newest journal.
        told: Shows how far it is.

    Raises:
        BakeoffError: another run is measuring; a journal does not fit, or cannot be written.
        KeyboardInterrupt: what was measured is in the journal.
    """
    lock = only_one()
    folder = FOLDER / kind
    about = {
        **header,
        "code": code_digest((*CODE, "bench/compare")),
        "sides": {
            name: [each.offer.versions, where.pins, where.python, where.commit, where.place.command]
            for name, each in sides.items()
            for where in [each.environment]
        },
    }
    if resume:
        opened = Journal.open(newest(folder))
        now = json.loads(json.dumps(about, default=list))
        changed = [name for name, value in now.items() if opened.header.get(name) != value]
        if changed:
            raise BakeoffError(
                f"the journal {opened.path} is of another run ({', '.join(changed)} differ): give "
                "the same options as then, or start anew without --resume"
            )
        options = replace(options, seed=opened.header["seed"])
        before = opened.header["before"]
    else:
        options = replace(options, seed=secrets.randbelow(1 << 32))
        path = folder / new_path().name
        opened = Journal.create(path, {**about, "seed": options.seed, "before": before})
    made = plan(options, before)
    places = {name: side.environment.place for name, side in sides.items()}
    try:
        Driver(made, opened, places=places, told=told).run()
    except BaseException:
        if kind not in RESUMED:
            opened.remove()
        raise
    finally:
        lock.release()
    return made, opened


def doubts(made: SidesPlan, sides: Mapping[str, Offered], here: str) -> list[str]:
    """Return reasons to doubt what was measured, in sentences; `here` is a side of today's."""
    notes = [f"{name}: {note}" for name, side in made.sides.items() for note in side.state.notes]
    pythons = sorted({side.environment.python for side in sides.values()})
    if len(pythons) > 1:
        notes.append(f"the sides run on different Pythons, {joined(pythons)}: none fits all")
    return [*notes, *filter(None, machine(made.spent, sides[here].offer.conditions))]


def write_runs(folder: Path, option: str, files: Mapping[str, Struct | Mapping[str, Any]]) -> None:
    """Write run files, by name, into a new folder.

    Raises:
        BakeoffError: the folder, or a file, cannot be written; `option` is what it was given to.
    """
    from bench.runfile.writer import new_folder, write

    new_folder(folder, option)
    for name, data in files.items():
        write(folder / f"{name}.json", data)
