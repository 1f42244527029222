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
from common.errors import BakeoffError, shortened, unknown
from common.fetch import SOURCES, Source
from common.files import LargeFileError, read_regular

ROOT = Path(__file__).parents[1]
CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
BOOK = b"A small book.\r\n\r\nIt ends soon.\r\n"
MARKED = (
    b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n"
    + BOOK
    + (b"*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence\n")
)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def silent(message: str) -> None:
    raise AssertionError(f"unexpected notice: {message}")


def refused(name: str, **sources: Source) -> str:
    """Return the text of the error, which must be one line."""
    with pytest.raises(BakeoffError) as error:
        load(name, notify=lambda message: None, sources=sources or SOURCES)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_toy_is_the_blogs_string() -> None:
    toy = load("toy", notify=silent)
    assert toy == Corpus("toy", "abcd..." * corpus.TOY_REPEATS, digest(toy.text.encode()), 0.0)
    assert set(toy.text) == set("abcd.")


def test_synthetic_brings_its_entropy() -> None:
    made = load("synthetic", notify=silent)
    assert made.text is synthetic.text()
    assert made.sha256 == digest(made.text.encode())
    assert made.entropy == synthetic.entropy_per_character()


def test_a_file_is_named_as_given(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes("é\n".encode())
    assert load(str(path), notify=silent) == Corpus(str(path), "é\n", digest("é\n".encode()))


def test_names_win_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy").write_text("a file")
    assert load("toy", notify=silent).text == corpus.TOY
    assert load("./toy", notify=silent).text == "a file"
    assert load("./toy", notify=silent).name == "./toy"


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


def test_a_gutenberg_file_is_stripped_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(MARKED)
    notices: list[str] = []
    assert load(str(path), notify=notices.append).text == "A small book.\n\nIt ends soon.\n"
    assert notices == [f"{path}: left out Project Gutenberg's header and licence"]


@pytest.mark.parametrize("given", ["./toys", "books/kafka", "kafka.txt", "books\\kafka"])
def test_a_missing_file(given: str) -> None:
    assert refused(given) == (
        f"no such file {given!r}; give the path of a UTF-8 text file, "
        "or one of toy, synthetic, metamorphosis, tinyshakespeare"
    )


@pytest.mark.parametrize("given", ["toys", "Toy", ""])
def test_an_unknown_name(given: str) -> None:
    known = ["toy", "synthetic", "metamorphosis", "tinyshakespeare"]
    advice = ", or give the path of a UTF-8 text file"
    assert refused(given) == f"{unknown('corpus', given, known)}{advice}"


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "secret.txt"
    path.write_text("text")
    monkeypatch.setattr(os, "open", denied)  # root, who runs many a CI, may read anything
    assert refused(str(path)) == (
        f"cannot read {str(path)!r} (Permission denied); give a UTF-8 file that you may read"
    )


def nothing_to_read(here: Path) -> dict[str, tuple[str, str]]:
    """Return, by name, what is given and what it is, of files that must not be read."""
    os.mkfifo(here / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(here / "socket"))  # whose name may have 107 bytes
    (here / "link").symlink_to("/dev/zero")
    kind = "not a regular file"
    return {
        "fifo": (str(here / "fifo"), f"is a pipe, {kind}"),
        "socket": (str(here / "socket"), f"is a socket, {kind}"),
        "device": ("/dev/zero", f"is a character device, {kind}"),
        "link": (str(here / "link"), f"is a character device, {kind}"),
        "proc": ("/proc/self/maps", "claims to be empty and is not, as files of /proc do"),
    }


@pytest.mark.parametrize("name", ["fifo", "socket", "device", "link", "proc"])
def test_what_may_never_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given, what = nothing_to_read(tmp_path)[name]
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        f"from common.corpus import load; load({given!r})"
    )
    done = subprocess.run(  # a process, since it must neither hang nor grow
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    says = f"{given!r} {what}; give the path of a UTF-8 text file"
    assert done.stderr.splitlines()[-1] == f"common.errors.BakeoffError: {says}"


def wrote(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(corpus.MOST_BYTES + (1 << 20))


LICENCE = b"*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence\n"
TOO_SHORT = "; a corpus needs at least 2 characters"
CONVERT = "; convert it, for example with iconv -f {} -t utf-8 '{{path}}' > converted.txt"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (Path.mkdir, "{given} is a directory; give the path of a UTF-8 text file"),
    "circle": (lambda path: path.symlink_to(path.name), "cannot read {given} ("),
    "large": (
        long,
        "{given} has 129 MiB; at most 128 MiB are allowed; give a part of it, for example "
        "of split -C 128m '{path}' part-",
    ),
    "empty": (wrote(b""), "{given} holds no text" + TOO_SHORT),
    "byte order mark": (wrote(b"\xef\xbb\xbf"), "{given} holds no text" + TOO_SHORT),
    "licence": (wrote(LICENCE), "{given} holds no text" + TOO_SHORT),
    "a": (wrote(b"a"), "{given} holds only 1 character, 'a'" + TOO_SHORT),
    "line end": (wrote(b"\r\n"), "{given} holds only 1 character, '\\n'" + TOO_SHORT),
    "latin1": (
        wrote(b"\xef\xbb\xbfcaf\xe9\n"),
        "{given} is not UTF-8 (byte 0xe9 at offset 6)" + CONVERT.format("latin1"),
    ),
    "utf-16": (
        wrote("ab".encode("utf-16")),
        "{given} is not UTF-8 (byte 0xff at offset 0)" + CONVERT.format("utf-16"),
    ),
    "cp1252": (
        wrote("a \u201cword\u201d".encode("cp1252")),
        "{given} is not UTF-8 (byte 0x93 at offset 2)" + CONVERT.format("cp1252"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "an old file.txt"
    make, says = REFUSED[name]
    make(path)
    assert refused(str(path)).startswith(says.format(given=repr(str(path)), path=path))


def test_the_largest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"abcdefgh")
    monkeypatch.setattr(corpus, "MOST_BYTES", 8)
    assert load(str(path), notify=silent).text == "abcdefgh"
    monkeypatch.setattr(corpus, "MOST_BYTES", 7)
    refused(str(path))


def test_a_file_that_grows_is_read_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"abcdefgh")
    about = os.stat_result((*path.stat()[:6], 4, *path.stat()[7:]))
    with pytest.MonkeyPatch.context() as patch:  # as it was when its size was asked for
        patch.setattr(os, "fstat", lambda _: about)
        with pytest.raises(LargeFileError):
            read_regular(path, 7)
        assert read_regular(path, 8) == b"abcdefgh"


def test_a_name_that_is_too_long() -> None:
    given = "a line\n" * 60
    assert refused(given) == (
        f"the corpus {shortened(given)!r} is no name of a file: it has 420 bytes, and a name may "
        "have 255, a path 4095; give the path of a UTF-8 text file"
    )


def test_a_file_that_is_removed_once_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone.txt"
    path.write_text("text")
    monkeypatch.setattr(corpus, "_exists", lambda path, _: path.unlink() or True)
    assert refused(str(path)) == (
        f"cannot read {str(path)!r} (No such file or directory); "
        "give a UTF-8 file that you may read"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Header\n\n*** START OF THE PROJECT GUTENBERG EBOOK TALE ***\n\n\n  A tale\n\nThe end.\n\n"
        "\n*** END OF THE PROJECT GUTENBERG EBOOK TALE ***\n\nLicence\n",
        "Header\n***START OF THIS PROJECT GUTENBERG EBOOK TALE***\n\n"
        "Produced by A. Volunteer and\nthe others\n\n\n  A tale\n\nThe end.\n\n"
        "End of Project Gutenberg's Tale, by Nobody\n\n"
        "***END OF THIS PROJECT GUTENBERG EBOOK TALE***\nLicence\n",
        "*** START OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTALE ***\n  A tale\n\nThe end.\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTALE ***\nLicence\n",
        " \n\n  A tale\n\nThe end.\n\n\nEnd of the Project Gutenberg EBook of Tale, by Nobody\n"
        "Translated by Somebody.\n\n*** END OF THIS PROJECT GUTENBERG EBOOK TALE ***\n\nLicence\n",
        "  A tale\n\nThe end.\n\nTHE FULL PROJECT GUTENBERG LICENSE\nplease read\n",
        "  A tale\n\nThe end.\n\nSTART: FULL LICENSE\nplease read\n",
        "Header\n*** START OF THE PROJECT GUTENBERG EBOOK TALE ***\n  A tale\n\nThe end.",
        "  A tale\n\nThe end.",
    ],
    ids=[
        "the",
        "this, with credits",
        "marker over two lines",
        "no start marker",
        "licence alone",
        "new licence alone",
        "no end marker",
        "no marker",
    ],
)
def test_only_the_book_is_left(text: str) -> None:
    assert strip_gutenberg(text) == "  A tale\n\nThe end.\n"


def test_credits_are_looked_for_only_after_the_start_marker() -> None:
    text = "Produced by hand, it was a fine chair.\n\nThe end.\n"
    assert strip_gutenberg(text) == text


def test_nothing_between_the_markers_is_nothing() -> None:
    marked = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nProduced by nobody\n \n"
    assert strip_gutenberg(marked) == ""


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Path:
    path: Path = CORPORA / request.param
    if not path.exists():
        pytest.skip(f"{path} is not part of the repository")
    return path


@pytest.mark.parametrize("real", ["metamorphosis.txt"], indirect=True)
def test_the_real_metamorphosis(real: Path) -> None:
    text = load(str(real), notify=lambda message: None).text
    assert text.startswith("One morning, when Gregor Samsa")
    assert text.endswith("stretch out her young body.\n")
    assert "gutenberg" not in text.lower()
    assert len(text) > 110_000


@pytest.mark.parametrize("real", ["tinyshakespeare.txt"], indirect=True)
def test_the_real_tiny_shakespeare(real: Path) -> None:
    loaded = load(str(real), notify=silent)
    assert loaded.sha256 == SOURCES["tinyshakespeare"].sha256
    assert len(loaded.text) == 1_115_394
    assert len(set(loaded.text)) == 65


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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_announced_cached_and_not_repeated(server: Server, cache: Path) -> None:
    sources = {"book": Source(server.url, "book.txt", digest(BOOK))}
    notices: list[str] = []
    first = load("book", notify=notices.append, sources=sources)
    assert first == Corpus("book", "A small book.\n\nIt ends soon.\n", digest(BOOK))
    assert notices == [f"downloading {server.url} to {cache / 'book.txt'}"]
    assert load("book", notify=silent, sources=sources) == first
    assert server.requests == ["/book.txt"]
    assert names(cache) == ["book.txt"]
    assert (cache / "book.txt").read_bytes() == BOOK


def test_a_downloaded_book_loses_its_licence_but_not_its_checksum(
    server: Server, cache: Path
) -> None:
    server.body = MARKED
    loaded = load(
        "book", notify=lambda message: None, sources={"book": Source(server.url, "book.txt")}
    )
    assert loaded.text == "A small book.\n\nIt ends soon.\n"
    assert loaded.sha256 == digest(MARKED)


def test_a_file_put_into_the_cache_by_hand_needs_no_network(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "book.txt").write_bytes(BOOK)
    for known in (None, digest(BOOK)):
        load("book", notify=silent, sources={"book": Source(server.url, "book.txt", known)})
    assert server.requests == []


def test_a_download_with_another_checksum_is_not_kept(server: Server, cache: Path) -> None:
    known = digest(b"another book")
    assert refused("book", book=Source(server.url, "book.txt", known)) == (
        f"{server.url} sent a file whose SHA-256 is not {known}, and it was not kept; "
        f"try again later, or put the file at {cache / 'book.txt'} by hand, "
        "or use --corpus PATH or --corpus synthetic"
    )
    assert names(cache) == []


def test_a_cached_file_with_another_checksum_is_refused(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    path = cache / "book.txt"
    path.write_bytes(b"damaged")
    assert refused("book", book=Source(server.url, "book.txt", digest(BOOK))) == (
        f"{path} has SHA-256 {digest(b'damaged')} instead of {digest(BOOK)}; delete it to "
        "download it again, or pass it as --corpus PATH to use it as it is"
    )
    assert path.read_bytes() == b"damaged"
    assert server.requests == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_has_no_file(server: Server, cache: Path, status: int) -> None:
    server.status = status
    message = refused("book", book=Source(server.url, "book.txt"))
    assert re.match(rf"cannot download {server.url} \({status} (Client|Server) Error: ", message)
    assert message.endswith(
        f"); put the file at {cache / 'book.txt'} by hand, "
        "or use --corpus PATH or --corpus synthetic"
    )
    assert names(cache) == []


def test_a_download_cut_short_is_not_kept(server: Server, cache: Path) -> None:
    server.announced = len(BOOK) + 1
    message = refused("book", book=Source(server.url, "book.txt"))
    assert message.startswith(f"cannot download {server.url} (")
    assert names(cache) == []


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as bound:  # bound and not listening: every connection is refused
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/book.txt"
        message = refused("book", book=Source(url, "book.txt"))
    assert re.fullmatch(
        re.escape(f"cannot download {url} ([Errno ")
        + r"\d+\] .*[Rr]efused.*"
        + re.escape(
            f"); put the file at {cache / 'book.txt'} by hand, "
            "or use --corpus PATH or --corpus synthetic"
        ),
        message,
    )


def test_a_silent_server_is_not_waited_for_for_ever(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/book.txt"
        message = refused("book", book=Source(url, "book.txt"))
    assert message.startswith(f"cannot download {url} (timed out); ")


def test_a_cache_that_cannot_be_made(server: Server, cache: Path) -> None:
    cache.parent.write_text("a file where a folder should be")
    message = refused("book", book=Source(server.url, "book.txt"))
    assert message.startswith(f"cannot download {server.url} ([Errno ")


@pytest.mark.parametrize("again", ["deleted and downloaded", "replaced by hand"])
def test_a_text_that_its_publisher_changed_is_reported_once(
    server: Server, cache: Path, again: str
) -> None:
    sources = {"book": Source(server.url, "book.txt")}
    path, changed = cache / "book.txt", BOOK + b"A new line.\n"
    load("book", notify=lambda message: None, sources=sources)
    record = cache / "book.txt.sha256"
    assert record.read_text() == f"{digest(BOOK)}  book.txt\n"
    assert load("book", notify=silent, sources=sources).sha256 == digest(BOOK)

    if again == "replaced by hand":
        path.write_bytes(changed)
    else:
        path.unlink()
        server.body = changed
    notices: list[str] = []
    assert load("book", notify=notices.append, sources=sources).sha256 == digest(changed)
    assert notices[-1] == (
        f"{path} changed: its SHA-256 was {digest(BOOK)}, now it is {digest(changed)}; "
        "losses on the two texts do not compare"
    )
    assert record.read_text() == f"{digest(changed)}  book.txt\n"
    load("book", notify=silent, sources=sources)


def test_a_checksum_that_cannot_be_recorded_is_said_and_survived(
    server: Server, cache: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / "book.txt").write_bytes(BOOK)
    (cache / "book.txt.sha256").mkdir()
    notices: list[str] = []
    load("book", notify=notices.append, sources={"book": Source(server.url, "book.txt")})
    assert len(notices) == 1
    assert notices[0].startswith(f"cannot keep the SHA-256 of {cache / 'book.txt'}")


def test_neither_pooch_nor_jax_is_needed_where_nothing_is_downloaded(tmp_path: Path) -> None:
    """A benchmark worker has no pooch; `None` in `sys.modules` makes an import fail."""
    (tmp_path / "metamorphosis.txt").write_bytes(BOOK)
    program = (
        "import sys; sys.modules.update(pooch=None, jax=None); from common.corpus import load; "
        "print([load(name).name for name in ('toy', 'synthetic', 'metamorphosis')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "BAKEOFF_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "['toy', 'synthetic', 'metamorphosis']\n"


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BAKEOFF_CACHE", "~/texts")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "texts"
    monkeypatch.setenv("BAKEOFF_CACHE", "")
    assert "jax-bakeoff" in fetch.cache_folder().parts


@pytest.mark.parametrize("name", SOURCES)
def test_downloads_are_over_https(name: str) -> None:
    assert SOURCES[name].url.startswith("https://")


def test_notices_go_to_stderr(
    server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("book", sources={"book": Source(server.url, "book.txt")})
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"downloading {server.url} to {cache / 'book.txt'}\n"
