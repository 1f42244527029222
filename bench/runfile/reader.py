"""Reader of run files; its errors have one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bench.runfile import SCHEMA, Results, ResultsWithSamples, unpack_samples
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from bench.samples import Sample


class NotARunError(BakeoffError):
    """A file is JSON, but not a run file."""


class _File(msgspec.Struct):
    """The parts of a file that are read."""

    bakeoff: msgspec.Raw = msgspec.Raw(b"null")
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    datetime: str = ""


class _Claim(msgspec.Struct):
    """The schema that a run claims."""

    schema: Any = None


@dataclass(frozen=True)
class Run:
    """One run file."""

    name: str
    """The file's name, without its ending."""
    results: Results
    samples: list[Sample] = field(default_factory=list)
    """Samples; empty if they were not read."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Facts about the machine, by pytest-benchmark."""
    commit: dict[str, Any] = field(default_factory=dict)
    when: str = ""
    """Time of the run, from year to second, UTC."""

    @property
    def processor(self) -> str:
        """Processor, and the number of its cores that the run had."""
        name = processor_model(self.machine) or str(self.machine.get("machine") or "")
        cores = len(self.results.conditions.affinity or []) or _cpu(self.machine).get("count")
        return ", ".join(filter(None, [name, f"{cores} cores" if cores else ""]))


def read(path: Path, *, samples: bool = True) -> Run:
    """Return the run of a file, without its samples if they are not needed.

    Raises:
        NotARunError: it is JSON, but not a run file.
        BakeoffError: it cannot be read, is damaged, or is of another schema.
    """
    try:
        raw = read_regular(path, MOST_JSON)
        raw.decode("utf-8")
        try:
            file = msgspec.json.decode(raw, type=_File)
        except msgspec.ValidationError:  # a list, say
            file = _File()
        section = bytes(file.bakeoff)
        if section == b"null":
            raise NotARunError(
                f"{path} is no run of jax-bakeoff; give what `pytest bench --benchmark-json` "
                "wrote; for what pytest-benchmark wrote alone, there is `pytest-benchmark compare`"
            )
        schema = msgspec.json.decode(section, type=_Claim).schema
        if schema != SCHEMA:
            raise BakeoffError(
                f"{path} is a run of schema {schema!r}; schema {SCHEMA} is read: measure it again, "
                "or read it with the version that wrote it"
            )
        results = msgspec.json.decode(section, type=ResultsWithSamples if samples else Results)
    except OSError as error:
        raise BakeoffError(f"{path} cannot be read ({error.strerror}); give a run file") from error
    except msgspec.ValidationError as error:
        raise BakeoffError(
            f"{path} is no run, or is damaged: {error}; give what "
            "`pytest bench --benchmark-json=RUN.json` wrote"
        ) from error
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise BakeoffError(f"{path} is not JSON ({error}); give a run file") from error
    return Run(
        name=path.stem,
        results=results,
        samples=unpack_samples(results.samples) if isinstance(results, ResultsWithSamples) else [],
        machine=file.machine_info,
        commit=file.commit_info,
        when=file.datetime[:19],
    )


def processor_model(machine: dict[str, Any]) -> str:
    """Return the name of a processor, with what distinguishes it from others of that name.

    Clouds have one name for several generations, and the clock that the system tells may be the
    present one.
    """
    cpu = _cpu(machine)
    brand = cpu.get("brand_raw") or machine.get("processor") or ""
    known = [f"{name} {cpu[name]}" for name in ("family", "model", "stepping") if name in cpu]
    return f"{brand} ({', '.join(known)})" if brand and known else str(brand)


def _cpu(machine: dict[str, Any]) -> dict[str, Any]:
    cpu = machine.get("cpu")
    return cpu if isinstance(cpu, dict) else {}
