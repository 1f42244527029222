"""A path to write to whose file appears whole, or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from common.errors import BakeoffError, shortened
from common.files import stem

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = 100_000
"""Bytes of a file that is indented: people read it."""


class Whole(type(Path())):  # type: ignore[misc]  # the platform's own path class
    """Says its name, but opens as a partial file beside it until `finish`.

    pytest-benchmark opens the path that it is given and prints its name; this lets it do both, and
    leaves no half of a file behind when the disk is full or the program is killed.
    """

    @property
    def partial(self) -> Path:
        """Where it is written first: the same folder, so that it can be renamed."""
        return Path(str(self.parent)) / f".{stem(self)}.{os.getpid()}.partial"

    def __fspath__(self) -> str:
        return str(self.partial)

    def check(self) -> None:
        """Raise BakeoffError if the folder cannot be written to, before anything is measured."""
        try:
            self.partial.touch()
            self.partial.unlink()
        except OSError as error:
            raise BakeoffError(
                f"--benchmark-json {shortened(self)}: cannot write there ({error.strerror}); "
                "name another path"
            ) from error

    def finish(self) -> None:
        """Give the whole file its name; nothing where none was written."""
        if self.partial.exists():
            with suppress(msgspec.DecodeError):  # it is not JSON: as it is
                if self.partial.stat().st_size > SMALL:
                    self.partial.write_bytes(laid_out(self.partial.read_bytes()))
            with self.partial.open("rb") as file:
                os.fsync(file.fileno())
            self.partial.replace(str(self))

    def discard(self) -> None:
        """Remove what was written of it, if anything could be."""
        with suppress(OSError):
            self.partial.unlink()


@contextmanager
def whole_file(path: Path, what: str = "") -> Iterator[Path]:
    """Yield where to write a file, which appears when all of it is written.

    Raises:
        BakeoffError: it cannot be written; `what` is what the message calls it.
    """
    whole = Whole(path)
    try:
        yield whole.partial
        whole.finish()
    except OSError as error:
        whole.discard()
        raise BakeoffError(f"{what}{path} cannot be written: {error.strerror}") from error


def written(path: Path) -> bool:
    """Tell whether a file of this name is there."""
    return Path(str(path)).exists()


def laid_out(data: bytes) -> bytes:
    """Return JSON as a file has it: a large one without indentation, which is most of the bytes."""
    return msgspec.json.format(data, indent=1 if len(data) < SMALL else -1) + b"\n"
