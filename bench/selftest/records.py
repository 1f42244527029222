"""What a selftest has found so far: JSON lines, one record each, appended as they come."""

from __future__ import annotations

import json
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
    text = path.read_text("utf-8") if path.exists() else ""
    with path.open("w" if text[-1:] not in ("", "\n") else "a", encoding="utf-8") as file:
        if text[-1:] not in ("", "\n"):  # the end of a record that was cut off
            file.write(text[: text.rfind("\n") + 1])
        file.write(json.dumps(record) + "\n")
