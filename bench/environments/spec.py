"""Contents of an environment, by a SPEC of the command line or by an entrant's file.

A SPEC names an environment, a revision of this project, or both.

`current`; `@2025-12-01`, the whole stack of that day, and `@-7d`, of a week ago; `flax==0.12.8`,
the current stack with that release; `@2025-12-01,flax==0.12.0`, both; `flax @ ../flax`, a checkout;
a file of requirements, for what it says of these packages; anything else is a git revision of this
project. No part of it reaches a shell, and nothing that looks like an option is accepted.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

import impls
from bench.environments.sources import Source, SourceState, parse_source
from bench.environments.uv import PYTHONS, WHEELS, list_installed, minor
from bench.worker.settings import ROOT
from common.errors import BakeoffError, unknown
from common.versions import COMMON

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CURRENT = "current"
"""SPEC of the running environment, with the code at hand."""
EXAMPLES = (
    "`current`, `@2025-12-01`, `@-7d`, `flax==0.12.8`, `jax==0.10.2,jaxlib==0.10.2`, "
    "`flax @ ../flax`, `requirements.txt`, `uv.lock`, `pyproject.toml` or a git revision"
)
FIRST_DAY = datetime.date(2018, 12, 1)
"""Day of the first release of jax."""
PACKAGES = tuple(impls.list_pinnable())
"""Packages that a SPEC may pin, so that a mistyped name never installs an unrelated package."""

LOCK = "requirements.lock"
"""File of a revision of this project with all pins and their hashes."""
LOCKS = ROOT / "impls" / "locks"
"""Folder with a lock for each entrant with its own environment."""


@dataclass(frozen=True)
class Spec:
    """One environment, as it was requested."""

    text: str
    """The SPEC as it was given."""
    date: datetime.date | None = None
    """Day of the stack; None for today's."""
    pins: tuple[tuple[str, str | Source], ...] = ()
    """Packages and their releases, `("flax", "==0.12.8")`, or where their code is taken from."""
    revision: str | None = None
    """Revision of this project's code; None for the code at hand."""

    def __str__(self) -> str:
        return self.text

    @property
    def is_current(self) -> bool:
        """Whether it is the running environment, with the code at hand."""
        return self == Spec(self.text)

    @property
    def sources(self) -> dict[str, Source]:
        """Package → source of its code, where that is no release."""
        return {name: wanted for name, wanted in self.pins if isinstance(wanted, Source)}

    def replace_pins(self, pins: Mapping[str, str | Source]) -> Spec:
        """Return the same environment with these pins in place of those of the same packages."""
        pins = {**dict(self.pins), **pins}
        parts = [f"@{self.date}"] if self.date else []
        parts += [f"{name}{wanted}" for name, wanted in pins.items()]
        return Spec(",".join(parts), self.date, tuple(pins.items()))


def parse(text: str, option: str = "SPEC", *, revisions: bool = True) -> Spec:
    """Return the `Spec` of a text that an option was given.

    Raises:
        BakeoffError: it is malformed, or a git revision where these cannot be measured. Whether its
            releases exist is not checked here.
    """
    given = text.strip()
    if not given:
        raise BakeoffError(f"{option} is empty; give {EXAMPLES}")
    if given.startswith("-"):
        raise BakeoffError(f"{option} {text!r} looks like an option; give {EXAMPLES}")
    if given == CURRENT:
        return Spec(CURRENT)
    if Path(given).suffix in READERS and not re.search("[=<>@]", given):
        return parse_file(Path(given), option)
    package, source, _ = given.partition("@")
    if not re.search("^@|[=<>]", given) and not (
        source and (package.endswith(" ") or canonicalize_name(package) in PACKAGES)
    ):
        if not revisions:
            raise BakeoffError(
                f"{option} {given!r} is a git revision; give a day or releases, or compare "
                "revisions by `bakeoff ab`"
            )
        return Spec(given, revision=given)
    date, pins = None, dict[str, str | Source]()
    for part in re.split(r",\s*(?![<>=!~])", given):  # `jax>=0.6,<0.7` is one part
        if part.startswith("@"):
            if date is not None:
                raise BakeoffError(f"{option} {given!r} has two days; give one")
            date = parse_day(part[1:], option)
            given = given.replace(part, f"@{date}")  # another one tomorrow
            continue
        try:
            pin = Requirement(part)
        except InvalidRequirement:
            pin = None
        if pin is None or not (pin.specifier or pin.url) or pin.extras or pin.marker:
            raise BakeoffError(f"{option} {given!r}: {part!r} is not a pin; give {EXAMPLES}")
        name = canonicalize_name(pin.name)
        if name not in PACKAGES:
            raise BakeoffError(f"{option} {given!r}: {unknown('package', pin.name, PACKAGES)}")
        if name in pins:
            raise BakeoffError(f"{option} {given!r} pins {name} twice; give one pin")
        where = f"{option} {given!r}"
        pins[name] = parse_source(name, pin.url, where) if pin.url else str(pin.specifier)
    return Spec(given, date, tuple(pins.items()))


def parse_file(path: Path, option: str) -> Spec:
    """Return the current stack, with the pins from a file of requirements.

    Raises:
        BakeoffError: it cannot be read, or says nothing of them.
    """
    try:
        required = [*READERS[path.suffix](path.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BakeoffError(f"{option}: {path} cannot be read as requirements: {error}") from error
    pins: dict[str, str] = {}
    for requirement in required:
        name, wanted = canonicalize_name(requirement.name), str(requirement.specifier)
        if name in PACKAGES and requirement.url:
            raise BakeoffError(
                f"{option}: {path} has {name} from a URL; give `{name} @ …` as a SPEC"
            )
        if name in PACKAGES and pins.get(name, wanted) != wanted:
            raise BakeoffError(f"{option}: {path} has {name}{pins[name]} and {wanted}; give one")
        if name in PACKAGES and wanted:
            pins[name] = wanted
    if not pins:
        raise BakeoffError(
            f"{option}: {path} has no release of {', '.join(PACKAGES[:4])} or others"
        )
    return Spec(str(path), None, tuple(pins.items()))


def read_lines(text: str) -> Iterator[Requirement]:
    """Yield the requirements of a `requirements.txt` that hold here, without its options."""
    for line in text.replace("\\\n", " ").splitlines():
        written = re.split(r"\s#|\s--(?!re|co)", f" {line}")[0].strip()
        if re.match(r"-r|-c|--requirement|--constraint", written):
            raise ValueError(f"{written!r} refers to another file; give that one, or a lock")
        if written and written[0] not in "#-":
            with suppress(InvalidRequirement):  # a path, or a URL alone
                requirement = Requirement(written)
                if requirement.marker is None or requirement.marker.evaluate():
                    yield requirement


def read_project(text: str) -> Iterator[Requirement]:
    """Yield the dependencies of a `pyproject.toml`."""
    yield from read_lines("\n".join(tomllib.loads(text)["project"]["dependencies"]))


def read_lock(text: str) -> Iterator[Requirement]:
    """Yield the releases of a `uv.lock`."""
    for package in tomllib.loads(text)["package"]:
        if "version" in package:
            yield Requirement(f"{package['name']}=={package['version']}")


READERS = {".txt": read_lines, ".toml": read_project, ".lock": read_lock}
"""Suffix of a file of requirements → its reader."""


def make_day_spec(date: datetime.date) -> Spec:
    """Return the `Spec` of the whole stack of a day."""
    return Spec(f"@{date}", date)


def parse_day(text: str, option: str) -> datetime.date:
    """Return a day, as in `2025-12-01`, `-7d` or `7 days ago`, that an option was given.

    Raises:
        BakeoffError: it is malformed, in the future, or before the first release of jax.
    """
    try:
        if ago := re.fullmatch(r"-(\d{1,5})d|(\d{1,5}) days? ago", text):
            date = today() - datetime.timedelta(int(ago[1] or ago[2]))
        else:
            date = datetime.date.fromisoformat(text)
    except (ValueError, OverflowError):
        raise BakeoffError(
            f"{option}: {text!r} is not a day; give one as in 2025-12-01, or -7d"
        ) from None
    if not FIRST_DAY <= date <= today():
        raise BakeoffError(
            f"{option}: {date} is not between {FIRST_DAY} and today; give another day"
        )
    return date


def today() -> datetime.date:
    """Return today's date in UTC, as the dates of releases are."""
    return datetime.datetime.now(datetime.UTC).date()


@dataclass(frozen=True)
class BuildRequest:
    """Request for an environment; its `repr` has what the releases depend on, beside Python."""

    title: str = field(repr=False)
    """Name of the environment in messages."""
    requirements: tuple[str, ...] = ()
    """Required packages, as pip writes them."""
    optional: tuple[str, ...] = ()
    """Packages that are left out, each for itself, where they do not go with the rest."""
    preferences: tuple[str, ...] | BuildRequest = ()
    """Pins that are kept where they fit, or the request that resolves to them."""
    date: datetime.date | None = None
    """Last day of the releases that are considered."""
    asked_on: datetime.date | None = None
    """Today, if `date` has not ended: it may bring other releases tomorrow."""
    lock: tuple[str, ...] = ()
    """Lines of a requirements file; with them, nothing is resolved."""
    options: tuple[str, ...] = WHEELS
    """Options of `uv pip compile` and `uv pip install`."""
    pythons: tuple[str, ...] = field(default=PYTHONS, repr=False)
    """Versions of Python to try, in this order."""


def make_spec_request(
    spec: Spec,
    root: Path,
    pythons: Sequence[str],
    states: Mapping[str, SourceState],
    extras: Sequence[str] = (),
) -> BuildRequest:
    """Return the request for a SPEC's environment.

    Args:
        spec: The SPEC.
        root: Folder of the code that its workers run.
        pythons: Versions to try.
        states: Of its sources, by package.
        extras: What else it has to have, as pip writes it.
    """
    libraries = tuple(impls.libraries())
    required = (*COMMON, *extras)
    if spec.is_current:  # with what else it is to have; JAX's plugins for accelerators are kept
        required += tuple(
            pin for pin in list_installed() if re.match("jax(lib|-cuda|-rocm|-tpu|=)", pin)
        )
    stack = BuildRequest(
        str(spec), required, libraries, date=spec.date, pythons=tuple(pythons) or PYTHONS
    )
    if spec.date is not None and spec.date >= today():
        stack = replace(stack, asked_on=today())
    if spec.date is not None and not spec.pins:
        return stack
    pins = list_installed() if spec.revision is None else read_pins(root / LOCK)
    pinned = dict(spec.pins) | {name: f" @ {state.url}" for name, state in states.items()}
    return replace(
        stack,
        requirements=(*required, *(f"{name}{wanted}" for name, wanted in pinned.items())),
        optional=tuple(name for name in libraries if name not in pinned),
        preferences=pins if spec.date is None else stack,
        date=None,  # a release that is pinned may be newer
        asked_on=None,
        options=(*WHEELS, *(f"--no-binary={name}" for name in states)),
    )


def make_entrant_request(entrant: str | Path) -> BuildRequest:
    """Return the request for an entrant's own environment.

    JAX, optax and NumPy have the releases of this project's lock, if its library accepts them.

    Raises:
        BakeoffError: this project does not run on the Python that it requires.
    """
    about, name = impls.read_declaration(entrant), impls.source(entrant).stem
    try:
        accepted = SpecifierSet(about.requires_python).filter([minor(), *PYTHONS])
        pythons = tuple(dict.fromkeys(accepted))
    except InvalidSpecifier:
        pythons = ()
    if not pythons:
        raise BakeoffError(
            f"entrant {name!r} requires Python {about.requires_python!r}; this project runs on "
            f"{', '.join(PYTHONS)}: allow one of these, as in '>=3.12'"
        )
    path = LOCKS / f"{name}.txt"
    locked = isinstance(entrant, str) and path.exists()
    lines = path.read_text("utf-8").splitlines() if locked else []
    return BuildRequest(
        f"the environment of {name!r}",
        (*about.requirements, *COMMON),
        preferences=read_pins(ROOT / LOCK),
        lock=tuple(line for line in lines if line[:1] != "#"),
        options=(),
        pythons=pythons,
    )


def read_pins(lock: Path) -> tuple[str, ...]:
    """Return the pins of a lock, without their hashes and markers."""
    return tuple(re.findall(r"^[A-Za-z0-9._-]+==[^\s;\\]+", lock.read_text("utf-8"), re.MULTILINE))
