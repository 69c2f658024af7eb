"""``askahead ask``, ``sessions``, ``flash`` and ``watch`` against a real server process."""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.cli.client import Event
from service.cli.watch.board import Board
from tests.servers import FAST, Server
from tests.service.cli.commands import ok, run, start
from tests.valkeys import free_port


@pytest.fixture
def plant(server: Server, http: httpx.Client) -> str:
    """A session that has read something."""
    http.delete("/v1/sessions/plant")
    http.post("/v1/sessions", json={"id": "plant", "flash": [{"query": "Trend?"}]})
    http.post("/v1/sessions/plant/push", json={"data": ["12:00 boiler 71.5", "12:01 boiler 83.2"]})
    http.get("/v1/sessions/plant/flash", params={"after": 2, "wait": 10})
    return "plant"


# Ask


def test_an_answer_is_printed_as_it_is(server: Server, http: httpx.Client, plant: str) -> None:
    body = {"prompt": "What is it?", "max_tokens": 4, "temperature": 0}
    text = http.post("/v1/sessions/plant/generate", json=body).json()["text"]
    flags = ("--max-tokens", "4", "--temperature", "0", "--after", "2")
    assert ok("ask", plant, "What is it?", *flags, url=server.url) == text + "\n"
    told = json.loads(ok("ask", plant, "What is it?", *flags, "--json", url=server.url))
    assert (told["text"], told["usage"]["completion_tokens"]) == (text, 4)


def test_the_text_of_a_flash_query_is_answered_from_it(server: Server, http: httpx.Client, plant: str) -> None:
    told = json.loads(ok("ask", plant, "Trend?", "--json", url=server.url))
    assert (told["flash"], told["flash_id"]) == (True, 1)
    assert ok("ask", plant, "Trend?", url=server.url) == told["text"] + "\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ask", "nowhere", "x"), 4, "(404)"),
        (("ask", "plant", "x", "--top-p", "2"), 4, "(400)"),
        (("ask", "plant", "x", "--temperature", "3"), 2, "temperature"),
        (("ask", "plant"), 2, "PROMPT"),
    ],
)
def test_questions_that_cannot_be_asked(
    server: Server, plant: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = run(*arguments, url=server.url)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message.lower() in result.stderr.lower()


# Sessions


def test_sessions_are_made_listed_shown_and_deleted(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    own = tmp_path / "hosts.json"
    own.write_text(
        json.dumps(
            {"name": "hosts", "schema": {"type": "object", "properties": {"h": {"type": "string"}}}, "template": "{h}"}
        )
    )
    flags = (
        "--type",
        str(own),
        "--system",
        "Be brief.",
        "--window",
        "2000",
        "--pre-decode",
        "--ask",
        "Which?",
        "--ask",
        "Why?",
    )
    assert ok("sessions", "create", "hosts", *flags, url=server.url) == "hosts\n"
    made = http.get("/v1/sessions/hosts").json()
    assert (made["type"], made["window"], made["pre_decode"]) == ("hosts", 2000, True)
    assert [query["query"] for query in http.get("/v1/sessions/hosts/flash").json()["data"]] == ["Which?", "Why?"]
    unnamed = ok("sessions", "create", url=server.url).strip()
    http.post("/v1/sessions/hosts/push", json={"data": [{"h": "a1"}]})
    http.get("/v1/sessions/hosts/flash", params={"after": 1})
    listed = ok("sessions", "list", url=server.url)
    assert all(name in listed for name in ("hosts", unnamed, "resident"))
    assert {"hosts", unnamed} <= {one["id"] for one in json.loads(ok("sessions", "list", "--json", url=server.url))}
    shown = ok("sessions", "show", "hosts", url=server.url)
    assert "h a1" in shown
    told = json.loads(ok("sessions", "show", "hosts", "--json", url=server.url))
    assert (told["session"]["id"], told["stats"]["count"], told["entries"][0]["entry"]) == ("hosts", 1, {"h": "a1"})
    ok("sessions", "delete", "hosts", unnamed, url=server.url)
    assert run("sessions", "show", "hosts", url=server.url).exit_code == 4
    taken = run("sessions", "create", "bad/id", url=server.url)
    assert (taken.exit_code, taken.stdout) == (4, "")


# Flash Queries


def test_queries_are_added_listed_and_removed(server: Server, http: httpx.Client, plant: str, tmp_path: Path) -> None:
    assert (
        ok("flash", "add", plant, "Up?", "--choice", "yes", "--choice", "no", "--max-tokens", "4", url=server.url)
        == "2\n"
    )
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    flags = ("--every", "2", "--min-interval", "1.5", "--when", "count > 100", "--with-stats", "stream")
    made = json.loads(ok("flash", "add", plant, "How?", "--schema", str(schema), *flags, "--json", url=server.url))
    assert (made["every"], made["min_interval"], made["when"], made["with_stats"]) == (2, 1.5, "count > 100", "stream")
    assert made["schema"]["required"] == ["a"]
    ok("flash", "remove", plant, "3", url=server.url)
    listed = ok("flash", "list", plant, "--wait", "10", url=server.url)
    # Bars of the choices, and the other's text.
    assert all(text in listed for text in ("Trend?", "Up?", "yes", "no", "%", "●"))
    told = json.loads(ok("flash", "list", plant, "--json", url=server.url))
    assert [query["fresh"] for query in told["data"]] == [True, True]
    assert run("flash", "remove", plant, "3", url=server.url).exit_code == 4
    assert run("flash", "add", plant, "x", "--schema", str(tmp_path), url=server.url).exit_code == 2


def test_past_answers_are_listed(server: Server, http: httpx.Client, plant: str) -> None:
    for number in range(3, 6):
        http.post(f"/v1/sessions/{plant}/push", json={"data": f"12:0{number} boiler 9{number}"})
        http.get(f"/v1/sessions/{plant}/flash", params={"after": number, "wait": 10})
    told = json.loads(ok("flash", "history", plant, "1", "--json", url=server.url))
    versions = [answer["data_version"] for answer in told["data"]]
    assert versions == sorted(versions)
    assert len(versions) == 4
    shown = ok("flash", "history", plant, "1", url=server.url)
    assert all(answer["value"] in shown for answer in told["data"])
    some = run("flash", "history", plant, "1", "--limit", "2", url=server.url)
    assert f"--since {versions[1]}" in some.stderr
    rest = json.loads(ok("flash", "history", plant, "1", "--since", str(versions[1]), "--json", url=server.url))
    assert [answer["data_version"] for answer in rest["data"]] == versions[2:]


# Watch


def _next(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line: str = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return line


def test_without_a_terminal_changes_are_lines(server: Server, http: httpx.Client, plant: str) -> None:
    process = start("watch", plant, "--prefix", "other-", url=server.url)
    first = _next(process)
    assert first.startswith("plant  ")
    assert "Trend?" in first
    http.post("/v1/sessions", json={"id": "other-1", "flash": [{"query": "Odd?"}]})
    http.post("/v1/sessions/other-1/push", json={"data": "x"})
    assert _next(process).startswith("other-1  ")
    http.delete("/v1/sessions/other-1")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_every_answer_is_a_line_of_json_until_the_session_is_deleted(
    server: Server, http: httpx.Client, plant: str
) -> None:
    process = start("watch", plant, "--json", url=server.url)
    told = [json.loads(_next(process))]
    for number in range(3, 13):
        http.post(f"/v1/sessions/{plant}/push", json={"data": f"boiler {number}"})
        told.append(json.loads(_next(process)))
    assert [answer["data_version"] for answer in told] == list(
        range(told[0]["data_version"], told[0]["data_version"] + 11)
    )
    values = [None, *(answer["value"] for answer in told)]
    assert [answer["changed"] for answer in told] == [a != b for a, b in itertools.pairwise(values)]
    http.delete(f"/v1/sessions/{plant}")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_on_a_terminal_it_is_a_table_that_lives(server: Server, http: httpx.Client, plant: str) -> None:
    screen, terminal = pty.openpty()
    process = start("watch", plant, url=server.url, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    seen = b""
    deadline = time.monotonic() + 60
    while b"Trend?" not in seen or "●".encode() not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([screen], [], [], 0.2)[0]:
            seen += os.read(screen, 65536)
    process.send_signal(signal.SIGINT)
    # It ends only when its last words are read.
    while process.poll() is None:
        if select.select([screen], [], [], 0.2)[0]:
            with suppress(OSError):
                os.read(screen, 65536)
    os.close(screen)
    assert process.returncode == 130


def test_a_watcher_comes_back_when_the_server_does_and_misses_nothing(tmp_path: Path) -> None:
    flags = ("--port", str(free_port()), "--data-dir", str(tmp_path), "--redis-appendfsync", "always")
    server = Server((*FAST, *flags), {})
    process = None
    try:
        server.wait_ready(60)
        with httpx.Client(base_url=server.url) as http:
            http.post("/v1/sessions", json={"id": "plant", "flash": [{"query": "Trend?"}]})
            process = start("watch", "plant", "--json", url=server.url)
            http.post("/v1/sessions/plant/push", json={"data": "first"})
            assert json.loads(_next(process))["data_version"] == 1
        server.kill()
        server = Server((*FAST, *flags), {})
        server.wait_ready(60)
        with httpx.Client(base_url=server.url) as http:
            for number in range(2, 5):
                push = http.post("/v1/sessions/plant/push", json={"data": str(number)}).json()
                http.get("/v1/sessions/plant/flash", params={"after": push["total_pushed"], "wait": 10})
        assert [json.loads(_next(process))["data_version"] for _ in range(3)] == [2, 3, 4]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "reconnecting" in err
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.communicate()
        server.stop()


def test_what_is_not_there_cannot_be_watched(server: Server) -> None:
    assert run("watch", "nowhere", url=server.url).exit_code == 4
    assert run("watch", url=server.url).exit_code == 2


def answer(version: int, value: str = "up", **more: object) -> dict[str, object]:
    return {"session_id": "a", "id": 1, "query": "Trend?", "value": value, "data_version": version, "confidence": 1.5,
            "evaluated_at": 100, **more}  # fmt: skip


def test_a_board_knows_what_changed_over_reconnections() -> None:
    board = Board()

    def heard(kind: str, data: object) -> bool:
        return board.heard(Event(kind, data, ""))

    assert not heard("connected", {"session_id": "a", "data_version": 1, "flash_queries": 1})
    assert heard("flash_ready", answer(1))
    assert not heard("flash_ready", answer(2))
    # Replayed after a gap: the same value is no news, another one is.
    heard("connected", {"session_id": "a", "data_version": 2, "flash_queries": 1, "resumed": False})
    assert board.sessions["a"].answers == {}
    assert not heard("flash_ready", answer(2))
    heard("data_updated", {"session_id": "a", "data_version": 3})
    assert (board.sessions["a"].version, board.sessions["a"].answers[1][1].version) == (3, 2)
    assert heard("flash_ready", answer(3, "down"))
    heard("deleted", {"session_id": "a"})
    assert board.sessions["a"].gone
