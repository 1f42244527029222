"""Output of commands: documents that are shown or written, and remarks on standard error."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from bench.files import FULL_DISK_ERRORS, atomic_write, require_new
from bench.streams import say
from bench.wording import make_printable
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.report.table import Document
    from bench.runfile import ResultsWithSamples

SAFE_TEXT = "what was measured is safe: go on with the same command and --resume"
WIDTH = 100
"""Characters of a line in a text file."""
FORMATS = ("text", "md", "json", "html")
PAGE_MARK, PAGE_HEAD = b'<meta name="generator" content="jax-bakeoff', 2000
"""Text by which a page of ours is known, and the number of bytes in which it stands."""
UTF8_FORMATS = ("json", "html")
"""Formats that have one encoding; others have that of the terminal."""
ENDINGS = {"text": ("txt", "text"), "md": ("md", "markdown"), "html": ("html", "htm")}
"""Format → endings of its files; other formats have their name."""


class Output(NamedTuple):
    """Form and place of a command's results."""

    form: str = "text"
    file: Path | None = None
    """New file; None for standard output."""
    details: bool = False
    """Whether a terminal shows folded parts, too; a file has them always."""
    replaces: bool = False
    """Whether the file is an earlier page, which is made anew."""

    @classmethod
    def choose(
        cls,
        given: str | None,
        file: Path | None,
        *,
        details: bool,
        forms: Iterable[str] = FORMATS,
        anew: bool = False,
    ) -> Self:
        """Return the form that is given, or that a file's name asks for; text without a file.

        `anew` says that a page of ours may be replaced: it is made from files that are kept.

        Raises:
            BakeoffError: the ending is unknown, or there can be no such new file.
        """
        if file is None:
            return cls(given or "text", details=details)
        known = {f".{end}": name for name in forms for end in ENDINGS.get(name, (name,))}
        ending = file.suffix.lower()
        if given is None and ending not in known:
            raise BakeoffError(
                f"output {file} ends in {file.suffix or 'nothing'}; {', '.join(known)} are known: "
                "name it so, or give --format"
            )
        form = given or known[ending]
        replaces = anew and form == "html" and _is_page(file)
        if not replaces:
            require_new(file, "output")
        return cls(form, file, details, replaces)

    def write(self, text: str) -> None:
        """Write a text to the file, whole or not at all, and name it; or to standard output."""
        if self.file is None:
            if self.form in UTF8_FORMATS and isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8", errors="replace")
            sys.stdout.write(text)
            sys.stdout.flush()  # a full disk is told before what was measured is removed
            return
        if self.replaces:
            atomic_write(self.file, text.encode())
            print(self.file)
            return
        from bench.runfile.writer import whole_file

        with whole_file(self.file, "output ") as partial:
            partial.write_text(text, encoding="utf-8")
        print(self.file)


def _is_page(file: Path) -> bool:
    """Tell whether a file is a page that this program made."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as page:
        return PAGE_MARK in page.read(PAGE_HEAD)


TERMINAL = Output()


def error_console() -> Console:
    """Return the console of standard error, for progress and remarks, without markup."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def promise_resumption(
    is_kept: Callable[[], bool] = lambda: True, *, without_file: bool = False
) -> Iterator[None]:
    """Say that --resume goes on, if this is cut off or the disk is full, and something is kept.

    `without_file` says that this goes on with a run file: another time, its own journal is meant.
    """
    from bench.engine.journal import DiskError, describe_disk_error

    text = SAFE_TEXT + " alone, without the file" * without_file
    try:
        yield
    except KeyboardInterrupt:
        if is_kept():
            error_console().print(text)
        raise
    except (BakeoffError, OSError) as error:
        number = getattr(error.__cause__ or error, "errno", None)
        is_full = isinstance(error, DiskError) or number in FULL_DISK_ERRORS
        if not is_full or not is_kept():
            raise
        words = str(error)
        if isinstance(error, OSError):
            words = describe_disk_error(error, error.filename or "a file or standard output")
        raise DiskError(f"{words}; {text}") from error


def finish(results: ResultsWithSamples, output: Output, kept: Path | None = None) -> None:
    """Show results on the terminal, or write them, with their headline on standard error.

    `kept`, the file that holds them so far, is removed at the end.
    """
    with promise_resumption(lambda: kept is not None):
        from bench.environments.git import describe_commit
        from bench.report.documents import make_document
        from bench.runfile.reader import Machine, Run
        from bench.runfile.writer import run_file, write  # takes a second, in which Ctrl-C may come

        data = run_file(results, describe_commit())
        machine = msgspec.convert(data["machine_info"], Machine)
        shown = make_document(Run("", results, machine=machine, when=data["datetime"][:19]))
        if output.file is not None:
            print(make_printable(shown.headline), file=sys.stderr)
        if output.form != "json":
            publish([shown], output)
        elif output.file is not None:
            write(output.file, data)
            print(output.file)
        else:
            output.write(msgspec.json.encode(data, enc_hook=float).decode() + "\n")
    if kept is not None:
        kept.unlink(missing_ok=True)


def publish(documents: Sequence[Document], output: Output = TERMINAL) -> None:
    """Write documents in the form of the output, to its file or to standard output."""
    if output.form == "html":
        from bench.report.charts import DRAWING_GIB, can_draw
        from bench.report.page import page

        if not can_draw():
            say(
                f"charts are told as text: drawing needs {DRAWING_GIB} GiB of `ulimit -v`; raise it"
            )
        output.write(page(*documents))
    elif output.form == "md":
        from bench.report.markdown import markdown

        output.write("\n".join(map(markdown, documents)))
    else:
        from rich.console import Console

        from bench.report import terminal

        buffer, width = (None, None) if output.file is None else (io.StringIO(), WIDTH)
        console = Console(highlight=False, file=buffer, width=width)
        for document in documents:
            terminal.show(document, console, details=output.details or buffer is not None)
        if buffer is not None:
            output.write(buffer.getvalue())
