"""The made-up text: the same bytes everywhere, read back exactly, of the entropy it claims."""

import hashlib
import itertools
import math
import re

import numpy as np
import pytest

from common import synthetic
from common.synthetic import GRAMMAR, WordClass, tokens, weighted

LOG_2, LOG_3 = math.log(2), math.log(3)


def shares(choices: tuple[str, ...], weights: tuple[int, ...]) -> dict[str, float]:
    return {choice: weight / sum(weights) for choice, weight in zip(choices, weights, strict=True)}


START = shares(*weighted(synthetic.SENTENCE))
FOLLOWERS = {name: shares(*weighted(c.followers)) for name, c in GRAMMAR.items()}
TOKENS = {name: shares(*tokens(c)) for name, c in GRAMMAR.items()}


def parse(text: str) -> list[tuple[str, str]]:
    """Return class and string of every token, from the rules and a sentence's start alone."""
    states, allowed = [], START
    for token in re.findall(r"[^ \n]*[ \n]", text):
        (name,) = (name for name in allowed if token in TOKENS[name])
        states.append((name, token))
        allowed = FOLLOWERS[name]
    return states


@pytest.fixture(scope="module")
def states() -> list[tuple[str, str]]:
    return parse(synthetic.text())


def test_the_bytes_are_the_same_everywhere() -> None:
    first = list(itertools.islice(synthetic.split_mix(1234567), 3))
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # as published
    text = synthetic.text()
    assert (len(text), len(set(text)), text[-2:]) == (200_633, 64, ".\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "6c9a058a38520dead194f27f569de2a2714e09bc179eb4266302728a629475ed"


@pytest.mark.parametrize("name", GRAMMAR)
def test_no_two_strings_may_follow_a_class_in_two_ways(name: str) -> None:
    followers, _ = weighted(GRAMMAR[name].followers)
    strings = [string for follower in followers for string in tokens(GRAMMAR[follower])[0]]
    assert len(followers) == len(set(followers))
    assert len(strings) == len(set(strings))


def test_the_whole_text_reads_back_as_the_path_that_wrote_it(
    states: list[tuple[str, str]],
) -> None:
    assert "".join(token for _, token in states) == synthetic.text()
    assert states == list(itertools.islice(synthetic.walk(synthetic.SEED), len(states)))


def test_every_class_can_follow_every_other_after_any_large_number_of_steps() -> None:
    """Irreducible and aperiodic: then this power has no zero (Wielandt's bound on primitivity)."""
    matrix = synthetic.transitions(GRAMMAR)
    possible, size = matrix > 0, len(matrix)
    reachable = np.eye(size, dtype=bool)
    for _ in range(size * size - 2 * size + 2):
        reachable = reachable @ possible
    assert reachable.all()
    frequencies = synthetic.stationary(matrix)
    np.testing.assert_allclose(frequencies @ matrix, frequencies, atol=1e-14)
    np.testing.assert_allclose(frequencies.sum(), 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("grammar", "nats"),
    [
        # a fair coin, two characters a throw
        ({"coin": WordClass("h t", "word ", "coin")}, LOG_2 / 2),
        # no choice anywhere
        ({"a": WordClass("x", "word ", "b"), "b": WordClass("y", "word ", "a")}, 0.0),
        # a third of the time in `a`, which leads to `b` and its 3 to 1; `b` leads to either
        (
            {"a": WordClass("xyz", "word ", "b"), "b": WordClass("p:3 q", "word ", "a b")},
            (1 / 3 * (LOG_4_3 := 2 * LOG_2 - 0.75 * LOG_3) + 2 / 3 * (LOG_2 + LOG_4_3 / 2))
            / (1 / 3 * 4 + 2 / 3 * 2),
        ),
    ],
    ids=["coin", "deterministic", "two classes"],
)
def test_entropy_of_grammars_done_by_hand(grammar: dict[str, WordClass], nats: float) -> None:
    assert synthetic.entropy_rate(grammar) == pytest.approx(nats, rel=1e-12, abs=1e-15)


def test_the_text_surprises_as_much_as_the_exact_entropy_says(
    states: list[tuple[str, str]],
) -> None:
    """The law of large numbers, on the weights themselves rather than on the matrix.

    The allowance is four standard errors, taken from the scatter over 100 blocks of about 400
    tokens, which the chain forgets within a few sentences.
    """
    allowed, surprises = START, []
    for name, token in states:
        surprises.append(-math.log(allowed[name] * TOKENS[name][token]))
        allowed = FOLLOWERS[name]
    exact = synthetic.entropy_per_character()
    assert exact == pytest.approx(0.900117, abs=5e-7)
    lengths = [len(token) for _, token in states]
    excess = np.subtract(surprises, np.multiply(exact, lengths))
    blocks = [block.sum() for block in np.array_split(excess, 100)]
    standard_error = np.std(blocks, ddof=1) * math.sqrt(len(blocks)) / sum(lengths)
    estimate = sum(surprises) / sum(lengths)
    assert standard_error < 0.002
    assert abs(estimate - exact) < 4 * standard_error
