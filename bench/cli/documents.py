"""Documents as commands give them out: printed, or as the text of a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report.table import Document

WIDTH = 100
"""Characters of a line in a text file."""


def show(document: Document, *, details: bool = False) -> None:
    """Print a document on standard output; `details` are its folded parts too."""
    from rich.console import Console

    from bench.report.text import printed

    console = Console(highlight=False)
    for part in printed(document, details=details):
        console.print(part)


def rendered(document: Callable[..., Document], format_: str) -> str:
    """Return a document as the content of a file.

    Args:
        document: Makes it; given `figures=True` for a page.
        format_: `html`, `md` or `text`.
    """
    if format_ == "html":
        from bench.report.page.parts import document_page

        return document_page(document(figures=True))
    if format_ == "md":
        from bench.report.markdown import markdown

        return markdown(document())
    from rich.console import Console

    from bench.report.text import printed

    console = Console(highlight=False, file=io.StringIO(), width=WIDTH)
    with console.capture() as captured:
        for part in printed(document(), details=True):
            console.print(part)
    return captured.get()
