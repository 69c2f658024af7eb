"""Where answers are recorded: a CSV or a Parquet file, a row for each."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from service.cli.failures import Failure

COLUMNS: Mapping[str, str] = {
    "data_version": "int64",
    "entries": "int64",
    "time": "float64",
    "query_id": "int64",
    "query": "string",
    "value": "string",
    "confidence": "float64",
    "changed": "bool",
    "evaluated_at": "float64",
    "mass": "float64",
    "probabilities": "string",
}
"""Columns of a record, each with its type in Arrow's words."""

_GROUP_ROWS = 1024

Row = Mapping[str, Any]


def answer_row(answer: Row, *, entries: int | None, time: float | None, changed: bool) -> dict[str, Any]:
    """A ``flash_ready`` event as a row.

    Args:
        answer: the event's data.
        entries: how many entries the session had been given when the version came to be, where that is known.
        time: the data's own time of the last of them, in Unix seconds, where it has one.
        changed: the value is another than the query's before.
    """
    shares = answer.get("probabilities")
    return {
        "data_version": answer["data_version"],
        "entries": entries,
        "time": time,
        "query_id": answer["id"],
        "query": answer["query"],
        "value": answer["value"],
        "confidence": answer["confidence"],
        "changed": changed,
        "evaluated_at": float(answer["evaluated_at"]),
        "mass": answer.get("mass"),
        "probabilities": None if shares is None else orjson.dumps(shares).decode(),
    }


class Table(ABC):
    """A file that is being written. It can be read as far as it got once it is closed."""

    @abstractmethod
    def write(self, row: Row) -> None:
        """Append a row with the fields of :data:`COLUMNS`."""

    @abstractmethod
    def close(self) -> None:
        """End the file."""


class _Nowhere(Table):
    def write(self, row: Row) -> None:
        """Nothing is recorded."""

    def close(self) -> None:
        """There is no file."""


class _Csv(Table):
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, list(COLUMNS), lineterminator="\n")
        self._writer.writeheader()

    def write(self, row: Row) -> None:
        self._writer.writerow(dict(row))

    def close(self) -> None:
        self._file.close()


class _Parquet(Table):
    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise Failure(
                "--record: Parquet needs pyarrow, which is not installed; run: pip install 'askahead[parquet]', or "
                "record to a .csv file"
            ) from None
        self._schema = pyarrow.schema(list(COLUMNS.items()))
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._table = pyarrow.Table.from_pylist
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table(self._rows, schema=self._schema))
            self._rows = []


@contextmanager
def recording(path: Path | None) -> Iterator[Table]:
    """A table in a file, of the kind that its suffix says; closed whatever happens. None records nothing.

    Raises:
        Failure: the file cannot be written, or its kind needs what is not installed.
    """
    try:
        table = _Nowhere() if path is None else _Csv(path) if path.suffix == ".csv" else _Parquet(path)
        try:
            yield table
        finally:
            table.close()
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}") from None
