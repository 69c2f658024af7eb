"""The servers that are compared: each a process group of its own on loopback, started when it is first needed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from bench import machine

log = logging.getLogger("bench")

ROOT = Path(__file__).parent.parent
QUIET_SECONDS = 0.5
"""How long a server that was just asked is given to fall quiet, before another is measured."""

_READY_SECONDS = 240.0
_STOP_SECONDS = 20.0
_LOG_LINES = 40
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server.

    Attributes:
        command: what to run; ``{port}`` and ``{dir}`` stand for a free port and an empty directory.
        environment: beside that of this process.
        health: the path that answers 200 once it is ready.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"


class Server:
    """A running server.

    Attributes:
        url: where it listens.
        ready_seconds: how long it took from its start until it was ready.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, started: float, url: str, log: Path) -> None:
        self.name = name
        self.url = url
        self.ready_seconds = 0.0
        self._process = process
        self._started = started
        self._log = log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def memory(self) -> int:
        """Bytes of memory of all its processes, what they share counted once."""
        processes = [psutil.Process(self._process.pid)]
        processes += processes[0].children(recursive=True)
        return sum(process.memory_full_info().pss for process in processes)

    async def wait_ready(self, health: str) -> None:
        """Wait until it answers 200.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        async with aiohttp.ClientSession(self.url) as client:
            while (passed := time.monotonic() - self._started) < _READY_SECONDS and self._process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with client.get(health) as response:
                        if response.status == 200:
                            self.ready_seconds = passed
                            return
                await asyncio.sleep(0.05)
        words = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise RuntimeError(f"{self.name} did not become ready:\n{words}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left of its process group."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


class Fleet:
    """Servers by name, at most one of each. Use as an asynchronous context manager, which stops them all.

    Attributes:
        model: directory of the model that all of them serve, but llama.cpp's, which has it as a GGUF file.
    """

    def __init__(self) -> None:
        self.model = machine.model()
        self._running: dict[str, tuple[Server, AsyncExitStack]] = {}
        self._launches: dict[str, Callable[[], Launch]] = {
            "askahead": self._askahead,
            "vllm": lambda: self._vllm("--enable-prefix-caching"),
            "vllm without cache": lambda: self._vllm("--no-enable-prefix-caching"),
            "llama.cpp": lambda: Launch(("-m", "bench.llama", "{port}", str(machine.gguf()))),
            "floor": lambda: Launch(("-m", "bench.floor", "{port}", str(self.model))),
            "aiohttp": lambda: Launch(("-m", "bench.bare", "{port}"), health="/"),
        }

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.keep()

    async def get(self, name: str) -> Server:
        """The server of this name, running."""
        return self._running[name][0] if name in self._running else await self.fresh(name)

    async def fresh(self, name: str, *flags: str) -> Server:
        """The same, newly started, with further flags."""
        await self._stop(name)
        launch = self._launches[name]()
        async with AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="askahead-bench-")))
            server = await _start(name, launch, flags, directory)
            stack.push_async_callback(server.stop)
            await server.wait_ready(launch.health)
            self._running[name] = server, stack.pop_all()
        log.info("%s is ready after %.1f s", name, server.ready_seconds)
        return server

    async def keep(self, *names: str) -> None:
        """Stop all but these."""
        for name in self._running.keys() - set(names):
            await self._stop(name)

    async def _stop(self, name: str) -> None:
        if name in self._running:
            await self._running.pop(name)[1].aclose()

    def _askahead(self) -> Launch:
        return Launch(
            (
                *("-c", "from service.cli.main import app; app()", "serve", "--port", "{port}", "--data-dir", "{dir}"),
                *("--model", str(self.model), "--dtype", machine.dtype(), "--context", str(machine.CONTEXT)),
                *("--kv-cache-gb", "3", "--wait-seconds-max", "600", "--log-level", "warning"),
            )
        )

    def _vllm(self, caching: str) -> Launch:
        """vLLM's own server, with what makes it fastest here.

        That is all cores, the smallest blocks, no compilation, and the model in the engine's own process: with a
        worker process apart it takes a tenth longer, and keeps a core busy for a second after every step.
        """
        return Launch(
            (
                # What the command `vllm serve` runs; of the CPU distribution it fails, for want of its own name.
                *("-c", "from vllm.entrypoints.launchers.api_server.entry import main; main()"),
                *("--model", str(self.model), "--host", "127.0.0.1"),
                *("--port", "{port}", "--served-model-name", "model", "--dtype", machine.dtype(), caching),
                *("--max-model-len", str(machine.CONTEXT), "--kv-cache-memory-bytes", str(_GIB)),
                *("--block-size", "32", "--enforce-eager", "--distributed-executor-backend", "uni"),
                "--disable-uvicorn-access-log",
            ),
            {
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "OMP_NUM_THREADS": str(len(machine.cores())),
                "TORCH_COMPILE_DISABLE": "1",
                "VLLM_NO_USAGE_STATS": "1",
            },
        )


async def _start(name: str, launch: Launch, flags: Sequence[str], directory: Path) -> Server:
    port = _free_port()
    command = [part.replace("{port}", str(port)).replace("{dir}", str(directory / "data")) for part in launch.command]
    log = directory / "log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *flags,
            cwd=ROOT,
            env=os.environ | launch.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Server(name, process, started, f"http://127.0.0.1:{port}", log)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
