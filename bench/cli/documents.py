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


def show(document: Document, *, details: bool = False, file: io.StringIO | None = None) -> None:
    """Print a document on standard output, or as wide as a file may be.

    Args:
        document: To print.
        details: Whether its folded parts are printed too.
        file: In place of standard output.
    """
    from rich.console import Console

    from bench.report import text

    console = Console(highlight=False, file=file, width=None if file is None else WIDTH)
    text.show(document, console, details=details)


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
    text = io.StringIO()
    show(document(), details=True, file=text)
    return text.getvalue()


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


def give(text: str, output: Path | None) -> None:
    """Write a text to a new file, and say so, or to standard output."""
    if output is None:
        sys.stdout.write(text)
        return
    from bench.cli.report import put

    put(output, text)
    print(output)
