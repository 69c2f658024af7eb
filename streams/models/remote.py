"""The beginning of a file on the hub, read no further than it is needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streams.models.header import Source

TIMEOUT_S = 10.0
"""How long each phase of the request may take: connect, answer, and every piece of the content."""


@contextmanager
def opened(repo: str, commit: str, file: str) -> Iterator[Source]:
    """A file of a repository, as a source that ends with the connection.

    Raises:
        Exception: whatever the hub's client raises.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    url = hf_hub_url(repo, file, revision=commit)
    with get_session().stream("GET", url, headers=build_hf_headers(), timeout=TIMEOUT_S) as response:
        hf_raise_for_status(response)
        yield io.BufferedReader(_Pieces(response.iter_bytes()))


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._read = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._read

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        self._read += count
        return count
