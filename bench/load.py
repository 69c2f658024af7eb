"""``python -m bench.load``: a load client as lean as Python has it, in a process of its own so that it measures nobody
but the server. The plan comes as JSON on standard input, the figures leave as JSON on standard output.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from bench.rows import percentile
from bench.servers import ROOT

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_TEXT, _PING, _PONG = 1, 9, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send.

    Attributes:
        port: of the server, on loopback.
        seconds: for how long.
        requests: whole HTTP requests, sent in turn; or websocket messages where there is a ``socket``.
        socket: path of the websocket to open; empty for plain HTTP.
        connections: kept alive, at once.
        outstanding: what each has under way, at most.
        interval: seconds between two requests on one connection; 0 sends the next when there is room.
        marker: what every answer must contain; websocket messages without it are passed over.
    """

    port: int
    seconds: float
    requests: list[str]
    marker: str
    socket: str = ""
    connections: int = 1
    outstanding: int = 1
    interval: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it. Times in milliseconds, from when a request was sent to its answer. With an interval none waits
    for an answer before it, so that a server that stalls is seen by all that come meanwhile."""

    rate: float
    count: int
    p50: float
    p99: float
    worst: float


async def load(plan: Plan) -> Figures:
    """Run a plan in a process of its own.

    Raises:
        RuntimeError: the client failed; its last words are in the message.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bench.load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(plan.seconds + 60):
            output, words = await process.communicate(json.dumps(asdict(plan)).encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"the load client failed:\n{words.decode(errors='replace')[-2000:]}")
    return Figures(**json.loads(output))


class _Client(asyncio.Protocol, ABC):
    """A connection. Subclasses say how requests are written and where answers end."""

    def __init__(self, plan: Plan, times: list[float], failed: asyncio.Future[None]) -> None:
        self._plan = plan
        self._times = times
        self._failed = failed
        self._marker = plan.marker.encode()
        self._buffer = bytearray()
        self._sent: deque[float] = deque()
        self._until = 0.0
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.greet()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self.fail(f"the server closed the connection: {exc}")

    def fail(self, words: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(RuntimeError(words))

    def begin(self, requests: Any, until: float) -> None:
        """Send until then, on the clock of ``time.perf_counter``."""
        self._requests, self._until = requests, until
        if self._plan.interval:
            self._at_intervals(time.perf_counter())
        else:
            self._fill()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self.take()

    def answered(self) -> None:
        now = time.perf_counter()
        if now < self._until:
            self._times.append(now - self._sent.popleft())
            if not self._plan.interval:
                self._fill()

    def _fill(self) -> None:
        while len(self._sent) < self._plan.outstanding:
            self._sent.append(time.perf_counter())
            self._transport.write(next(self._requests))

    def _at_intervals(self, due: float) -> None:
        if due >= self._until:
            return
        self._sent.append(time.perf_counter())
        self._transport.write(next(self._requests))
        due += self._plan.interval
        self._loop.call_later(due - time.perf_counter(), self._at_intervals, due)

    @abstractmethod
    def greet(self) -> None:
        """Do what comes before the first request, and tell when that is done."""

    @abstractmethod
    def take(self) -> None:
        """Take whole answers from what has arrived."""


class _Http(_Client):
    def greet(self) -> None:
        self.opened.set_result(None)

    def take(self) -> None:
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            size = end + 4 + length
            if len(self._buffer) < size:
                return
            if self._marker not in self._buffer[:size]:
                self.fail(f"not the answer: {bytes(self._buffer[:size])!r}")
                return
            del self._buffer[:size]
            self.answered()


class _Socket(_Client):
    def greet(self) -> None:
        self._transport.write(_HANDSHAKE.format(path=self._plan.socket).encode())

    def take(self) -> None:
        if not self.opened.done():
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in self._buffer[:end]:
                self.fail(f"no websocket: {bytes(self._buffer)!r}")
                return
            del self._buffer[: end + 4]
            self.opened.set_result(None)
        while len(self._buffer) >= 2:
            length, start = self._buffer[1], 2
            if length >= 126:
                start = 4 if length == 126 else 10
                if len(self._buffer) < start:
                    return
                length = int.from_bytes(self._buffer[2:start], "big")
            if len(self._buffer) < start + length:
                return
            code, payload = self._buffer[0] & 15, bytes(self._buffer[start : start + length])
            del self._buffer[: start + length]
            if code == _PING:
                self._transport.write(frame(payload, _PONG))
            elif code == _TEXT and self._marker in payload:
                self.answered()
            elif code != _TEXT or b'"error"' in payload:
                self.fail(f"not the answer: {payload!r}")
                return


def frame(payload: bytes, code: int = _TEXT) -> bytes:
    """A websocket frame as clients send it, masked with zeros."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | code, 0x80 | length)
    elif length < 2**16:
        head = struct.pack("!BBH", 0x80 | code, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | code, 0x80 | 127, length)
    return head + bytes(4) + payload


async def _run(plan: Plan) -> Figures:
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    times: list[float] = []
    kind = _Socket if plan.socket else _Http
    clients = []
    for _ in range(plan.connections):
        _, client = await loop.create_connection(lambda: kind(plan, times, failed), "127.0.0.1", plan.port)
        clients.append(client)
    await asyncio.wait_for(asyncio.gather(*(client.opened for client in clients)), 10)
    messages = [request.encode() for request in plan.requests]
    requests = itertools.cycle([frame(message) for message in messages] if plan.socket else messages)
    started = time.perf_counter()
    for client in clients:
        client.begin(requests, started + plan.seconds)
    done, _ = await asyncio.wait((failed,), timeout=plan.seconds)
    for task in done:
        task.result()
    if not times:
        raise RuntimeError("there was no answer in time")
    return Figures(
        rate=len(times) / plan.seconds,
        count=len(times),
        p50=percentile(times, 0.5) * 1e3,
        p99=percentile(times, 0.99) * 1e3,
        worst=max(times) * 1e3,
    )


if __name__ == "__main__":
    figures = uvloop.run(_run(Plan(**json.load(sys.stdin))))
    sys.stdout.write(json.dumps(asdict(figures)))
    sys.stdout.flush()
    os._exit(0)  # connections are not worth closing one by one
