"""What a library puts on the disk beyond what everybody has, from the metadata of what is there."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    type Index = Mapping[str, metadata.Distribution]

EVERYBODY = ("jax", "optax", "numpy")
"""Every worker imports these; they and what they need are not counted."""


class Install(NamedTuple):
    """A distribution, and what it pulls in."""

    distribution: str
    version: str
    size: int
    """Bytes of the files of all `packages`; bytecode, which is made later, apart."""
    packages: tuple[tuple[str, str, int], ...]
    """Name, version and bytes of each, the largest first; none that everybody has."""
    missing: tuple[str, ...]
    """What is required and not there."""
    requires_python: str
    requires_jax: str
    """As its own metadata bound it; empty where they do not."""


def install(distribution: str, site_packages: Path | None = None) -> Install:
    """Return what a distribution and what it requires take, beyond `EVERYBODY` and their needs.

    Args:
        distribution: Its name in the package index.
        site_packages: Of the environment that has it; the one at hand if None.

    Raises:
        BakeoffError: it is not installed there.
    """
    index = installed(site_packages)
    name = canonicalize_name(distribution)
    if name not in index:
        raise BakeoffError(f"{distribution} is not installed here")
    needed, missing = closure([name], index)
    everybody, _ = closure([each for each in EVERYBODY if each in index], index)
    sizes = [(each, index[each].version, size(index[each])) for each in needed - everybody]
    sizes.sort(key=lambda each: (-each[2], each[0]))
    said = index[name].metadata
    return Install(
        distribution,
        index[name].version,
        sum(of for *_, of in sizes),
        tuple(sizes),
        tuple(sorted(missing)),
        said.get("Requires-Python", "") or "",
        bound("jax", index[name].requires or []),
    )


def installed(site_packages: Path | None) -> Index:
    """Return the distributions of an environment by their canonical names; the first found wins."""
    where = sys.path if site_packages is None else [str(site_packages)]
    found: dict[str, metadata.Distribution] = {}
    for each in metadata.distributions(path=where):
        found.setdefault(canonicalize_name(each.name), each)
    return found


def closure(names: Iterable[str], index: Index) -> tuple[set[str], set[str]]:
    """Return what some distributions need, themselves included, and what of it is not there.

    Requirements count where their markers say so for the running Python, those of an extra where
    the extra is asked for.
    """
    open_ = [(str(canonicalize_name(name)), "") for name in names]
    seen = set(open_)
    missing: set[str] = set()
    while open_:
        name, extra = open_.pop()
        if name not in index:
            missing.add(name)
            continue
        for text in index[name].requires or []:
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            asked = {(str(canonicalize_name(need.name)), each) for each in ("", *need.extras)}
            open_ += asked - seen
            seen |= asked
    return {name for name, _ in seen} - missing, missing


def size(distribution: metadata.Distribution) -> int:
    """Return the bytes of a distribution's files that are there, bytecode apart."""
    paths = [f.locate() for f in distribution.files or [] if "__pycache__" not in f.parts]
    files = [path for path in paths if path.is_file()]  # type: ignore[attr-defined]  # a Path
    return sum(path.stat().st_size for path in files)  # type: ignore[attr-defined]


def bound(name: str, requires: Iterable[str]) -> str:
    """Return what requirements say of a package, without those that belong to an extra."""
    needs = [Requirement(text) for text in requires]
    found = {
        str(need.specifier) or "any"
        for need in needs
        if canonicalize_name(need.name) == name
        and (need.marker is None or need.marker.evaluate({"extra": ""}))
    }
    return ", ".join(sorted(found))
