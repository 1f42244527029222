"""Forks a child that leaves its group, forks again and lives on, and ends its own process."""

from __future__ import annotations

import os
import time
from typing import Any

from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def orphaned(*_: Any) -> Any:
    if not os.fork():
        os.setsid()
        os.fork()
        time.sleep(60)
        os._exit(0)
    time.sleep(0.5)
    os._exit(3)


STYLES = {"orphaned": orphaned}
