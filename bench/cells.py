"""Cells: arms (entrant and style) at a workload on a backend, and their selection by names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import impls
from bench import own_steps
from bench.metrics import HOST, SAMPLED, USUAL, WORKLOAD_GROUPS
from bench.workloads import SKELETON, is_skeleton
from common.config import WORKLOADS, Device
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from bench.offer import Offer
    from common.contract import Style

PURE = "pure"
"""Style that all entrants share: one `jax.jit` over plain parameters."""
FLAT = "flat"
"""Style that passes arrays alone: the baseline of a user's own step."""
WHOLE = "step"
"""Style of a user's own `make_step`."""
DEFAULT_WORKLOADS = ("toy", "seed", "wide")
"""Workloads measured by default: for host cost, at the tutorial's size, and with more work for the
device."""


class Arm(NamedTuple):
    """An entrant's style, named `pure_jax/pure`."""

    entrant: str
    style: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the arm of this name."""
        entrant, _, style = name.partition("/")
        return cls(entrant, style)

    def __str__(self) -> str:
        return f"{self.entrant}/{self.style}"

    @property
    def code(self) -> Arm:
        """The arm whose code runs: the baseline's for the control, else its own."""
        return BASELINE if self == CONTROL else self

    def load(self, *, donate: bool = False) -> Style:
        """Import and return the style; with `donate`, one that donates its state if it can."""
        entrant, style = self.code
        return impls.load(entrant).style(style, donate=donate)

    def make_cell(self, workload: str, backend: str) -> Cell:
        """Return the arm's cell at a workload on a backend."""
        return Cell(self.entrant, self.style, workload, backend)


BASELINE = Arm("pure_jax", PURE)
"""Arm that ratios refer to."""
CONTROL = Arm("control", PURE)
"""The baseline under a second name (the A/A control): a difference between them is noise."""
REFERENCE = (BASELINE, CONTROL)
"""Two arms of one program; other arms are compared with both together."""


class Cell(NamedTuple):
    """An arm at a workload on a backend: one value for each metric."""

    entrant: str
    style: str
    workload: str
    backend: str

    @property
    def arm(self) -> Arm:
        """Entrant and style of the cell."""
        return Arm(self.entrant, self.style)

    @property
    def is_baseline(self) -> bool:
        """Whether it is a cell of plain JAX, which ratios refer to."""
        return self.arm == BASELINE

    @property
    def is_control(self) -> bool:
        """Whether it is a cell of the control."""
        return self.arm == CONTROL

    @property
    def baseline(self) -> Cell:
        """The cell that ratios at this workload and backend refer to."""
        return BASELINE.make_cell(self.workload, self.backend)

    @property
    def place(self) -> str:
        """Workload and backend in words."""
        return f"{self.workload} on {self.backend}"

    def __str__(self) -> str:
        return "-".join(self)


@dataclass(frozen=True)
class Selection:
    """Names asked for on the command line; empty stands for the default."""

    entrants: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Name → a user's own Python file that takes part: an entrant or a training step."""

    @classmethod
    def parse(cls, given: Mapping[str, Iterable[str] | None]) -> Self:
        """Return the selection that options ask for: `entrant`, `style`, `workload` and so on.

        Args:
            given: Option → its values, as `parse_names` reads them. Entrants may be Python files.

        Raises:
            BakeoffError: a name is empty, or a file is no entrant.
        """
        names = {option: parse_names(values) for option, values in given.items()}
        entrants, files = parse_entrants(names["entrant"])
        styles, workloads = names["style"], names["workload"]
        return cls(entrants, styles, workloads, names["backend"], names["metric"], files)

    @property
    def step(self) -> str:
        """Workload of a user's own training step; empty without one."""
        return own_steps.find_step(self.files)

    def is_selected(self, arm: Arm) -> bool:
        """Tell whether an arm has a selected entrant and style."""
        entrants, styles = self.entrants or (arm.entrant,), self.styles or (arm.style,)
        return arm.entrant in entrants and bool({arm.style, str(arm)} & {*styles})

    def check_names(self) -> None:
        """Raise BakeoffError if a workload or a metric is unknown; no environment is asked."""
        named = (n for n in self.workloads if n not in WORKLOADS and n != self.step)
        require_known("workload", named, [*WORKLOADS, *WORKLOAD_GROUPS])
        require_known("metric", self.metrics, SAMPLED)

    def check_styles(self) -> None:
        """Raise BakeoffError if a style is in no entrant's file; no environment is asked.

        With a user's own file nothing is checked: its styles are known once it is imported.
        """
        if self.styles and not self.files:
            named = {name: impls.list_styles(name) for name in self.entrants}
            self.require_styles(named or read_styles(impls.names(), {}))

    def require_styles(self, by_entrant: Mapping[str, Iterable[str]]) -> None:
        """Raise BakeoffError if a selected style is unknown; `by_entrant` has the known ones."""
        arms = [str(Arm(name, style)) for name, styles in by_entrant.items() for style in styles]
        styles = dict.fromkeys(chain.from_iterable(by_entrant.values()))
        for name in self.styles:
            library, slash, _ = name.rpartition("/")
            same = [arm for arm in arms if arm.startswith(f"{library}/")]
            require_known("style", [name], (same or arms) if slash else styles)

    def cells(self, offer: Offer) -> list[Cell]:
        """Return the selected cells that an environment offers, the baseline's first.

        Raises:
            BakeoffError: a name is unknown, or no entrant has a style that is asked for.
        """
        entrants = [*offer.styles, *offer.problems]
        by_entrant = offer.styles | (read_styles(offer.problems, self.files) if self.styles else {})
        backends = [Device.parse(name) for name in self.backends]
        require_known("entrant", self.entrants, entrants)
        self.require_styles(by_entrant)
        require_known("backend", [device.backend for device in backends], offer.backends)
        for device in backends:
            device.require(offer.details.get(device.backend, {}).get("count", 1))
        entrants = [name for name in entrants if name in (self.entrants or entrants)]
        names = self.workloads or DEFAULT_WORKLOADS
        workloads = dict.fromkeys(w for name in names for w in WORKLOAD_GROUPS.get(name, (name,)))
        cells = [
            cell
            for backend in self.backends or offer.backends
            for workload in workloads
            for entrant in entrants
            if Device.parse(backend).backend not in offer.lacking.get(entrant, ())
            for style in by_entrant.get(entrant) or [PURE]
            if self.is_wanted(Arm(entrant, style), offer)
            for cell in self.add_skeleton(Cell(entrant, style, workload, backend))
        ]
        if not cells:
            known = sorted({s for name in entrants for s in offer.styles.get(name, [])})
            raise unknown(f"style of {', '.join(entrants)}", ", ".join(self.styles), known)
        return cells

    def is_wanted(self, arm: Arm, offer: Offer) -> bool:
        """Tell whether an arm is measured: some only if they or their entrant are named."""
        if self.styles:
            return self.is_selected(arm)
        is_usual = arm.style not in offer.if_named.get(arm.entrant, ())
        return is_usual or arm.entrant in self.entrants

    @cached_property
    def has_skeleton(self) -> bool:
        """Whether a user's own training step takes part, and has a model."""
        return bool(self.step) and own_steps.has_model(Path(self.files[self.step]))

    def add_skeleton(self, cell: Cell) -> list[Cell]:
        """Return a cell, and that of the step's skeleton if there is one, which is on the CPU."""
        if cell.workload != self.step or not self.has_skeleton or cell.style == WHOLE:
            return [cell]
        return [cell._replace(workload=cell.workload + SKELETON, backend="cpu"), cell]

    def is_measured(self, metric: str, cell: Cell) -> bool:
        """Tell whether a metric of a cell is measured.

        Of a user's own step with a model, that is what a call adds, unless others are named.
        """
        about = SAMPLED[metric]
        if self.has_skeleton and metric == HOST:
            is_asked = not self.metrics or HOST in self.metrics
            return is_asked and (is_skeleton(cell.workload) or cell.style == WHOLE)
        if self.has_skeleton and not self.metrics:
            return False
        several = any(cell.workload in names for names in WORKLOAD_GROUPS.values())
        if self.metrics or about.named:
            return metric in self.metrics and about.is_measured_at(cell.workload)
        usual = SAMPLED if self.workloads and not several else USUAL.get(cell.workload, SAMPLED)
        return metric in usual and about.is_measured_at(cell.workload)


def read_styles(entrants: Iterable[str], files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return entrant → styles, from the text of their files; unreadable ones are left out."""
    styles: dict[str, list[str]] = {}
    for name in entrants:
        with suppress(BakeoffError):
            styles[name] = impls.list_styles(impls.locate(name, files))
    return styles


def require_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise BakeoffError unless each of some names is one of `known`."""
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def parse_names(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of an option that was given several times, or with commas.

    Raises:
        BakeoffError: one that was given is empty: it would stand for all.
    """
    values = list(values or ())
    if not all(value.strip(", ") for value in values):
        raise BakeoffError("a name is empty; give one, or leave its option out")
    parts = (part.strip() for value in values for part in value.split(","))
    return tuple(filter(None, parts))


def parse_entrants(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names of entrants, some of which are given as files, and name → user's file.

    Raises:
        BakeoffError: there is no such file, it is no entrant, or two have the same name.
    """
    entrants: list[str] = []
    files: dict[str, str] = {}
    for given in names:
        if not given.endswith(".py"):
            entrants.append(given)
            continue
        name, path = impls.read_name(given), Path(given).resolve()
        if own_steps.is_step(path):
            raise BakeoffError(
                f"{given} is a training step, and no entrant; `bakeoff cost {given}` measures "
                f"it, and `bakeoff ab --step {given}` compares it"
            )
        entrants.append(name)
        if name not in impls.names() and files.setdefault(name, str(path)) != str(path):
            raise BakeoffError(f"entrant {given!r}: there is another {name!r}; rename the file")
    return tuple(entrants), files


def name_step(file: Path) -> str:
    """Return the name of the workload that a user's own training step is.

    Raises:
        BakeoffError: it is no Python file, has neither a model nor a step, or imports
            modules that are named as this project's.
    """
    if file.suffix != ".py" or not file.is_file():
        raise BakeoffError(
            f"there is no Python file {file}; `bakeoff new mine --model equinox` begins one"
        )
    name = impls.read_name(file)
    if name in WORKLOAD_GROUPS:
        raise BakeoffError(f"{file.name}: {name} stands for several workloads; rename the file")
    if not own_steps.is_step(file):
        impls.read_declaration(file)  # which says what is wrong with a file that is no Python
        raise BakeoffError(
            f"{file.name} has neither make_model nor make_step; `bakeoff new mine --model equinox` "
            "begins a file that has"
        )
    own_steps.require_no_clash(file)
    return name
