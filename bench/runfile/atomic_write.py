"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from common.errors import BakeoffError
from common.files import stem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole_file(path: Path, what: str = "") -> Iterator[Path]:
    """Yield where to write a file, which gets its name when all of it is written.

    Raises:
        BakeoffError: it cannot be written; `what` is what the message calls it.
    """
    partial = path.with_name(f".{stem(path)}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BakeoffError(f"{what}{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
