"""What was looked at, what was seen, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much it matters."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing has to be done."""
    WARNING = "warning"
    """Timings are less reliable than they could be, or something that is here cannot be used."""


class Area(StrEnum):
    """What it is about."""

    OFFERS = "what is here"
    MISSING = "what is missing"
    TIMING = "what timings are like here"


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    area: Area
    name: str
    seen: str
    level: Level = Level.OK
    advice: str = ""
    """What to do; empty where there is nothing to do."""
