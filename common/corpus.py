"""Texts to learn from: the blog's toy string, a made-up text, two downloads, or any UTF-8 file."""

import errno
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common import fetch, synthetic
from common.errors import NAME_BYTES, BakeoffError, shortened, unknown
from common.files import LargeFileError, UnfitFileError, read_regular

TOY_REPEATS = 10
"""How often the blog's toy text repeats its seven characters."""
TOY = "abcd..." * TOY_REPEATS

MIN_CHARACTERS = 2
"""One to read and one to predict."""
MOST_BYTES = 128 << 20
"""Of a file: enwik8, the largest text that is usual for character models, has 100 MB. Text
and tokens are held in memory; making them takes about 27 bytes for each of the file's: 3.4 GiB."""

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
        notify: Told, in one line each, what the user should know but need not act on: that a
            download starts, that a publisher changed a text, that a licence was left out.
        sources: The corpora that are downloaded, once.

    Raises:
        BakeoffError: The name is unknown, the file is missing, unreadable, no regular file, not
            UTF-8, larger than `MOST_BYTES`, or has fewer than 2 characters, or the download failed.

    """
    if name_or_path == "toy":
        return Corpus("toy", TOY, fetch.sha256(TOY.encode()), entropy=0.0)
    if name_or_path == "synthetic":
        text = synthetic.text()
        entropy = synthetic.entropy_per_character()
        return Corpus("synthetic", text, fetch.sha256(text.encode()), entropy)
    if name_or_path in sources:
        return _load_download(name_or_path, sources[name_or_path], notify)
    return _load_file(name_or_path, ["toy", "synthetic", *sources], notify)


def _load_download(name: str, source: fetch.Source, notify: fetch.Notify) -> Corpus:
    path = fetch.cached(source, notify)
    data = _read(path)
    digest = fetch.sha256(data)
    fetch.check(source, path, digest, notify)
    text = _decode(data, path)
    return Corpus(name, _long_enough(_without_licence(text), path), digest)


def _load_file(given: str, known: list[str], notify: fetch.Notify) -> Corpus:
    path = Path(given)
    if not given or not _exists(path, given):
        if any(mark in given for mark in "./\\"):
            raise BakeoffError(
                f"no such file {given!r}; give the path of a UTF-8 text file, "
                f"or one of {', '.join(known)}"
            )
        choose = unknown("corpus", given, known)
        raise BakeoffError(f"{choose}, or give the path of a UTF-8 text file")
    data = _read(path)
    text = _decode(data, path)
    stripped = _without_licence(text)
    if stripped != text:
        notify(f"{path}: left out Project Gutenberg's header and licence")
    return Corpus(given, _long_enough(stripped, path), fetch.sha256(data))


def strip_gutenberg(text: str) -> str:
    """Return the book alone: no header, credits, licence or outer blank lines of Project Gutenberg.

    Either marker may be missing: without a start marker the book begins where the text begins.

    Args:
        text: A Project Gutenberg file, its lines ending with a line feed.

    Returns:
        The book, ending with one line feed; empty where nothing lies between the markers.

    """
    start = _GUTENBERG_START.search(text)
    if start:
        text = text[start.end() :]
        credit = _CREDITS.match(text)
        text = text[credit.end() :] if credit else text
    end = _GUTENBERG_END.search(text)
    text = text[: end.start()] if end else text
    text = re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()
    return f"{text}\n" if text else ""


def _without_licence(text: str) -> str:
    marked = _GUTENBERG_START.search(text) or _GUTENBERG_END.search(text)
    return strip_gutenberg(text) if marked else text


def _exists(path: Path, given: str) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise _unreadable(path, error) from error
        raise BakeoffError(
            f"the corpus {shortened(given)!r} is no name of a file: it has "
            f"{len(os.fsencode(given))} bytes, and a name may have {NAME_BYTES}, a path 4095; give "
            "the path of a UTF-8 text file"
        ) from error
    return True


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MOST_BYTES)
    except LargeFileError as error:
        split = f"split -C {MOST_BYTES >> 20}m {shlex.quote(str(path))} part-"
        raise BakeoffError(
            f"{str(path)!r} {error.strerror}; give a part of it, for example of {split}"
        ) from error
    except UnfitFileError as error:
        raise BakeoffError(
            f"{str(path)!r} {error.strerror}; give the path of a UTF-8 text file"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BakeoffError:
    return BakeoffError(
        f"cannot read {str(path)!r} ({error.strerror}); give a UTF-8 file that you may read"
    )


CONTROLS = re.compile(rb"[\x80-\x9f]")
"""Bytes that are control characters in latin1, and quotes and dashes in Windows' encoding."""


def _decode(data: bytes, path: Path) -> str:
    """Decode as a text editor would: no byte order mark, and every line ends with a line feed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        if encoding == "latin1" and CONTROLS.search(data):
            encoding = "cp1252"
        raise BakeoffError(
            f"{str(path)!r} is not UTF-8 (byte 0x{data[error.start]:02x} at offset "
            f"{error.start}); convert it, for example with iconv -f {encoding} -t utf-8 "
            f"{shlex.quote(str(path))} > converted.txt"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _long_enough(text: str, path: Path) -> str:
    if len(text) < MIN_CHARACTERS:
        held = f"only 1 character, {text!r}" if text else "no text"
        raise BakeoffError(
            f"{str(path)!r} holds {held}; a corpus needs at least {MIN_CHARACTERS} characters"
        )
    return text
