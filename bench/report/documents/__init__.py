"""What each command says of its results, as a document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.table import Document
    from bench.runfile.reader import Run


def make_document(run: Run) -> Document:
    """Return a run as the document of the command that made it.

    It has the day and the machine, unless it compares files, which have their own.
    """
    results = run.results
    match results.kind:  # each imports what it needs alone
        case "run":
            from bench.report.documents.run import describe_run

            return describe_run(run)
        case "ab":
            from bench.report.documents.ab import describe_comparison

            made = describe_comparison(results)
        case "bisect":
            from bench.report.documents.bisect import describe_search

            made = describe_search(results)
        case "history":
            from bench.report.documents.history import describe_history

            made = describe_history(results)
        case "cost":
            from bench.report.documents.cost import describe_costs

            made = describe_costs(results)
    where = filter(None, [run.when[:16].replace("T", " "), run.processor.partition(" (")[0]])
    between = "\n" if "\n" in made.subtitle else "; "
    subtitle = between.join(filter(None, [made.subtitle, ", ".join(where)]))
    return replace(made, subtitle=subtitle) if results.spent.wall_seconds else made
