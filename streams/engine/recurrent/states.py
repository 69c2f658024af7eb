"""Which sequence has the state after which tokens. Pure, no I/O.

A state cannot be shortened, so one is worth keeping wherever something may begin later: where a stream stands, and
where it stood when questions were asked over it. All are kept as long as there is room, and the least recently used go
first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence


class Digest:
    """Stands for the tokens of a sequence, of which none are kept."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.length = 0

    def extended(self, tokens: Sequence[int]) -> Digest:
        """The digest of the sequence with further tokens."""
        longer = Digest()
        longer._hash = self._hash.copy()
        longer._hash.update(array("i", tokens).tobytes())
        longer.length = self.length + len(tokens)
        return longer

    @property
    def key(self) -> tuple[int, bytes]:
        return self.length, self._hash.digest()


Key = tuple[int, bytes]


class States:
    """Sequences, numbered from 0: free ones, ones that somebody works with, and kept ones, by what they have read.

    Args:
        sequences: how many there are.
    """

    def __init__(self, sequences: int) -> None:
        self._free = list(range(sequences))
        self._kept: OrderedDict[Key, int] = OrderedDict()
        self._pins: dict[Key, int] = {}

    def longest(self, tokens: Sequence[int]) -> tuple[int, Digest]:
        """The kept state that has read the most of ``tokens``, from their beginning, and nothing else.

        Returns:
            Its sequence, and what it has read; -1 and nothing if there is none.
        """
        best, digest = (-1, Digest()), Digest()
        for length in sorted({key[0] for key in self._kept if key[0] <= len(tokens)}):
            digest = digest.extended(tokens[digest.length : length])
            if digest.key in self._kept:
                best = (self._kept[digest.key], digest)
        if best[0] >= 0:
            self._kept.move_to_end(best[1].key)
        return best

    def take(self, besides: int = -1, *, pinned: bool = True) -> int | None:
        """A sequence to work with; None if there is none.

        What was used least recently makes room: states that no hold stands at, and only then those, which are read
        again when they are needed.

        Args:
            besides: this one is still needed.
            pinned: make room where holds stand, if need be.
        """
        if self._free:
            # Low numbers first: neighbours are computed together.
            self._free.sort(reverse=True)
            return self._free.pop()
        for candidates in (self._unpinned(), iter(self._kept if pinned else ())):
            key = next((key for key in candidates if self._kept[key] != besides), None)
            if key is not None:
                return self._kept.pop(key)
        return None

    def _unpinned(self) -> Iterable[Key]:
        return (key for key in self._kept if key not in self._pins)

    def keep(self, sequence: int, digest: Digest) -> None:
        """Keep a sequence that was worked with, unless the state is kept already."""
        if digest.key in self._kept:
            self._free.append(sequence)
        self._kept.setdefault(digest.key, sequence)
        self._kept.move_to_end(digest.key)

    def give_back(self, sequence: int) -> None:
        """A sequence that was worked with is free."""
        self._free.append(sequence)

    def pin(self, digest: Digest) -> None:
        """A hold stands here."""
        self._pins[digest.key] = self._pins.get(digest.key, 0) + 1

    def unpin(self, digest: Digest) -> None:
        """A hold stands here no more. The state stays until there is need of its room."""
        self._pins[digest.key] -= 1
        if not self._pins[digest.key]:
            del self._pins[digest.key]
