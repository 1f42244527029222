"""Files that appear whole, or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from common.errors import BakeoffError
from common.files import partial_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole_file(path: Path, what: str = "") -> Iterator[Path]:
    """Yield where to write a file, which gets its name when all of it is written.

    Raises:
        BakeoffError: it cannot be written; `what` is what the message calls it.
    """
    try:
        with partial_file(path) as partial:
            yield partial
    except OSError as error:
        raise BakeoffError(f"{what}{path} cannot be written: {error.strerror}") from error
