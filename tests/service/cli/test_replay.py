"""``askahead replay`` against a real server process: when data goes out, and what is recorded."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.failures import Failure
from service.cli.replay.pace import at_rate, at_speed, in_steps
from service.cli.replay.table import COLUMNS, answer_row, recording
from service.cli.rows import Row
from tests.servers import Server
from tests.service.cli.commands import ok, run

QUERIES = ("Trend?", "Odd?")
ASKED = [flag for query in QUERIES for flag in ("--ask", query)]
READINGS = [
    {"sid": "a", "val": float(number), "lo": 0.0, "hi": 9.0, "timestamp": 1000 + number} for number in range(12)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "readings.jsonl"
    path.write_text("".join(json.dumps(reading) + "\n" for reading in READINGS))
    return path


def histories(http: httpx.Client, session_id: str) -> dict[tuple[int, int], dict[str, Any]]:
    """Every answer that the server says was given, by query and version."""
    queries = http.get(f"/v1/sessions/{session_id}/flash").json()["data"]
    return {
        (query["id"], answer["data_version"]): answer
        for query in queries
        for answer in http.get(f"/v1/sessions/{session_id}/flash/{query['id']}/history").json()["data"]
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A record, with the types of its columns."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    casts = {"int64": int, "float64": float, "bool": lambda text: text == "True"}
    with path.open(newline="") as file:
        return [
            {name: casts.get(COLUMNS[name], str)(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(("suffix", "batch"), [("csv", 1), ("parquet", 1), ("csv", 5)])
def test_every_answer_over_every_version_is_recorded(
    server: Server, http: httpx.Client, data: Path, tmp_path: Path, suffix: str, batch: int
) -> None:
    record, session = tmp_path / f"answers.{suffix}", f"steps-{suffix}-{batch}"
    flags = ("--create", "--type", "iot", *ASKED, "--batch", str(batch), "--record", str(record), "--json")
    told = json.loads(ok("replay", str(data), session, *flags, url=server.url))
    rows, known = rows_of(record), histories(http, session)
    versions = -(-len(READINGS) // batch)
    assert told == {"session_id": session, "pushed": 12, "answers": 2 * versions, "record": str(record)}
    assert {(row["query_id"], row["data_version"]) for row in rows} == set(known)
    assert len(rows) == len(known) == 2 * versions
    for row in rows:
        answer = known[row["query_id"], row["data_version"]]
        assert (row["value"], row["confidence"], row["changed"]) == (
            answer["value"], answer["confidence"], answer["changed"],
        )  # fmt: skip
        assert row["entries"] == min(row["data_version"] * batch, 12)
        assert row["time"] == READINGS[row["entries"] - 1]["timestamp"]


@pytest.mark.parametrize("pace", [("--speed", "20"), ("--rate", "40")])
def test_at_a_pace_versions_may_be_skipped_and_none_is_made_up(
    server: Server, http: httpx.Client, data: Path, tmp_path: Path, pace: tuple[str, str]
) -> None:
    record, session = tmp_path / "answers.csv", f"pace{pace[0]}"
    ok(
        "replay",
        str(data),
        session,
        "--create",
        "--type",
        "iot",
        *ASKED,
        *pace,
        "--record",
        str(record),
        url=server.url,
    )
    rows, known = rows_of(record), histories(http, session)
    assert {(row["query_id"], row["data_version"]): row["value"] for row in rows} == {
        key: answer["value"] for key, answer in known.items()
    }
    assert rows[-1]["entries"] == len(READINGS)


def test_a_second_replay_records_its_own_answers_only(
    server: Server, http: httpx.Client, data: Path, tmp_path: Path
) -> None:
    record = tmp_path / "answers.csv"
    for _ in range(2):
        ok(
            "replay",
            str(data),
            "twice",
            "--create",
            "--type",
            "iot",
            *ASKED,
            "--batch",
            "6",
            "--record",
            str(record),
            url=server.url,
        )
    assert [row["data_version"] for row in rows_of(record) if row["query_id"] == 1] == [3, 4]


def test_queries_with_conditions_are_not_waited_for(
    server: Server, http: httpx.Client, data: Path, tmp_path: Path
) -> None:
    http.post(
        "/v1/sessions", json={"id": "rare", "type": "iot", "flash": [{"query": "Trend?", "when": "last_value > 9"}]}
    )
    record = tmp_path / "answers.csv"
    ok("replay", str(data), "rare", "--ask", "Odd?", "--record", str(record), url=server.url)
    rows = rows_of(record)
    assert [row["data_version"] for row in rows if row["query"] == "Odd?"] == list(range(1, 13))
    assert {row["data_version"] for row in rows if row["query"] == "Trend?"} <= {11, 12}


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--speed", "1", "--rate", "1"), 2, "cannot go with --speed"),
        (("--speed", "0"), 2, "more than 0"),
        (("--record", "answers.txt"), 2, ".csv or .parquet"),
        (("--speed", "1", "--time", "when", "--ask", "x"), 1, "line 1 has no time in 'when'"),
        (("--record", "/no/such/place.csv", "--ask", "x"), 1, "cannot write /no/such/place.csv"),
        ((), 1, "has no Flash Queries"),
    ],
)
def test_what_cannot_be_replayed_is_said(
    server: Server, http: httpx.Client, data: Path, flags: tuple[str, ...], code: int, message: str
) -> None:
    http.delete("/v1/sessions/empty")
    http.post("/v1/sessions", json={"id": "empty", "type": "iot"})
    result = run("replay", str(data), "empty", *flags, url=server.url)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())


def test_parquet_without_its_library_is_a_sentence(
    server: Server, http: httpx.Client, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    record = tmp_path / "answers.parquet"
    result = run(
        "replay", str(data), "bare", "--create", "--type", "iot", *ASKED, "--record", str(record), url=server.url
    )
    assert result.exit_code == 1
    assert "pip install 'askahead[parquet]'" in result.stderr
    assert http.get("/v1/sessions/bare").json()["data_version"] == 0


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99), TEXTS)))
def test_both_kinds_of_file_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, int, str]]
) -> None:
    home = tmp_path_factory.mktemp("records")
    asked = {"query": "Trend?", "confidence": 1.5, "evaluated_at": 5, "probabilities": {"up": 0.5}, "mass": 0.5}
    rows = [
        answer_row(asked | {"id": query, "data_version": version, "value": value}, entries=9, time=None, changed=True)
        for query, version, value in answers
    ]
    for path in (home / "a.csv", home / "a.parquet"):
        with recording(path) as table:
            for row in rows:
                table.write(row)
        assert rows_of(path) == rows


# Pace


def timed(times: list[int]) -> list[Row]:
    return [Row({"at": time}, f"line {number}", 1) for number, time in enumerate(times, start=1)]


@given(st.lists(st.integers(0, 50), min_size=1).map(sorted), st.sampled_from([0.5, 1.0, 60.0]))
def test_the_datas_own_times_are_kept(times: list[int], speed: float) -> None:
    found = list(at_speed(timed(times), speed, "at"))
    assert [row.value["at"] for due in found for row in due.rows if isinstance(row.value, dict)] == times
    assert [due.time for due in found] == sorted(set(times))
    assert [due.at for due in found] == pytest.approx([(time - times[0]) / speed for time in sorted(set(times))])


@given(st.lists(st.integers(0, 50)), st.integers(1, 7))
def test_steps_and_rates_take_every_row_once(times: list[int], size: int) -> None:
    rows = timed(times)
    steps = list(in_steps(iter(rows), size, "at"))
    assert [row for due in steps for row in due.rows] == rows
    assert all(due.at is None and len(due.rows) == size for due in steps[:-1])
    assert [due.at for due in at_rate(rows, 2, "at")] == [number / 2 for number in range(len(rows))]


def test_a_file_that_is_not_in_order_cannot_keep_its_times() -> None:
    with pytest.raises(Failure, match="line 3 is earlier than what stands before it"):
        list(at_speed(timed([1, 3, 2]), 1, "at"))
    with pytest.raises(Failure, match="line 1 has no time in 'at'"):
        list(at_speed([Row("text", "line 1", 4)], 1, "at"))
    with pytest.raises(Failure, match="line 1, at is no time"):
        list(at_speed([Row({"at": "soon"}, "line 1", 4)], 1, "at"))
