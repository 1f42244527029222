"""What a selftest has found so far: JSON lines, one record each, appended as they come."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "trials.jsonl"


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all records; half a line at the end is left out.

    Raises:
        BakeoffError: a line in between is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return []
    text = path.read_text("utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise BakeoffError(
            f"{path} is damaged ({error}); mend it, or name another folder"
        ) from error


def append(folder: Path, record: dict[str, Any]) -> None:
    """Write one record down."""
    path = folder / NAME
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):  # the end of a record that was cut off
        os.truncate(path, whole)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
