"""One run as `pytest bench` sees it: what is wanted, what was found, what is said of it."""

from __future__ import annotations

import hashlib
import secrets
import shlex
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import impls
from bench.cells import Cell, Offer, Selection
from bench.engine.actions import AUTO, Options
from bench.engine.cores import one_core_lanes
from bench.engine.driver import Driver
from bench.engine.environment_plan import STARVED
from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.engine.others import Others
from bench.engine.planner import MIN_COLD
from bench.engine.processes import Place
from bench.engine.run_plan import Run
from bench.estimates import Settled
from bench.metrics import METRICS
from bench.report.sentences import sentences
from bench.scaling import scaling
from bench.summary import section, values_of
from bench.watch import warnings
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.engine.others import Busy
    from bench.engine.state import Spent, State

__all__ = ["Measured", "Offer", "Wanted"]


class Wanted(NamedTuple):
    """What the command line asks for."""

    arguments: tuple[str, ...]
    selection: Selection
    metrics: tuple[str, ...]
    outside: dict[str, str]
    budget: float
    margin: float
    resume: str | None
    processes: int | None
    blocks: int | None
    rounds: int | None
    cold_samples: int | None
    environment: str | None = None
    cores: str = AUTO

    @property
    def options(self) -> Options:
        """How much is measured."""
        return Options(
            self.budget,
            processes=self.processes,
            blocks=self.blocks,
            rounds=self.rounds,
            cold_samples=self.cold_samples,
            cores=self.cores,
            margin=self.margin,
        )


@dataclass
class Measured:
    """Measures when it is first asked to."""

    wanted: Wanted
    offer: Offer
    journal: Journal | None = None
    """Of a run that is to be taken up; else one is begun."""
    needed: dict[Cell, set[str]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=lambda: {"": Place()})
    """Where workers run, by environment."""
    state: State | None = None
    complete: bool = False
    """The schedule came to its end."""
    interrupted: bool = False
    """Ctrl-C came; nothing more is measured."""
    broken: bool = False
    """Something failed that nobody thought of: there is no result, but a journal."""
    handed: int = 0
    """Benchmarks whose samples were handed to pytest-benchmark, or that have none."""
    numbers: int = 0
    """Benchmarks that have samples."""
    said: dict[str, Any] | None = None
    busiest: Busy | None = None
    """The process that used this machine most, beside the run."""

    def __post_init__(self) -> None:
        self.options = self.wanted.options
        """With the seed of this run, once it has begun."""

    def run(
        self,
        before: float,
        told: Callable[[Any, Spent], None],
        planned: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """Measure everything.

        Args:
            before: Seconds that have gone already.
            told: Told before each action.
            planned: Told the plan, before it begins.
        """
        if self.journal is None:
            self.options = replace(self.wanted.options, seed=secrets.randbelow(1 << 32))
            self.journal = Journal.create(new_path(), self.header(before))
        else:
            seed = self.journal.header["options"].get("seed", 0)
            self.options = replace(self.wanted.options, seed=seed)
            self.check()
            before = self.journal.header["before"]
        offer = self.offer
        self.plan = plan = Run(
            self.needed,
            self.options,
            before,
            problems=offer.problems,
            environments=offer.sides,
            lanes=[tuple(lane) for lane in self.journal.header["lanes"]],
            settled=Settled(self.options.margin),
        )
        planned(plan.outline())
        others = Others()
        try:
            of = {side: offer.environment(side) for side in ["", *offer.sides.values()]}
            places = {side: self.places[name] for side, name in of.items()}
            heavy = frozenset(side for side, name in of.items() if name)
            Driver(plan, self.journal, self.wanted.outside, places, told, heavy=heavy).run()
            self.complete = True
        except KeyboardInterrupt:
            self.interrupted = True
        except BaseException:
            self.broken = True
            raise
        finally:
            self.state = plan.state
            self.busiest = others.busiest()

    def header(self, before: float) -> dict[str, Any]:
        """Return what a journal's first line says."""
        return {
            "arguments": self.wanted.arguments,
            "options": asdict(self.options),
            "needed": [[*cell, sorted(metrics)] for cell, metrics in self.needed.items()],
            "outside": {name: digest(path) for name, path in self.wanted.outside.items()},
            "code": code_digest(),
            "offer": asdict(self.offer),
            "before": before,
            "lanes": [list(lane) for lane in one_core_lanes()],
        }

    def check(self) -> None:
        """Raise BakeoffError unless the journal is of a run with the same options."""
        assert self.journal is not None
        now = self.header(0.0)
        for name in ("options", "needed", "outside", "lanes"):
            if self.journal.header[name] != msgspec.to_builtins(now[name]):
                given = shlex.join(without_resume(self.journal.header["arguments"]))
                raise BakeoffError(
                    f"the journal {self.journal.path} is of another run: go on with it by "
                    f"`pytest {given} --resume`, or start anew without --resume"
                )
        if self.journal.header["code"] != now["code"]:
            raise BakeoffError(
                f"the journal {self.journal.path} was made by other code: entrants, what they share"
                " or the engine have changed since; have that code again, or start anew without "
                "--resume"
            )

    def how_to_go_on(self) -> str:
        """Say how an interrupted run is taken up."""
        assert self.journal is not None
        return (
            "interrupted: no run file is written; what was measured is safe. Go on with:\n"
            f"  pytest {shlex.join(without_resume(self.wanted.arguments))} "
            f"--resume={self.journal.path}"
        )

    def nothing(self) -> str:
        """Say why there is no run file, though the run has come to its end."""
        assert self.journal is not None
        return (
            "no benchmark has a number, so no run file is written: give a larger --budget than "
            f"{self.wanted.budget:g}, or fewer entrants, styles or workloads. What was found is in "
            f"{self.journal.path}"
        )

    def failure(self, cell: Cell) -> str | None:
        """Return why a cell has no number."""
        assert self.state is not None
        return self.state.cells[cell].failure

    def samples(self, cell: Cell, metric: str) -> list[float]:
        """Return a cell's samples; of a training, the seconds of each run."""
        assert self.state is not None
        return values_of(self.state.cells[cell], metric)

    def info(self, cell: Cell, metric: str) -> dict[str, Any]:
        """Return what a benchmark's entry says beside its times."""
        assert self.state is not None
        info: dict[str, Any] = {**cell._asdict(), "metric": metric, "unit": METRICS[metric].unit}
        [row] = [c for c in self.section()["cells"] if Cell(*(c[n] for n in Cell._fields)) == cell]
        if metric == "final_loss":
            if row["final_loss"] is None:
                return {"missing": self.state.missing.get((cell, metric), STARVED)}
            return info | {k: v for k, v in row["final_loss"].items() if k != "seconds"}
        info |= row["metrics"][metric]
        if "missing" in info:
            return info
        split = self.state.cells[cell].facts.get("trace_and_lower_split_by")
        if metric in ("trace", "lower") and split:
            info["trace_and_lower_split_by"] = split
        return info

    def section(self) -> dict[str, Any]:
        """Return what the run says as a whole."""
        assert self.state is not None
        assert self.journal is not None
        if self.said is None:
            said = section(
                self.state,
                self.needed,
                fewest_cold=1 if self.options.fixed else MIN_COLD,
                margin=self.wanted.margin,
                arguments=list(self.journal.header["arguments"]),
                environment={
                    "versions": self.offer.versions,
                    "devices": self.offer.devices,
                    "device_details": self.offer.details,
                    **self.offer.conditions,
                    **self.environments(),
                },
                plan={"budget_seconds": self.wanted.budget, "seed": self.options.seed},
                notes=self.notes(),
                **({"scaling": rows} if (rows := scaling(self.state.cells)) else {}),
            )
            said["warnings"] = warnings(self.state, said, self.offer, self.busiest)
            said["verdict"] = sentences(said)
            self.said = said
        return self.said

    def notes(self) -> dict[str, str]:
        """Return what entrants that were measured have to be said of them."""
        found = {}
        for name in dict.fromkeys(cell.entrant for cell in self.needed):
            with suppress(BakeoffError):  # then it is a failed cell
                found[name] = impls.declared(name).note
        return {name: note for name, note in found.items() if note}

    def environments(self) -> dict[str, Any]:
        """Return what is in the environments that entrants have for themselves, if any has."""
        return {"own_environments": self.offer.apart} if self.offer.apart else {}

    def done(self, *, kept: bool) -> None:
        """Drop the journal of a run that has come to its end, if nobody needs it any more."""
        if self.complete and self.journal is not None and kept:
            self.journal.remove()


def offer_of(journal: Journal) -> Offer:
    """Return what the environment had when a journal was begun.

    Raises:
        BakeoffError: the journal's first line does not say all that a run needs.
    """
    header = journal.header
    missing = [name for name, type_ in HEADER.items() if not isinstance(header.get(name), type_)]
    with suppress(msgspec.ValidationError):
        found = msgspec.convert(header.get("offer"), Offer)
        if not missing:
            return found
    raise BakeoffError(
        f"the first line of the journal {journal.path} is damaged: it lacks "
        f"{', '.join(missing or ['parts of offer'])}; start anew without --resume"
    )


CODE = ("bench/engine", "bench/worker", "bench/stats", "common", "impls")
"""Folders of it."""
HEADER: dict[str, Any] = {
    "arguments": list,
    "options": dict,
    "needed": list,
    "outside": dict,
    "offer": dict,
    "code": str,
    "before": int | float,
    "lanes": list,
}
"""What a journal's first line says of its run."""


def without_resume(arguments: Iterable[str]) -> list[str]:
    """Return what was typed without `--resume`, its journal included."""
    kept: list[str] = []
    after = False
    for argument in arguments:
        journal = after and argument.endswith(SUFFIX)
        after = argument == "--resume"
        if not (journal or argument.startswith("--resume")):
            kept.append(argument)
    return kept


def code_digest(folders: Iterable[str] = CODE) -> str:
    """Return the SHA-256 of the code that a run's numbers depend on."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()


def digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def new_path() -> Path:
    """Return a name for a new journal."""
    return FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03d}{SUFFIX}"
