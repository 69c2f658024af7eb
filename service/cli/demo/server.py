"""The server of ``askahead demo``, a child process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from service.cli.failures import Failure
from service.cli.showing import printable

_STOP_SECONDS = 20.0
_LOG_TAIL_BYTES = 8192


class DemoError(Failure):
    """The demo cannot go on; the message says why and what to do."""


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
