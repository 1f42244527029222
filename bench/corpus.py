"""Texts to learn from: the blog's toy string, a made-up text, two downloads, or any UTF-8 file."""

import hashlib
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import fetch
from bench.files import LargeFileError, read_regular
from common import synthetic
from common.errors import BakeoffError, require_utf8, shorten, unknown

TOY = "abcd..." * 10
"""The blog's toy text."""

MIN_CHARACTERS = 2
"""Shortest text: one character to read and one to predict."""
MOST_BYTES = 128 << 20
"""Largest file: enwik8, the largest text that is usual for character models, has 100 MB. Text and
tokens are held in memory; making them takes about 27 times the size of the file: 3.4 GiB."""

_GUTENBERG_START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) (?:COPYRIGHTED )?PROJECT GUTENBERG EBOOK[^*]*\*\*\*",
    re.MULTILINE | re.IGNORECASE,
)
_GUTENBERG_END = re.compile(
    r"^[ \t]*(?:"
    r"(?:\*\*\* ?)?END OF (?:(?:THE|THIS) )?(?:COPYRIGHTED )?PROJECT GUTENBERG"
    r"|START: FULL LICENSE"
    r"|THE FULL PROJECT GUTENBERG LICENSE)",
    re.MULTILINE | re.IGNORECASE,
)
_CREDITS = re.compile(r"\s*(?:Produced|E-?text prepared) by .*?(?:\n[ \t]*\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """A text and where it comes from."""

    name: str
    """`toy`, `synthetic`, `metamorphosis`, `tinyshakespeare`, or the path as it was given."""
    text: str
    """At least 2 characters; every line ends with a line feed alone."""
    sha256: str
    """Checksum of the file's bytes as they came, or of the text in UTF-8 where it is made here."""
    entropy: float | None = None
    """Entropy rate in nats per character, where it is known exactly."""


def load(
    name_or_path: str,
    *,
    notify: fetch.Notify = lambda message: print(message, file=sys.stderr),
    sources: Mapping[str, fetch.Source] = fetch.SOURCES,
) -> Corpus:
    """Return the corpus of a known name, or else the text of a file.

    A file called like a known corpus is addressed with its folder, as `./toy`. Project Gutenberg's
    header and licence are left out of downloads and files alike.

    Args:
        name_or_path: `toy`, `synthetic`, a name in `sources`, or the path of a UTF-8 file.
        notify: Called with one line for the user: a download starts, or a licence was left out.
        sources: The corpora that are downloaded, once.

    Raises:
        BakeoffError: The name is unknown, the file is missing, unreadable, no regular file, not
            UTF-8, larger than `MOST_BYTES`, or has fewer than 2 characters, or the download failed.
    """
    if name_or_path in ("toy", "synthetic"):
        text, entropy = TOY, 0.0
        if name_or_path == "synthetic":
            text, entropy = synthetic.text(), synthetic.ENTROPY
        return Corpus(name_or_path, text, hashlib.sha256(text.encode()).hexdigest(), entropy)
    source = sources.get(name_or_path)
    if source is not None:
        path = fetch.fetch_file(name_or_path, source, notify)
    else:
        path = _find_file(name_or_path, ["toy", "synthetic", *sources])
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise _reading_error(path, error) from error
    digest = hashlib.sha256(data).hexdigest()
    if source is not None and source.sha256 not in (None, digest):
        raise BakeoffError(
            f"{path} has SHA-256 {digest} instead of {source.sha256}; delete it to download it "
            "again, or pass it as --corpus PATH to use it as it is"
        )
    text = _decode(data, path)
    book = strip_gutenberg(text)
    if book != text and source is None:
        notify(f"{path}: left out Project Gutenberg's header and licence")
    if len(book) < MIN_CHARACTERS:
        content = f"only 1 character, {book!r}" if book else "no text"
        raise BakeoffError(
            f"{str(path)!r} holds {content}; a corpus needs at least {MIN_CHARACTERS} characters"
        )
    return Corpus(name_or_path, book, digest)


def _find_file(given: str, known: list[str]) -> Path:
    path = Path(given)
    try:
        if given and path.stat():
            require_utf8(path, "corpus")
            return path
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        pass
    except OSError as error:  # a name that is too long, or a folder that may not be searched
        raise _reading_error(path, error) from error
    if any(mark in given for mark in "./\\"):
        raise BakeoffError(
            f"no such file {given!r}; give the path of a UTF-8 text file, "
            f"or one of {', '.join(known)}"
        )
    choose = unknown("corpus", given, known)
    raise BakeoffError(f"{choose}, or give the path of a UTF-8 text file")


def strip_gutenberg(text: str) -> str:
    """Return a book without Project Gutenberg's header, credits, licence and outer blank lines.

    A text with neither marker is returned as it is; where one is missing, the book begins or ends
    with the text.

    Args:
        text: A text whose lines end with a line feed.

    Returns:
        The book, ending with one line feed; empty where nothing lies between the markers.
    """
    start = _GUTENBERG_START.search(text)
    book = text[start.end() :] if start else text
    credit = _CREDITS.match(book) if start else None
    book = book[credit.end() :] if credit else book
    end = _GUTENBERG_END.search(book)
    if not start and not end:
        return text
    book = re.sub(r"\A(?:[ \t]*\n)+", "", book[: end.start()] if end else book).rstrip()
    return f"{book}\n" if book else ""


def _reading_error(path: Path, error: OSError) -> BakeoffError:
    advice = "give a UTF-8 text file that you may read"
    if isinstance(error, LargeFileError):
        split = f"split -C {MOST_BYTES >> 20}m {shlex.quote(str(path))} part-"
        advice = f"give a part of it, for example of {split}"
    return BakeoffError(f"cannot read {shorten(path)!r} ({error.strerror}); {advice}")


def _decode(data: bytes, path: Path) -> str:
    """Decode as a text editor would: no byte order mark, and every line ends with a line feed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        raise BakeoffError(
            f"{str(path)!r} is not UTF-8 (byte 0x{data[error.start]:02x} at offset "
            f"{error.start}); convert it, for example with iconv -f {encoding} -t utf-8 "
            f"{shlex.quote(str(path))} > converted.txt"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
