"""uv: what it resolves, what it finds, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.fetch import cache_folder

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Sequence

    type Notify = Callable[[str], None]

PYTHONS = ("3.12", "3.13", "3.14")
"""That this project's code runs on; the first is the one that most releases support."""
OFFLINE = (
    *("failed to fetch", "error sending request", "dns error", "network connectivity is disabled"),
    *("connection refused", "timed out", "connect error", "request failed after"),
    *("not found in the cache", "needs to be downloaded from a registry"),
)
"""What uv says where it reaches no index."""
FOR_PYTHON = re.compile(r"[Pp]ython|wheel|abi tag|platform tag")
"""What uv says where another Python may help."""
UNSOLVABLE = re.compile("No solution found|unsatisfiable|no usable wheels|No interpreter found")
"""What uv says where there is nothing to be had."""
MOST_WORDS = 400
"""Characters of what uv says."""


class UnsolvableError(BakeoffError):
    """There is no set of releases that fits."""

    for_python = False
    """Whether another Python may have one."""


class NetworkError(BakeoffError):
    """The index cannot be reached, and the cache does not have what is needed."""


def minor() -> str:
    """Return the minor version of the running Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@cache
def installed() -> tuple[str, ...]:
    """Return what is installed where this program runs, as pins."""
    found = {canonicalize_name(d.name): d.version for d in metadata.distributions()}
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))


def compiled(
    requirements: Sequence[str],
    interpreter: str,
    date: datetime.date | None,
    preferences: Sequence[str],
    *,
    deps: bool = True,
) -> tuple[str, ...]:
    """Return the pins that uv finds for some requirements, and for what these need if `deps`.

    Args:
        requirements: As pip writes them.
        interpreter: That they have to fit.
        date: Nothing newer than its last second (UTC) is taken; None takes what there is.
        preferences: Pins that are taken where they fit.
        deps: Whether what they need is found too.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pins.txt"
        out.write_text("\n".join(preferences), encoding="utf-8")
        until = ("--exclude-newer", f"{date}T23:59:59Z") if date else ()
        uv(
            *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--only-binary", ":all:", "--python", interpreter, *until, "-o", str(out), "-"),
            *(() if deps else ("--no-deps",)),
            input_="\n".join(requirements),
        )
        lines = out.read_text("utf-8").split()
    return tuple(line for line in lines if "==" in line)


PYTHONS_FOUND: dict[str, str | None] = {}
"""Where each is; None where there is none to be had."""


def find_python(version: str, notify: Notify) -> str:
    """Return the path of a Python, one of uv's own where there is no other.

    Args:
        version: Its minor version.
        notify: Told that one is downloaded.

    Raises:
        UnsolvableError: there is none, and uv can get none.
    """
    find = ("python", "find", "--system", "--no-python-downloads", version)
    if version not in PYTHONS_FOUND:
        PYTHONS_FOUND[version] = None
        with suppress(BakeoffError):
            PYTHONS_FOUND[version] = uv(*find).strip()
        if PYTHONS_FOUND[version] is None:
            notify(f"downloading Python {version} with uv")
            with suppress(BakeoffError):
                uv("python", "install", "--quiet", version)
                PYTHONS_FOUND[version] = uv(*find).strip()
    found = PYTHONS_FOUND[version]
    if found is None:
        missing = UnsolvableError(f"there is no Python {version} here, and uv can get none")
        missing.for_python = True
        raise missing
    return found


@cache
def uv_path() -> str:
    """Return uv's program.

    Raises:
        BakeoffError: there is none.
    """
    with_package = None
    try:
        import uv as package

        with_package = package.find_uv_bin()
    except (ImportError, FileNotFoundError):
        own = ROOT / ".uv" / "bin" / "uv"
        with_package = shutil.which("uv") or (str(own) if own.exists() else None)
    if with_package is None:
        raise BakeoffError("uv builds the environments of other releases, and is not installed")
    return with_package


def uv(*arguments: str, input_: str = "") -> str:
    """Return what uv prints; no shell is involved, and it sees no project.

    Raises:
        UnsolvableError: it has no solution.
        NetworkError: it could not reach what it needs.
        BakeoffError: it failed in another way.
    """
    hidden = ("VIRTUAL_ENV", "UV_PROJECT", "UV_EXCLUDE_NEWER", "PYTHONPATH", "PYTHONHOME", "CONDA")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    variables["PATH"] = os.pathsep.join([variables.get("PATH", os.defpath), *pyenv_folders()])
    done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
        [uv_path(), *arguments],
        input=input_,
        capture_output=True,
        text=True,
        env=variables,
        cwd=own_folder(),
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    words = said(done.stderr)
    if any(sign in done.stderr.lower() for sign in OFFLINE):
        raise NetworkError(words)
    if not UNSOLVABLE.search(done.stderr):
        raise BakeoffError(f"uv {arguments[0]} failed: {words}")
    unsolvable = UnsolvableError(words)
    unsolvable.for_python = bool(FOR_PYTHON.search(words))
    raise unsolvable


def own_folder() -> Path:
    """Return a folder of ours, in which nobody else's settings of uv lie."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pyenv_folders() -> list[str]:
    """Return where pyenv keeps its Pythons, which uv finds on the path alone."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted(str(path) for path in root.glob("versions/*/bin"))


def said(stderr: str) -> str:
    """Return what uv said, on one line, without its ornaments, warnings and hints."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning:")]
    words = " ".join(re.sub(r"[×╰─▶│├╭╯]|\x1b\[[0-9;]*m", " ", " ".join(lines)).split())
    words = words.split(" hint:")[0].removeprefix("error: ")
    words = words.removeprefix("No solution found when resolving dependencies: ")
    words = words.removeprefix("No solution found when resolving dependencies cause: ")
    return (words[:MOST_WORDS] + "…" if len(words) > MOST_WORDS else words).rstrip(".")
