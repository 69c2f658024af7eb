"""Real server processes for tests: loopback, any free port, a data directory of their own, ended by process id."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

FAST = (sys.executable, "-m", "tests.engine.serve")
REAL = (str(Path(sys.executable).with_name("askahead")), "serve")

ROOT = Path(__file__).parent.parent

_LISTENING = re.compile(r"listening on (http://\S+?),")


class Server:
    """A running server process.

    Attributes:
        url: where it listens.
        process: the process.
        lines: what it has logged so far.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], directory: Path = ROOT) -> None:
        self.lines: list[str] = []
        self.url = ""
        self._listening = threading.Event()
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            # Tests run beside each other, and what gives way to all of them would not be done in time.
            env=os.environ | {"ASKAHEAD_ENGINE_NICE": "0"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if not self.url and (found := _LISTENING.search(line)):
                self.url = found.group(1)
                self._listening.set()
        self._listening.set()

    def wait_ready(self, seconds: float) -> None:
        """Wait until /health says 200."""
        deadline = time.monotonic() + seconds
        self._listening.wait(seconds)
        while self.url and time.monotonic() < deadline and self.process.poll() is None:
            if httpx.get(f"{self.url}/health").status_code == 200:
                return
            time.sleep(0.1)
        raise AssertionError("the server did not become ready:\n" + "\n".join(self.lines[-40:]))

    def kill(self) -> None:
        """SIGKILL; what it has started lives on."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not stop:\n" + "\n".join(self.lines[-40:])) from None
        finally:
            self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()


@contextmanager
def serving(command: Sequence[str], data_dir: Path, *flags: str, ready: float = 150.0) -> Iterator[Server]:
    """A server process, ready; stopped at the end, which must go well."""
    server = Server((*command, "--port", "0", "--data-dir", str(data_dir), *flags), {})
    try:
        server.wait_ready(ready)
        yield server
    finally:
        code = server.stop()
    log = "\n".join(server.lines[-40:])
    assert code == 0, log
    assert "Traceback" not in log
