"""Runs of many files, in an SQLite file of the cache folder: no more than a time line asks for.

A file is read once, and again when its size or its time of change is another. The index can be
deleted at any time; what it lost is read again.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.summary import SCHEMA
from bench.track.entries import Entry, Key, Stamp, State, entry_of
from common.fetch import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    type Step = Callable[[int, int], None]
    """Told how many of how many files have been read."""

VERSION = 100 * SCHEMA + 3
"""Of the tables, and of the runs that could be read; an index of another version is made anew."""
FOLDER = "time-lines"
"""In the cache folder; holds one file, whose number is one higher than that of a damaged one."""
PATTERN = "runs-*.sqlite"
UNREAD = Stamp(-1, -1)
"""Of no file: what has it is read again."""
BATCH = 50
"""Files that are stored at once: so many are lost when indexing is interrupted."""
WAIT_SECONDS = 30.0
"""Longest wait for another process that is storing."""
CACHE_KIB = 65536
"""Of memory for pages: a batch touches the end of every series."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Codes of errors that another file in its place cures; `ERROR` is said of a missing table."""
TABLES = """
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE NOT NULL, size INTEGER, mtime_ns INTEGER,
    state TEXT, problem TEXT, name TEXT, at TEXT, revision TEXT, dirty INTEGER, versions TEXT,
    margin REAL, digest BLOB
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, machine TEXT, entrant TEXT, style TEXT, workload TEXT, backend TEXT,
    metric TEXT, unit TEXT, exact INTEGER,
    UNIQUE (machine, entrant, style, workload, backend, metric, unit, exact)
);
CREATE TABLE points (
    series INTEGER, file INTEGER, median REAL, ratio REAL, low REAL, high REAL,
    standard_error REAL, df REAL, p REAL, verdict INTEGER, PRIMARY KEY (series, file)
) WITHOUT ROWID;
CREATE TABLE gaps (
    series INTEGER, file INTEGER, reason TEXT, PRIMARY KEY (series, file)
) WITHOUT ROWID;
CREATE TABLE places (machine TEXT, file INTEGER, PRIMARY KEY (machine, file)) WITHOUT ROWID;
"""
ADD_FILE = """
INSERT INTO files
(path, size, mtime_ns, state, problem, name, at, revision, dirty, versions, margin, digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
ADD_SERIES = """
INSERT INTO series (machine, entrant, style, workload, backend, metric, unit, exact)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
DROP = (
    "DELETE FROM points WHERE file = ? AND series IN (SELECT id FROM series)",
    "DELETE FROM gaps WHERE file = ? AND series IN (SELECT id FROM series)",
    "DELETE FROM places WHERE file = ? AND machine IN (SELECT machine FROM series)",
    "DELETE FROM files WHERE id = ?",
)
"""What a file has in each table, found by the table's key."""


class Index:
    """An open index: what is in it is asked here, and nowhere else."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def files(self, found: Mapping[str, Stamp]) -> list[tuple[int, str, Entry]]:
        """Return the number, path and entry of files, without their points."""
        rows = self.connection.execute(
            "SELECT id, path, state, problem, name, at, revision, dirty, versions, margin, digest "
            "FROM files ORDER BY path"
        )
        return [
            (number, path, Entry(State(state), *rest))
            for number, raw, state, *rest in rows
            if (path := os.fsdecode(raw)) in found
        ]

    def places(self) -> list[tuple[str, int]]:
        """Return which machine each file has points of."""
        return self.connection.execute("SELECT machine, file FROM places").fetchall()

    def series(self) -> list[tuple[int, Key]]:
        """Return all series, with their numbers."""
        rows = self.connection.execute(
            "SELECT id, machine, entrant, style, workload, backend, metric, unit, exact FROM series"
        )
        return [(number, Key._make([*key, bool(exact)])) for number, *key, exact in rows]

    def points(self, series: int) -> list[tuple[Any, ...]]:
        """Return the points of a series: the file, and its numbers."""
        return self.connection.execute(
            "SELECT file, median, ratio, low, high, standard_error, df, p, verdict FROM points "
            "WHERE series = ?",
            [series],
        ).fetchall()

    def gaps(self) -> dict[int, dict[int, str]]:
        """Return why there is no number, by series and file."""
        found: dict[int, dict[int, str]] = {}
        for series, number, reason in self.connection.execute("SELECT * FROM gaps"):
            found.setdefault(series, {})[number] = reason
        return found

    def files_of(self, series: int) -> set[int]:
        """Return the files that say something of a series."""
        rows = self.connection.execute(
            "SELECT file FROM points WHERE series = ?1 "
            "UNION SELECT file FROM gaps WHERE series = ?1",
            [series],
        )
        return {number for (number,) in rows}

    def varying(self) -> set[int]:
        """Return the exact series that have more than one value."""
        rows = self.connection.execute(
            "SELECT series FROM points WHERE series IN (SELECT id FROM series WHERE exact) "
            "GROUP BY series HAVING min(median) < max(median)"
        )
        return {number for (number,) in rows}


def ask[Answer](
    found: Mapping[str, Stamp],
    question: Callable[[Index], Answer],
    *,
    roots: Sequence[Path] = (),
    step: Step | None = None,
    say: Callable[[str], None] | None = None,
) -> Answer:
    """Return the answer of an index that is up to date.

    It is kept in the cache folder, and in memory where nothing can be written there. Several
    processes may ask at once.

    Args:
        found: The files that are asked about.
        question: Asked of the index, which does not change meanwhile.
        roots: Folders that were searched: what is not found there is gone.
        step: Told how far it is, when files have to be read.
        say: Told, in a sentence, that the index cannot be kept.
    """
    folder = cache_folder() / FOLDER
    try:
        return kept(folder, found, question, roots, step)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if say is not None:
            say(f"{folder} cannot be used ({reason}): what was read is not kept for next time")
    with closing(connect(":memory:")) as memory:
        fill(memory, newest(folder))
        return answered(memory, found, question, roots, step)


def kept[Answer](
    folder: Path,
    found: Mapping[str, Stamp],
    question: Callable[[Index], Answer],
    roots: Sequence[Path],
    step: Step | None,
) -> Answer:
    """Return an answer from the index in a folder; a damaged one is made anew, once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = newest(folder)
    try:
        with closing(connect(path)) as connection:
            return answered(connection, found, question, roots, step)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    # Under another name: a process that has the damaged one open keeps its journal to itself.
    following = path.with_name(f"runs-{number_of(path) + 1:04d}.sqlite")
    with closing(connect(following)) as connection:
        answer = answered(connection, found, question, roots, step)
    for old in folder.glob(PATTERN):
        if number_of(old) < number_of(following):
            old.unlink(missing_ok=True)
            old.with_name(f"{old.name}-journal").unlink(missing_ok=True)
    return answer


def newest(folder: Path) -> Path:
    """Return the path of the index that is in use."""
    known = [path for path in folder.glob(PATTERN) if number_of(path)]
    return max(known, key=number_of, default=folder / "runs-0001.sqlite")


def number_of(path: Path) -> int:
    """Return the number in an index's name; 0 where there is none."""
    digits = path.stem.removeprefix("runs-")
    return int(digits) if digits.isdecimal() else 0


def connect(path: Path | str) -> sqlite3.Connection:
    """Return a connection that begins and ends transactions only when told."""
    return sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell whether an error is the file's, and another file would be better."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def fill(memory: sqlite3.Connection, path: Path) -> None:
    """Copy an index that cannot be written to, if there is a whole one."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source:
            whole = source.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            if whole and version(source) == VERSION:
                source.backup(memory)
    except sqlite3.Error:  # there is none
        return


def answered[Answer](
    connection: sqlite3.Connection,
    found: Mapping[str, Stamp],
    question: Callable[[Index], Answer],
    roots: Sequence[Path],
    step: Step | None,
) -> Answer:
    """Return an index's answer once it is up to date."""
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    prepare(connection)
    update(connection, found, roots, step)
    with transaction(connection, "DEFERRED"):
        return question(Index(connection))


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Make what happens inside one change, or none."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty index.

    Raises:
        sqlite3.DatabaseError: it is an index of another version.
    """
    if version(connection) == VERSION:
        return
    with transaction(connection):
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
    if version(connection) != VERSION:
        error = sqlite3.DatabaseError("the index is of another version")
        error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
        raise error


def version(connection: sqlite3.Connection) -> int:
    """Return the version of an index's tables; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def update(
    connection: sqlite3.Connection,
    found: Mapping[str, Stamp],
    roots: Sequence[Path],
    step: Step | None,
) -> None:
    """Read what is new or changed, and drop what is gone."""
    known = {
        os.fsdecode(raw): Stamp(size, mtime_ns)
        for raw, size, mtime_ns in connection.execute("SELECT path, size, mtime_ns FROM files")
    }
    vanished = gone([path for path in known if path not in found], roots)
    stale = [path for path, stamp in found.items() if known.get(path) != stamp]
    if vanished or stale:
        with transaction(connection):
            # Fails where nothing may be written, which `BEGIN` does not, before anything is read.
            connection.execute(f"PRAGMA user_version = {VERSION}")
            drop(connection, vanished)
    done = 0
    for paths in batched(stale, BATCH):
        entries = []
        for path in paths:
            if step is not None:
                step(done, len(stale))
            entries.append((path, entry_of(Path(path))))
            done += 1
        with transaction(connection):
            drop(connection, paths)
            store(
                connection,
                [(path, found[path] if e.lasting else UNREAD, e) for path, e in entries],
            )
        if step is not None:
            step(done, len(stale))


def gone(missing: Sequence[str], roots: Sequence[Path]) -> list[str]:
    """Return which of the files that were not found are no more.

    Those were searched for that are below `roots`; of others, the folders are looked for.
    """
    tops = tuple(f"{str(root.absolute()).rstrip(os.sep)}{os.sep}" for root in roots)
    folders = {os.path.dirname(path) for path in missing}  # noqa: PTH120  # of thousands
    left = {folder for folder in folders if not os.path.isdir(folder)}  # noqa: PTH112
    return [p for p in missing if p.startswith(tops) or os.path.dirname(p) in left]  # noqa: PTH120


def drop(connection: sqlite3.Connection, paths: Sequence[str]) -> None:
    """Remove files, and what was read of them."""
    for path in paths:
        row = connection.execute("SELECT id FROM files WHERE path = ?", [os.fsencode(path)])
        for number in row.fetchall():
            for statement in DROP:
                connection.execute(statement, number)


def store(connection: sqlite3.Connection, entries: Sequence[tuple[str, Stamp, Entry]]) -> None:
    """Add files that were read."""
    known = {key: number for number, key in Index(connection).series()}
    points: list[tuple[Any, ...]] = []
    gaps: list[tuple[Any, ...]] = []
    places: set[tuple[str, int]] = set()
    for path, stamp, entry in entries:
        about = [os.fsencode(path), *stamp, str(entry.state), entry.problem, entry.name, entry.at]
        about += [entry.revision, entry.dirty, entry.versions, entry.margin, entry.digest]
        number = connection.execute(ADD_FILE, about).lastrowid or 0
        for key, said in entry.points:
            if key not in known:
                known[key] = connection.execute(ADD_SERIES, key).lastrowid or 0
            if isinstance(said, str):
                gaps.append((known[key], number, said))
            else:
                points.append((known[key], number, *said))
            places.add((key.machine, number))
    # By series, as the table is: neighbours go to the same page.
    points.sort(key=lambda row: row[:2])
    connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", points)
    connection.executemany("INSERT INTO gaps VALUES (?, ?, ?)", gaps)
    connection.executemany("INSERT INTO places VALUES (?, ?)", places)
