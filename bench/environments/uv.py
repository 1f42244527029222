"""uv: resolves requirements to pins, and sorts its failures into kinds."""

from __future__ import annotations

import datetime
import os
import re
import stat
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from uv import find_uv_bin

from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHONS = ("3.12", "3.13", "3.14")
"""Versions that this project runs on; the first is the one that most releases support."""
OFFLINE = (
    *("failed to fetch", "error sending request", "dns error", "network connectivity is disabled"),
    *("connection refused", "timed out", "connect error", "request failed after"),
    *("not found in the cache", "needs to be downloaded from a registry"),
)
"""Parts of uv's messages when it cannot reach an index."""
UNSOLVABLE = re.compile(
    "No solution found|unsatisfiable|no usable wheels|No interpreter found|Failed to build"
)
"""Parts of uv's messages when releases, a Python, or builds from sources cannot be had."""
WHEELS = ("--only-binary", ":all:")
"""Options of uv with which no package is built from its source."""
YOURS = "name one by BAKEOFF_CACHE that is yours alone"
LONGEST_MESSAGE = 400
"""Maximum number of characters of uv's messages that are shown."""
MOST_RELEASES = 200
"""Maximum number of releases that are listed: more than a year of nightly ones need no list."""


FIRST_DAY = datetime.date(2018, 12, 1)
"""Day of the first release of jax."""


class UnsolvableError(BakeoffError):
    """No set of releases meets the requirements, with the Python that is asked for."""


def minor() -> str:
    """Return the minor version of the running Python, as in `3.12`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@cache
def list_installed() -> tuple[str, ...]:
    """Return the packages of the running environment, as pins."""
    versions = {canonicalize_name(d.name): d.version for d in metadata.distributions()}
    return tuple(f"{name}=={version}" for name, version in sorted(versions.items()))


def compile_pins(
    requirements: Sequence[str],
    python: str,
    date: datetime.date | None = None,
    preferences: Sequence[str] = (),
    *,
    options: Sequence[str] = WHEELS,
) -> tuple[str, ...]:
    """Return the lines of the requirements file that uv resolves some requirements to.

    Args:
        requirements: The requirements, as pip writes them.
        python: Version of Python that they have to fit, as in `3.12`.
        date: Releases that are newer than the end of this day (UTC) are not considered.
        preferences: Pins that are kept where they fit.
        options: Further options of `uv pip compile`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pins.txt"
        out.write_text("\n".join(preferences), encoding="utf-8")  # uv keeps pins of its output file
        until = ("--exclude-newer", f"{date}T23:59:59Z") if date else ()
        uv(
            *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--python-version", python, *until, *options, "-o", str(out), "-"),
            input_="\n".join(requirements),
        )
        return tuple(line for line in out.read_text("utf-8").splitlines() if line[:1] != "#")


def list_releases(package: str, low: str, high: str, python: str) -> list[str]:
    """Return the releases of a package above `low` and below `high`, in their order.

    Those without a wheel for `python`, a version as in `3.12`, are left out. uv is asked again and
    again, each time for the newest one below the last.
    """
    releases: list[str] = []
    while len(releases) < MOST_RELEASES:
        below = releases[-1] if releases else high
        wanted = [f"{package}>{low},<{below}"]
        try:
            [pin] = compile_pins(wanted, python, options=(*WHEELS, "--no-deps"))
        except UnsolvableError:
            break
        releases.append(pin.partition("==")[2])
    return releases[::-1]


@cache
def suggest_stack(package: str, release: str, python: str) -> str:
    """Return in words the JAX of the day on which a release came out.

    Raises:
        BakeoffError: the index does not have it, or does not say when.
    """
    before, day = FIRST_DAY, datetime.datetime.now(datetime.UTC).date()
    pin = f"{package}=={release}"
    while (day - before).days > 1:
        middle = before + (day - before) // 2
        try:
            compile_pins([pin], python, middle, options=(*WHEELS, "--no-deps"))
        except UnsolvableError:
            before = middle
        else:
            day = middle
    pins = compile_pins([pin, "jax"], python, day)
    jax = next(line for line in pins if line.startswith("jax=="))  # as it was asked for
    return f"{package} {release} is of {day}, as {jax} is: give `{pin},{jax}`, or `@{day}`"


def require_own(folder: Path) -> None:
    """Make a cache folder whose code is run, if it is not there.

    Raises:
        BakeoffError: it cannot be made, is another user's, or anybody can write there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        why = (error.strerror or "cannot be made").lower()
        raise BakeoffError(f"cache folder {shorten(folder)}: {why}; {YOURS}") from error
    whose = "is another user's" if about.st_uid != os.getuid() else ""
    if whose := whose or ("can be written by anybody" if about.st_mode & stat.S_IWOTH else ""):
        name = shorten(folder)
        raise BakeoffError(f"cache folder {name} {whose}, and its code is run: {YOURS}")
    if about.st_mode & stat.S_IWGRP:  # as some systems make all folders
        folder.chmod(stat.S_IMODE(about.st_mode) & ~stat.S_IWGRP)


def uv(*arguments: str, input_: str = "") -> None:
    """Run uv, without a shell and outside any project.

    Raises:
        UnsolvableError: no set of releases meets the requirements.
        BakeoffError: the index cannot be reached, and the cache does not have what is needed; or it
            failed in another way.
    """
    hidden = ("VIRTUAL_ENV", "UV_PROJECT", "UV_EXCLUDE_NEWER", "PYTHONPATH", "PYTHONHOME", "CONDA")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    pythons = sorted(str(path) for path in pyenv.glob("versions/*/bin"))
    variables["PATH"] = os.pathsep.join([variables.get("PATH", os.defpath), *pythons])
    done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
        [find_uv_bin(), *arguments],
        input=input_,
        capture_output=True,
        text=True,
        env=variables,
        cwd="/",  # the user's settings count, and those of no folder
        check=False,
    )
    if done.returncode == 0:
        return
    message = one_line(done.stderr)
    if any(sign in done.stderr.lower() for sign in OFFLINE):
        raise BakeoffError(f"the package index cannot be reached: {message}")
    if UNSOLVABLE.search(done.stderr):
        raise UnsolvableError(message)
    raise BakeoffError(f"uv {arguments[0]} failed: {message}")


def one_line(stderr: str) -> str:
    """Return a message of uv on one line, without its ornaments, warnings and hints."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning:")]
    words = " ".join(re.sub(r"[×╰─▶│├╭╯]|\x1b\[[0-9;]*m", " ", " ".join(lines)).split())
    words = re.sub(
        "^(error: )?(No solution found when resolving dependencies( cause)?: )?", "", words
    )
    words = words.split(" hint:")[0]
    return (words[:LONGEST_MESSAGE] + "…" if len(words) > LONGEST_MESSAGE else words).rstrip(".")
