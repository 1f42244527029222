"""The vocabulary: characters to ids and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from jaxtyping import Int


def _code_points(text: str) -> Int[np.ndarray, " characters"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)


@dataclass(frozen=True)
class Vocab:
    """Distinct characters in the order of their code points; an id is an index into them."""

    characters: str

    @classmethod
    def from_text(cls, text: str) -> Vocab:
        """Return the vocabulary of `text`."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, what: str = "text") -> Int[np.ndarray, " characters"]:
        """Return the ids of `text` as int32; `what` names it in an error.

        Raises:
            BakeoffError: a character is not in the vocabulary. Ids out of range never reach a
                jitted function, which would clamp or wrap them silently.
        """
        known, given = _code_points(self.characters), _code_points(text)
        ids = np.searchsorted(known, given).clip(max=max(len(known) - 1, 0))
        wrong = np.flatnonzero(known[ids] != given)
        if wrong.size:
            raise BakeoffError(
                f"{what} has the character {text[wrong[0]]!r} at position {wrong[0]}, which the "
                f"vocabulary lacks; it knows {shorten(self.characters)!r}: leave that one out"
            )
        return ids.astype(np.int32)

    def decode(self, ids: Int[np.ndarray, " characters"]) -> str:
        """Return the text of `ids`, each of which must be in range."""
        return "".join(self.characters[i] for i in np.asarray(ids).tolist())
