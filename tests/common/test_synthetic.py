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

import numpy as np
import pytest

from common import synthetic
from common.synthetic import GRAMMAR, parse_weights, tokens


def shares(choices: tuple[str, ...], weights: tuple[int, ...]) -> dict[str, float]:
    return {choice: weight / sum(weights) for choice, weight in zip(choices, weights, strict=True)}


START = shares(*parse_weights(synthetic.SENTENCE))
FOLLOWERS = {name: shares(*parse_weights(c.followers)) for name, c in GRAMMAR.items()}
TOKENS = {name: shares(*tokens(c)) for name, c in GRAMMAR.items()}
TRANSITIONS = np.array([[FOLLOWERS[c].get(d, 0.0) for d in GRAMMAR] for c in GRAMMAR])
"""`TRANSITIONS[c, d]` is the probability that class `d` follows class `c`."""


def entropy(shares: dict[str, float]) -> float:
    return -sum(share * math.log(share) for share in shares.values())


def test_the_bytes_are_the_same_everywhere() -> None:
    first = list(itertools.islice(synthetic.split_mix(1234567), 3))
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # as published
    text = synthetic.text()
    assert (len(text), len(set(text)), text[-2:]) == (200_633, 64, ".\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "6c9a058a38520dead194f27f569de2a2714e09bc179eb4266302728a629475ed"


def test_the_grammar_is_what_the_proof_asks() -> None:
    """No two strings may follow a class in two ways, and the chain is irreducible and aperiodic:
    then this power of it has no zero (Wielandt's bound on primitivity)."""
    for word_class in GRAMMAR.values():
        followers, _ = parse_weights(word_class.followers)
        strings = [string for follower in followers for string in tokens(GRAMMAR[follower])[0]]
        assert len(followers) == len(set(followers))
        assert len(strings) == len(set(strings))
    size = len(GRAMMAR)
    assert np.linalg.matrix_power(TRANSITIONS, size * size - 2 * size + 2).all()


def test_the_entropy_is_that_of_the_grammar() -> None:
    entropies = [entropy(strings) for strings in TOKENS.values()]
    lengths = [sum(p * len(text) for text, p in strings.items()) for strings in TOKENS.values()]
    # The stationary distribution: one balance equation follows from the others; the sum takes its
    # place.
    equations = TRANSITIONS.T - np.eye(len(GRAMMAR))
    equations[-1] = 1.0
    frequencies = np.linalg.solve(equations, np.eye(len(GRAMMAR))[-1])
    # A step's entropy is that of the class it goes to, plus, on average, that of the string there.
    steps = [entropy(followers) for followers in FOLLOWERS.values()] + TRANSITIONS @ entropies
    nats = frequencies @ steps / (frequencies @ lengths)
    assert nats == pytest.approx(synthetic.ENTROPY, rel=1e-12)


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
