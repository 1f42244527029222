"""Asks for ever more memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def hungry(*_: Any) -> Any:
    kept = []
    while True:
        kept.append(np.ones(1 << 30))


STYLES = {"hungry": hungry}
