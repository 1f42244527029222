"""The counts as tables: in a terminal of 80 columns or more, and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from bench.ergonomics.install import EVERYBODY
from bench.report.markdown import escaped
from bench.report.wording import amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    type Facts = dict[str, Any]
    type Row = tuple[str, ...]

NOTHING = "-"
LEFT = ("entrant", "part", "library", "latest release", "Python", "jax")
"""Columns of words; the others are numbers."""
ONE_LINE = ("entrant", "part")
"""A table that has none of these is one of sentences."""
WIDE = 110
"""Columns of a terminal from which on no table has to be narrow."""


class Grid(NamedTuple):
    """A table, however it is shown."""

    title: str
    header: Row
    rows: list[Row]
    caption: str


def grids(found: Facts) -> list[Grid]:
    """Return the tables of what was counted."""
    good = [row for row in found["entrants"] if "problem" not in row]
    out = [code(good), installed(good, found)] if good else []
    return [*out, candidates(found["candidates"])]


def code(rows: Sequence[Facts]) -> Grid:
    """Return how much is written, by entrant and style."""
    out: list[Row] = []
    for row in rows:
        out.append((row["entrant"], "file", *numbers(row["file"])))
        out += [("", style["style"], *numbers(style)) for style in row["styles"]]
    return Grid(
        "what is written",
        ("entrant", "part", "lines", "tokens", "library names", "jax names", "optax names"),
        out,
        "file: all of it; pure (core where there is no such style): the file without what the "
        "other styles add, which are the definitions that a style reaches and the core does not. "
        "Styles that share some count it each, so they do not sum to the file. Names: distinct, of "
        "the library, of jax and of optax; a style's are those that the core does not use. "
        "Comments and docstrings are not counted, annotations are, and so is what this project "
        "asks of a style: loading, saving, its program. A count does not say how hard a line is "
        "to write or to read, what a name demands, or what a larger model would need.",
    )


def numbers(counts: Facts) -> Row:
    """Return the cells of a part of a file."""
    names = counts["names"]
    how_many = [len(names[group]) for group in ("library", "jax", "optax")]
    return tuple(map(str, (counts["lines"], counts["tokens"], *how_many)))


def installed(rows: Sequence[Facts], found: Facts) -> Grid:
    """Return what is installed, and how it is released."""
    header: Row = ("entrant", "library", "install", "packages", "latest release", "Python", "jax")
    header += ("import",) if "run" in found else ()
    out = []
    for row in rows:
        took = row.get("import_seconds")
        last = (NOTHING if took is None else amount(took, "s"),) if "run" in found else ()
        out.append((row["entrant"], version(row), *size(row), *released(row), *last))
    said = {row["install_missing"] for row in rows if row["install"] is None}
    missing = " ".join(f"Not installed: {sentence}." for sentence in sorted(said))
    everybody = ", ".join(EVERYBODY[:-1])
    caption = (
        f"install: bytes on the disk beyond {everybody} and {EVERYBODY[-1]} and what they need, in "
        "so many packages. latest release: its day, and how many there were in the year before "
        f"{found['releases_as_of']}, when that list was made. Python and jax: as the library's own "
        "metadata bound them (any: wanted, whichever it is; -: they say nothing); many a library "
        "breaks earlier. Releases do not tell how much is in one, and few can mean that a library "
        "is finished."
    )
    if "run" in found:
        caption += f" import: from {found['run']}, median of fresh processes, jax included."
    return Grid("what is installed", header, out, f"{caption} {missing}".strip())


def version(row: Facts) -> str:
    """Return the library and the release that is installed, or else the latest that is known."""
    found = row["install"] or {"version": (row["releases"] or {}).get("latest", "")}
    return f"{row['library']} {found['version']}".strip()


def size(row: Facts) -> Row:
    """Return the size of an installation, and how many packages it has."""
    found = row["install"]
    if found is None:
        return NOTHING, NOTHING
    return amount(found["size"], "B"), str(len(found["packages"]))


def released(row: Facts) -> Row:
    """Return when and how often a library is released, and what it says of Python and jax."""
    found = row["releases"]
    said = row["install"] or found or {"requires_python": "", "requires_jax": ""}
    bounds = said["requires_python"] or NOTHING, spaced(said["requires_jax"]) or NOTHING
    if found is None:
        return NOTHING, *bounds
    return f"{found['latest_on']}, {found['in_a_year']} a year", *bounds


def spaced(bound: str) -> str:
    """Return a bound with spaces, at which a narrow column can break it."""
    return ", ".join(part.strip() for part in bound.split(","))


def candidates(found: Sequence[Facts]) -> Grid:
    """Return the libraries that do not run on today's jax."""
    rows: list[Row] = [
        (
            f"{one['name']} {one['release']}",
            f"{one['reason']} jax {one['today']['jax']}, {one['seen_on']}: {one['today']['said']}",
            f"jax {one['last']['jax']}, Python {one['last']['python']}, as of "
            f"{one['last']['day']}. {one['last']['note']}",
        )
        for one in found
    ]
    return Grid(
        "what does not run on today's jax",
        ("library", "why", "last stack on which it was seen to run"),
        rows,
        "To run means here: a linear layer, jitted, with its gradient. "
        "`python -m bench.ergonomics.candidates NAME` tries both stacks again.",
    )


def rich(grid: Grid, width: int) -> Iterator[Table | Text]:
    """Yield a table for a terminal of some width, and its caption.

    Where it is narrow, columns of words are as wide as the longest, but those of sentences.
    """
    sentences = not any(name in ONE_LINE for name in grid.header)
    out = Table(title=grid.title, box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    out.title_justify = "left"
    for i, name in enumerate(grid.header):
        cells = [row[i] for row in grid.rows]
        left = sentences or name in LEFT
        words = [*name.split(), *(" ".join(cells).split() if left else cells)]
        fixed = (width < WIDE and not sentences) or i == 0
        out.add_column(
            Text(name),
            justify="left" if left else "right",
            width=max(map(len, words)) if fixed else None,
            overflow="fold",
        )
    for row in grid.rows:
        if row[0] and row is not grid.rows[0] and (sentences or "part" in grid.header):
            out.add_section()
        out.add_row(*map(Text, row))
    yield out
    yield Text(f"\n{grid.caption}\n", style="dim")


def markdown(grid: Grid) -> str:
    """Return a table in Markdown, with its caption."""
    words = not any(name in ONE_LINE for name in grid.header)
    rules = ("---" if words or name in LEFT else "--:" for name in grid.header)
    lines = [
        f"| {' | '.join(map(escaped, grid.header))} |",
        f"|{'|'.join(rules)}|",
        *(f"| {' | '.join(map(escaped, row))} |" for row in grid.rows),
    ]
    return "\n".join([*lines, "", escaped(grid.caption).replace("\\`", "`"), ""])


def problems(found: Facts) -> list[str]:
    """Return what stands in the way of counting an entrant, a line for each."""
    return [f"{row['entrant']}: {row['problem']}" for row in found["entrants"] if "problem" in row]


def listed(found: Facts) -> list[str]:
    """Return the names of APIs that each entrant's file uses, a line for each entrant and group."""
    return [
        f"{row['entrant']}, {len(names)} of {'its library' if group == 'library' else group}: "
        f"{', '.join(names)}"
        for row in found["entrants"]
        if "problem" not in row
        for group, names in row["file"]["names"].items()
        if names
    ]
