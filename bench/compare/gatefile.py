"""The gate as it is written down: `[tool.bakeoff.gate]` of a pyproject.toml.

Every part may be left out. Of several rules about a row the one that names most decides, of those
the last.

    [tool.bakeoff.gate]
    threshold = 0.02                # worse: `slower`, and by more than that

    [[tool.bakeoff.gate.rule]]
    metric = "compile"
    entrant = "flax_nnx"            # also: style, workload, backend
    threshold = 0.10                # or: ignore = true

    [[tool.bakeoff.gate.accept]]    # a known shift does not fail until that day is over
    metric = "step"
    entrant = "flax_nnx"
    up_to = 1.15
    reason = "nnx 0.12.9 checks its graph anew"
    until = 2026-12-31
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec

import impls
from bench.compare.gate import Accept, Gate, Rule, Where
from bench.metrics import EXACT, METRICS
from common.config import WORKLOADS
from common.errors import BakeoffError, unknown
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TABLE = "tool.bakeoff.gate"
BACKENDS = ("cpu", "gpu", "tpu")


def read(path: Path, entrants: Iterable[str] = (), *, needed: bool = False) -> Gate:
    """Return the gate that a TOML file asks for; the usual one where it asks for none.

    Args:
        path: A pyproject.toml, or another file with that table.
        entrants: Known beside the project's own.
        needed: Whether it is a mistake that there is none.

    Raises:
        BakeoffError: the file cannot be read, or says something that no gate does.
    """
    option = f"--config {path}"
    try:
        found: Any = tomllib.loads(read_regular(path, MOST_JSON).decode("utf-8"))
    except FileNotFoundError as error:
        if not needed:
            return Gate()
        raise BakeoffError(f"{option}: there is no such file; give a TOML file") from error
    except OSError as error:
        raise BakeoffError(f"{option} cannot be read ({error.strerror}); give another") from error
    except ValueError as error:
        raise BakeoffError(f"{option} is not TOML ({error}); mend it, or give another") from error
    for name in TABLE.split("."):
        found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            if needed:
                raise BakeoffError(f"{option} has no table [{TABLE}]; add it, or leave it out")
            return Gate()
    return gate(found, str(path), entrants)


def gate(raw: Any, source: str, entrants: Iterable[str] = ()) -> Gate:
    """Return the gate that a table asks for.

    Raises:
        BakeoffError: it says something that no gate does.
    """
    if not isinstance(raw, dict):
        raise BakeoffError(f"{source}: {TABLE} is {raw!r}; make it a table, [{TABLE}]")
    _keys(raw, Gate, f"{source}: [{TABLE}]")
    for kind, type_ in (("rule", Rule), ("accept", Accept)):
        tables = raw.get(kind, [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise BakeoffError(
                f"{source}: {TABLE}.{kind} is no list; begin each [[{TABLE}.{kind}]]"
            )
        for number, table in enumerate(tables, 1):
            _keys(table, type_, f"{source}: {_at(kind, number)}")
    try:
        made = msgspec.convert(raw, Gate)
    except msgspec.ValidationError as error:
        raise BakeoffError(
            f"{source}: {_said(str(error))}; thresholds are fractions (0.1 is 10 %), `up_to` is a "
            "ratio (1.1), `until` a day (2026-12-31)"
        ) from error
    names = [*impls.names(), *entrants]
    for kind, several in (("rule", made.rule), ("accept", made.accept)):
        for number, where in enumerate(several, 1):
            _check(where, f"{source}: {_at(kind, number)}", names)
    for number, rule in enumerate(made.rule, 1):
        if (rule.threshold is None) != rule.ignore:
            raise BakeoffError(
                f"{source}: {_at('rule', number)} must have a threshold or ignore = true; give one "
                "of the two"
            )
    return made


def _at(kind: str, number: int) -> str:
    return f"[[{TABLE}.{kind}]] number {number}"


def _keys(table: dict[str, Any], type_: type[Any], at: str) -> None:
    """Raise BakeoffError where a table has a key that is none."""
    known = [field.name for field in fields(type_)]
    for key in table:
        if key not in known:
            raise BakeoffError(f"{at}: {unknown('key', key, known)}")


def _check(where: Where, at: str, entrants: list[str]) -> None:
    """Raise BakeoffError where it names nothing, or something that nobody knows."""
    if not where.named:
        names = ", ".join(field.name for field in fields(Where))
        raise BakeoffError(f"{at} is about everything; name one or more of {names}")
    for kind, known in (
        ("metric", [*METRICS, *EXACT]),
        ("entrant", list(dict.fromkeys(entrants))),
        ("workload", list(WORKLOADS)),
        ("backend", list(BACKENDS)),
    ):
        name = where.named.get(kind)
        if name is not None and name not in known:
            raise BakeoffError(f"{at}: {unknown(kind, name, known)}")


def _said(error: str) -> str:
    """Return msgspec's message with its place as TOML has it."""
    what, _, path = error.rstrip("`").partition(" - at `$")
    inside = re.fullmatch(r"\.(rule|accept)\[(\d+)\]\.?(.*)", path)
    if inside is None:
        return f"[{TABLE}]{path.replace('.', ', ')}: {what}"
    kind, number, key = inside.groups()
    return f"{_at(kind, int(number) + 1)}{key and f', {key}'}: {what}"
