import numpy as np
import pytest

from common.errors import BakeoffError
from common.vocab import Vocab


@pytest.mark.parametrize(
    "text",
    ["ab", "abcd..." * 3, "\n\t a", "Gregor Samsa — Käfer", "日本語のテキスト", "a😀b\U0010ffff\0"],
)
def test_ids_are_places_in_the_sorted_characters(text: str) -> None:
    vocab = Vocab.of(text)
    assert vocab == Vocab.of(text[::-1]) == Vocab("".join(sorted(set(text))))
    ids = vocab.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [vocab.characters.index(c) for c in text]
    assert vocab.decode(ids) == text


def test_nothing_encodes_to_nothing() -> None:
    assert Vocab("ab").encode("").shape == (0,)
    assert Vocab("ab").decode(np.zeros(0, np.int32)) == ""


@pytest.mark.parametrize(
    ("text", "wrong", "position"),
    [("a\U0010ffff", "\U0010ffff", 1), ("\t", "\t", 0), ("ab b", " ", 2), ("a\n\x85", "\x85", 2)],
    ids=["above", "below", "between", "line break"],
)
def test_a_character_that_the_vocabulary_lacks(text: str, wrong: str, position: int) -> None:
    with pytest.raises(BakeoffError) as caught:
        Vocab("\nabc\u2028").encode(text, "the prompt")
    message = str(caught.value)
    assert message.startswith(f"the prompt has the character {wrong!r} at position {position}, ")
    assert "it knows '\\nabc\\u2028'" in message
    assert len(message.splitlines()) == 1
