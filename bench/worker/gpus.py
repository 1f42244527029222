"""What NVIDIA's own tool says of the GPUs; it changes nothing."""

from __future__ import annotations

import csv
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass

PROGRAM = "nvidia-smi"
REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
"""What the tool calls the reasons for slow clocks; the second name is before driver 535."""
FIELDS = (
    *("name", "driver_version", "memory.total", "memory.used", "utilization.gpu"),
    *("temperature.gpu", "persistence_mode", "mig.mode.current", "compute_mode"),
    *(f"{REASONS[0]}.{reason}" for reason in ("hw_slowdown", "sw_thermal_slowdown")),
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
    for reasons in REASONS if program else ():
        fields = ",".join(FIELDS).replace(REASONS[0], reasons)
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(  # noqa: S603 -- the driver's own tool
                [str(program), f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
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
    return [gpu(*row) for row in csv.reader(text.splitlines(), skipinitialspace=True)]


def gpu(*row: str) -> Gpu:
    """Return the GPU of a line."""
    if len(row) != len(FIELDS):
        raise ValueError(f"{len(row)} fields where {len(FIELDS)} were asked for")
    name, driver, memory, used, busy, temperature, persistent, divided, _, *more = row
    hardware, thermal, clock, fastest = more
    return Gpu(
        name,
        driver,
        memory=int(number(memory) or 0) * MIB,
        used=int(number(used) or 0) * MIB,
        busy=(number(busy) or 0) / 100,
        temperature=number(temperature),
        persistent=persistent == "Enabled",
        divided=divided == "Enabled",
        slowed="Active" in (hardware, thermal),
        clock=number(clock),
        fastest=number(fastest),
    )


def number(text: str) -> float | None:
    """Return a number; None where the tool says that there is none."""
    with suppress(ValueError):
        return float(text)
    return None
