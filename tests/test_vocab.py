import numpy as np
import pytest

from common.errors import BakeoffError
from common.vocab import Vocab

TEXTS = [
    "ab",
    "abcd..." * 3,
    "\n\t a",
    "Gregor Samsa — Käfer",
    "日本語のテキスト",
    "a😀b\U0010ffff\0",
]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_go_back_to_the_text(text: str) -> None:
    vocab = Vocab.of(text)
    ids = vocab.encode(text)
    assert ids.dtype == np.int32
    assert ids.shape == (len(text),)
    assert vocab.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_places_in_the_sorted_characters(text: str) -> None:
    vocab = Vocab.of(text)
    assert vocab.characters == "".join(sorted(set(text)))
    assert len(vocab) == len(set(text))
    assert vocab.encode(text).tolist() == [vocab.characters.index(c) for c in text]


def test_the_order_of_a_text_does_not_matter_to_its_vocabulary() -> None:
    assert Vocab.of("hello") == Vocab.of("olleh") == Vocab("ehlo")


def test_nothing_encodes_to_nothing() -> None:
    assert Vocab("ab").encode("").shape == (0,)
    assert Vocab("ab").decode(np.zeros(0, np.int32)) == ""


@pytest.mark.parametrize(
    ("text", "wrong", "position"),
    [("z", "z", 0), ("abA", "A", 2), ("ab b", " ", 2), ("a\U0010ffff", "\U0010ffff", 1)],
    ids=["above", "below", "between", "last of Unicode"],
)
def test_a_character_that_the_vocabulary_lacks(text: str, wrong: str, position: int) -> None:
    with pytest.raises(BakeoffError) as caught:
        Vocab("abc").encode(text, "the prompt")
    assert str(caught.value) == (
        f"the prompt has the character {wrong!r} at position {position}, which the vocabulary "
        "lacks; it knows 'abc': leave that character out"
    )


def test_the_message_stays_on_one_line() -> None:
    with pytest.raises(BakeoffError) as caught:
        Vocab("\n\r\u2028a").encode("a\n\x85")
    assert len(str(caught.value).splitlines()) == 1
