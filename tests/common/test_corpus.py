"""Names, files, downloads (from a server on loopback only) and the stripping of licences."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common import corpus, fetch, synthetic
from common.corpus import Corpus, load, strip_gutenberg
from common.errors import BakeoffError, unknown
from common.fetch import SOURCES, Source
from common.files import LargeFileError, read_regular
from tests.commands import ROOT

BOOK = b"A small book.\r\n\r\nIt ends soon.\r\n"
END = b"*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence\n"
MARKED = b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n" + BOOK + END


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def silent(message: str) -> None:
    raise AssertionError(f"unexpected notice: {message}")


def refused(name: str, **sources: Source) -> str:
    """Return the text of the error, which must be one line."""
    with pytest.raises(BakeoffError) as error:
        load(name, notify=lambda _: None, sources=sources or SOURCES)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_made_texts_bring_their_entropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside files of their names, which are addressed with their folder."""
    monkeypatch.chdir(tmp_path)
    Path("toy").write_text("a file")
    assert load("./toy", notify=silent) == Corpus("./toy", "a file", digest(b"a file"))
    toy, made = load("toy", notify=silent), load("synthetic", notify=silent)
    assert toy == Corpus("toy", "abcd..." * 10, digest(toy.text.encode()), 0.0)
    assert made.text is synthetic.text()
    assert made.sha256 == digest(made.text.encode())
    assert made.entropy == synthetic.ENTROPY


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfab", "ab"),
        (b"a\r\nb\rc\n\r\n", "a\nb\nc\n\n"),
        (b"aaaa", "aaaa"),
        (b"  indented\n\n\n", "  indented\n\n\n"),
        (b"He read about Project Gutenberg.\n", "He read about Project Gutenberg.\n"),
    ],
    ids=["byte order mark", "line ends", "one distinct character", "white space", "mention"],
)
def test_files_are_read_as_an_editor_reads_them(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(data)
    read = load(str(path), notify=silent)
    assert read.text == text
    assert read.sha256 == digest(data)


def test_a_gutenberg_file_is_stripped_and_the_user_is_told(tmp_path: Path) -> None:
    path, notices = tmp_path / "book.txt", list[str]()
    path.write_bytes(MARKED)
    assert load(str(path), notify=notices.append).text == "A small book.\n\nIt ends soon.\n"
    assert notices == [f"{path}: left out Project Gutenberg's header and licence"]


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(corpus.MOST_BYTES + (1 << 20))


type Given = bytes | Callable[[Path], object]
REFUSED: dict[str, tuple[Given, str]] = {
    "missing": (lambda _: None, "no such file {given}; give the path of a UTF-8 text file, or"),
    "directory": (Path.mkdir, "cannot read {given} (is a directory); give a UTF-8 text file"),
    "circle": (lambda path: path.symlink_to(path.name), "cannot read {given} ("),
    "pipe": (os.mkfifo, "cannot read {given} (is a pipe, not a regular file); give"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "cannot read {given} (is a character"),
    "proc": (lambda path: path.symlink_to("/proc/self/maps"), "cannot read {given} (claims to be"),
    "large": (
        large,
        "cannot read {given} (has 129 MiB; at most 128 MiB are allowed); give a part of it, for "
        "example of split -C 128m '{path}' part-",
    ),
    "byte order mark": (b"\xef\xbb\xbf", "{given} holds no text; a corpus needs at least 2"),
    "licence": (END, "{given} holds no text; a corpus needs at least 2"),
    "line end": (b"\r\n", "{given} holds only 1 character, '\\n'; a corpus needs at least 2"),
    "latin1": (
        b"\xef\xbb\xbfcaf\xe9\n",
        "{given} is not UTF-8 (byte 0xe9 at offset 6); convert it, for example with "
        "iconv -f latin1 -t utf-8 '{path}' > converted.txt",
    ),
    "utf-16": ("ab".encode("utf-16"), "{given} is not UTF-8 (byte 0xff at offset 0); convert it"),
    "cp1252": ("a \u201cword\u201d".encode("cp1252"), "{given} is not UTF-8 (byte 0x93 at"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "an old file.txt"
    given, message = REFUSED[name]
    path.write_bytes(given) if isinstance(given, bytes) else given(path)
    assert refused(str(path)).startswith(message.format(given=repr(str(path)), path=path))


@pytest.mark.parametrize("given", ["toys", "", "\0", "a line\n" * 60])
def test_what_is_no_name(given: str) -> None:
    message = refused(given)
    known = ["toy", "synthetic", "metamorphosis", "tinyshakespeare"]
    expected = str(unknown("corpus", given, known)) if len(given) < 255 else "File name too long"
    assert expected in message


def test_a_file_that_grows_is_read_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"abcdefgh")
    about = os.stat_result((*path.stat()[:6], 4, *path.stat()[7:]))
    with pytest.MonkeyPatch.context() as patch:  # as it was when its size was asked for
        patch.setattr(os, "fstat", lambda _: about)
        with pytest.raises(LargeFileError):
            read_regular(path, 7)
        assert read_regular(path, 8) == b"abcdefgh"


TALE = "  A tale\n\nThe end.\n"
START = "*** START OF THE PROJECT GUTENBERG EBOOK TALE ***\n"


@pytest.mark.parametrize(
    ("text", "book"),
    {
        f"Header\n{START}\n\n{TALE}\n*** END OF THE PROJECT GUTENBERG EBOOK TALE ***\nL": TALE,
        "Header\n***START OF THIS PROJECT GUTENBERG EBOOK TALE***\n\n"
        f"Produced by A. Volunteer and\nthe others\n\n\n{TALE}\n"
        "End of Project Gutenberg's Tale, by Nobody\n\n"
        "***END OF THIS PROJECT GUTENBERG EBOOK TALE***\nLicence\n": TALE,
        f"*** START OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTALE ***\n{TALE}"
        "*** END OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTALE ***\nLicence\n": TALE,
        f" \n\n{TALE}\n\nEnd of the Project Gutenberg EBook of Tale, by Nobody\n\nLicence": TALE,
        f"{TALE}\nTHE FULL PROJECT GUTENBERG LICENSE\nplease read\n": TALE,
        f"{TALE}\nSTART: FULL LICENSE\nplease read\n": TALE,
        f"Header\n{START}  A tale\n\nThe end.": TALE,
        "  A tale\n\nThe end.": TALE,
        f"Produced by hand, it was a fine chair.\n\n{TALE}": (
            f"Produced by hand, it was a fine chair.\n\n{TALE}"
        ),
        f"{START}\nProduced by nobody\n \n": "",
    }.items(),
)
def test_only_the_book_is_left(text: str, book: str) -> None:
    assert strip_gutenberg(text) == book


@dataclass
class Server:
    """What the server on loopback sends, and what it was asked for."""

    url: str
    status: int = 200
    body: bytes = BOOK
    announced: int | None = None
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            self.send_response(state.status)
            self.send_header("Content-Length", str(state.announced or len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}/book.txt")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "new" / "cache"
    monkeypatch.setenv("BAKEOFF_CACHE", str(folder))
    return folder


def test_a_download_is_announced_cached_and_not_repeated(
    server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.body = MARKED
    sources = {"book": Source(server.url, "book.txt", digest(MARKED))}
    first = load("book", sources=sources)
    assert first == Corpus("book", "A small book.\n\nIt ends soon.\n", digest(MARKED))
    assert capsys.readouterr() == ("", f"downloading {server.url} to {cache / 'book.txt'}\n")
    assert load("book", notify=silent, sources=sources) == first
    assert server.requests == ["/book.txt"]
    assert [path.name for path in cache.iterdir()] == ["book.txt"]
    assert (cache / "book.txt").read_bytes() == MARKED


@pytest.mark.parametrize(
    ("wrong", "message"),
    {
        "status": r"cannot download {url} \(404 Client Error: ",
        "announced": r"cannot download {url} \(",
        "sha256": r"{url} sent a file whose SHA-256 is not 0000, and it was not kept; try again",
        "silence": r"cannot download {url} \(timed out\)",
        "refusal": r"cannot download {url} \(.*refused.*\)",
    }.items(),
)
def test_a_download_that_fails_is_not_kept(
    wrong: str, message: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 404 if wrong == "status" else 200
    server.announced = len(BOOK) + 1 if wrong == "announced" else None
    known = "0000" if wrong == "sha256" else None
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if wrong == "silence":
            monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.05)
            bound.listen()
        if wrong in ("silence", "refusal"):
            server.url = f"http://127.0.0.1:{bound.getsockname()[1]}/book.txt"
        error = refused("book", book=Source(server.url, "book.txt", known))
    assert re.match(message.format(url=server.url), error, re.I)
    instead = " by hand, or use --corpus PATH or --corpus synthetic"
    assert error.endswith(f"put the file at {cache / 'book.txt'}{instead}")
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_cached_file_with_another_checksum_is_refused(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    path = cache / "book.txt"
    path.write_bytes(b"damaged")
    message = refused("book", book=Source(server.url, "book.txt", digest(BOOK)))
    assert message.startswith(f"{path} has SHA-256 {digest(b'damaged')} instead of {digest(BOOK)};")
    assert path.read_bytes() == b"damaged"
    assert server.requests == []
    assert load("book", notify=silent, sources={"book": Source(server.url, "book.txt")})


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BAKEOFF_CACHE", "~/texts")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "texts"
    monkeypatch.setenv("BAKEOFF_CACHE", "")
    assert "jax-bakeoff" in fetch.cache_folder().parts


def test_neither_pooch_nor_jax_is_needed_where_nothing_is_downloaded(tmp_path: Path) -> None:
    """A benchmark worker has no pooch; `None` in `sys.modules` makes an import fail."""
    (tmp_path / "metamorphosis.txt").write_bytes(BOOK)
    program = (
        "import sys; sys.modules.update(pooch=None, jax=None); from common.corpus import load; "
        "print([load(name).name for name in ('toy', 'synthetic', 'metamorphosis')])"
    )
    environment = {**os.environ, "BAKEOFF_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.stderr, done.stdout) == ("", "['toy', 'synthetic', 'metamorphosis']\n")
