"""SPEC: how the command line names an environment, a revision of this project, or both.

`current`; `@2025-12-01`, the whole stack of that day; `flax==0.12.8`, the current stack with that
release; `@2025-12-01,flax==0.12.0`, both; anything else is a git revision of this project. No part
of it reaches a shell, and nothing that looks like an option is accepted.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import impls
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

CURRENT = "current"
"""The running environment, with the code at hand."""
EXAMPLES = (
    "`current`, `@2025-12-01`, `flax==0.12.8`, `jax==0.10.2,jaxlib==0.10.2` or a git revision"
)
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./~^@{}+#-]*")
"""Names of git revisions that are accepted; ranges are not."""
FIRST_DAY = datetime.date(2018, 12, 1)
"""Day of the first release of jax."""
PACKAGES = tuple(impls.pinnable())
"""Packages that a SPEC may pin, so that a mistyped name never installs an unrelated package."""


@dataclass(frozen=True)
class Spec:
    """One environment, as it was asked for."""

    text: str
    """The SPEC as it was given."""
    date: datetime.date | None = None
    """Day of the stack; None for today's."""
    pins: tuple[tuple[str, str], ...] = ()
    """Packages with what follows their name in a requirement: `("flax", "==0.12.8")`."""
    revision: str | None = None
    """Revision of this project's code; None for the code at hand."""

    def __str__(self) -> str:
        return self.text

    @property
    def current(self) -> bool:
        """Whether it is the running environment, with the code at hand."""
        return self.date is None and not self.pins and self.revision is None

    @property
    def python(self) -> str | None:
        """Version of Python that is pinned, as in `3.12`."""
        return next((wanted.lstrip("=") for name, wanted in self.pins if name == "python"), None)

    @property
    def requirements(self) -> tuple[str, ...]:
        """The pins of packages, as pip writes them."""
        return tuple(f"{name}{wanted}" for name, wanted in self.pins if name != "python")

    def with_releases(self, releases: Mapping[str, str]) -> Spec:
        """Return the same environment with these releases, by package, in place of its pins."""
        pins = dict(self.pins) | {name: f"=={release}" for name, release in releases.items()}
        parts = [f"@{self.date}"] if self.date else []
        text = ",".join([*parts, *(f"{name}{wanted}" for name, wanted in pins.items())])
        return Spec(text, self.date, tuple(pins.items()))


def parse(text: str, option: str = "SPEC") -> Spec:
    """Return the meaning of a SPEC that an option was given.

    Raises:
        BakeoffError: it is malformed. Whether its releases exist is not checked here.
    """
    given = text.strip()
    if not given:
        raise BakeoffError(f"{option} is empty; give {EXAMPLES}")
    if given.startswith("-"):
        raise BakeoffError(f"{option} {text!r} looks like an option; give {EXAMPLES}")
    if given == CURRENT:
        return Spec(CURRENT)
    if not re.search("^@|[=<>]", given):
        if not REVISION.fullmatch(given):
            raise BakeoffError(f"{option} {text!r} is not a SPEC; give {EXAMPLES}")
        return Spec(given, revision=given)
    date, pins = None, dict[str, str]()
    for part in re.split(r",\s*(?![<>=!~])", given):  # `jax>=0.6,<0.7` is one part
        if part.startswith("@"):
            if date is not None:
                raise BakeoffError(f"{option} {given!r} has two days; give one")
            date = day(part[1:], option)
            continue
        name, wanted = _pin(part, f"{option} {given!r}")
        if name in pins:
            raise BakeoffError(f"{option} {given!r} pins {name} twice; give one pin")
        pins[name] = wanted
    return Spec(given, date, tuple(pins.items()))


def _pin(part: str, given: str) -> tuple[str, str]:
    try:
        pin = Requirement(part)
    except InvalidRequirement:
        pin = None
    if pin is None or not pin.specifier or pin.url or pin.extras or pin.marker:
        raise BakeoffError(f"{given}: {part!r} is not a pin; give {EXAMPLES}")
    name, wanted = canonicalize_name(pin.name), str(pin.specifier)
    if name not in PACKAGES:
        raise BakeoffError(f"{given}: {unknown('package', pin.name, PACKAGES)}")
    if name == "python" and not re.fullmatch(r"==3\.\d+(\.\d+)?", wanted):
        raise BakeoffError(f"{given}: give Python as in `python==3.12`")
    return name, wanted


def of_day(date: datetime.date) -> Spec:
    """Return the whole stack of a day."""
    return Spec(f"@{date}", date)


def day(text: str, option: str, *, last: bool = False, released: bool = True) -> datetime.date:
    """Return a day, as in `2025-12-01`; for a month, as in `2025-12`, its first or last day.

    Args:
        text: The day, as an option was given it.
        option: The option's name.
        last: Whether a month stands for its last day.
        released: Whether packages of that day are wanted.

    Raises:
        BakeoffError: it is malformed; or it is in the future or before the first release of jax,
            and packages are wanted.
    """
    month = re.fullmatch(r"\d{4}-\d{2}", text)
    try:
        date = datetime.date.fromisoformat(f"{text}-01" if month else text)
    except ValueError:
        raise BakeoffError(
            f"{option}: {text!r} is not a day; give one as in 2025-12-01, or a month as in 2025-12"
        ) from None
    if month and last:
        next_month = (date + datetime.timedelta(31)).replace(day=1)
        date = min(next_month - datetime.timedelta(1), today())
    if released and not FIRST_DAY <= date <= today():
        raise BakeoffError(
            f"{option}: {date} is not between {FIRST_DAY} and today; give another day"
        )
    return date


def today() -> datetime.date:
    """Return today's date in UTC, as the dates of releases are."""
    return datetime.datetime.now(datetime.UTC).date()
