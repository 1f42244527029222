"""Documents as commands give them out: printed, or as the content of a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report.table import Document

WIDTH = 100
"""Characters of a line in a text file."""


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
