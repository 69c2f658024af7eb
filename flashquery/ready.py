"""The ready position: what the model would say next, known before anybody asks. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

GAP_THRESHOLD = 2.0
"""Least logit gap at which a candidate is taken, in nats, where nobody says another."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The decision point of a stream: where a reply to its data begins.

    Attributes:
        version: data version it is of.
        token: the most likely token there.
        gap: its logit gap to the second, in nats.
    """

    version: int
    token: int
    gap: float

    def pick(self, candidates: Mapping[str, Collection[int]], threshold: float) -> str | None:
        """The candidate that the most likely token stands for, if it is one and likely enough.

        Args:
            candidates: texts and the tokens that each may begin with.
            threshold: least gap, in nats.

        Returns:
            None as well where several candidates begin with that token: nobody can know which is meant.
        """
        if self.gap < threshold:
            return None
        meant = [text for text, firsts in candidates.items() if self.token in firsts]
        return meant[0] if len(meant) == 1 else None


def first_tokens(text: str, encode: Callable[[str], Sequence[int]]) -> frozenset[int]:
    """The tokens that an answer of this text may begin with: vocabularies tell words with a space before them apart."""
    return frozenset(token for spelling in (text, f" {text}") for token in encode(spelling)[:1])
