"""How commands open, write and format their outputs: the one way for all of them."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.report.table import Document

WIDTH = 100
"""Characters of a line in a text file."""
ENDINGS = {"text": ("txt", "text"), "md": ("md", "markdown"), "html": ("html", "htm")}
"""Endings of files, where they are not the name of a format."""


def show(*documents: Document, details: bool = False, **to: Any) -> None:
    """Print documents, with their folded parts if `details` are asked for.

    They go to standard output, as wide as the terminal is, unless `to` has a file and a width.
    """
    from rich.console import Console

    from bench.report import terminal

    console = Console(highlight=False, **to)
    for document in documents:
        terminal.show(document, console, details=details)


def publish(
    documents: Sequence[Document], format_: str, output: Path | None, *, details: bool = False
) -> None:
    """Show documents on a terminal, or write them to a new file or standard output.

    The format is `html`, `md` or `text`, which is for a terminal unless there is a file.
    """
    if format_ == "html":
        from bench.report.page import page

        give(page(*documents), output)
    elif format_ == "md":
        from bench.report.markdown import markdown

        give("\n".join(map(markdown, documents)), output)
    elif output is None:
        show(*documents, details=details)
    else:
        file = io.StringIO()
        show(*documents, details=True, file=file, width=WIDTH)
        give(file.getvalue(), output)


def format_of(given: str | None, output: Path | None, formats: Iterable[str]) -> str:
    """Return the format that is given, or that a new file's name asks for; text without a file.

    Raises:
        BakeoffError: the ending is unknown, or the output cannot be a new file.
    """
    if output is None:
        return given or "text"
    known = {f".{end}": name for name in formats for end in ENDINGS.get(name, (name,))}
    ending = output.suffix.lower()
    if given is None and ending not in known:
        raise BakeoffError(
            f"output {output} ends in {output.suffix or 'nothing'}; {', '.join(known)} are known: "
            "name it so, or give --format"
        )
    require_new(output, "output")
    return given or known[ending]


def give(text: str, output: Path | None) -> None:
    """Write a text to a new file, whole or not at all, and say so; or to standard output."""
    if output is None:
        sys.stdout.write(text)
        return
    from bench.runfile.writer import whole_file

    with whole_file(output, "output ") as partial:
        partial.write_text(text, encoding="utf-8")
    print(output)
