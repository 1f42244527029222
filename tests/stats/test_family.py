"""Simultaneous intervals: against Dunnett's tables, Student's t and independent tests."""

import math

import numpy as np
import pytest
from scipy import special

from bench.stats.family import MANY_DF, Dunnett


@pytest.mark.parametrize(
    ("arms", "df", "critical"),  # Dunnett (1964), table 2a: two-sided, 5 %
    [(1, 10, 2.23), (2, 5, 3.03), (3, 10, 2.76), (9, 20, 2.95), (2, 20, 2.38), (5, 60, 2.58)],
)
def test_critical_values_are_dunnetts(arms: int, df: int, critical: float) -> None:
    tests = Dunnett(np.full(arms, 0.5), df)
    assert tests.critical_value(df) == pytest.approx(critical, abs=0.013)
    assert tests.critical_value(3) > 1.2 * critical
    for own in (df, 3):  # fewer degrees of freedom keep the marginal level
        assert tests.p_value(tests.critical_value(own), own) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("arms", [2, 5, 25])
def test_tests_that_share_nothing_are_independent(arms: int) -> None:
    tests = Dunnett(np.zeros(arms), math.inf)
    alone = 1 - 0.95 ** (1 / arms)  # Šidák (1967)
    assert tests.critical_value(MANY_DF) == pytest.approx(-special.ndtri(alone / 2), abs=1e-3)
    t = 2.5
    together = 1 - (1 - 2 * special.ndtr(-t)) ** arms
    assert tests.p_value(-t, MANY_DF) == pytest.approx(together, rel=0.01)


def test_what_members_share_makes_intervals_narrower() -> None:
    criticals = [Dunnett(np.full(8, share), 20).critical_value(20) for share in (0, 0.5, 0.9)]
    assert criticals == sorted(criticals, reverse=True)
    assert criticals[-1] > special.stdtrit(20, 0.975) + 0.1
    # Shares are rounded down to twelfths, and a share of all would leave nothing to tell apart
    for share, as_if in ((0.49, 5 / 12), (1.0, 11 / 12)):
        expected = Dunnett(np.full(8, as_if), 20).critical_value(20)
        assert Dunnett(np.full(8, share), 20).critical_value(20) == expected


def test_a_lone_member_has_students_t() -> None:
    tests = Dunnett(np.array([0.9]), 7)
    assert tests.critical_value(7) == pytest.approx(special.stdtrit(7, 0.975))
    assert tests.p_value(-2.0, 7) == pytest.approx(2 * special.stdtr(7, -2))


def test_an_unknown_error_says_nothing() -> None:
    tests = Dunnett(np.full(3, 0.5), 5)
    assert (tests.critical_value(0), tests.p_value(9.0, 0)) == (math.inf, 1)
    assert tests.p_value(0.0, 5) == 1
    assert tests.p_value(math.inf, 5) == pytest.approx(0, abs=1e-12)
