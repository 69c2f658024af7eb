"""Recorded data: lines, CSV and JSON lines, taken apart into what a session is pushed. Pure: bytes in, entries out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from service.cli.failures import Failure
from service.cli.forms import Format
from streams.errors import short

Entry = str | Mapping[str, Any]

LINE_BYTES = 16 << 20
"""The longest line, as long as a body that the server takes by default."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """What one entry is made of.

    Attributes:
        value: a text, an object, or the cells of a CSV row by the names of their columns.
        where: file and line, for messages.
        size: bytes that it took up; 0 for all but the last of those that share a line.
    """

    value: Entry
    where: str
    size: int


def lines_of(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The lines of a file, one after the other, with their ends.

    Raises:
        Failure: one is longer than :data:`LINE_BYTES`, or the file cannot be read.
    """
    number = 0
    try:
        while line := file.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise Failure(
                    f"{name}, line {number} is longer than {LINE_BYTES >> 20} MiB; is it of another --format?"
                )
            yield line
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}") from None


def rows(lines: Iterable[bytes], form: Format, name: str) -> Iterator[Row]:
    """Take lines apart. Empty ones are passed over.

    Args:
        lines: with their ends, UTF-8; a byte order mark before the first is no part of it.
        form: how they are written. ``jsonl``: a text, an object, or ``{"data": …}`` with one of them or a list of
            them. ``csv``: as RFC 4180 has it, with names of columns in the first line.
        name: of the file, for messages.

    Raises:
        Failure: a line is not what it should be; the message says which and why.
    """
    lines = (line.removeprefix(_BOM) if not index else line for index, line in enumerate(lines))
    match form:
        case Format.LINES:
            return _lines(lines, name)
        case Format.JSONL:
            return _json_lines(lines, name)
        case Format.CSV:
            return _csv(lines, name)


def read(path: Path, form: Format = Format.JSONL) -> Iterator[Row]:
    """The rows of a file. Raises Failure."""
    try:
        with path.open("rb") as file:
            yield from rows(lines_of(file, str(path)), form, str(path))
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from None


def batches(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    """Entries in groups of ``size``; the last one may be smaller."""
    while batch := list(islice(entries, size)):
        yield batch


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise Failure(f"{where} is not UTF-8; convert it, for example with iconv -t utf-8") from None


def _lines(lines: Iterable[bytes], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        if text := _text(line, where).rstrip("\r\n"):
            yield Row(text, where, len(line))


def _json_lines(lines: Iterable[bytes], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        *others, last = _said(line, where)
        for value in others:
            yield Row(value, where, 0)
        yield Row(last, where, len(line))


def _said(line: bytes, where: str) -> list[Entry]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Failure(f"{where} is not JSON: {error}; each line is a JSON string or object") from None
    if isinstance(found, dict) and set(found) == {"data"}:
        found = found["data"]
    entries: list[Entry] = found if isinstance(found, list) else [found]
    if not entries or not all(isinstance(entry, dict) or (isinstance(entry, str) and entry) for entry in entries):
        raise Failure(f'{where} is neither a text, nor an object, nor {{"data": …}} with some of them')
    return entries


def _csv(lines: Iterable[bytes], name: str) -> Iterator[Row]:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for number, line in enumerate(lines, start=1):
            taken += len(line)
            yield _text(line, f"{name}, line {number}")

    reader = csv.reader(texts(), strict=True)
    columns: list[str] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise Failure(f"{name}, line {reader.line_num} is not CSV: {error}") from None
        if cells is None:
            return
        where = f"{name}, line {reader.line_num}"
        if not columns:
            columns = _columns(cells, where)
        elif cells:
            if len(cells) != len(columns):
                raise Failure(f"{where} has {len(cells)} cells, and the first line names {len(columns)} columns")
            yield Row(dict(zip(columns, cells, strict=True)), where, taken)
            taken = 0


def _columns(cells: Sequence[str], where: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for column in columns:
        if columns.count(column) > 1:
            raise Failure(f"{where} names the column {short(column)!r} twice; rename one of them")
    return columns
