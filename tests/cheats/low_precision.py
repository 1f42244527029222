"""Sets the precision of all products in its process when it is imported."""

from __future__ import annotations

import jax

from impls.pure_jax import STYLES as STYLES
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
jax.config.update("jax_default_matmul_precision", "bfloat16")
