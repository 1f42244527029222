"""The documents in which commands show their results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.report.table import Document
    from bench.runfile import SearchRecord
    from bench.runfile.reader import Run


def make_documents(runs: Iterable[Run]) -> list[Document]:
    """Return the documents of runs; histories take the names of releases from the searches."""
    given = [*runs]
    searches = [run.results.search for run in given if run.results.kind == "bisect"]
    return [make_document(run, searches) for run in given]


def make_document(run: Run, searches: Iterable[SearchRecord] = ()) -> Document:
    """Return a run as the document of the command that made it.

    It says the day and the machine, unless it compares files, each with its own day and machine.
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

            made = describe_history(results, searches)
        case "cost":
            from bench.report.documents.cost import describe_costs

            made = describe_costs(results)
    where = filter(None, [run.when[:16].replace("T", " "), run.processor.partition(" (")[0]])
    between = "\n" if "\n" in made.subtitle else "; "
    subtitle = between.join(filter(None, [made.subtitle, ", ".join(where)]))
    return replace(made, subtitle=subtitle) if results.spent.wall_seconds else made
