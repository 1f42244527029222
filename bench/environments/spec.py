"""SPEC: how the command line names an environment, a revision of this project, or both.

`current`; `@2025-12-01`, the whole stack of that day; `flax==0.12.8`, the current stack with that
release; `@2025-12-01,flax==0.12.0`, both; anything else is a git revision of this project. No part
of it reaches a shell, and nothing that looks like an option is accepted.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from common.errors import BakeoffError, unknown

CURRENT = "current"
EXAMPLES = (
    "`current`, `@2025-12-01`, `flax==0.12.8`, `jax==0.10.2,jaxlib==0.10.2` or a git revision"
)
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./~^@{}+#-]*")
FIRST_DAY = datetime.date(2018, 12, 1)
"""The day of the first release of jax."""
PACKAGES = (
    *("jax", "jaxlib", "flax", "dm-haiku", "equinox", "optax", "numpy", "scipy", "ml-dtypes"),
    *("opt-einsum", "chex", "jmp", "jaxtyping", "wadler-lindig", "orbax-checkpoint", "msgpack"),
    *("tensorstore", "typing-extensions", "absl-py", "treescope", "etils", "python"),
)
"""Packages that a SPEC may pin, so that a mistyped name never installs an unrelated package."""


@dataclass(frozen=True)
class Spec:
    """One side, as it was asked for."""

    text: str
    date: datetime.date | None = None
    """Of the stack; None for the current one."""
    pins: tuple[tuple[str, str], ...] = ()
    """Names of packages and their version specifiers."""
    revision: str | None = None
    """Of this project's code; None for the code at hand."""

    def __str__(self) -> str:
        return self.text

    @property
    def current(self) -> bool:
        """Whether it is the running environment, with the code at hand."""
        return self.date is None and not self.pins and self.revision is None

    @property
    def python(self) -> str | None:
        """The Python that is pinned, as in `python==3.12`."""
        return next((spec.lstrip("=") for name, spec in self.pins if name == "python"), None)

    @property
    def requirements(self) -> tuple[str, ...]:
        """The pins of packages, as pip writes them."""
        return tuple(f"{name}{spec}" for name, spec in self.pins if name != "python")


def parse(text: str, option: str = "SPEC") -> Spec:
    """Return the meaning of a SPEC.

    Raises:
        BakeoffError: it is malformed. Whether its releases exist is not checked here.
    """
    given = text.strip()
    if not given:
        raise BakeoffError(f"{option} is empty; give {EXAMPLES}")
    if given == CURRENT:
        return Spec(CURRENT)
    if given.startswith("-"):
        raise BakeoffError(f"{option} {text!r} looks like an option; give {EXAMPLES}")
    if not given.startswith("@") and not re.search("[=<>]", given):
        if not REVISION.fullmatch(given) or ".." in given:
            raise BakeoffError(f"{option} {text!r} is not a SPEC; give {EXAMPLES}")
        return Spec(given, revision=given)
    dates: list[datetime.date] = []
    pins: dict[str, str] = {}
    for part in re.split(r",\s*(?![<>=!~])", given):  # `jax>=0.6,<0.7` is one part
        if part.startswith("@"):
            dates.append(day(part[1:], option))
            continue
        name, specifier = _pin(part, f"{option} {given!r}")
        if name in pins:
            raise BakeoffError(f"{option} {given!r} pins {name} twice; give one pin")
        pins[name] = specifier
    if len(dates) > 1:
        raise BakeoffError(f"{option} {given!r} has two days; give one")
    return Spec(given, dates[0] if dates else None, tuple(pins.items()))


def _pin(part: str, given: str) -> tuple[str, str]:
    """Return the package and the version specifier of one pin."""
    try:
        pin = Requirement(part)
    except InvalidRequirement:
        pin = None
    if pin is None or not pin.specifier or pin.url or pin.extras or pin.marker:
        raise BakeoffError(f"{given}: {part!r} is not a pin; give {EXAMPLES}")
    name, specifier = canonicalize_name(pin.name), str(pin.specifier)
    if name not in PACKAGES:
        raise BakeoffError(f"{given}: {unknown('package', pin.name, PACKAGES)}")
    if name == "python" and not re.fullmatch(r"==3\.\d+(\.\d+)?", specifier):
        raise BakeoffError(f"{given}: give Python as in `python==3.12`")
    return name, specifier


def of_day(date: datetime.date) -> Spec:
    """Return the whole stack of a day."""
    return Spec(f"@{date}", date=date)


def day(text: str, option: str, *, last: bool = False, released: bool = True) -> datetime.date:
    """Return a day, as in `2025-12-01`; for a month, as in `2025-12`, its first or last day.

    Args:
        text: As it was given.
        option: By which.
        last: Whether it is a month's last day.
        released: Whether packages of that day are wanted.

    Raises:
        BakeoffError: it is malformed; where packages are wanted, it is in the future, or before the
            first release of jax.
    """
    month = re.fullmatch(r"\d{4}-\d{2}", text)
    try:
        found = datetime.date.fromisoformat(f"{text}-01" if month else text)
    except ValueError:
        raise BakeoffError(
            f"{option}: {text!r} is not a day; give one as in 2025-12-01, or a month as in 2025-12"
        ) from None
    if month and last:
        following = (found + datetime.timedelta(31)).replace(day=1)
        found = min(following - datetime.timedelta(1), today())
    if released and not FIRST_DAY <= found <= today():
        raise BakeoffError(
            f"{option}: {found} is not between {FIRST_DAY} and today; give another day"
        )
    return found


def today() -> datetime.date:
    """Return today's date in UTC, as the dates of releases are."""
    return datetime.datetime.now(datetime.UTC).date()
