"""From rows of data to the entries of a session's type: which column is which field, and what its texts mean. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.cli.failures import BadUsage, Failure
from service.cli.forms import Format
from service.cli.rows import Entry, Row
from streams.entries import BUILTIN, BuiltIn
from streams.errors import InvalidInput, short

TIME = "timestamp"
"""The field of every built-in type that is a time."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def pairs(given: Sequence[str]) -> dict[str, str]:
    """``field=column``, several times.

    Raises:
        BadUsage: it is none, or names a field twice.
    """
    found: dict[str, str] = {}
    for pair in given:
        field, equals, column = pair.partition("=")
        if not (field and equals and column):
            raise BadUsage(f"--map: {short(pair)!r} must be field=column, such as c=close")
        if field in found:
            raise BadUsage(f"--map: names the field {short(field)!r} twice; leave one of them out")
        found[field] = column
    return found


def unix_seconds(value: object) -> float:
    """A time as data has it: a number of Unix seconds, or ISO 8601 in text; without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif _NUMBER.fullmatch(text := str(value).strip()):
        seconds = float(text)
    else:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"no time: {short(text)!r}") from None
        seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError("no time: it is infinite")
    return seconds


def mapper(type_name: str | None, columns: Mapping[str, str], form: Format) -> Callable[[Row], Entry]:
    """What makes entries of rows.

    Of CSV, and wherever fields are mapped, the fields of a built-in type are picked and other columns left out; texts
    become what the field takes, and empty ones are left out. JSON is pushed as it is otherwise. Entries of built-in
    types are checked as the server checks them, so that a refusal can name the line.

    Args:
        type_name: the session's type, None for raw text.
        columns: for fields that are called otherwise in the data, the column's name.
        form: how the data is written.

    Returns:
        A function that raises Failure for a row that cannot be an entry; the message says where and why.

    Raises:
        BadUsage: the type has no such field, or takes none.
    """
    if type_name is None:
        if columns:
            raise BadUsage("--map: the session's entries are raw text and have no fields; create it with a --type")
        return _raw
    if form is Format.LINES:
        raise BadUsage(f"--format: the session's entries are of type {short(type_name)}; push csv or jsonl")
    known = BUILTIN.get(type_name)
    if not isinstance(known, BuiltIn):
        return lambda row: _own(row, columns, guess=form is Format.CSV)
    for field in columns:
        if field not in known.fields:
            raise BadUsage(f"--map: {type_name} has no field {short(field)!r}; it has {', '.join(known.fields)}")
    pick = form is Format.CSV or bool(columns)
    return lambda row: _built_in(row, known, columns, pick=pick)


def _raw(row: Row) -> Entry:
    if isinstance(row.value, str):
        return row.value
    raise Failure(
        f"{row.where} has fields, and the session's entries are raw text; create it with a --type, or push with "
        "--format lines"
    )


def _object(row: Row) -> Mapping[str, Any]:
    if isinstance(row.value, str):
        raise Failure(
            f"{row.where} is a text, and the session's entries are objects; push those, or use another session"
        )
    return row.value


def _own(row: Row, columns: Mapping[str, str], *, guess: bool) -> Entry:
    """An entry of a type that the session defines, whose fields are not known here."""
    source = _object(row)
    names = {column: field for field, column in columns.items()}
    entry = {names.get(column, column): value for column, value in source.items()}
    return {field: _guessed(value) for field, value in entry.items() if value != ""} if guess else entry


def _guessed(text: str) -> str | int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) and math.isfinite(float(text)) else text


def _built_in(row: Row, kind: BuiltIn[Any], columns: Mapping[str, str], *, pick: bool) -> Entry:
    source = _object(row)
    entry: dict[str, Any] = {}
    for field in kind.fields if pick else source:
        column = columns.get(field, field)
        if column in source and (value := source[column]) != "":
            entry[field] = _value(value, field, kind, f"{row.where}, {short(column)}")
    if missing := [name for name, field in kind.fields.items() if field.is_required() and name not in entry]:
        raise Failure(
            f"{row.where} has nothing for {', '.join(missing)} of {kind.name}; say which column it is with "
            f"--map {missing[0]}=COLUMN. There are {short(', '.join(source))}"
        )
    try:
        kind.parse(entry, "entry")
    except InvalidInput as error:
        raise Failure(f"{row.where}: {error.message}") from None
    return entry


def _value(value: object, field: str, kind: BuiltIn[Any], where: str) -> object:
    """A value as the field takes it; what is no text stays as it is, but for times."""
    if field == TIME:
        try:
            return math.floor(unix_seconds(value))
        except (ValueError, OverflowError):
            raise Failure(f"{where} is no time: write Unix seconds or ISO 8601, not {short(value)!r}") from None
    number = kind.fields[field].annotation if field in kind.fields else None
    if number in (int, float) and isinstance(value, str):
        text = value.strip()
        if not (_INTEGER if number is int else _NUMBER).fullmatch(text):
            raise Failure(f"{where} is no {'integer' if number is int else 'number'}: {short(value)!r}")
        return int(text) if number is int else float(text)
    return value
