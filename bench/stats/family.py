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

GRID_END = 10.0
"""Largest half width in standard errors at which G is tabulated; above, it is 1."""
GRID = np.linspace(0, GRID_END, 301)
MANY_DF = 2000.0
"""Number of degrees of freedom from which on the standard error counts as known."""
LAMBDA_STEPS = 12
"""Steps of squared lambdas, which are rounded down to multiples of 1 / 12 (exact for 1, 2, 3, 5
references): less correlation, wider intervals."""
DF_STEPS = 50
"""Steps per factor e to which degrees of freedom are rounded down, so that tables are reused."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
NORMAL = 6 * _NODES
"""Points of a normal variable."""
MASS = 6 * _WEIGHTS * np.exp(-(NORMAL**2) / 2) / np.sqrt(2 * np.pi)
"""Probabilities of these points."""


class Dunnett:
    """A family of two-sided tests with one critical value for a given number of degrees of freedom.

    Degrees of freedom that differ between members are handled by marginal levels: the table is made
    for the largest, and every other member gets the t quantile of the same level. Only members with
    fewer degrees share less of their errors than the table assumes.

    Args:
        shared: Each member's share of variance that is the reference's: its squared lambda.
        df: The largest degrees of freedom of a member.
    """

    def __init__(self, shared: Arms, df: float) -> None:
        steps = (
            np.floor(np.clip(shared, 0, 1 - 1 / LAMBDA_STEPS) * LAMBDA_STEPS + 1e-9) / LAMBDA_STEPS
        )
        self._key = tuple(sorted(steps.tolist()))
        self.df = min(df, MANY_DF)
        if 1 < df < MANY_DF:
            self.df = max(1.0, float(np.exp(np.floor(np.log(df) * DF_STEPS + 1e-9) / DF_STEPS)))

    def critical_value(self, df: float) -> float:
        """Return the half width in standard errors of a member with `df` degrees of freedom."""
        if df <= 0:
            return np.inf
        if len(self._key) == 1:
            return float(special.stdtrit(df, 1 - ALPHA / 2))
        common = _find_critical_value(self._key, self.df)
        if df >= self.df:
            return common
        return float(-special.stdtrit(df, special.stdtr(self.df, -common)))

    def p_value(self, t: float, df: float) -> float:
        """Return the adjusted p-value of a member's statistic: single-step, two-sided."""
        if df <= 0:
            return 1.0
        t = abs(t)
        if len(self._key) == 1:
            return 2 * float(special.stdtr(df, -t))
        if df < self.df:
            tail = special.stdtr(df, -t)
            t = float(-special.stdtrit(self.df, tail)) if tail > 0 else np.inf
        return 1 - _find_probability(_tabulate_curve(self._key), self.df, t)


@lru_cache(maxsize=512)
def _tabulate_curve(key: tuple[float, ...]) -> Curve:
    """Return G: the probability that all members lie within each half width of the grid."""
    out = np.ones((GRID.size, NORMAL.size))
    for value, times in zip(*np.unique(key, return_counts=True), strict=True):
        alone = np.sqrt(1 - value)
        at = np.sqrt(value) * NORMAL
        upper, lower = (at + GRID[:, None]) / alone, (at - GRID[:, None]) / alone
        out *= (special.ndtr(upper) - special.ndtr(lower)) ** times
    return out @ MASS


def _find_probability(curve: Curve, df: float, t: float) -> float:
    """Return the probability that all |t| statistics lie below `t`."""
    if t <= 0:
        return 0.0
    if not np.isfinite(t):
        return 1.0
    if df >= MANY_DF:
        return float(np.interp(t, GRID, curve))
    # G(t · s), averaged over s, the ratio of the estimated to the true error: its square has a χ²
    below = special.chdtr(df, df * (GRID / t) ** 2)  # probability that t · s is at most the grid's
    middle = (curve[1:] + curve[:-1]) / 2
    return float(min(middle @ np.diff(below) + 1 - below[-1], 1.0))  # beyond the grid, G is 1


@lru_cache(maxsize=4096)
def _find_critical_value(key: tuple[float, ...], df: float) -> float:
    curve = _tabulate_curve(key)
    low = float(special.stdtrit(df, 1 - ALPHA / 2)) * 0.99
    high = float(special.stdtrit(df, 1 - ALPHA / 2 / len(key))) * 1.01
    return float(
        optimize.brentq(lambda t: _find_probability(curve, df, t) - 1 + ALPHA, low, high, xtol=1e-6)
    )
