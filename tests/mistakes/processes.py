"""Styles that end their process, take too much, or leave something running."""

import os
import subprocess
import sys
import time
from typing import Any

from common.steps import pure_style
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
PURE = pure_style(build)


def leaves(*_: Any) -> Any:
    sys.exit(3)


def ends_at_once(*_: Any) -> Any:
    os._exit(0)


def leaves_a_child(config: Any, optimiser: Any) -> Any:
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    return PURE(config, optimiser)


def leaves_orphans(*_: Any) -> Any:
    """Fork a child that leaves the process group and forks again, and end."""
    if not os.fork():
        os.setsid()
        os.fork()
        time.sleep(60)
        os._exit(0)
    time.sleep(0.5)
    os._exit(3)


ENDING = (leaves, ends_at_once)
LEAVING = (leaves_a_child, leaves_orphans)
STYLES = {style.__name__: style for style in ENDING + LEAVING} | {"pure": PURE}
