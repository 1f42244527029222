"""Documents as commands give them out: printed, or as the content of a file."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bench.report.table import Document

WIDTH = 100
"""Characters of a line in a text file."""
ENDINGS = {"text": ("txt", "text"), "md": ("md", "markdown"), "html": ("html", "htm")}
"""Of files, where they are not the name of a format."""


def show(document: Document, *, details: bool = False) -> None:
    """Print a document on standard output, with its folded parts if `details` are asked for."""
    from rich.console import Console

    from bench.report import text

    text.show(document, Console(highlight=False), details=details)


def rendered(document: Callable[..., Document], format_: str, marker: str = "") -> str:
    """Return a document as the content of a file.

    Args:
        document: Makes it; given `figures=True` for a page.
        format_: `html`, `md` or `text`.
        marker: First line of Markdown, by which a later comment finds the one that it replaces.
    """
    if format_ == "html":
        from bench.report.page.parts import document_page

        return document_page(document(figures=True))
    if format_ == "md":
        from bench.report.markdown import markdown

        return markdown(document(), marker)
    from rich.console import Console

    from bench.report import text

    file = io.StringIO()
    text.show(document(), Console(highlight=False, file=file, width=WIDTH), details=True)
    return file.getvalue()


def format_of[F: str](
    given: F | None,
    output: Path | None,
    formats: Iterable[F],
    *,
    folder: bool = False,
    hint: str = ", or give --format",
) -> F | None:
    """Return the format that is given, or that a new file's name asks for; text without a file.

    Args:
        given: On the command line.
        output: The file.
        formats: That are known.
        folder: Whether a name without an ending is a folder, which has no format.
        hint: What else to do about an unknown ending.

    Raises:
        BakeoffError: the ending is unknown, or the output cannot be a new one.
    """
    known = {f".{end}": each for each in formats for end in ENDINGS.get(each, (each,))}
    if output is None:
        return given or known.get(".txt")
    ending = output.suffix.lower()
    if given is None and ending not in known and (ending or not folder):
        also = ", and no ending for a folder" if folder else ""
        raise BakeoffError(
            f"output {output} ends in {output.suffix or 'nothing'}; {', '.join(known)} are known"
            f"{also}: name it so{hint}"
        )
    require_new(output, "output")
    return given or known.get(ending)


def put(path: Path, data: str | bytes) -> None:
    """Write a new file, whole or not at all."""
    from bench.runfile.atomic_write import whole_file

    with whole_file(path, "output ") as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def give(made: str | bytes, output: Path | None) -> None:
    """Write what was made to a new file, and say so; a text may go to standard output."""
    if output is not None:
        put(output, made)
        print(output)
    elif isinstance(made, str):
        sys.stdout.write(made)
