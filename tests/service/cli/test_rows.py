"""Lines, CSV and JSON lines, taken apart, and made entries of a type."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.failures import BadUsage, Failure
from service.cli.forms import Format, json_file
from service.cli.mapping import mapper, pairs, unix_seconds
from service.cli.rows import LINE_BYTES, batches, lines_of, read, rows

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def values(text: str | bytes, form: Format) -> list[Any]:
    data = text.encode() if isinstance(text, str) else text
    return [row.value for row in rows(lines_of(io.BytesIO(data), "data"), form, "data")]


def as_csv(table: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(table)
    return out.getvalue()


# Formats


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.log", "lines"),
        ("a", "lines"),
    ],
)
def test_a_suffix_tells_the_format(name: str, form: str) -> None:
    assert Format.of(Path(name)) == form


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))))
def test_lines_are_entries_and_empty_ones_are_none(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    # A byte order mark before all is none of the text.
    expected = [line for line in [text.removeprefix("\ufeff").partition("\n")[0], *lines[1:]] if line]
    assert values(text, Format.LINES) == expected


@given(
    st.lists(
        st.one_of(TEXTS.filter(bool), st.dictionaries(TEXTS, NUMBERS | TEXTS).filter(lambda d: set(d) != {"data"}))
    )
)
def test_json_lines_are_what_was_written(entries: list[Any]) -> None:
    assert values("".join(json.dumps(entry) + "\n" for entry in entries), Format.JSONL) == entries
    bodies = "".join(json.dumps({"data": entry}) + "\n" for entry in entries)
    assert values(bodies, Format.JSONL) == entries
    if entries:
        assert values(json.dumps({"data": entries}), Format.JSONL) == entries


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(TEXTS, min_size=n, max_size=n), min_size=1)))
def test_cells_are_what_was_written(table: list[list[str]]) -> None:
    columns = [f"column {number}" for number in range(len(table[0]))]
    assert values(as_csv([columns, *table]), Format.CSV) == [dict(zip(columns, cells, strict=True)) for cells in table]


@given(st.binary(), st.sampled_from(Format))
def test_whatever_it_is_it_is_entries_or_refused_with_its_line(data: bytes, form: Format) -> None:
    found, refused = [], "data, line 0"
    try:
        found = values(data, form)
    except Failure as failure:
        refused = failure.message
    assert refused.startswith("data, line ")
    assert all(isinstance(value, str | dict) for value in found)


@given(st.lists(TEXTS.filter(lambda text: text.strip("\r\n\ufeff") == text and "\n" not in text and text), min_size=1))
def test_sizes_add_up_to_what_was_read(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    assert sum(row.size for row in rows(lines_of(io.BytesIO(text), "data"), Format.LINES, "data")) == len(text)


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        ("lines", b"fine\n\xff\n", "line 2 is not UTF-8"),
        ("jsonl", b'"fine"\nx\n', "line 2 is not JSON"),
        ("jsonl", b'"a" "b"\n', "line 1 is not JSON"),
        *[
            ("jsonl", b'"fine"\n' + bad + b"\n", "line 2 is neither")
            for bad in (b"1", b"null", b"[]", b'""', b'["a", 1]')
        ],
        *[("jsonl", bad, "line 1 is neither") for bad in (b'{"data": []}', b'{"data": 1}')],
        ("csv", b"a,b\n1\n", "line 2 has 1 cells, and the first line names 2 columns"),
        ("csv", b"a,a\n1,2\n", "line 1 names the column 'a' twice"),
        ("csv", b'a,b\n1,"2\n', "is not CSV"),
        ("csv", b'a,b\n1,"' + b"x" * 200_000, "is not CSV"),
        ("lines", b"x" * (LINE_BYTES + 1), "line 1 is longer than 16 MiB"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(form: str, data: bytes, message: str) -> None:
    with pytest.raises(Failure, match=message):
        values(data, Format(form))


def test_a_mark_of_byte_order_is_no_part_of_a_column() -> None:
    assert values(b"\xef\xbb\xbfa,b\r\n1,2\r\n", Format.CSV) == [{"a": "1", "b": "2"}]


def test_files_are_read_in_groups(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.write_text('"one"\n\n{"data": "two"}\n{"data": ["three", "four"]}\n{"close": 1}\n{"data": {"close": 2}}\n')
    entries = ["one", "two", "three", "four", {"close": 1}, {"close": 2}]
    assert list(batches((row.value for row in read(path)), 4)) == [entries[:4], entries[4:]]
    with pytest.raises(Failure, match="cannot read"):
        list(read(tmp_path / "nowhere"))


def test_files_that_options_name_are_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert json_file(path, "--schema") == {"a": 1}
    path.write_text("{")
    for bad in (path, tmp_path / "nowhere"):
        with pytest.raises(BadUsage, match=r"^--schema: "):
            json_file(bad, "--schema")


# Types


CANDLES = st.fixed_dictionaries(
    dict.fromkeys("ohlcv", NUMBERS),
    optional={"sym": st.text("abcXYZ 0", min_size=1), "timestamp": st.integers(0, 2**31)},
)


def entries(text: str, form: Format, type_name: str | None, **columns: str) -> list[Any]:
    entry = mapper(type_name, columns, form)
    return [entry(row) for row in rows(lines_of(io.BytesIO(text.encode()), "data"), form, "data")]


@given(st.lists(CANDLES, min_size=1))
def test_a_table_of_candles_is_the_candles(candles: list[dict[str, Any]]) -> None:
    names = {"o": "Open", "h": "High", "l": "Low", "c": "Close", "v": "Volume", "timestamp": "When"}
    fields = [*"ohlcv", "sym", "timestamp"]
    cells = [[*(str(candle.get(field, "")) for field in fields), "ignored"] for candle in candles]
    text = as_csv([[*(names.get(field, field) for field in fields), "comment"], *cells])
    assert entries(text, Format.CSV, "ohlcv", **names) == candles
    objects = "".join(
        json.dumps({names.get(field, field): value for field, value in candle.items()} | {"comment": 1}) + "\n"
        for candle in candles
    )
    assert entries(objects, Format.JSONL, "ohlcv", **names) == candles


def test_json_without_a_mapping_goes_as_it_is() -> None:
    reading = {"sid": "a", "val": 1.5, "lo": 0, "hi": 2, "timestamp": 5}
    assert entries(json.dumps(reading), Format.JSONL, "iot") == [reading]
    with pytest.raises(Failure, match=r"`entry\.low` is no field of iot"):
        entries(json.dumps(reading | {"low": 1}), Format.JSONL, "iot")


@given(st.dictionaries(st.sampled_from("abc"), NUMBERS | st.text("xyz", min_size=1), min_size=1))
def test_fields_of_ones_own_types_are_guessed(entry: dict[str, Any]) -> None:
    text = as_csv([list(entry), [str(value) for value in entry.values()]])
    assert entries(text, Format.CSV, "hosts") == [entry]
    assert entries(json.dumps(entry), Format.JSONL, "hosts") == [entry]


def test_columns_of_ones_own_types_are_renamed_and_empty_cells_left_out() -> None:
    assert entries("name,load,up\na,1.5,\n", Format.CSV, "hosts", host="name") == [{"host": "a", "load": 1.5}]


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
def test_times_are_seconds_however_they_are_written(time: datetime) -> None:
    seconds = time.replace(tzinfo=UTC).timestamp()
    zoned = time.replace(tzinfo=UTC).isoformat()
    for written in (seconds, repr(seconds), zoned, zoned.replace("+00:00", "Z"), time.isoformat(" ")):
        assert unix_seconds(written) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "yesterday", True, None, "1e999", float("inf")])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^no time"):
        unix_seconds(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("o,h,l,c\n1,2,3,4\n", r"line 2 has nothing for v of ohlcv; say which column it is with --map v=COLUMN"),
        ("o,h,l,c,v\n1,2,3,4,x\n", "line 2, v is no number: 'x'"),
        ("o,h,l,c,v\n1,2,3,4,1_0\n", "line 2, v is no number: '1_0'"),
        ("o,h,l,c,v\n1,2,3,4,1e999\n", "line 2: entry.v: "),
        ("o,h,l,c,v,timestamp\n1,2,3,4,5,soon\n", "line 2, timestamp is no time"),
    ],
)
def test_cells_that_are_no_field_are_told(text: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        entries(text, Format.CSV, "ohlcv")


def test_entries_are_of_the_sessions_kind() -> None:
    assert entries("a\nb\n", Format.LINES, None) == ["a", "b"]
    with pytest.raises(Failure, match="line 1 has fields, and the session's entries are raw text"):
        entries('{"a": 1}', Format.JSONL, None)
    with pytest.raises(Failure, match="line 1 is a text, and the session's entries are objects"):
        entries('"a"', Format.JSONL, "iot")
    with pytest.raises(BadUsage, match="push csv or jsonl"):
        entries("a", Format.LINES, "iot")


@pytest.mark.parametrize(
    ("type_name", "columns", "message"),
    [("iot", {"value": "x"}, "iot has no field 'value'; it has"), (None, {"val": "x"}, "have no fields")],
)
def test_mappings_of_no_field_are_refused(type_name: str | None, columns: dict[str, str], message: str) -> None:
    with pytest.raises(BadUsage, match=message):
        mapper(type_name, columns, Format.CSV)


def test_mappings_are_pairs() -> None:
    assert pairs(["c=close", "o=a=b"]) == {"c": "close", "o": "a=b"}
    for bad in (["c"], ["=close"], ["c="], ["c=a", "c=b"]):
        with pytest.raises(BadUsage, match=r"^--map: "):
            pairs(bad)
