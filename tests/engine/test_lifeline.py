from __future__ import annotations

import socket
import threading

import pytest

from streams.engine import lifeline
from streams.engine.lifeline import Lifelines, outlive
from tests.valkeys import free_port

SECONDS = 30.0


def following(port: int, ended: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=outlive, args=("127.0.0.1", port, ended), daemon=True)
    thread.start()
    return thread


def test_the_other_side_waits_for_the_server_and_notices_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that it has found the server long before that ends.
    monkeypatch.setattr(lifeline, "_RETRY_SECONDS", 0.02)
    port, lost = free_port(), threading.Event()
    # vLLM, to whom ranks come first, says something else there.
    with socket.create_server(("127.0.0.1", port)) as other:
        follower = following(port, threading.Event())
        line, _ = other.accept()
        line.sendall(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00\x00\x00\x00\x00")
        line.close()
    lines = Lifelines("127.0.0.1", port, lost.set)
    with socket.create_connection(("127.0.0.1", port)) as witness:
        assert witness.recv(64)
        follower.join(1.0)
        assert follower.is_alive()
        lines.close()
        follower.join(SECONDS)
        assert not follower.is_alive()
    assert not lost.is_set(), "it was the server that ended"


def test_the_server_notices_when_a_machine_is_gone() -> None:
    port, lost = free_port(), threading.Event()
    lines = Lifelines("127.0.0.1", port, lost.set)
    stays = socket.create_connection(("127.0.0.1", port))
    goes = socket.create_connection(("127.0.0.1", port))
    assert stays.recv(64) == goes.recv(64)
    assert not lost.is_set()
    goes.close()
    assert lost.wait(SECONDS)
    stays.settimeout(SECONDS)
    assert stays.recv(64) == b"", "the others are told"
    stays.close()
    lines.close()
    lines.close()


def test_who_is_told_to_end_waits_for_no_server() -> None:
    ended = threading.Event()
    ended.set()
    follower = following(free_port(), ended)
    follower.join(SECONDS)
    assert not follower.is_alive()
