"""When libraries were released: a dated file, and how it is made anew.

`python -m bench.ergonomics.releases` asks the package index by way of uv, which says in a
`pylock.toml` (PEP 751) when the files of a release were uploaded. It takes the newest release, then
the newest below that, and so on back to `YEARS` ago; the metadata of the newest one say which
Python and jax it wants. It writes `releases.json`, and into `bench/report/libraries.json` what can
be counted from it. Nothing else here uses the network.

Seen are final releases that have a wheel for the Python that runs this, and were not withdrawn. A
file that was uploaded again later has the later day.
"""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
import tomllib
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.ergonomics.install import bound, installed

FILE = Path(__file__).with_name("releases.json")
LIBRARIES = Path(__file__).parents[1] / "report" / "libraries.json"
YEARS = 3
"""That the file goes back."""
BEYOND = ("jax", "optax", "penzai", "trax")
"""Distributions that are asked for whether or not an entrant declares them."""
MOST_RELEASES = 400


class Age(NamedTuple):
    """How a library is released, as of the day that the file was made."""

    latest: str
    latest_on: str
    """A day, in UTC."""
    days: int
    """From then to the day of the file."""
    in_a_year: int
    """Releases in the year before that."""
    days_between: float | None
    """Median days from one release to the next, in all that is known; None for fewer than two."""
    requires_python: str
    requires_jax: str


def known() -> dict[str, Any]:
    """Return what the dated file says."""
    return dict(json.loads(FILE.read_text("utf-8")))


def age(distribution: str, found: dict[str, Any]) -> Age | None:
    """Return how a library is released; None where the dated file does not know it."""
    one = found["libraries"].get(distribution)
    if one is None:
        return None
    as_of = datetime.date.fromisoformat(found["as_of"])
    days = sorted(map(datetime.date.fromisoformat, one["releases"].values()))
    latest, latest_on = list(one["releases"].items())[-1]
    gaps = [(after - before).days for before, after in pairwise(days)]
    return Age(
        latest,
        latest_on,
        (as_of - datetime.date.fromisoformat(latest_on)).days,
        sum(day > year_before(as_of) for day in days),
        float(median(gaps)) if gaps else None,
        one["requires_python"],
        one["requires_jax"],
    )


def year_before(day: datetime.date, years: int = 1) -> datetime.date:
    """Return the same day of an earlier year; for February 29th the 28th."""
    last = 28 if (day.month, day.day) == (2, 29) else day.day
    return day.replace(year=day.year - years, day=last)


def asked(distribution: str, since: datetime.date) -> dict[str, Any]:
    """Return the releases of a library since a day, the newest also if older; from the index.

    Raises:
        NetworkError: the index cannot be reached.
    """
    from bench.environments.uv import UnsolvableError

    releases: list[tuple[str, str]] = []
    while len(releases) < MOST_RELEASES:
        below = f"<{releases[-1][0]}" if releases else ""
        try:
            version, day = newest(f"{distribution}{below}")
        except UnsolvableError:
            break
        if releases and datetime.date.fromisoformat(day) < since:
            break
        releases.append((version, day))
    requires_python, requires_jax = wants(f"{distribution}=={releases[0][0]}")
    return {
        "requires_python": requires_python,
        "requires_jax": requires_jax,
        "releases": dict(releases[::-1]),
    }


def newest(requirement: str) -> tuple[str, str]:
    """Return the newest release that fits, and the day on which its first file was uploaded."""
    from bench.environments.uv import uv

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pylock.toml"
        uv(
            *("pip", "compile", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python", sys.executable, "-o", str(out), "-"),
            input_=requirement,
        )
        [package] = tomllib.loads(out.read_text("utf-8"))["packages"]
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    first = min(file["upload-time"] for file in files)
    return package["version"], first.astimezone(datetime.UTC).date().isoformat()


def wants(pin: str) -> tuple[str, str]:
    """Return what a release says of Python and of jax."""
    from bench.environments.uv import uv

    with tempfile.TemporaryDirectory() as scratch:
        uv(
            *("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python", sys.executable, "--target", scratch, pin),
        )
        found = installed(Path(scratch))[pin.split("==")[0]]
        return found.metadata.get("Requires-Python", "") or "", bound("jax", found.requires or [])


def libraries(found: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return `libraries.json` with what can be counted from the releases; the rest is people's."""
    out = {**before, "as_of": found["as_of"]}
    out["libraries"] = {name: dict(one) for name, one in before["libraries"].items()}
    for one in out["libraries"].values():
        counted = age(one["distribution"], found)
        if counted is not None:
            one["releases_in_a_year"] = counted.in_a_year
            one["latest"], one["latest_on"] = counted.latest, counted.latest_on
    return out


def main() -> None:
    """Write both files anew."""
    import impls
    from bench.environments.store import replace

    today = datetime.datetime.now(datetime.UTC).date()
    since = year_before(today, YEARS)
    names = {impls.declared(name).distribution for name in impls.names()} - {""}
    found: dict[str, Any] = {
        "as_of": today.isoformat(),
        "source": "upload times in the package index, asked of uv",
        "made_by": "python -m bench.ergonomics.releases",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "since": since.isoformat(),
        "libraries": {},
    }
    for name in sorted({*names, *BEYOND}):
        found["libraries"][name] = asked(name, since)
        print(name, len(found["libraries"][name]["releases"]))
    replace(FILE, json.dumps(found, indent=1) + "\n")
    before = json.loads(LIBRARIES.read_text("utf-8"))
    replace(LIBRARIES, json.dumps(libraries(found, before), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
