"""Ratios with simultaneous 95 % intervals: arms beside a reference, sides of an A/B, cold samples.

Noise is that of `components`, the variance of each arm is by `shared_unless_noisy`, the
intervals are those of `family`. How often they are wrong, with 1 to 25 arms, 1 to 25 workers of 1
to 4 blocks, heavy tails, missing blocks, a noisy arm and optional stopping, is simulated by
`results/selftest/simulation.py`; results/selftest/simulation.md has the error rates.

These arguments mean the same in every function:

* `data`, blocks x arms: log of an arm's datum in a block, NaN where it has none;
* `worker`, by block: its worker or its pair of workers, any numbers;
* `reference`: columns of one program, one or more; blocks that lack one of them do not count;
* `members`: columns of the family. The others help to know the noise;
* `programs`: columns that are one program each, if any: they have one effect, and count once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats import components
from bench.stats.family import Dunnett

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    type Arms = Float[np.ndarray, " arms"]
    type Table = Float[np.ndarray, "blocks arms"]
    type Workers = Int[np.ndarray, " blocks"]
    type Columns = Sequence[int]


class Contrasts(NamedTuple):
    """Differences of logarithms, by member, with intervals that hold for the family together."""

    log_ratio: Arms
    """Above zero: slower. NaN where a member shares no block with all references."""
    standard_error: Arms
    """Infinite where nothing is known about it."""
    df: Arms
    """Degrees of freedom of the standard error; zero where that is infinite."""
    low: Arms
    """Ends of the interval of the log-ratio."""
    high: Arms
    p: Arms
    """Probability of no difference, adjusted: below 5 % just where the interval leaves out zero."""
    blocks: Int[np.ndarray, " arms"]
    """That the member was measured in; of a cold metric, its samples."""
    workers: Int[np.ndarray, " arms"]
    """Or pairs of workers."""


def many_to_one(
    data: Table,
    worker: Workers,
    reference: Columns,
    members: Columns,
    programs: Sequence[Columns] = (),
) -> Contrasts:
    """Return each member's ratio to the mean of the references: Dunnett's test, single-step.

    What is the references' program is at 1, exactly, and is one of them.

    With one worker, the variance between workers is known from how much two references differ
    there, with one degree of freedom; from a single reference it is not (an infinite interval).
    """
    used = ~np.isnan(data[:, reference]).any(1)
    if not used.any():
        return _nothing(len(members))
    merged, first = _merged(data[used], reference, programs)
    fit = components.of_workers(merged, worker[used], reference)
    return _beside(fit, reference, first[members].tolist())


def paired(
    difference: Table,
    pair: Workers,
    members: Columns | None = None,
    programs: Sequence[Columns] = (),
) -> Contrasts:
    """Return each member's ratio of one side to the other: pairs of workers are the unit.

    What a pair has in common moves all its arms, so that their estimates are correlated; that
    correlation is estimated from the same pairs. One arm alone has a t test over pairs, with the
    variance between blocks as a lower bound. With one pair the interval is infinite.

    `difference` is that of logarithms, new less base.
    """
    members = range(difference.shape[1]) if members is None else members
    known = ~np.isnan(difference).all(1)
    if not known.any():
        return _nothing(len(members))
    fit = components.of_pairs(difference[known], pair[known])
    with np.errstate(invalid="ignore", divide="ignore"):
        least = np.min(fit.variance[fit.blocks > 0])
        fit, first = _shared(fit, programs)
        share = fit.correlation * np.nan_to_num(least / fit.variance, nan=0.0)
    return _simultaneous(fit, share, first[list(members)].tolist())


def added(
    seconds: Table, worker: Workers, reference: Columns, members: Columns
) -> tuple[Contrasts, float | None]:
    """Return what each member adds to the references' time, as a part: workers are the unit.

    In each block it is a part of what the references take there: a core that another guest of the
    host slows down by half slows down both. Such parts are averaged within workers, and vary
    between them; they are scaled by the arm's own level, which makes the noise of all alike enough
    to pool. Differences in seconds vary far more where one worker is slower than the rest.

    `seconds` are an arm's datum in a block, not its log; NaN where it has none.

    Returns:
        By member, the ratio 1 + added / level; and that level, the references' median in seconds:
        added = level * (ratio - 1), the interval's ends likewise. With one worker the interval is
        infinite.
    """
    used = ~np.isnan(seconds[:, reference]).any(1)
    if not used.any():
        return _nothing(len(members)), None
    seconds, worker = seconds[used], worker[used]
    beside = seconds[:, reference].mean(1)
    relative = seconds / beside[:, None]
    have = ~np.isnan(relative).all(0)
    scale = np.ones(have.size)
    scale[have] = np.nanmean(relative[:, have], 0)
    parts = (relative - 1) / scale
    parts[:, reference] = np.nan
    contrasts = paired(parts, worker, members)
    scale = scale[list(members)]
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, low, high = (
            np.log1p(np.maximum(scale * x, -1))
            for x in (contrasts.log_ratio, contrasts.low, contrasts.high)
        )
        error = contrasts.standard_error * scale / np.maximum(np.exp(middle), math.ulp(0.0))
    ratios = contrasts._replace(log_ratio=middle, low=low, high=high, standard_error=error)
    return ratios, float(np.median(beside))


def cold(samples: Sequence[Float[np.ndarray, " samples"]], members: Columns) -> Contrasts:
    """Return each member's ratio to the reference, from independent samples: a one-way layout.

    The interval is infinite where no arm has two samples.

    Args:
        samples: Logs of one sample a process, by arm; the first arm is the reference.
        members: Arms, as above; one may be there several times.
    """
    size = np.array([logs.size for logs in samples])
    own = np.array([logs.var(ddof=1) if logs.size > 1 else 0.0 for logs in samples])
    squares = components.MeanSquares(own, (size - 1).astype(float), float((size - 1).sum()))
    variance, df, _ = components.shared_unless_noisy(squares, np.zeros(size.size))
    variance = np.where(df > 0, variance, np.inf) / size
    effect = np.array([logs.mean() for logs in samples])
    fit = components.Fit(effect, variance, df, size, size)
    return _beside(fit, [0], members)


def _beside(fit: components.Fit, reference: Columns, members: Columns) -> Contrasts:
    """Return the members' contrasts with the references, whose variance is in all of them.

    A member that is a reference itself is at 1, exactly.
    """
    first = list(reference)
    of_reference = float(fit.variance[first].sum()) / len(first) ** 2
    total = fit.variance + of_reference
    finite = np.isfinite(total) & (total > 0)
    share = np.where(finite, of_reference / np.where(finite, total, 1), 0.0)
    shared = of_reference, float(fit.df[first[0]])
    parts = zip(fit.variance, fit.df, strict=True)
    df = np.array([components.summed([part, shared], pooled=True)[1] for part in parts])
    effect = fit.effect - fit.effect[first].mean()
    for field in (effect, total, df):
        field[first] = 0.0
    return _simultaneous(fit._replace(effect=effect, variance=total, df=df), share, members)


def _simultaneous(fit: components.Fit, share: Arms, members: Columns) -> Contrasts:
    """Return contrasts with intervals for the family of the members.

    Args:
        fit: Log-ratio of each arm and its variance.
        share: Of the variance, the part that all arms have in common.
        members: Of the family. An arm that is there several times, for others of its program,
            counts once; one without variance is in no family.
    """
    out = _nothing(len(members))
    family = [arm for arm in dict.fromkeys(members) if fit.blocks[arm] and fit.variance[arm]]
    tests = Dunnett(share[family], float(fit.df[family].max(initial=0.0)))
    for i, arm in enumerate(members):
        if not fit.blocks[arm]:
            continue
        middle, error = float(fit.effect[arm]), math.sqrt(fit.variance[arm])
        df = float(fit.df[arm])
        half = tests.critical(df) * error if error else 0.0
        p = tests.p(middle / error, df) if error else float(middle == 0)
        row = (middle, error, df, middle - half, middle + half, p)
        for field, value in zip(out, (*row, fit.blocks[arm], fit.workers[arm]), strict=True):
            field[i] = value
    return out


def _merged(
    data: Table, reference: Columns, programs: Sequence[Columns]
) -> tuple[Table, Int[np.ndarray, " arms"]]:
    """Return data with one column for each program, and whose column that is for each arm.

    That is the first one's, with the mean of those that have a datum: in a round of stages, one of
    them compiles. It is a reference's, unchanged, where the program is the references'.
    """
    merged, first = data.copy(), np.arange(data.shape[1])
    for columns in programs:
        at = next((column for column in columns if column in reference), columns[0])
        first[list(columns)] = at
        several = [column for column in columns if column not in reference]
        merged[:, several] = np.nan
        known = ~np.isnan(data[:, several]).all(1)
        if at not in reference:
            merged[known, at] = np.nanmean(data[known][:, several], 1)
    return merged, first


def _shared(
    fit: components.Fit, programs: Sequence[Columns]
) -> tuple[components.Fit, Int[np.ndarray, " arms"]]:
    """Return a fit in which the first column of each program has its effect; and whose that is."""
    effect, variance, df = fit.effect.copy(), fit.variance.copy(), fit.df.copy()
    first = np.arange(effect.size)
    for columns in programs:
        if known := [column for column in columns if fit.blocks[column]]:
            at, number = known[0], len(known)
            first[list(columns)] = at
            effect[at], df[at] = fit.effect[known].mean(), fit.df[known].min()
            correlated = (1 + (number - 1) * fit.correlation) / number
            variance[at] = fit.variance[known].mean() * correlated
    return fit._replace(effect=effect, variance=variance, df=df), first


def _nothing(members: int) -> Contrasts:
    """Return contrasts of members of which nothing is known."""
    unknown = (math.nan, math.inf, 0.0, -math.inf, math.inf, 1.0, 0, 0)
    return Contrasts(*(np.full(members, value) for value in unknown))
