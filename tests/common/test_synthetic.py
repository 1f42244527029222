"""The made-up text: the same bytes everywhere, read back exactly, of the entropy it claims.

**Why the characters have the entropy of the chain.** Every token ends with its only white space, so
characters divide into tokens in one way. The classes that may follow any one class share no string,
so from the start on, tokens read as states in one way. Text and path of states thus determine
each other, and the one is as uncertain as the other. A step out of class `c` adds `H[c]`, the
entropy of the next class and string; a step into class `d` adds `L[d]` characters on average. With
`pi` the stationary distribution over classes,

    entropy per character = sum(pi[c] * H[c]) / sum(pi[d] * L[d])    (nats)

The numerator is the entropy rate of a Markov chain (Cover & Thomas, Elements of Information Theory,
2nd ed., theorem 4.2.4). Dividing by the mean length makes nats per token nats per character, as
Shannon goes from bits per symbol to bits per second (A Mathematical Theory of Communication, 1948,
section 7). The chain is irreducible, so both averages hold along almost every text; it is aperiodic
too, so the place where a text starts is soon forgotten.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Mapping

import numpy as np
import pytest

from common import synthetic
from common.synthetic import GRAMMAR, WordClass, tokens, weighted

LOG_2, LOG_3 = math.log(2), math.log(3)


def transitions(grammar: Mapping[str, WordClass]) -> np.ndarray:
    """Return P, where `P[c, d]` is the probability that class `d` follows class `c`."""
    place = {name: i for i, name in enumerate(grammar)}
    matrix = np.zeros((len(grammar), len(grammar)))
    for row, word_class in zip(matrix, grammar.values(), strict=True):
        followers, weights = weighted(word_class.followers)
        row[[place[name] for name in followers]] = np.divide(weights, sum(weights))
    return matrix


def stationary(matrix: np.ndarray) -> np.ndarray:
    """Return the distribution that an irreducible chain keeps: `pi @ P == pi`, of sum 1."""
    size = len(matrix)
    equations = matrix.T - np.eye(size)
    equations[-1] = 1.0  # one balance equation follows from the others; the sum takes its place
    return np.linalg.solve(equations, np.eye(size)[-1])


def entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-positive @ np.log(positive))


def entropy_rate(grammar: Mapping[str, WordClass]) -> float:
    """Return nats per character of the text that an irreducible grammar writes."""
    matrix = transitions(grammar)
    entropies, lengths = [], []
    for word_class in grammar.values():
        strings, weights = tokens(word_class)
        probabilities = np.divide(weights, sum(weights))
        entropies.append(entropy(probabilities))
        lengths.append(probabilities @ [len(string) for string in strings])
    frequencies = stationary(matrix)
    # a step's entropy is that of the class it goes to, plus, on average, that of the string there
    steps = np.array([entropy(row) for row in matrix]) + matrix @ entropies
    return float(frequencies @ steps / (frequencies @ lengths))


def shares(choices: tuple[str, ...], weights: tuple[int, ...]) -> dict[str, float]:
    return {choice: weight / sum(weights) for choice, weight in zip(choices, weights, strict=True)}


START = shares(*weighted(synthetic.SENTENCE))
FOLLOWERS = {name: shares(*weighted(c.followers)) for name, c in GRAMMAR.items()}
TOKENS = {name: shares(*tokens(c)) for name, c in GRAMMAR.items()}


def test_the_bytes_are_the_same_everywhere() -> None:
    first = list(itertools.islice(synthetic.split_mix(1234567), 3))
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # as published
    text = synthetic.text()
    assert (len(text), len(set(text)), text[-2:]) == (200_633, 64, ".\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "6c9a058a38520dead194f27f569de2a2714e09bc179eb4266302728a629475ed"


def test_no_two_strings_may_follow_a_class_in_two_ways() -> None:
    for word_class in GRAMMAR.values():
        followers, _ = weighted(word_class.followers)
        strings = [string for follower in followers for string in tokens(GRAMMAR[follower])[0]]
        assert len(followers) == len(set(followers))
        assert len(strings) == len(set(strings))


def test_every_class_can_follow_every_other_after_any_large_number_of_steps() -> None:
    """Irreducible and aperiodic: then this power has no zero (Wielandt's bound on primitivity)."""
    matrix = transitions(GRAMMAR)
    possible, size = matrix > 0, len(matrix)
    reachable = np.eye(size, dtype=bool)
    for _ in range(size * size - 2 * size + 2):
        reachable = reachable @ possible
    assert reachable.all()


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
        (GRAMMAR, synthetic.ENTROPY),
    ],
    ids=["coin", "deterministic", "two classes", "the text's"],
)
def test_entropy_of_grammars(grammar: dict[str, WordClass], nats: float) -> None:
    assert entropy_rate(grammar) == pytest.approx(nats, rel=1e-12, abs=1e-15)


def test_the_text_reads_back_and_surprises_as_much_as_its_entropy_says() -> None:
    """The law of large numbers, on the weights themselves rather than on the matrix.

    The allowance is four standard errors, taken from the scatter over 100 blocks of about 400
    tokens, which the chain forgets within a few sentences.
    """
    allowed, states, excess = START, [], []
    for token in re.findall(r"[^ \n]*[ \n]", synthetic.text()):
        (name,) = (name for name in allowed if token in TOKENS[name])
        states.append((name, token))
        surprise = -math.log(allowed[name] * TOKENS[name][token])
        excess.append(surprise - synthetic.ENTROPY * len(token))
        allowed = FOLLOWERS[name]
    assert states == list(itertools.islice(synthetic.walk(synthetic.SEED), len(states)))
    blocks = [block.sum() for block in np.array_split(excess, 100)]
    standard_error = np.std(blocks, ddof=1) * math.sqrt(len(blocks))
    assert standard_error < 0.002 * len(synthetic.text())
    assert abs(sum(excess)) < 4 * standard_error
