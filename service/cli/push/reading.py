"""Rows from a file or a pipe in batches, read in a thread: a pipe may be silent for hours, and then be ended."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from service.cli.rows import Row

_WAITING_BYTES = 4 << 20
_BATCH_BYTES = 1 << 20
# A producer that is silent for so long gets what it has said so far sent.
_LINGER_SECONDS = 0.02


class Reader:
    """Reads ahead by two batches, and no more than some MiB. Use :meth:`batch` from the event loop it was made in.

    Args:
        rows: what to read; read in a thread of its own, which nobody waits for in the end.
        size: most rows of a batch.
    """

    def __init__(self, rows: Iterator[Row], size: int) -> None:
        self._rows = rows
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._waiting: deque[Row] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = self._abandoned = False
        self._failure: Exception | None = None
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    async def batch(self) -> list[Row]:
        """What comes next: a full batch, or what there is when the source falls silent; empty at its end.

        Raises:
            Failure: what is wrong with the data, once all before it was handed out.
        """
        seen = -1
        while not self._ended and len(self._waiting) < self._size and self._bytes < _BATCH_BYTES:
            if len(self._waiting) in (0, seen):
                if self._waiting:
                    break
                await self._news.wait()
                self._news.clear()
            else:
                seen = len(self._waiting)
                await asyncio.sleep(_LINGER_SECONDS)
        taken: list[Row] = []
        size = 0
        with self._changed:
            while self._waiting and len(taken) < self._size and size < _BATCH_BYTES:
                taken.append(self._waiting.popleft())
                size += taken[-1].size
            self._bytes -= size
            self._changed.notify()
        if not taken and self._failure is not None:
            raise self._failure
        return taken

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._abandoned = True
            self._changed.notify()

    def _read(self) -> None:
        try:
            for row in self._rows:
                with self._changed:
                    while not self._abandoned and not self._room():
                        self._changed.wait()
                    if self._abandoned:
                        return
                    self._waiting.append(row)
                    self._bytes += row.size
                    first = len(self._waiting) == 1
                if first:
                    self._tell()
        except Exception as error:
            self._failure = error
        finally:
            self._ended = True
            self._tell()

    def _room(self) -> bool:
        return not self._waiting or (len(self._waiting) < 2 * self._size and self._bytes < _WAITING_BYTES)

    def _tell(self) -> None:
        # The loop is closed where nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)
