"""uv: resolves requirements to pins, and sorts its failures into kinds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from bench.worker.settings import hide_repository
from common.errors import BakeoffError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Sequence

PYTHONS = ("3.12", "3.13", "3.14")
"""Versions of Python that this project runs on; most releases support the first."""
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
HIDDEN_PREFIXES = (
    *("VIRTUAL_ENV", "UV_PROJECT", "UV_EXCLUDE_NEWER", "PYTHONPATH", "PYTHONHOME", "CONDA"),
)
"""Prefixes of variables that uv does not see: they name other environments, or another day."""
LONGEST_MESSAGE = 400
"""Maximum number of characters of uv's messages that are shown."""
MOST_RELEASES = 200
"""Maximum number of releases that are listed: each takes a call of uv."""


class UnsolvableError(BakeoffError):
    """No set of releases meets the requirements, with the Python that is asked for."""


class Resolution(msgspec.Struct, frozen=True):
    """Releases that go together."""

    pins: tuple[str, ...]
    """Lines of a requirements file."""
    gaps: dict[str, str] = {}
    """Optional package that does not go with the rest → why."""


def list_installed(paths: Sequence[str] | None = None) -> dict[str, str]:
    """Return package → release in some folders; by default, in the running environment."""
    distributions = metadata.distributions(path=sys.path if paths is None else [*paths])
    return dict(sorted({canonicalize_name(d.name): d.version for d in distributions}.items()))


def list_pins() -> list[str]:
    """Return the packages of the running environment, as pins."""
    return [f"{name}=={version}" for name, version in list_installed().items()]


def resolve(
    required: Sequence[str], optional: Sequence[str], solve: Callable[[list[str]], tuple[str, ...]]
) -> Resolution:
    """Return releases of all required packages, and of as many optional ones as go together.

    `solve` is `compile_pins`, with all arguments but the requirements.
    """
    try:
        return Resolution(solve([*required, *optional]))
    except UnsolvableError:
        if not optional:
            raise
    fitting, gaps = [*required], dict[str, str]()
    pins = solve(fitting)
    for name in optional:
        try:
            pins = solve([*fitting, name])
        except UnsolvableError as error:
            gaps[name] = str(error)
        else:
            fitting.append(name)
    return Resolution(pins, gaps)


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
        run_uv(
            *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--python-version", python, *until, *options, "-o", str(out), "-"),
            input_="\n".join(requirements),
        )
        return tuple(line for line in out.read_text("utf-8").splitlines() if line[:1] != "#")


def list_releases(package: str, low: str, high: str, python: str) -> list[str]:
    """Return the releases of a package above `low` and below `high`, in their order.

    Those without a wheel for `python`, a version as in `3.12`, are left out. uv has no such list:
    it is asked for the newest release below the last one, again and again.
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
    """Return advice that names the JAX of the day on which a release came out.

    Raises:
        BakeoffError: the index does not have it, or does not say when.
    """
    pin, options = f"{package}=={release}", ("--python-version", python, *WHEELS, "--no-deps")
    file = run_uv("pip", "compile", "--quiet", "--format", "pylock.toml", *options, "-", input_=pin)
    wheels = [wheel for entry in tomllib.loads(file)["packages"] for wheel in entry["wheels"]]
    times = [wheel["upload-time"] for wheel in wheels if "upload-time" in wheel]
    if not times:
        raise BakeoffError(f"the package index does not say when {pin} came out")
    day = min(times).date()
    pins = compile_pins([pin, "jax"], python, day)
    jax = next(line for line in pins if line.startswith("jax=="))
    return f"{package} {release} is of {day}, as {jax} is: give `{pin},{jax}`, or `@{day}`"


def run_uv(*arguments: str, input_: str = "") -> str:
    """Run uv, without a shell and outside any project, and return its output.

    Raises:
        UnsolvableError: no set of releases meets the requirements.
        BakeoffError: the index cannot be reached, and the cache does not have what is needed; or it
            failed in another way.
    """
    inherited = hide_repository(os.environ)  # uv and builds run git, too
    variables = {k: v for k, v in inherited.items() if not k.startswith(HIDDEN_PREFIXES)}
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
        return done.stdout
    message = shorten_message(done.stderr)
    if any(sign in done.stderr.lower() for sign in OFFLINE):
        raise BakeoffError(f"the package index cannot be reached: {message}")
    if UNSOLVABLE.search(done.stderr):
        raise UnsolvableError(message)
    raise BakeoffError(f"uv {arguments[0]} failed: {message}")


def shorten_message(stderr: str) -> str:
    """Return a message of uv on one line, without its ornaments, warnings and hints."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning:")]
    words = " ".join(re.sub(r"[×╰─▶│├╭╯]|\x1b\[[0-9;]*m", " ", " ".join(lines)).split())
    words = re.sub(
        "^(error: )?(No solution found when resolving dependencies( cause)?: )?", "", words
    )
    words = words.split(" hint:")[0]
    return (words[:LONGEST_MESSAGE] + "…" if len(words) > LONGEST_MESSAGE else words).rstrip(".")
