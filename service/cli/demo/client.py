"""What ``askahead demo`` needs of a server: one as a child process, and a client for it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from service.cli.demo.view import Question, printable
from streams.errors import AskaheadError

_STOP_SECONDS = 20.0
_LOG_TAIL_BYTES = 8192
_EVENT_BYTES = 1 << 20


class DemoError(AskaheadError):
    """The demo cannot go on; the message says why and what to do."""


class SessionFull(DemoError):
    """The model's context has no room for more lines."""


class Server:
    """The server as a child process; see :func:`running_server`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log_path: Path) -> None:
        self._process = process
        self.url = url
        self.log_path = log_path

    def log_lines(self) -> list[str]:
        """The end of its log."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return [line for line in map(printable, text.splitlines()) if line]

    async def died(self) -> None:
        """Wait until it ends by itself.

        Raises:
            DemoError: always, with the last lines of its log.
        """
        code = await self._process.wait()
        tail = "\n  ".join(self.log_lines()[-12:])
        raise DemoError(f"the server ended with exit code {code}; the end of its log, {self.log_path}:\n  {tail}")

    async def stop(self) -> None:
        """Let it drain and end; kill it with its children if that takes too long."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


@asynccontextmanager
async def running_server(command: Sequence[str], data_dir: Path | None) -> AsyncIterator[Server]:
    """Start a server on a free port of loopback; it is stopped on exit.

    Args:
        command: what starts it; flags of ``askahead serve`` are appended.
        data_dir: its data directory, its own default if None.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--log-format", "text", "--log-level", "info"]
    if data_dir is not None:
        flags += ["--data-dir", str(data_dir)]
    log_fd, log_path = tempfile.mkstemp(prefix="askahead-demo-", suffix=".log")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            *flags,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            # Ctrl-C is the demo's: the server shall be stopped once, and in order.
            start_new_session=True,
        )
    finally:
        os.close(log_fd)
    server = Server(process, f"http://127.0.0.1:{port}", Path(log_path))
    try:
        yield server
    finally:
        await server.stop()


class Api:
    """The few requests that the demo makes.

    Args:
        http: client whose base is the server.
    """

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def ready(self) -> bool:
        """Whether the server has loaded its model."""
        try:
            async with self._http.get("/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return response.status == 200
        except (aiohttp.ClientConnectionError, TimeoutError):
            return False

    async def create(self, session_id: str, questions: Iterable[Question]) -> None:
        """A session with Flash Queries."""
        await self._post("/v1/sessions", {"id": session_id, "flash": [question.body() for question in questions]})

    async def delete(self, session_id: str) -> None:
        """Give a session's memory back."""
        async with self._http.delete(f"/v1/sessions/{session_id}") as response:
            await _checked(response)

    async def push(self, session_id: str, lines: Sequence[str]) -> dict[str, Any]:
        """Push lines. Raises SessionFull where they do not fit the context."""
        return await self._post(f"/v1/sessions/{session_id}/push", {"data": list(lines)})

    async def events(self, session_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """A session's events, as kind and data, until it is deleted."""
        # Heartbeats come every 15 s.
        quiet = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with self._http.get(
            f"/v1/sessions/{session_id}/events", timeout=quiet, read_bufsize=_EVENT_BYTES
        ) as response:
            response.raise_for_status()
            kind = ""
            async for raw in response.content:
                name, _, value = raw.rstrip(b"\n").partition(b": ")
                if name == b"event":
                    kind = value.decode()
                elif name == b"data":
                    yield kind, orjson.loads(value)

    async def _post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        async with self._http.post(path, json=body) as response:
            return await _checked(response)


async def _checked(response: aiohttp.ClientResponse) -> dict[str, Any]:
    body: dict[str, Any] = await response.json()
    if response.ok:
        return body
    error = body["error"]
    kind = SessionFull if error["code"] == "context_length_exceeded" else DemoError
    raise kind(f"the server refused a request ({response.status}): {error['message']}")
