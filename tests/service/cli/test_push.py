"""``askahead push`` against real server processes, one of which dies in the middle."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.servers import FAST, Server
from tests.service.cli.commands import ok, run, start
from tests.valkeys import free_port

CANDLES = "time,open,high,low,close,volume\n" + "".join(
    f"2024-01-02T10:{minute:02}:00Z,1,2,0.5,1.{minute},100\n" for minute in range(20)
)
MAPPED = [
    flag for pair in ("timestamp=time", "o=open", "h=high", "l=low", "c=close", "v=volume") for flag in ("--map", pair)
]


def lines(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(count))


def held(http: httpx.Client, session_id: str, count: int) -> list[object]:
    """The newest entries of a session, once that many are read."""
    deadline = time.monotonic() + 30
    while True:
        found = http.get(f"/v1/sessions/{session_id}/entries", params={"limit": 1000}).json()["data"]
        if found and found[-1]["number"] >= count:
            assert found[-1]["number"] == count
            return [entry["entry"] for entry in found]
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def fresh(http: httpx.Client, **fields: object) -> str:
    session_id: str = http.post("/v1/sessions", json=fields).json()["id"]
    return session_id


def test_lines_of_a_pipe_become_entries(server: Server, http: httpx.Client) -> None:
    session = fresh(http)
    process = start("push", session, "--batch", "7", "--json", url=server.url)
    out, err = process.communicate(lines(100), timeout=60)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert (told["complete"], told["pushed"], told["total_pushed"], told["dropped"]) == (True, 100, 100, 0)
    assert told["batches"] >= 100 / 7
    assert f"pushed 100 entries ({told['tokens']} tokens)" in err
    assert "--after 100" in err
    assert "\x1b" not in err
    assert held(http, session, 100) == lines(100).splitlines()


def test_a_line_is_pushed_though_the_pipe_stays_open(server: Server, http: httpx.Client) -> None:
    session = fresh(http)
    process = start("push", session, "-", url=server.url)
    assert process.stdin is not None
    process.stdin.write("first\n")
    process.stdin.flush()
    assert held(http, session, 1) == ["first"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "pushed 1 entries" in err
    assert "--skip 1 goes on after them" in err
    assert "Traceback" not in err


def test_a_table_goes_into_a_session_of_its_type(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.write_text(CANDLES)
    ok("push", "candles", str(path), "--create", "--type", "ohlcv", *MAPPED, url=server.url)
    first = held(http, "candles", 20)[0]
    assert first == {"timestamp": 1704189600, "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.0, "v": 100.0}
    # The type is the session's own where none is said.
    jsonl = tmp_path / "candles.jsonl"
    jsonl.write_text(json.dumps({"data": [first, first]}) + "\n")
    ok("push", "candles", str(jsonl), url=server.url)
    assert held(http, "candles", 22)[-1] == first
    result = run("push", "candles", str(path), "--type", "iot", url=server.url)
    assert result.exit_code == 1
    assert "are of type ohlcv, not iot" in result.stderr


def test_a_bad_row_stops_it_and_what_came_before_is_told(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "candles.csv"
    path.write_text(CANDLES + "2024-01-02T11:00:00Z,1,2,0.5,dear,100\n")
    arguments = ("push", "broken", str(path), "--create", "--type", "ohlcv", *MAPPED, "--batch", "5")
    result = run(*arguments, "--json", url=server.url)
    assert result.exit_code == 1
    assert "line 22, close is no number: 'dear'" in result.stderr
    told = json.loads(result.stdout)
    assert (told["complete"], told["pushed"], told["skip"]) == (False, 20, 20)
    # Mended, it goes on where it stopped.
    path.write_text(path.read_text().replace("dear", "2"))
    ok(*arguments, "--skip", str(told["skip"]), url=server.url)
    assert len(held(http, "broken", 21)) == 21


def test_a_slow_reader_is_waited_for(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    session = fresh(http, window=1000)
    path = tmp_path / "many.txt"
    path.write_text(lines(2000))
    ok("push", session, str(path), "--ahead", "10", "--batch", "50", url=server.url)
    assert held(http, session, 2000)[-1] == "line 1999"


def test_a_rate_is_kept(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    session = fresh(http)
    path = tmp_path / "some.txt"
    path.write_text(lines(10))
    told = json.loads(ok("push", session, str(path), "--rate", "50", "--json", url=server.url))
    # A tenth of a second's entries each.
    assert (told["pushed"], told["batches"]) == (10, 2)


def test_what_the_server_refuses_is_told_with_what_it_took(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    session = fresh(http)
    path = tmp_path / "long.txt"
    path.write_text(("x" * 500 + "\n") * 20)
    result = run("push", session, str(path), "--batch", "1", "--json", url=server.url)
    assert result.exit_code == 4
    told = json.loads(result.stdout)
    assert not told["complete"]
    assert 0 < told["pushed"] == told["total_pushed"] < 20
    assert f"--skip {told['pushed']}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("push", "nowhere", __file__), 1, "there is no session nowhere; --create makes it"),
        (("push", "nowhere", "/no/such/file"), 1, "cannot read /no/such/file"),
        (("push", "nowhere", __file__, "--map", "c"), 2, "--map: 'c' must be field=column"),
        (("push", "nowhere", __file__, "--rate", "0"), 2, "more than 0 entries per second"),
        (("push", "nowhere", __file__, "--format", "xml"), 2, "xml"),
        (("push", "bad id!", __file__, "--create"), 4, "(400)"),
    ],
)
def test_what_cannot_be_pushed_is_said(server: Server, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = run(*arguments, url=server.url)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_a_server_that_is_killed_gets_every_entry_once(tmp_path: Path) -> None:
    port = free_port()
    flags = ("--port", str(port), "--data-dir", str(tmp_path), "--redis-appendfsync", "always")
    server = Server((*FAST, *flags), {})
    process = None
    try:
        server.wait_ready(60)
        url = server.url
        data = tmp_path / "lines.txt"
        data.write_text(lines(350))
        process = start("push", "plant", str(data), "--create", "--rate", "100", "--json", url=url)
        with httpx.Client(base_url=url) as http:
            deadline = time.monotonic() + 30
            while http.get("/v1/sessions/plant").json().get("data_version", 0) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        server.kill()
        server = Server((*FAST, *flags), {})
        server.wait_ready(60)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "trying again" in err
        assert json.loads(out)["pushed"] == 350
        with httpx.Client(base_url=url) as http:
            assert held(http, "plant", 350) == lines(350).splitlines()
    finally:
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        server.stop()
