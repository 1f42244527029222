"""Switches JAX to float64, for everybody."""

import jax

from common.steps import pure_style
from impls.pure_jax import build as build

jax.config.update("jax_enable_x64", True)

DISTRIBUTION = "jax"
STYLES = {"pure": pure_style(build)}
