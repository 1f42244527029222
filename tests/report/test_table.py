"""The one formatter of numbers, and the wording of names."""

import pytest

from bench import wording
from bench.estimates import PROGRAM, Verdict
from bench.numbers import percent, words
from bench.report.sentences import operations
from bench.report.table import mark
from tests.estimates import added, amount, ratio


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words(ratio(1.003, 0.999, 1.007)), "+0.3 % (-0.1 to 0.7)"),
        (words(ratio(1.2131, 1.188, 1.242)), "+21 % (19 to 24)"),
        (words(ratio(9.02, 8.66, 9.41)), "9.0 times (8.7 to 9.4)"),
        # An end that would round to 1 has a digit more.
        (words(ratio(1.2, 1.0401, 1.36)), "+20 % (4 to 36)"),
        (words(ratio(1.0146, 1.00044, 1.029)), "+1.5 % (0.04 to 2.9)"),
        (words(ratio(1.0216, 1.0204, 1.023)), "+2.2 % (2.0 to 2.3)"),
        (words(ratio(1.084, 1.0203, 1.151)), "+8.4 % (2.0 to 15.1)"),
        (words(ratio(1.084, 1.0216, 1.151)), "+8.4 % (2.2 to 15.1)"),
        (words(ratio(2.5, 1.0003, 6.0)), "2 times (1.0003 to 6)"),
        (words(added(150e-6, 2e-7, 300e-6)), "+150 µs (0.2 to 300)"),
        (words(ratio(1.25, 1.1)), "+25 % (>10)"),
        # An interval of more than a factor of two is no answer, unless it shows a difference
        (words(ratio(1.5, 0.8, 1.7)), "not yet"),
        (words(ratio(1.2, 0.9, 1.79)), "+20 % (-10 to 79)"),
        (words(ratio(2.0, 1e-3, 323.0)), "not yet"),
        (words(ratio(149.0, 84.0, 264.0)), "149 times (84 to 264)"),
        (words(ratio(1.0, None, 1.2)), "not yet"),
        (words(ratio(1.0)), "not yet"),
        (words(added(5e-5, -2e-5, 2e-4, level=6e-5)), "not yet"),
        (words(added(2e-6, -1e-6, 5e-6, level=6e-5)), "+2.0 µs (-1.0 to 5.0)"),
        (words(added(2e-6, level=6e-5)), "not yet"),
        (mark(ratio(2.0, 0.1, 9.0, verdict=Verdict.INCONCLUSIVE)), ""),
        (words(ratio(1.0, 0.9, 1.1, settled_by=PROGRAM, bound=0.002)), "±0.2 %, proven"),
        (words(ratio(1.0, 1.0, 1.0, settled_by=PROGRAM, standard_error=0.0)), "the same"),
        (words(added(57e-6, 55e-6, 59e-6)), "+57 µs (55 to 59)"),
        (words(added(2.94e-6, 1.4e-6, 4.4e-6)), "+2.9 µs (1.4 to 4.4)"),
        (words(added(1.38e-6, 3e-8, 2.72e-6)), "+1.4 µs (0.03 to 2.7)"),
        (words(added(1.38e-6, 3e-12, 2.72e-6)), "+1.4 µs (0.0 to 2.7)"),
        (words(added(1549, unit="")), "+1 549"),
        (words(amount(106e-6)), "106 µs"),
        (words(amount(0.0)), "0 ns"),
        (words(amount(725_568, "B")), "726 kB"),
        (words(amount(2.3047, "nats")), "2.305"),
        (words(amount(7060, "")), "7 060"),
        (words(ratio(1.0123, 1.008, 1.0171)), "+1.2 % (0.8 to 1.7)"),
        (words(ratio(0.0043, 0.003, 0.006)), "-99.6 % (-99.7 to -99.4)"),
        (words(ratio(0.02, 0.003, 0.13)), "-98.0 % (-99.7 to -87.0)"),
        (words(ratio(4e-5, 3e-5, 5e-5)), "below -99.99 %"),
        (words(ratio(0.35, 0.3, 0.4)), "-65 % (-70 to -60)"),
        (words(ratio(3.0, 2.8, 3.2)), "3.0 times (2.8 to 3.2)"),
        (words(ratio(1e9, 1e8, 1e300)), "above 10 000 times"),
        (words(ratio(3.0, 2.8, 1e300)), "3.0 times (>2.8)"),
        (words(added(1e200, 1e199)), "+1.00e+200 s"),
        (words(amount(1e200)), "1.00e+200 s"),
        (percent(0.0004), "0.04 %"),
        (mark(ratio(1.0, verdict=Verdict.EQUIVALENT)), "="),
        (mark(ratio(1.2, verdict=Verdict.SLOWER)), "▲"),
        (operations({"stablehlo.add": 1, "stablehlo.tanh": -2}), "+1 add, -2 tanh"),
        (operations({"a": 1, "b": -2, "c": 3, "d": 1}), "7 operations"),
        (wording.name_workload("depth12"), "12 layers"),
        (wording.name_workload("seedx12"), "width 128, 12 layers"),
        (wording.name_workload("crowded"), "width 128, batch 64"),
        (wording.name_workload("width64"), "width 64 of the sweep"),
        (wording.main_workload(["wide", "seed", "toy"]), "seed"),
        (wording.make_printable("\x1b[31mred\x1b[0m\a\tx\ry"), "red     x\ny"),
    ],
)
def test_numbers_have_the_digits_of_their_intervals_and_names_are_words(
    text: str, expected: str
) -> None:
    assert text == expected
