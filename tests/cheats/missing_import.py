"""Needs what nobody has."""

import a_library_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401

from common.steps import pure_style
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
STYLES = {"pure": pure_style(build)}
