"""What a server stands on is killed under load: its Valkey, and the process that runs the model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.servers import FAST, REAL, Server

READY_SECONDS = 150.0
SECONDS = 300.0
"""Bounds of every wait, far above what one takes."""


class Load:
    """Pushes numbered lines to a stream and looks at it all the while.

    Attributes:
        acknowledged: numbers of the lines that the server has.
        unsure: numbers of those of which nobody knows.
        versions: of the stream, as they were told.
        health: what ``/health`` said, without repetitions: status code, engine and store.
    """

    def __init__(self, http: aiohttp.ClientSession, pause: float) -> None:
        self._http = http
        self._pause = pause
        self._stopped = asyncio.Event()
        self.acknowledged: list[int] = []
        self.unsure: set[int] = set()
        self.versions = [0]
        self.health: list[tuple[int, str, str]] = []
        self.refusals: set[tuple[int, str]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for work in (self._push, self._look, self._check):
                tasks.create_task(work())
            yield
            self._stopped.set()

    async def reply(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._http.request(method, path, json=body) as response:
            return response.status, await response.json()

    async def _push(self) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            status, found = await self.reply("POST", "/v1/sessions/s/push", {"data": f"{number:06d}"})
            if status == 200:
                self.acknowledged.append(number)
                self.versions.append(found["data_version"])
            else:
                self.refusals.add((status, found["error"]["code"]))
                if found["error"]["code"] == "outcome_unknown":
                    self.unsure.add(number)
            await asyncio.sleep(self._pause)

    async def _look(self) -> None:
        while not self._stopped.is_set():
            status, found = await self.reply("GET", "/v1/sessions/s")
            assert status == 200, found
            self.versions.append(found["data_version"])
            await asyncio.sleep(0.02)

    async def _check(self) -> None:
        while not self._stopped.is_set():
            status, found = await self.reply("GET", "/health")
            seen = (status, found["engine"], found["store"])
            if not self.health or self.health[-1] != seen:
                self.health.append(seen)
            await asyncio.sleep(0.02)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                await asyncio.sleep(0.02)

    async def more(self, lines: int) -> None:
        """Wait until the server has so many lines more."""
        goal = len(self.acknowledged) + lines
        await self.until(lambda: len(self.acknowledged) >= goal)

    async def check(self) -> None:
        """Everything acknowledged is there once and in order, and versions never went down."""
        assert self.versions == sorted(self.versions)
        status, acknowledged = await self.reply("POST", "/v1/sessions/s/push", {"data": "the end"})
        assert status == 200
        after = acknowledged["total_pushed"]
        status, found = await self.reply("GET", f"/v1/sessions/s/flash?after={after}")
        assert status == 200, found
        assert acknowledged["total_dropped"] == 0
        # What cannot be told from outside is told by counting: each line is one entry.
        assert len(self.acknowledged) + 1 <= after <= len(self.acknowledged) + 1 + len(self.unsure)
        status, found = await self.reply("GET", "/v1/sessions/s/stats?over=stream")
        assert found["count"] == after


@asynccontextmanager
async def loaded(
    command: tuple[str, ...], data_dir: Path, pause: float, *flags: str
) -> AsyncIterator[tuple[Server, Load]]:
    server = Server((*command, "--port", "0", "--data-dir", str(data_dir), *flags), {})
    try:
        await asyncio.to_thread(server.wait_ready, READY_SECONDS)
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        async with aiohttp.ClientSession(server.url, timeout=timeout) as http:
            load = Load(http, pause)
            body = {"id": "s", "window": 1024, "flash": [{"query": "Which number came last?", "max_tokens": 4}]}
            status, found = await load.reply("POST", "/v1/sessions", body)
            assert status == 200, found
            yield server, load
    finally:
        if server.process.poll() is None:
            server.kill()


async def kill_valkey(data_dir: Path, load: Load) -> None:
    """It hangs, until that is noticed, and dies; returns when another is there."""
    pid = int((data_dir / "valkey" / "valkey.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    await load.until(lambda: load.health[-1] == (200, "ready", "degraded"))
    os.kill(pid, signal.SIGKILL)
    await load.until(lambda: load.health[-1] == (200, "ready", "ok"))


@pytest.mark.timeout(300)
async def test_a_killed_valkey_loses_nothing(tmp_path: Path) -> None:
    async with loaded(FAST, tmp_path, 0.01) as (_, load):
        async with load.running():
            for _ in range(3):
                await load.more(20)
                await kill_valkey(tmp_path, load)
            await load.more(20)
        assert load.health == [(200, "ready", "ok"), *[(200, "ready", "degraded"), (200, "ready", "ok")] * 3]
        assert load.refusals <= {(503, "store_unavailable"), (503, "outcome_unknown")}
        await load.check()


@pytest.mark.timeout(600)
async def test_a_killed_engine_process_and_a_killed_valkey_lose_nothing(tmp_path: Path, model_path: Path) -> None:
    flags = ("--model", str(model_path), "--kv-cache-gb", "0.5", "--context", "4096", "--dtype", "float32")
    async with loaded(REAL, tmp_path, 0.3, *flags, "--wait-seconds-max", "300") as (server, load):
        async with load.running():
            await load.more(20)
            (core,) = [
                child
                for child in psutil.Process(server.process.pid).children(recursive=True)
                if "EngineCore" in child.name()
            ]
            core.kill()
            killed = time.monotonic()
            await load.until(lambda: load.health[-1] == (503, "restarting", "ok"))
            await load.until(lambda: load.health[-1] == (200, "ready", "ok"))
            print(f"\nthe engine was back after {time.monotonic() - killed:.1f} s")
            await load.more(20)
            await kill_valkey(tmp_path, load)
            await load.more(20)
        assert load.health == [
            (200, "ready", "ok"),
            (503, "restarting", "ok"),
            (200, "ready", "ok"),
            (200, "ready", "degraded"),
            (200, "ready", "ok"),
        ]
        assert load.refusals <= {(503, "store_unavailable"), (503, "outcome_unknown")}
        await load.check()
        _, before = await load.reply("GET", "/v1/sessions/s/flash?wait=30")
        assert before["data"][0]["fresh"]
        server.kill()
        await answers_while_loading(before, tmp_path, *flags)


async def answers_while_loading(before: dict[str, Any], data_dir: Path, *flags: str) -> None:
    """A server that was killed has its answers before its model, and its stream soon after."""
    began = time.monotonic()
    server = Server((*REAL, "--port", "0", "--data-dir", str(data_dir), *flags), {})
    try:
        while not server.url:
            await asyncio.sleep(0.02)
        async with aiohttp.ClientSession(server.url) as http, asyncio.timeout(READY_SECONDS):
            load = Load(http, 0)
            found = before["data"][0], before["data_version"]
            while (answer := await load.reply("GET", "/v1/sessions/s/flash"))[0] != 200:
                await asyncio.sleep(0.02)
            assert (answer[1]["data"][0], answer[1]["data_version"]) == found
            print(f"answers are served after {time.monotonic() - began:.1f} s")
            status, health = await load.reply("GET", "/health")
            assert (status, health["engine"]) == (503, "loading")
            await asyncio.to_thread(server.wait_ready, READY_SECONDS)
            print(f"the model is there after {time.monotonic() - began:.1f} s")
            while (await load.reply("GET", "/v1/sessions/s"))[1]["residency"] != "resident":
                await asyncio.sleep(0.1)
            print(f"the stream is resident after {time.monotonic() - began:.1f} s")
            assert (await load.reply("GET", "/v1/sessions/s/flash"))[1]["data"][0] == found[0]
        assert await asyncio.to_thread(server.stop) == 0
    finally:
        if server.process.poll() is None:
            server.kill()
