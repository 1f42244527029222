"""Named downloads: over https, cached, checked, announced, and never needed by a default run."""

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
    """Source of a named corpus."""

    url: str
    """Address of a plain text file in UTF-8."""
    sha256: str | None = None
    """Checksum of the file; None where the publisher re-issues it from time to time."""


SOURCES: Mapping[str, Source] = {
    "metamorphosis": Source("https://www.gutenberg.org/cache/epub/5200/pg5200.txt"),
    "tinyshakespeare": Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}


def cache_folder() -> Path:
    """Return the folder for downloads: `BAKEOFF_CACHE`, or else the user's cache folder."""
    chosen = os.environ.get("BAKEOFF_CACHE")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        import pooch  # here, since a benchmark worker imports `common` where pooch is not installed

        return Path(pooch.os_cache("jax-bakeoff"))
    except RuntimeError as error:
        raise BakeoffError(f"no cache folder ({error}): name one by BAKEOFF_CACHE") from error


def fetch_file(name: str, source: Source, notify: Notify) -> Path:
    """Return the path of a source's file, downloading it only if it is not in the cache.

    A download is written to a temporary file, which gets its name once it is complete and checked.

    Args:
        name: Name of the corpus; a file of this name in the cache is used without any network.
        source: The source to download from otherwise.
        notify: Called with one line when a download starts.

    Raises:
        BakeoffError: The download failed or its checksum is wrong; the cache stays as it was.
    """
    path = cache_folder() / f"{name}.txt"
    if path.exists():
        return path
    import pooch

    notify(f"downloading {source.url} to {path}")
    pooch.get_logger().setLevel("WARNING")  # it would announce the download a second time
    instead = f"put the file at {path} by hand, or use --corpus PATH or --corpus synthetic"
    try:
        pooch.retrieve(
            source.url,
            known_hash=None if source.sha256 is None else f"sha256:{source.sha256}",
            fname=path.name,
            path=path.parent,
            # not streamed: pooch leaves the socket of a streamed answer open when it is an error
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, stream=False),
        )
    except OSError as error:  # what requests raises is an OSError too
        raise BakeoffError(f"cannot download {source.url} ({_cause(error)}); {instead}") from error
    except ValueError as error:
        raise BakeoffError(
            f"{source.url} sent a file whose SHA-256 is not {source.sha256}, and it was not kept; "
            f"try again later, or {instead}"
        ) from error
    return path


def _cause(error: BaseException) -> str:
    """Return the innermost exception's text: `Connection refused`, not its three wrappings."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
