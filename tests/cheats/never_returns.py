"""Waits for what will not come."""

from __future__ import annotations

import time
from typing import Any

from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def waits(*_: Any) -> Any:
    while True:
        time.sleep(1)


STYLES = {"waits": waits}
