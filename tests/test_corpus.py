"""Texts, from names, files and downloads (of a server on loopback only), and their characters."""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from bench import corpus
from bench.corpus import Corpus, load
from bench.fetch import SOURCES, Source
from common import synthetic
from common.vocab import Vocab
from tests.commands import refusal

BOOK = b"A small book.\r\n\r\nIt ends soon.\r\n"
TALE = "  A tale\n\nThe end.\n"
START = "*** START OF THE PROJECT GUTENBERG EBOOK TALE ***\n"
END = "*** END OF THE PROJECT GUTENBERG EBOOK TALE ***\nlicence\n"


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def silent(message: str) -> None:
    raise AssertionError(f"unexpected notice: {message}")


def refused(name: str, **sources: Source) -> str:
    return refusal(load, name, notify=lambda _: None, sources=sources or SOURCES)


def test_made_texts_bring_their_entropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside files of their names, which are addressed with their folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", None)  # nor is it needed in a worker, which lacks it
    Path("toy").write_text("a file")
    assert load("./toy", notify=silent) == Corpus("./toy", "a file", digest(b"a file"))
    toy, made = load("toy", notify=silent), load("synthetic", notify=silent)
    assert toy == Corpus("toy", "abcd..." * 10, digest(toy.text.encode()), 0.0)
    text = synthetic.text()
    assert made == Corpus("synthetic", text, digest(text.encode()), synthetic.ENTROPY)


READ = {
    "\ufeffa\r\nb\rc\n\r\n": "a\nb\nc\n\n",
    "  indented\n\n\n": "  indented\n\n\n",
    f"Produced by hand, by Project Gutenberg.\n\n{TALE}": None,
    f"Header\n{START}\n\n{TALE}\n{END}": TALE,
    "Header\n***START OF THIS PROJECT GUTENBERG EBOOK A VERY LONG\nTALE***\n\n"
    f"Produced by A. Volunteer and\nthe others\n\n\n{TALE}\n"
    "End of Project Gutenberg's Tale, by Nobody\n\n"
    "***END OF THIS PROJECT GUTENBERG EBOOK TALE***\nLicence\n": TALE,
    f"{TALE}\nTHE FULL PROJECT GUTENBERG LICENSE\nplease read\n": TALE,
    f"Header\n{START}  A tale\n\nThe end.": TALE,
}
"""What a file holds and what is read of it; None: all of it."""


@pytest.mark.parametrize(("written", "text"), READ.items())
def test_a_file_is_read_as_an_editor_reads_it(
    tmp_path: Path, written: str, text: str | None
) -> None:
    """Without Project Gutenberg's header and licence, and then the user is told."""
    path, notices = tmp_path / "file.txt", list[str]()
    path.write_bytes(written.encode())
    read = load(str(path), notify=notices.append)
    assert read == Corpus(str(path), written if text is None else text, digest(written.encode()))
    left_out = f"{path}: left out Project Gutenberg's header and licence"
    assert notices == ([left_out] if text == TALE else [])


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(corpus.MOST_BYTES + (1 << 20))


type Given = bytes | Callable[[Path], object]
REFUSED: dict[str, tuple[Given, str]] = {
    "missing": (lambda _: None, "no such file {given}; give the path of a UTF-8 text file, or"),
    "directory": (Path.mkdir, "cannot read {given} (is a directory); give a UTF-8 text file"),
    "pipe": (os.mkfifo, "cannot read {given} (is a pipe, not a regular file); give"),
    "proc": (lambda path: path.symlink_to("/proc/self/maps"), "cannot read {given} (claims to be"),
    "large": (
        large,
        "cannot read {given} (has 129 MiB; at most 128 MiB are allowed); give a part of it, for "
        "example of split -C 128m '{path}' part-",
    ),
    "licence": (END.encode(), "{given} holds no text; a corpus needs at least 2"),
    "line end": (b"\r\n", "{given} holds only 1 character, '\\n'; a corpus needs at least 2"),
    "latin1": (
        b"\xef\xbb\xbfcaf\xe9\n",
        "{given} is not UTF-8 (byte 0xe9 at offset 6); convert it, for example with "
        "iconv -f cp1252 -t utf-8 '{path}' > converted.txt",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "an old file.txt"
    given, message = REFUSED[name]
    path.write_bytes(given) if isinstance(given, bytes) else given(path)
    assert refused(str(path)).startswith(message.format(given=repr(str(path)), path=path))


@pytest.mark.parametrize("text", ["\n\t a", "Samsa — Käfer", "a😀b\U0010ffff\0", ""])
def test_ids_are_places_in_the_sorted_characters(text: str) -> None:
    vocab = Vocab.from_text(text)
    assert vocab == Vocab("".join(sorted(set(text))))
    ids = vocab.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [vocab.characters.index(c) for c in text]
    assert vocab.decode(ids) == text


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the book on loopback."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "book.txt").write_bytes(BOOK)
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/book.txt"
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the book is cached, in a folder that is not there yet."""
    folder = tmp_path / "new" / "cache"
    monkeypatch.setenv("BAKEOFF_CACHE", str(folder))
    return folder / "book.txt"


def test_a_download_is_announced_cached_and_not_repeated(
    url: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"book": Source(url, digest(BOOK))}
    first = load("book", sources=sources)
    assert first == Corpus("book", "A small book.\n\nIt ends soon.\n", digest(BOOK))
    assert capsys.readouterr() == ("", f"downloading {url} to {path}\n")
    assert load("book", notify=silent, sources=sources) == first
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(b"damaged")
    message = refused("book", **sources)
    assert message.startswith(f"{path} has SHA-256 {digest(b'damaged')} instead of {digest(BOOK)};")
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize(
    ("sha256", "ending", "message"),
    [
        (None, "/nothing", r"cannot download {url} \(404 Client Error: "),
        (
            "0000",
            "",
            r"{url} sent a file whose SHA-256 is not 0000, and it was not kept; try again",
        ),
    ],
)
def test_a_download_that_fails_is_not_kept(
    sha256: str | None, ending: str, message: str, url: str, path: Path
) -> None:
    error = refused("book", book=Source(url + ending, sha256))
    assert re.match(message.format(url=url + ending), error)
    instead = " by hand, or use --corpus PATH or --corpus synthetic"
    assert error.endswith(f"put the file at {path}{instead}")
    assert not path.parent.exists() or list(path.parent.iterdir()) == []
