"""SPECs: what an environment has, as the command line names it.

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
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import impls
from bench.environments.sources import PackageSource, parse_source
from bench.files import read_regular
from bench.streams import shorten_message
from common.errors import BakeoffError, mask_secrets, shorten, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CURRENT = "current"
"""SPEC of the running environment, with the code at hand."""
EXAMPLES = (
    "`current`, `@2025-12-01`, `@-7d`, `flax==0.12.8`, `jax==0.10.2,jaxlib==0.10.2`, "
    "`flax @ ../flax`, `requirements.txt`, `uv.lock`, `pyproject.toml` or a git revision"
)
LONGEST = 500
"""Characters of a SPEC: more than pins of all packages that can be pinned have."""
MOST_BYTES = 16 << 20
"""Largest file of requirements: a lock with hashes of a thousand packages has a tenth."""
SUFFIXES = (".txt", ".toml", ".lock")
"""Endings of files of requirements."""
FIRST_DAY = datetime.date(2018, 12, 1)
"""Day of the first release of jax."""
PACKAGES = tuple(impls.list_pinnable())
"""Packages that a SPEC may pin, so that a mistyped name never installs an unrelated package."""


@dataclass(frozen=True)
class Spec:
    """One environment, as it was requested."""

    text: str
    """The SPEC as it was given."""
    date: datetime.date | None = None
    """Day of the stack; None for today's."""
    pins: tuple[tuple[str, str | PackageSource], ...] = ()
    """Packages and their releases, `("flax", "==0.12.8")`, or the sources of their code."""
    revision: str | None = None
    """Revision of this project's code; None for the code at hand."""
    entrant: str | Path | None = None
    """Entrant whose own environment it is, by name or file; None where a SPEC says what it has."""

    def __str__(self) -> str:
        return self.text

    @property
    def is_current(self) -> bool:
        """Whether it is the running environment, with the code at hand."""
        return self == Spec(self.text)

    @property
    def sources(self) -> dict[str, PackageSource]:
        """Package → source of its code, where that is no release."""
        return {name: wanted for name, wanted in self.pins if isinstance(wanted, PackageSource)}

    def replace_pins(self, pins: Mapping[str, str | PackageSource]) -> Spec:
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
    if len(given) > LONGEST:
        raise BakeoffError(
            f"{option} {shorten(given)} has {len(given)} characters; give {EXAMPLES}"
        )
    if not given.isprintable():
        raise BakeoffError(f"{option} {given!r} has characters that no SPEC has; give {EXAMPLES}")
    if given.startswith("-"):
        raise BakeoffError(f"{option} {text!r} looks like an option; give {EXAMPLES}")
    if given == CURRENT:
        return Spec(CURRENT)
    if Path(given).suffix in SUFFIXES and not re.search("[=<>@]", given):
        return parse_file(Path(given), option)
    package, source, _ = given.partition("@")
    is_package = package.endswith(" ") or canonicalize_name(package) in PACKAGES
    if re.search("^@|[=<>]", given) or (source and is_package):
        return parse_pins(given, option)
    if not revisions:
        raise BakeoffError(
            f"{option} {given!r} is a git revision; give a day or releases, or compare revisions "
            "by `bakeoff ab`"
        )
    return Spec(given, revision=given)


def parse_pins(given: str, option: str) -> Spec:
    """Return the `Spec` of a day, of pins, or of both, with commas between them."""
    date, pins = None, dict[str, str | PackageSource]()
    for part in re.split(r",\s*(?![<>=!~])", given):  # `jax>=0.6,<0.7` is one part
        if part.startswith("@"):
            if date is not None:
                raise BakeoffError(f"{option} {given!r} has two days; give one")
            date = parse_day(part[1:], option)
            given = given.replace(part, f"@{date}")  # the day that `@-7d` means now
            continue
        where = f"{option} {given!r}"
        [written] = re.findall(r"^[\w.-]*", part)
        close = get_close_matches(canonicalize_name(written), PACKAGES, 1)
        if close and canonicalize_name(written) not in PACKAGES:
            raise BakeoffError(f"{where}: unknown package {written!r}; did you mean {close[0]}?")
        try:
            pin = Requirement(part)
        except InvalidRequirement:
            pin = None
        if pin is None or not (pin.specifier or pin.url) or pin.extras or pin.marker:
            raise BakeoffError(f"{where}: {part!r} is not a pin; give {EXAMPLES}")
        name = canonicalize_name(pin.name)
        if name not in PACKAGES:
            raise BakeoffError(f"{where}: {unknown('package', pin.name, PACKAGES)}")
        if name in pins:
            raise BakeoffError(f"{where} pins {name} twice; give one pin")
        pins[name] = parse_source(name, pin.url, where) if pin.url else str(pin.specifier)
    return Spec(mask_secrets(given), date, tuple(pins.items()))


def parse_file(path: Path, option: str) -> Spec:
    """Return the current stack, with the pins from a file of requirements.

    Raises:
        BakeoffError: it cannot be read, or says nothing of them.
    """
    try:
        required = [*read_requirements(path)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BakeoffError(
            f"{option}: {path} cannot be read as requirements: {shorten_message(error)}"
        ) from error
    pins: dict[str, str] = {}
    for requirement in required:
        name, wanted = canonicalize_name(requirement.name), str(requirement.specifier)
        if name not in PACKAGES:
            continue
        if requirement.url:
            raise BakeoffError(
                f"{option}: {path} has {name} from a URL; give `{name} @ …` as a SPEC"
            )
        if pins.get(name, wanted) != wanted:
            raise BakeoffError(f"{option}: {path} has {name}{pins[name]} and {wanted}; give one")
        if wanted:
            pins[name] = wanted
    if not pins:
        raise BakeoffError(
            f"{option}: {path} has no release of {', '.join(PACKAGES[:4])} or others"
        )
    return Spec(str(path), None, tuple(pins.items()))


def read_requirements(path: Path) -> Iterator[Requirement]:
    """Yield the requirements of a lock, a project or a `requirements.txt` that hold here."""
    text = read_regular(path, MOST_BYTES).decode()
    if path.suffix == ".lock":
        packages = tomllib.loads(text)["package"]
        lines = [f"{about['name']}=={about['version']}" for about in packages if "version" in about]
    elif path.suffix == ".toml":
        lines = tomllib.loads(text)["project"]["dependencies"]
    else:
        lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        written = re.split(r"\s#|\s--(?!re|co)", f" {line}")[0].strip()
        if re.match(r"-r|-c|--requirement|--constraint", written):
            raise ValueError(f"{written!r} refers to another file; give that one, or a lock")
        if written and written[0] not in "#-":  # a comment, or an option
            with suppress(InvalidRequirement):  # a path, or a URL alone
                requirement = Requirement(written)
                if requirement.marker is None or requirement.marker.evaluate():
                    yield requirement


def make_day_spec(date: datetime.date) -> Spec:
    """Return the `Spec` of the whole stack of a day."""
    return Spec(f"@{date}", date)


def make_entrant_spec(entrant: str | Path) -> Spec:
    """Return the `Spec` of an entrant's own environment."""
    return Spec(f"the environment of {impls.source(entrant).stem!r}", entrant=entrant)


def parse_day(text: str, option: str) -> datetime.date:
    """Return a day, as in `2025-12-01` or `-7d`, that an option was given.

    Raises:
        BakeoffError: it is malformed, in the future, or before the first release of jax.
    """
    try:
        if ago := re.fullmatch(r"-(\d{1,5})d", text):
            date = today() - datetime.timedelta(int(ago[1]))
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
