"""Leaves, each style its own way."""

from __future__ import annotations

import os
import sys
from typing import Any

from common.steps import pure_style
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def politely(*_: Any) -> Any:
    sys.exit(3)


def at_once(*_: Any) -> Any:
    os._exit(4)


STYLES = {"politely": politely, "at_once": at_once, "pure": pure_style(build)}
