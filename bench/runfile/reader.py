"""Reader of run files; its errors have one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bench.estimates import Count
from bench.files import MIB, MOST_JSON, read_regular
from bench.runfile import SCHEMA, Name, Results, ResultsWithSamples, Series, unpack_samples
from bench.runfile.gate import list_contradictions
from bench.streams import one_line, shorten_message
from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from pathlib import Path

    from bench.samples import Sample


MOST_BYTES = 32 * MIB
"""Largest part of a run file beside its samples: a history of 30 months has less than 1 MiB."""


NO_COMMIT = ("unversioned", "unknown")
"""What pytest-benchmark calls the commit of a folder that has none, or that git cannot read."""


class NotARunError(BakeoffError):
    """A file is JSON, but not a run file."""


class Processor(msgspec.Struct):
    """Facts about a processor, of py-cpuinfo."""

    brand_raw: Name | None = ""
    family: Name | int | None = None
    model: Name | int | None = None
    stepping: Name | int | None = None
    count: Count | None = None


class Machine(msgspec.Struct):
    """Facts about a machine, of pytest-benchmark."""

    node: Name | None = ""
    processor: Name | None = ""
    machine: Name | None = ""
    system: Name | None = ""
    release: Name | None = ""
    cpu: Processor | None = None

    @property
    def processor_model(self) -> str:
        """Name of the processor, with what distinguishes it from others of that name.

        Clouds have one name for several generations, and the clock that the system tells may be the
        present one.
        """
        cpu = self.cpu or Processor()
        brand = cpu.brand_raw or self.processor or ""
        known = [
            f"{name} {number}"
            for name in ("family", "model", "stepping")
            if (number := getattr(cpu, name)) is not None
        ]
        return f"{brand} ({', '.join(known)})" if brand and known else brand


class Commit(msgspec.Struct):
    """Commit of the folder that a run was made in, of pytest-benchmark."""

    id: Name | None = ""
    """Empty for a folder without version control."""
    dirty: bool | None = False

    def __post_init__(self) -> None:
        if self.id in NO_COMMIT:
            self.id = ""


class _File(msgspec.Struct):
    """Raw parts of a file that is read: if it is no run, they may be anything."""

    bakeoff: msgspec.Raw = msgspec.Raw(b"null")
    machine_info: msgspec.Raw = msgspec.Raw(b"{}")
    commit_info: msgspec.Raw = msgspec.Raw(b"{}")
    datetime: msgspec.Raw = msgspec.Raw(b'""')


class _Claim(msgspec.Struct):
    """The schema that a run claims, and the largest of its parts."""

    schema: Any = None
    samples: msgspec.Raw = msgspec.Raw(b"")


@dataclass(frozen=True)
class Run:
    """One run file."""

    name: str
    """The file's name, without its ending, on one line."""
    results: Results
    samples: list[Sample] = field(default_factory=list)
    """Samples; empty if they were not read."""
    machine: Machine = field(default_factory=Machine)
    commit: Commit = field(default_factory=Commit)
    when: str = ""
    """Time of the run, from year to second, UTC."""

    @property
    def processor(self) -> str:
        """Processor, and the number of its cores that the run had."""
        machine = self.machine
        name = machine.processor_model or machine.machine
        cores = len(self.results.conditions.affinity or []) or (machine.cpu and machine.cpu.count)
        return ", ".join(filter(None, [name, f"{cores} cores" if cores else ""]))


def is_run(path: Path) -> bool:
    """Tell whether a file is a run file, by what is in it."""
    try:
        file = msgspec.json.decode(read_regular(path, MOST_JSON), type=_File)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return bytes(file.bakeoff) != b"null"


def read(path: Path, *, samples: bool = True) -> Run:
    """Return the run of a file, without its samples if they are not needed.

    Raises:
        NotARunError: it is JSON, but not a run file.
        BakeoffError: it cannot be read, is damaged, or is of another schema.
    """
    try:
        run = _decode(path, samples=samples)
    except OSError as error:
        raise BakeoffError(f"{path} cannot be read ({error.strerror}); give a run file") from error
    except msgspec.ValidationError as error:
        raise BakeoffError(
            f"{path} is no run, or is damaged: {shorten_message(error)}; give what "
            "`pytest bench --benchmark-json=RUN.json` wrote"
        ) from error
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise BakeoffError(
            f"{path} is not JSON ({shorten_message(error)}); give a run file"
        ) from error
    if problem := next(list_contradictions(run.results, run.samples, run.when), ""):
        raise BakeoffError(f"{path} is damaged: {problem}; give another file, or measure it again")
    return run


def _decode(path: Path, *, samples: bool) -> Run:
    """Return the run of a file of the right types; raise an error of msgspec where they are not."""
    raw = read_regular(path, MOST_JSON)
    raw.decode("utf-8")  # raises where it is not
    try:
        file = msgspec.json.decode(raw, type=_File)
    except msgspec.ValidationError:  # a list, say
        file = _File()
    section = bytes(file.bakeoff)
    if section == b"null":
        raise NotARunError(
            f"{path} is no run of jax-bakeoff; give what `pytest bench --benchmark-json` wrote; "
            "for what pytest-benchmark wrote alone, there is `pytest-benchmark compare`"
        )
    claim = msgspec.json.decode(section, type=_Claim)
    if claim.schema != SCHEMA:
        given = shorten(repr(claim.schema))
        raise BakeoffError(
            f"{path} is a run of schema {given}; schema {SCHEMA} is read: measure it again, or "
            "read it with the version that wrote it"
        )
    other_size = len(section) - len(bytes(claim.samples))
    if other_size > MOST_BYTES:
        raise BakeoffError(
            f"{path} has {other_size / MIB:.0f} MiB beside its samples, and {MOST_BYTES // MIB} "
            "are allowed; give another file"
        )
    results = msgspec.json.decode(section, type=ResultsWithSamples if samples else Results)
    series: list[Series] = []
    if isinstance(results, ResultsWithSamples):
        series = [*results.samples, *(s for step in results.search.steps for s in step.samples)]
    return Run(
        name=one_line(path.stem),
        results=results,
        samples=unpack_samples(series),
        machine=msgspec.json.decode(file.machine_info, type=Machine),
        commit=msgspec.json.decode(file.commit_info, type=Commit),
        when=msgspec.json.decode(file.datetime, type=Name)[:19],
    )
