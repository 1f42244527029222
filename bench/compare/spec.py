"""SPEC: the words that name a side of an A/B: an environment, a revision of this project, or both.

`current`; `@2025-12-01`, the whole stack of that day; `flax==0.12.8`, the current stack with that
release; `@2025-12-01,flax==0.12.0`, both; anything else is a git revision of this project. Nothing
of it ever reaches a shell, and nothing that could be an option is let through.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from common.errors import BakeoffError

CURRENT = "current"
EXAMPLES = (
    "`current`, `@2025-12-01`, `flax==0.12.8`, `jax==0.10.2,jaxlib==0.10.2` or a git revision"
)
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<specifier>(?:[=!<>~]=|[<>]).*)")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./~^@{}+#-]*")
FIRST_DAY = datetime.date(2018, 12, 1)
"""Before that there was no jax."""
PACKAGES = (
    *("jax", "jaxlib", "flax", "dm-haiku", "equinox", "optax", "numpy", "scipy", "ml-dtypes"),
    *("opt-einsum", "chex", "jmp", "jaxtyping", "wadler-lindig", "orbax-checkpoint", "msgpack"),
    *("tensorstore", "typing-extensions", "absl-py", "treescope", "etils", "python"),
)
"""What a SPEC may pin: a mistyped name shall not become somebody else's package."""


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
        """Whether it is what runs here anyway."""
        return self.date is None and not self.pins and self.revision is None

    @property
    def python(self) -> str | None:
        """The Python that is pinned, as `python==3.12` is."""
        return next((spec.lstrip("=") for name, spec in self.pins if name == "python"), None)

    @property
    def requirements(self) -> tuple[str, ...]:
        """The pins, as pip writes them."""
        return tuple(f"{name}{spec}" for name, spec in self.pins if name != "python")


def parse(text: str, option: str = "SPEC") -> Spec:
    """Return what a SPEC says.

    Raises:
        BakeoffError: it is none; nothing has been looked up yet.
    """
    given = text.strip()
    if not given or given == CURRENT:
        if not given:
            raise BakeoffError(f"{option} is empty; give {EXAMPLES}")
        return Spec(CURRENT)
    if given.startswith("-"):
        raise BakeoffError(f"{option} {text!r} looks like an option; give {EXAMPLES}")
    if given.startswith("@") or PIN.match(given):
        return _environment(given, option)
    if not REVISION.fullmatch(given) or ".." in given:
        raise BakeoffError(
            f"{option} {text!r} is no SPEC; give {EXAMPLES} (of letters, digits and _./~^@{{}}+#-)"
        )
    return Spec(given, revision=given)


def of_day(date: datetime.date) -> Spec:
    """Return the whole stack of a day."""
    return Spec(f"@{date}", date=date)


def _environment(given: str, option: str) -> Spec:
    date: datetime.date | None = None
    pins: list[tuple[str, str]] = []
    for part in _parts(given):
        if part.startswith("@"):
            if date is not None:
                raise BakeoffError(f"{option} {given!r} has two days; give one")
            date = day(part[1:], option)
            continue
        match = PIN.fullmatch(part)
        if match is None:
            raise BakeoffError(f"{option} {given!r}: {part!r} is no pin; give {EXAMPLES}")
        name = canonicalize_name(match["name"])
        if name not in PACKAGES:
            known = ", ".join(PACKAGES)
            raise BakeoffError(
                f"{option} {given!r}: unknown package {match['name']!r}; known: {known}; "
                "choose one of them"
            )
        try:
            specifier = SpecifierSet(match["specifier"])
        except InvalidSpecifier as error:
            raise BakeoffError(
                f"{option} {given!r}: {match['specifier']!r} is no version; give one as in "
                "`flax==0.12.8`"
            ) from error
        if name == "python" and not re.fullmatch(r"==3\.\d+(\.\d+)?", str(specifier)):
            raise BakeoffError(f"{option} {given!r}: give Python as in `python==3.12`")
        if name in dict(pins):
            raise BakeoffError(f"{option} {given!r} pins {name} twice; give one pin")
        pins.append((name, str(specifier)))
    return Spec(given, date, tuple(pins))


def _parts(given: str) -> list[str]:
    """Return the parts between commas; `jax>=0.6,<0.7` is one."""
    parts: list[str] = []
    for part in (p.strip() for p in given.split(",")):
        if parts and part[:1] in tuple("<>=!~"):
            parts[-1] += f",{part}"
        elif part:
            parts.append(part)
    return parts


def day(text: str, option: str, *, last: bool = False) -> datetime.date:
    """Return a day, `2025-12-01`; of a month, `2025-12`, its first one, or its last.

    Raises:
        BakeoffError: it is no day, one to come, or one before there was a jax.
    """
    try:
        if re.fullmatch(r"\d{4}-\d{2}", text):
            found = datetime.date.fromisoformat(f"{text}-01")
            if last:
                found = (found + datetime.timedelta(31)).replace(day=1) - datetime.timedelta(1)
                found = min(found, today())
        else:
            found = datetime.date.fromisoformat(text)
    except ValueError:
        raise BakeoffError(
            f"{option}: {text!r} is no day; give one as in 2025-12-01, or a month as in 2025-12"
        ) from None
    if not FIRST_DAY <= found <= today():
        raise BakeoffError(
            f"{option}: {found} is not between {FIRST_DAY} and today; give another day"
        )
    return found


def today() -> datetime.date:
    """Return the day that it is in UTC, in which releases have their dates."""
    return datetime.datetime.now(datetime.UTC).date()
