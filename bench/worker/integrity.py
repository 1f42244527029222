"""What an entrant may not change: clocks, waiting functions, cores, priority, JAX's settings.

Nothing of jax is imported here: a cold process imports this module before it times that import.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

VARIABLES = ("JAX_", "NPROC", "PJRT_", "XLA_")
"""Beginnings of environment variables that XLA and JAX read."""
OF_MODULES = {
    "time": ("monotonic", "perf_counter", "perf_counter_ns", "process_time", "time", "time_ns"),
    "gc": ("collect", "disable", "enable", "freeze"),
    "jax": ("block_until_ready", "device_get", "device_put", "jit"),
}


class Function(NamedTuple):
    """One function that measuring relies on, and where it belongs."""

    module: ModuleType
    name: str
    function: Any

    def __str__(self) -> str:
        return f"{self.module.__name__}.{self.name}"


class Functions:
    """Functions as they were when this was made."""

    def __init__(self) -> None:
        modules = {"time": time, "gc": gc, "jax": sys.modules.get("jax")}
        self.functions = [
            Function(module, name, getattr(module, name))
            for of, names in OF_MODULES.items()
            if (module := modules[of]) is not None
            for name in names
        ]

    def replaced(self) -> list[str]:
        """Return which of them are others now, in words, and put them back."""
        found = [f for f in self.functions if getattr(f.module, f.name, None) is not f.function]
        for function in found:
            setattr(function.module, function.name, function.function)
        return [f"replaced {function}" for function in found]


class Surroundings:
    """What a process runs under, as it was when this was made.

    A value that somebody has changed is put back where that is possible, so that the other arms
    of the process are measured under what they were to be measured under.
    """

    def __init__(self) -> None:
        self.functions = Functions()
        self.settings = settings()
        self.variables = variables()
        self.affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        self.priority = priority()

    def changes(self) -> str:
        """Return what is no longer the same, in words; nothing where all is. It is put back."""
        found = [*self.functions.replaced()]
        found += self.changed_settings()
        found += self.changed_variables()
        if self.affinity is not None and (now := os.sched_getaffinity(0)) != self.affinity:
            os.sched_setaffinity(0, self.affinity)
            found.append(changed("the affinity", sorted(self.affinity), sorted(now)))
        if (level := priority()) != self.priority:
            with suppress(OSError):  # only the superuser may raise it again
                os.setpriority(os.PRIO_PROCESS, 0, self.priority)
            found.append(changed("the priority", self.priority, level))
        return "; ".join(found)

    def changed_settings(self) -> list[str]:
        """Return which of JAX's settings have other values, and put them back."""
        found, now = [], settings()
        for name, value in self.settings.items():
            if not same(now.get(name), value):
                found.append(changed(name, value, now.get(name)))
                with suppress(Exception):  # one that can be set once only
                    sys.modules["jax"].config.update(name, value)
        return found

    def changed_variables(self) -> list[str]:
        """Return which environment variables have other values, and put them back."""
        found, now = [], variables()
        for name in sorted(now.keys() | self.variables.keys()):
            value = self.variables.get(name)
            if now.get(name) == value:
                continue
            found.append(changed(name, value, now.get(name)))
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        return found


def settings() -> dict[str, Any]:
    """Return JAX's settings, as this thread sees them; none before jax is imported."""
    jax = sys.modules.get("jax")
    if jax is None:
        return {}
    config = jax.config
    return {name: getattr(config, name, None) for name in config.values}


def variables() -> dict[str, str]:
    """Return the environment variables that JAX and XLA read."""
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


def priority() -> int:
    """Return the nice value of this process; 0 where the system has none."""
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0


def same(one: Any, other: Any) -> bool:
    """Tell whether two values of a setting are the same; False where they cannot be compared."""
    return one is other or (type(one) is type(other) and bool(one == other))


def changed(what: str, before: object, now: object) -> str:
    """Return a change in words."""
    return f"changed {what} from {before!r} to {now!r}"
