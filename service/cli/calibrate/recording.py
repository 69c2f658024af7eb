"""Recorded streams: a file with an entry per line, as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from streams.errors import AskaheadError

Entry = str | Mapping[str, Any]


class CalibrationError(AskaheadError):
    """Calibration cannot go on; the message says why and what to do."""


def read(path: Path) -> Iterator[Entry]:
    """The entries of a recording, one after the other.

    A line is a JSON string, an object of a typed session, or ``{"data": …}`` with one of them or a list of them.

    Raises:
        CalibrationError: the file cannot be read, or a line is none of these; the message says which.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield from _entries(line, f"{path}, line {number}")
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror}") from None


def _entries(line: bytes, where: str) -> list[Entry]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CalibrationError(f"{where} is not JSON: {error}; each line is a JSON string or object") from None
    if isinstance(found, dict) and set(found) == {"data"}:
        found = found["data"]
    entries: list[Entry] = found if isinstance(found, list) else [found]
    if not entries or not all(isinstance(entry, dict) or (isinstance(entry, str) and entry) for entry in entries):
        raise CalibrationError(f'{where} is neither a text, nor an object, nor {{"data": …}} with some of them')
    return entries


def batches(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    """Entries in groups of ``size``; the last one may be smaller."""
    while batch := list(islice(entries, size)):
        yield batch
