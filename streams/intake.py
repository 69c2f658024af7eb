"""What is pushed, as entries: rendered by the stream's type, tokenized once, bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from streams.engine.base import Tokenizer
from streams.entries import BuiltIn, EntryType
from streams.errors import InvalidInput
from streams.ingest import Entry

Item = str | Mapping[str, object]

# This much text takes about as long as the event loop may be held up: a millisecond or two.
_INLINE_BYTES = 2 * 1024
# An object of a built-in type takes about as long to check, to render and to tokenize. Others may take any time.
_OBJECT_BYTES = 128
# This much is tokenized at once. The tokenizer returns many times the memory, and threads share what there is to do.
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
        size = sum(len(item) if isinstance(item, str) else per_object for item in items)
        if size <= _INLINE_BYTES:
            return self._entries(type, items)
        return await asyncio.to_thread(self._entries, type, items)

    def _entries(self, type: EntryType | None, items: Sequence[Item]) -> list[Entry]:
        now = time.time()
        several = len(items) > 1
        drafts = [self._draft(type, item, f"data.{number}" if several else "data") for number, item in enumerate(items)]
        return [
            Entry(tuple(ids), draft.size, now, draft.record)
            for batch in _batches(drafts)
            for draft, ids in zip(batch, self._tokenizer.encode_all([draft.text for draft in batch]), strict=True)
        ]

    def _draft(self, type: EntryType | None, item: Item, param: str) -> _Draft:
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
        return _Draft(f"{line}\n", size, record)


class _Draft(NamedTuple):
    """An entry that is not tokenized yet: its line, the size of that without the separator, and its record."""

    text: str
    size: int
    record: object


def _batches(drafts: Sequence[_Draft]) -> Iterator[list[_Draft]]:
    """Cut into runs of about :data:`_BATCH_BYTES`."""
    batch: list[_Draft] = []
    size = 0
    for draft in drafts:
        batch.append(draft)
        size += draft.size
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
