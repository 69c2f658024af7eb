"""What is pushed, as entries: rendered by the stream's type, tokenized once, bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from streams.engine.base import Tokenizer
from streams.entries import BuiltIn, EntryType
from streams.errors import InvalidInput
from streams.ingest import Entry

Item = str | Mapping[str, object]

# This much text takes about as long as the event loop may be held up: a millisecond or two.
_INLINE_BYTES = 2 * 1024
# An object of a built-in type takes about as long to check, to render and to tokenize. Others may take any time.
_OBJECT_BYTES = 128
# This much is taken at once, so that a large push does not keep small ones from the threads, and since a tokenizer
# returns many times the memory.
_BATCH_BYTES = 64 * 1024


class Intake:
    """Makes entries.

    Args:
        tokenizer: encodes.
        limit: bytes that an entry may have.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit

    async def entries(self, type: EntryType | None, items: Sequence[Item]) -> list[Entry]:
        """Entries for ``items``, in order.

        Args:
            type: of objects; None where there may be none.
            items: texts and objects, at least one.

        Raises:
            InvalidInput: one is too large, or not of the type; ``param`` says which.
        """
        per_object = _OBJECT_BYTES if isinstance(type, BuiltIn) else _INLINE_BYTES + 1
        sizes = [len(item) if isinstance(item, str) else per_object for item in items]
        make = partial(self._entries, type, items, time.time())
        if sum(sizes) <= _INLINE_BYTES:
            return make(range(len(items)))
        return [entry for batch in _batches(sizes) for entry in await asyncio.to_thread(make, batch)]

    def _entries(self, type: EntryType | None, items: Sequence[Item], now: float, batch: range) -> list[Entry]:
        drafts = [self._draft(type, items[number], "data" if len(items) == 1 else f"data.{number}") for number in batch]
        encoded = self._tokenizer.encode_all([f"{line}\n" for line, _, _ in drafts])
        return [
            Entry(tuple(tokens), size, now, record) for tokens, (_, size, record) in zip(encoded, drafts, strict=True)
        ]

    def _draft(self, type: EntryType | None, item: Item, param: str) -> tuple[str, int, object]:
        """An entry's line, the size of that in bytes, and its record."""
        record: object = None
        if isinstance(item, str):
            line = item
        elif type is None:
            raise InvalidInput(
                f"{param}: this session takes texts; to push objects, create it with a `type`", param=param
            )
        else:
            record = type.parse(item, param)
            line = type.line(record)
        size = len(line.encode())
        if size > self._limit:
            raise InvalidInput(
                f"{param}: an entry has {size} bytes, the limit is {self._limit}; split it into several", param=param
            )
        return line, size, record


def _batches(sizes: Sequence[int]) -> Iterator[range]:
    """Runs of items that have about :data:`_BATCH_BYTES` together."""
    first = taken = 0
    for number, size in enumerate(sizes, 1):
        taken += size
        if taken >= _BATCH_BYTES or number == len(sizes):
            yield range(first, number)
            first, taken = number, 0
