"""Prints, forks, writes into the repository and leaves a process behind, each in a style."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from common.steps import pure_style
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
PURE = pure_style(build)


def prints(config: Any, optimiser: Any) -> Any:
    print("x" * (1 << 20))
    return PURE(config, optimiser)


def forks(config: Any, optimiser: Any) -> Any:
    os.fork()
    return PURE(config, optimiser)


def leaves_a_child(config: Any, optimiser: Any) -> Any:
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    return PURE(config, optimiser)


def writes(config: Any, optimiser: Any) -> Any:
    Path("left_behind.txt").write_text("here", encoding="utf-8")
    return PURE(config, optimiser)


STYLES = {"prints": prints, "forks": forks, "leaves_a_child": leaves_a_child, "writes": writes}
