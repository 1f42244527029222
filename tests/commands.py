"""How tests run the command line: in this process, or as a user does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


type Bakeoff = Callable[..., Done]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.cli", *arguments]


def how(folder: Path) -> dict[str, Any]:
    """Return how a command is started: in a folder, with a lock and temporary files of its own."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return {"cwd": folder, "env": variables, "text": True}
