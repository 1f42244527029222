"""An estimate with its corrected interval, and what follows from it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from bench.stats import family
from bench.stats.family import ALPHA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from bench.stats.components import Fit

    type Arms = Float[np.ndarray, " arms"]

POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """The log-ratio of two times, with an interval that is corrected for its family."""

    log_ratio: float
    """Above zero: slower."""
    standard_error: float
    """Infinite where nothing is known about it."""
    df: float
    """Degrees of freedom of `standard_error`; zero where that is infinite."""
    low: float
    """Lower end of the interval of the log-ratio."""
    high: float
    p: float
    """Of "no difference", adjusted: below alpha just where the interval leaves out zero."""
    blocks: int
    """That the arm was measured in; of a cold metric, its samples."""
    workers: int
    """Or pairs of workers."""

    @property
    def ratio(self) -> float:
        """Above one: slower."""
        return _exp(self.log_ratio)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval of the ratio."""
        return _exp(self.low), _exp(self.high)

    @property
    def half_width(self) -> float:
        """Of the interval of the log-ratio."""
        return self.high - self.log_ratio

    def of_differences(self, factor: float) -> Estimate:
        """Return the ratio 1 + x of an estimate that is factor * x, with the same interval of x.

        Args:
            factor: Above zero.
        """
        ends = [_log1p(factor * x) for x in (self.log_ratio, self.low, self.high)]
        error = self.standard_error * factor / max(math.exp(ends[0]), math.ulp(0.0))
        return replace(self, log_ratio=ends[0], low=ends[1], high=ends[2], standard_error=error)

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out "no difference"."""
        return self.low > 0 or self.high < 0


def simultaneous(
    fit: Fit, share: Arms, members: Sequence[int] | None, used: Sequence[int]
) -> list[Estimate | None]:
    """Return estimates with intervals for the family of the members, the others alone.

    Args:
        fit: Log-ratio of each arm and its variance.
        share: Of the variance, the part that all arms have in common.
        members: Of the family; all unless given.
        used: All arms that get an estimate.
    """
    out: list[Estimate | None] = [None] * fit.effect.size
    together = [arm for arm in used if members is None or arm in members]
    for arms in filter(None, [together, *([arm] for arm in used if arm not in together)]):
        found = family.many_to_one(share[arms].tolist(), float(fit.df[arms].max()))
        for arm in arms:
            middle, error = float(fit.effect[arm]), math.sqrt(fit.variance[arm])
            df = float(fit.df[arm])
            half = found.critical(df) * error if error else 0.0
            p = found.p(middle / error, df) if error else float(middle == 0)
            out[arm] = Estimate(
                middle,
                error,
                df,
                middle - half,
                middle + half,
                p if math.isfinite(error) else 1.0,
                int(fit.blocks[arm]),
                int(fit.workers[arm]),
            )
    return out


def corrected(
    log_ratio: float, error: float, df: float, blocks: int, workers: int, comparisons: int = 1
) -> Estimate:
    """Return an estimate whose interval is corrected for a number of comparisons (Bonferroni).

    For what no common variance model covers, as runs of different hours.

    Args:
        log_ratio: Above zero: slower.
        error: Standard error of that; infinite where nothing is known.
        df: Degrees of freedom of the error.
        blocks: That it rests on.
        workers: That it rests on.
        comparisons: Size of the family.
    """
    if not math.isfinite(error) or df <= 0:
        ends = -math.inf, math.inf
        return Estimate(log_ratio, math.inf, 0.0, *ends, 1.0, blocks, workers)
    half = float(special.stdtrit(df, 1 - ALPHA / (2 * comparisons))) * error
    p = 2 * float(special.stdtr(df, -abs(log_ratio) / error)) if error else float(log_ratio == 0)
    ends = log_ratio - half, log_ratio + half
    return Estimate(log_ratio, error, df, *ends, min(1.0, comparisons * p), blocks, workers)


def detectable(estimates: Sequence[Estimate | None]) -> float:
    """Return the smallest difference, as ratio minus one, that a family calls in four runs of five.

    The median over arms of half a corrected interval plus t(`POWER`) standard errors: the minimum
    detectable effect (Bloom 1995, "Minimum detectable effects"). Infinite where nothing is known.
    """
    # An estimate that is no estimate, but exact, has endless degrees of freedom.
    doubtful = [e for e in estimates if e is not None and math.isfinite(e.df)]
    known = [e for e in doubtful if math.isfinite(e.standard_error)]
    if not known:
        return math.inf
    needed = [e.half_width + float(special.stdtrit(e.df, POWER)) * e.standard_error for e in known]
    return _exp(float(np.median(needed))) - 1


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf


def _log1p(value: float) -> float:
    return math.log1p(value) if value > -1 else -math.inf
