"""Named downloads: over https, cached, checked, announced, and never needed by a default run."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import BakeoffError

type Notify = Callable[[str], None]

TIMEOUT_SECONDS = 30.0
"""Longest wait for a connection, and between two packets."""


@dataclass(frozen=True)
class Source:
    """Where a named corpus comes from."""

    url: str
    """Address of a plain text file in UTF-8."""
    file_name: str
    """Its name in the cache folder."""
    sha256: str | None = None
    """Checksum of the file; None where the publisher re-issues it from time to time."""


SOURCES: Mapping[str, Source] = {
    "metamorphosis": Source(
        url="https://www.gutenberg.org/cache/epub/5200/pg5200.txt", file_name="metamorphosis.txt"
    ),
    "tinyshakespeare": Source(
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        file_name="tinyshakespeare.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}


def cache_folder() -> Path:
    """Return where downloads are kept: `BAKEOFF_CACHE`, or else the user's cache folder."""
    chosen = os.environ.get("BAKEOFF_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import pooch  # here, since a benchmark worker imports `common` where pooch is not installed

    return Path(pooch.os_cache("jax-bakeoff"))


def cached(source: Source, notify: Notify) -> Path:
    """Return the path of the source's file, downloading it only where it is not in the cache.

    Args:
        source: What to fetch; a file of that name in the cache is used without any network.
        notify: Told, in one line, that a download starts.

    Raises:
        BakeoffError: The download failed or its checksum is wrong; the cache stays as it was.

    """
    path = cache_folder() / source.file_name
    if path.exists():
        return path
    notify(f"downloading {source.url} to {path}")
    try:
        _download(source, path)
    except OSError as error:  # what requests raises is an OSError too
        raise BakeoffError(
            f"cannot download {source.url} ({_cause(error)}); {_otherwise(path)}"
        ) from error
    except ValueError as error:
        raise BakeoffError(
            f"{source.url} sent a file whose SHA-256 is not {source.sha256}, and it was not kept; "
            f"try again later, or {_otherwise(path)}"
        ) from error
    return path


def check(source: Source, path: Path, digest: str, notify: Notify) -> None:
    """Compare a cached file with the checksum that is known, or was recorded when it first came.

    Args:
        source: Where the file comes from.
        path: The cached file; the record lies beside it, in the format of `sha256sum`.
        digest: SHA-256 of the file, in hexadecimal.
        notify: Told, in one line, that the publisher's text changed, or cannot be recorded.

    Raises:
        BakeoffError: The file is not the one whose checksum is known.

    """
    if source.sha256 is None:
        _compare_with_record(path, digest, notify)
    elif digest != source.sha256:
        raise BakeoffError(
            f"{path} has SHA-256 {digest} instead of {source.sha256}; delete it to download it "
            "again, or pass it as --corpus PATH to use it as it is"
        )


def _download(source: Source, path: Path) -> None:
    """Download to a temporary file, which takes the place of `path` once complete and checked."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it would announce the download a second time
    pooch.retrieve(
        source.url,
        known_hash=None if source.sha256 is None else f"sha256:{source.sha256}",
        fname=path.name,
        path=path.parent,
        # not streamed, as pooch leaves the socket of a streamed answer open when it is an error
        downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, stream=False),
    )


def _compare_with_record(path: Path, digest: str, notify: Notify) -> None:
    record = path.with_name(f"{path.name}.sha256")
    try:
        recorded = record.read_text("utf-8", errors="replace") if record.exists() else ""
        before, _, _ = recorded.partition(" ")
        if before == digest:
            return
        if before:
            notify(
                f"{path} changed: its SHA-256 was {before}, now it is {digest}; "
                "losses on the two texts do not compare"
            )
        record.write_text(f"{digest}  {path.name}\n", "utf-8")
    except OSError as error:  # say, a cache that may only be read
        notify(f"cannot keep the SHA-256 of {path} for later comparison ({error})")


def _otherwise(path: Path) -> str:
    return f"put the file at {path} by hand, or use --corpus PATH or --corpus synthetic"


def _cause(error: BaseException) -> str:
    """Return the innermost exception's text: `Connection refused`, not its three wrappings."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
