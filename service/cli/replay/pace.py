"""When what is due: rows of a recording in batches, each with the seconds from the start at which it goes out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from service.cli.failures import Failure
from service.cli.mapping import unix_seconds
from service.cli.rows import Row

_MOST = 1024


@dataclass(frozen=True, slots=True)
class Due:
    """A batch.

    Attributes:
        at: seconds from the start; None for when the batch before has been answered.
        rows: what goes out together.
        time: the data's own time of the last row, in Unix seconds; None where it has none.
    """

    at: float | None
    rows: list[Row]
    time: float | None


def time_of(row: Row, column: str) -> float | None:
    """The data's own time of a row, in Unix seconds; None where it has none.

    Raises:
        Failure: what is there is no time.
    """
    value = None if isinstance(row.value, str) else row.value.get(column)
    if value is None or value == "":
        return None
    try:
        return unix_seconds(value)
    except (ValueError, OverflowError):
        raise Failure(f"{row.where}, {column} is no time: write Unix seconds or ISO 8601") from None


def in_steps(rows: Iterator[Row], size: int, column: str) -> Iterator[Due]:
    """Batches of a size, each due when the one before has been answered."""
    while batch := list(islice(rows, size)):
        yield Due(None, batch, time_of(batch[-1], column))


def at_rate(rows: Iterable[Row], rate: float, column: str) -> Iterator[Due]:
    """Row by row, so many a second."""
    for index, row in enumerate(rows):
        yield Due(index / rate, [row], time_of(row, column))


def at_speed(rows: Iterable[Row], speed: float, column: str) -> Iterator[Due]:
    """As the data's own times say, so many times faster; rows of the same time go out together.

    Raises:
        Failure: a row has no time, or an earlier one than the row before.
    """
    first = last = None
    batch: list[Row] = []
    for row in rows:
        time = time_of(row, column)
        if time is None:
            raise Failure(
                f"{row.where} has no time in {column!r}; name its column with --time, or use --rate instead of --speed"
            )
        first = time if first is None else first
        if last is not None and time < last:
            raise Failure(f"{row.where} is earlier than what stands before it; sort the file by time")
        if batch and (time != last or len(batch) >= _MOST):
            yield Due(((last or 0.0) - first) / speed, batch, last)
            batch = []
        batch.append(row)
        last = time
    if batch and first is not None and last is not None:
        yield Due((last - first) / speed, batch, last)
