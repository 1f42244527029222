"""What NVIDIA's own tool says of the GPUs; it changes nothing."""

from __future__ import annotations

import csv
import subprocess
from contextlib import suppress
from dataclasses import dataclass

PROGRAM = "nvidia-smi"
REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
"""What the tool calls the reasons for slow clocks; the second name is before driver 535."""
SLOWED = (f"{REASONS[0]}.hw_slowdown", f"{REASONS[0]}.sw_thermal_slowdown")
FIELDS = (
    *("name", "driver_version", "memory.total", "memory.used", "utilization.gpu"),
    *("temperature.gpu", "persistence_mode", "mig.mode.current", *SLOWED),
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
    """Bytes that all processes use."""
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
    for reasons in REASONS:
        fields = ",".join(FIELDS).replace(REASONS[0], reasons)
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(  # noqa: S603 -- the driver's own tool
                [PROGRAM, f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
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
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [gpu(dict(zip(FIELDS, row, strict=True))) for row in rows]


def gpu(said: dict[str, str]) -> Gpu:
    """Return the GPU of a line, given by its fields."""
    return Gpu(
        said["name"],
        said["driver_version"],
        memory=int(number(said["memory.total"]) or 0) * MIB,
        used=int(number(said["memory.used"]) or 0) * MIB,
        busy=(number(said["utilization.gpu"]) or 0) / 100,
        temperature=number(said["temperature.gpu"]),
        persistent=said["persistence_mode"] == "Enabled",
        divided=said["mig.mode.current"] == "Enabled",
        slowed="Active" in [said[reason] for reason in SLOWED],
        clock=number(said["clocks.sm"]),
        fastest=number(said["clocks.max.sm"]),
    )


def number(text: str) -> float | None:
    """Return a number; None where the tool says that there is none."""
    with suppress(ValueError):
        return float(text)
    return None
