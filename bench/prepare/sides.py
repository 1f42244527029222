"""Sides of an A/B, a bisection or a history: environments whose workers alternate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import impls
from bench import own_steps
from bench.cells import WHOLE
from bench.engine.process import WorkerFailedError
from bench.engine.task import Task
from bench.environments import ask_environment
from bench.environments.uv import PYTHONS, UnsolvableError, list_installed, suggest_stack
from bench.metrics import HOST, SAMPLED, STAGES, STEP, Kind
from bench.runfile import find_differing_releases
from bench.runfile.warnings import SHARED_PACKAGES
from bench.workloads import SKELETON, is_skeleton
from common.config import DEEP
from common.errors import BakeoffError
from common.versions import PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bench.cells import Cell, Selection
    from bench.engine.task import Environment
    from bench.environments.builder import Builder
    from bench.environments.spec import Spec
    from bench.options import Options
    from bench.runfile import FileKind

DEEP_SECONDS, DEEP_CALLS_SECONDS = 300.0, 60.0
"""Budget in seconds from which on `DEEP` is measured, unless host cost is asked for by name, and
where calls go first: with less, there would be no time left for steps, or for a precise call."""
WORKLOADS = ("toy", DEEP.name, "seed")
"""Workloads measured by default: two for host costs, and the tutorial's size."""
AT_ONCE = 2
"""Environments that are built, or asked, at the same time: a small machine has two cores."""
IN_TURNS = [
    name
    for name, metric in SAMPLED.items()
    if metric.kind is Kind.COLD or metric.turn in (STEP, HOST, STAGES)
]
"""Metrics that are measured side by side."""


class DoesNotRunError(BakeoffError):
    """A side cannot run a user's own step; the exit status is 1 if it is the new side, else 2."""

    def __init__(self, side: str, spec: str, step: str, problem: str) -> None:
        super().__init__(f"{side} ({spec}) does not run {step}.py: {problem}")
        self.exit_status = 1 if side == "new" else 2


def require_metrics(names: Iterable[str]) -> None:
    """Raise BakeoffError unless each metric is measured side by side."""
    for name in names:
        if name not in IN_TURNS:
            raise BakeoffError(
                f"metric {name!r} is not measured side by side; give one of {', '.join(IN_TURNS)}. "
                "Exact counts are always compared; `pytest bench` measures the others"
            )


def require_cells(metrics: Iterable[object], selection: Selection) -> None:
    """Raise BakeoffError if all cells of a selection are without metrics."""
    if not any(metrics):
        raise BakeoffError(
            "nothing to measure: no selected style and workload has the metric "
            f"{', '.join(selection.metrics)}; choose others, or leave --metric out"
        )


def build_environments(specs: Sequence[Spec], builder: Builder) -> list[Environment]:
    """Return the environments of sides: of the same Python, if there is one that fits them all.

    Raises:
        BakeoffError: one of them cannot be built; which, and why.
    """
    # The oldest Python that fits is the one for which most releases of that time have wheels.
    pythons: tuple[str, ...] = PYTHONS
    if any(spec.is_current for spec in specs):
        pythons = (PYTHON,)
    elif any(spec.revision for spec in specs):  # one with this lock needs this Python
        pythons = tuple(dict.fromkeys([PYTHON, *PYTHONS]))
    for python in pythons:
        with suppress(UnsolvableError):
            return [builder.build(spec, (python,)) for spec in specs]
    return [builder.build(spec) for spec in specs]


def ask_side(environment: Environment, selection: Selection) -> Environment:
    """Return an environment with its offer: what its worker can measure of a selection.

    A library that does not fit the other releases is named there, with releases that do.

    Raises:
        BakeoffError: no worker of it can even load the baseline.
    """
    try:
        side = ask_environment(environment, selection.entrants, selection.files)
    except (WorkerFailedError, msgspec.ValidationError, OSError) as error:
        # Its answer may be another revision's, or its interpreter missing
        raise BakeoffError(f"{environment.info.spec} cannot be measured: {error}") from error
    for name, (package, release) in side.offer.unfit.items():
        advice = "give releases that fit each other, as those of a day do"
        with suppress(BakeoffError):  # a package of a checkout, or no index
            advice = suggest_stack(package, release, environment.python)
        problem = f"{side.offer.problems[name]}; {advice}"
        side.offer.problems[name] = side.info.gaps[name] = problem
    return side


def run_at_once[Given, Result](
    function: Callable[[Given], Result], given: Mapping[str, Given]
) -> Iterator[tuple[str, Result | BakeoffError]]:
    """Yield name and result, or the error, of each call, in order; `AT_ONCE` go on at a time."""

    def attempt(argument: Given) -> Result | BakeoffError:
        try:
            return function(argument)
        except BakeoffError as error:
            return error

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield from zip(given, pool.map(attempt, given.values()), strict=True)
    finally:  # after Ctrl-C, those that wait are not begun
        pool.shutdown(wait=False, cancel_futures=True)


def find_gap(side: Environment, cell: Cell) -> str:
    """Return the reason why a side lacks a cell's style; empty if it has it."""
    if cell.style in side.offer.styles.get(cell.entrant, ()):
        return ""
    gaps = side.info.gaps
    names = str(cell.arm), cell.entrant, cell.workload.removesuffix(SKELETON)
    return next(filter(None, map(gaps.get, names)), "there is no such style")


def find_affected_entrants(base: Environment, new: Environment) -> tuple[str, ...]:
    """Return the entrants whose libraries differ in two environments, before a worker is asked.

    The answer is empty if all may be affected, since Python, JAX, optax and NumPy are part of each,
    as this project's own code is; and if no library differs.
    """
    releases = [side.info.pins or list_installed() for side in (base, new)]
    names = {*find_differing_releases(*releases)}
    same_python = (base.python or PYTHON) == (new.python or PYTHON)
    if not same_python or base.info.commit != new.info.commit or names & {*SHARED_PACKAGES}:
        return ()
    usual = {name: impls.read_declaration(name) for name in impls.list_usual()}
    return tuple(
        name
        for name, about in usual.items()
        if not names.isdisjoint((about.distribution, *about.packages))
    )


def choose_cells(selection: Selection, sides: Mapping[str, Environment]) -> dict[str, list[Cell]]:
    """Return side → its selected cells, on one backend; some of them are those of all sides.

    If no backend is asked for, it is an accelerator that all sides have, or else the CPU.

    Raises:
        BakeoffError: no side knows a name, or the sides have no cell in common.
        DoesNotRunError: a side cannot run a user's own step.
    """
    selection = replace(selection, workloads=selection.workloads or WORKLOADS)
    cells: dict[str, list[Cell]] = {}
    errors: list[BakeoffError] = []
    for name, side in sides.items():
        if problem := side.offer.problems.get(selection.step):
            raise DoesNotRunError(name, side.info.spec, selection.step, problem)
        try:
            cells[name] = selection.cells(side.offer)
        except BakeoffError as error:
            cells[name] = []
            errors.append(error)
    if not any(cells.values()):
        raise errors[0]
    step = selection.step
    if step and not own_steps.has_model(Path(selection.files[step])):
        # The baseline of such a file is its own step, too, and stands for `--style pure`
        for name, of_side in cells.items():
            own = (cell._replace(entrant=step, style=WHOLE) for cell in of_side)
            cells[name] = list(dict.fromkeys(own))
    backends = [{cell.backend for cell in of_side} for of_side in cells.values()]
    shared = sorted(set.intersection(*backends) or set.union(*backends))
    backend = next((name for name in shared if name != "cpu"), shared[0])
    chosen = {
        name: [c for c in of_side if c.backend == backend or is_skeleton(c.workload)]
        for name, of_side in cells.items()
    }
    if not set.intersection(*map(set, chosen.values())):
        raise BakeoffError(explain_mismatch(sides))
    return chosen


def explain_mismatch(sides: Mapping[str, Environment]) -> str:
    """Return the reason why sides have no cell in common."""
    for name, side in sides.items():
        for entrant, problem in side.offer.problems.items():
            stack = ", ".join(f"{n} {v}" for n, v in side.info.versions.items())
            return (
                f"{name} ({side.info.spec}) does not run {entrant} with {stack}: {problem}; give "
                "releases that go together: the stack of another day, as in `@2026-06-01`, or a "
                "pin of jax as well"
            )
    return (
        f"{' and '.join(sides)} have nothing in common that is asked for; choose other sides, "
        "entrants or styles"
    )


def make_task(
    kind: FileKind,
    selection: Selection,
    sides: Mapping[str, Environment],
    cells: Mapping[str, Sequence[Cell]],
    options: Options,
    arguments: Sequence[str] = (),
    *,
    calls_first: bool = False,
) -> Task:
    """Return the task of measuring cells of sides, each of which alternates with the first.

    Raises:
        BakeoffError: no cell has a metric that is asked for.
    """
    deep_seconds = DEEP_CALLS_SECONDS if calls_first else DEEP_SECONDS

    def list_metrics(cell: Cell) -> frozenset[str]:
        names = IN_TURNS
        if cell.workload == DEEP.name and not selection.workloads:
            names = [HOST] if HOST in selection.metrics or options.budget >= deep_seconds else []
        return frozenset(name for name in names if selection.is_measured(name, cell))

    needed = {
        side: {cell: metrics for cell in of_side if (metrics := list_metrics(cell))}
        for side, of_side in cells.items()
    }
    require_cells(needed.values(), selection)
    base, *others = sides
    return Task(
        kind=kind,
        arguments=tuple(arguments),
        needed=needed,
        sides=sides,
        options=options,
        groups=[(base, name) for name in others],
        base=base,
        outside=selection.files,
        metrics=selection.metrics,
        all_together=kind == "ab",
        calls_first=calls_first,
    )


def keep_styles(selection: Selection) -> Selection:
    """Return a selection without the styles that its entrants lack; others have them.

    Raises:
        BakeoffError: they have none of them.
    """
    known = {style for name in selection.entrants for style in impls.list_styles(name)}
    kept = tuple(style for style in selection.styles if style in known)
    if selection.styles and not kept:
        raise BakeoffError(
            f"--style {','.join(selection.styles)}: {', '.join(selection.entrants)}, of the "
            f"library that differs, have {', '.join(sorted(known))}"
        )
    return replace(selection, styles=kept)


def prepare_sides(
    specs: Mapping[str, Spec],
    selection: Selection,
    options: Options,
    builder: Builder,
    arguments: Sequence[str],
) -> Task:
    """Return the task of an A/B.

    `specs` has the base and the new side by their names, the base first. If neither entrants nor a
    step are named, the usual styles of those are measured whose library differs. Where a library
    is all that differs, calls go before all else.

    Raises:
        BakeoffError: a side cannot be built or asked, or both have nothing in common.
        DoesNotRunError: a side cannot run a user's own step.
    """
    environments = build_environments([*specs.values()], builder)
    affected = () if selection.step else find_affected_entrants(*environments)
    names_entrants = selection.entrants or any("/" in style for style in selection.styles)
    is_chosen = bool(affected) and not names_entrants
    if is_chosen:
        builder.notify(f"entrants of the library that differs: {', '.join(affected)}")
        selection = keep_styles(replace(selection, entrants=affected))
    sides = {}
    ask = partial(ask_side, selection=selection)
    for name, asked in run_at_once(ask, dict(zip(specs, environments, strict=True))):
        if isinstance(asked, BakeoffError):
            raise asked
        sides[name] = asked
    cells = choose_cells(selection, sides)
    if is_chosen and not selection.styles:
        abouts = {name: impls.read_declaration(name) for name in affected}
        unusual = {name: {*about.if_named, *about.references} for name, about in abouts.items()}
        cells = {
            name: [cell for cell in of_side if cell.style not in unusual.get(cell.entrant, ())]
            for name, of_side in cells.items()
        }
    return make_task("ab", selection, sides, cells, options, arguments, calls_first=bool(affected))
