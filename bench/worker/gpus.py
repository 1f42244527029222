"""What NVIDIA's own tool says of the GPUs; it changes nothing."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "nvidia-smi"
FIELDS = (
    *("name", "driver_version", "memory.total", "memory.used", "utilization.gpu"),
    *("temperature.gpu", "persistence_mode", "mig.mode.current", "compute_mode"),
    *("clocks_event_reasons.hw_slowdown", "clocks_event_reasons.sw_thermal_slowdown"),
    *("clocks.sm", "clocks.max.sm"),
)
SECONDS = 20
MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    driver: str
    memory: int
    """Bytes."""
    used: int
    """Of them, by all processes."""
    busy: float
    """Part of the last moments in which something ran on it."""
    temperature: float | None
    """In degrees Celsius."""
    persistent: bool
    """The driver stays loaded while nobody uses it."""
    divided: bool
    """By MIG, so that a device is a part of it."""
    slowed: bool
    """By heat, or to save power."""
    clock: float | None = None
    """In MHz, at that moment."""
    fastest: float | None = None
    """In MHz, the highest that it can have."""


def gpus() -> list[Gpu] | None:
    """Return the GPUs; None where the tool is not installed, or does not answer."""
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    for reasons in ("clocks_event_reasons", "clocks_throttle_reasons"):  # before driver 535
        found = asked(program, [name.replace("clocks_event_reasons", reasons) for name in FIELDS])
        if found is not None:
            return found
    return None


def asked(program: str, fields: Sequence[str]) -> list[Gpu] | None:
    """Return what the tool answers; None where it does not know one of the fields."""
    query = f"--query-gpu={','.join(fields)}"
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(  # noqa: S603 -- the driver's own tool
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        return parsed(done.stdout)
    return None


def parsed(text: str) -> list[Gpu]:
    """Return the GPUs of the tool's answer, one in a line.

    Raises:
        ValueError: a line has other fields than were asked for.
    """
    found = []
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(row) != len(FIELDS):
            raise ValueError(f"{len(row)} fields where {len(FIELDS)} were asked for")
        value = dict(zip(FIELDS, row, strict=True))
        slow = (value[name] for name in FIELDS if name.startswith("clocks_event_reasons"))
        found.append(
            Gpu(
                name=value["name"],
                driver=value["driver_version"],
                memory=int(number(value["memory.total"]) or 0) * MIB,
                used=int(number(value["memory.used"]) or 0) * MIB,
                busy=(number(value["utilization.gpu"]) or 0) / 100,
                temperature=number(value["temperature.gpu"]),
                persistent=value["persistence_mode"] == "Enabled",
                divided=value["mig.mode.current"] == "Enabled",
                slowed="Active" in slow,
                clock=number(value["clocks.sm"]),
                fastest=number(value["clocks.max.sm"]),
            )
        )
    return found


def number(text: str) -> float | None:
    """Return a number; None where the tool says that there is none."""
    with suppress(ValueError):
        return float(text)
    return None
