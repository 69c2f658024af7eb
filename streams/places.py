"""Who makes room in the KV cache for another. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place(Generic[T]):
    """Room that could be had.

    Attributes:
        owner: has it, and does nothing with it now.
        tokens: what would become free.
        last_used: when it was used last, in seconds of any clock.
        asked: a question over it is being answered; letting it go makes that slower.
    """

    owner: T
    tokens: int
    last_used: float
    asked: bool = False


def leaving(places: Iterable[Place[T]], missing: int) -> list[T] | None:
    """Who leaves so that ``missing`` tokens become free; None if all together are not enough: then nobody should.

    Those that nobody asks come first, and of these the least recently used.
    """
    chosen: list[T] = []
    for place in sorted(places, key=lambda place: (place.asked, place.last_used)):
        if missing <= 0:
            break
        chosen.append(place.owner)
        missing -= place.tokens
    return None if missing > 0 else chosen
