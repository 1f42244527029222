"""Simultaneous intervals: the distribution of the largest of several correlated t statistics.

*Many to one* (Dunnett 1955, "A multiple comparison procedure for comparing several treatments with
a control"): the statistics have correlations of the form lambda_i * lambda_j, so that, given one
normal variable for what they share, they are independent. That gives a function G of the half width
in known standard errors; the unknown standard error adds one integral, over the chi distribution.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special

from bench.estimates import ALPHA

if TYPE_CHECKING:
    from jaxtyping import Float

    type Arms = Float[np.ndarray, " arms"]
    type Curve = Float[np.ndarray, " grid"]

WIDEST = 10.0
"""Standard errors up to which G is tabulated; above, it is 1."""
GRID = np.linspace(0, WIDEST, 301)
MANY = 2000.0
"""Degrees of freedom from which on the standard error counts as known."""
STEPS = 12
"""Squared lambdas are rounded down to multiples of 1 / 12 (exact for 1, 2, 3, 5 references): less
correlation, wider intervals."""
FINE = 50
"""Degrees of freedom are rounded down to 50 steps for each factor e, so that tables are reused."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
NORMAL = 6 * _NODES
"""Points of a normal variable, and their probabilities."""
MASS = 6 * _WEIGHTS * np.exp(-(NORMAL**2) / 2) / np.sqrt(2 * np.pi)


class Dunnett:
    """A family of two-sided tests with one critical value for a given number of degrees of freedom.

    Degrees of freedom that differ between members are handled by marginal levels: the table is made
    for the largest, and every other member gets the t quantile of the same level. Members share
    less of their errors than the table assumes of equals only where their degrees are fewer.

    Args:
        shared: By member, the share of its variance that is the reference's: its squared lambda.
        df: The largest degrees of freedom of a member.
    """

    def __init__(self, shared: Arms, df: float) -> None:
        steps = np.floor(np.clip(shared, 0, 1 - 1 / STEPS) * STEPS + 1e-9) / STEPS
        self._key = tuple(sorted(steps.tolist()))
        self.df = min(df, MANY)
        if 1 < df < MANY:
            self.df = max(1.0, float(np.exp(np.floor(np.log(df) * FINE + 1e-9) / FINE)))

    def critical(self, df: float) -> float:
        """Return the half width in standard errors of a member with `df` degrees of freedom."""
        if df <= 0:
            return np.inf
        if len(self._key) == 1:
            return float(special.stdtrit(df, 1 - ALPHA / 2))
        common = _critical(self._key, self.df)
        if df >= self.df:
            return common
        return float(-special.stdtrit(df, special.stdtr(self.df, -common)))

    def p(self, t: float, df: float) -> float:
        """Return the adjusted p-value of a member's statistic: single-step, two-sided."""
        if df <= 0:
            return 1.0
        t = abs(t)
        if len(self._key) == 1:
            return 2 * float(special.stdtr(df, -t))
        if df < self.df:
            tail = special.stdtr(df, -t)
            t = float(-special.stdtrit(self.df, tail)) if tail > 0 else np.inf
        return 1 - _below(_curve(self._key), self.df, t)


@lru_cache(maxsize=512)
def _curve(key: tuple[float, ...]) -> Curve:
    """Return G: the odds that all members lie within each half width of the grid."""
    out = np.ones((GRID.size, NORMAL.size))
    for value, times in zip(*np.unique(key, return_counts=True), strict=True):
        alone = np.sqrt(1 - value)
        at = np.sqrt(value) * NORMAL
        upper, lower = (at + GRID[:, None]) / alone, (at - GRID[:, None]) / alone
        out *= (special.ndtr(upper) - special.ndtr(lower)) ** times
    return out @ MASS


def _below(curve: Curve, df: float, t: float) -> float:
    """Return the odds that all |t| statistics lie below `t`."""
    if t <= 0:
        return 0.0
    if not np.isfinite(t):
        return 1.0
    if df >= MANY:
        return float(np.interp(t, GRID, curve))
    odds = special.chdtr(df, df * (GRID / t) ** 2)  # of the error being that much of its estimate
    middle = (curve[1:] + curve[:-1]) / 2
    return float(min(middle @ np.diff(odds) + 1 - odds[-1], 1.0))


@lru_cache(maxsize=4096)
def _critical(key: tuple[float, ...], df: float) -> float:
    curve = _curve(key)
    low = float(special.stdtrit(df, 1 - ALPHA / 2)) * 0.99
    high = float(special.stdtrit(df, 1 - ALPHA / 2 / len(key))) * 1.01
    return float(optimize.brentq(lambda t: _below(curve, df, t) - 1 + ALPHA, low, high, xtol=1e-6))
