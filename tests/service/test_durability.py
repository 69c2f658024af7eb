"""Pulling the plug: real server processes that are killed in the middle of everything."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.servers import FAST, Server

SECONDS = 30.0
"""Bound of every wait, far above what one takes."""

ROUNDS = 20
QUERIES = ["Rising?", "Falling?"]
LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)


@asynccontextmanager
async def started(data_dir: Path, *flags: str) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    """A server process and a client of it; the process is killed in the end, if it still runs."""
    server = Server((*FAST, "--port", "0", "--data-dir", str(data_dir), *flags), {})
    try:
        await asyncio.to_thread(server.wait_ready, SECONDS)
        async with aiohttp.ClientSession(server.url) as http:
            yield server, http
    finally:
        if server.process.poll() is None:
            server.kill()


async def reply(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with http.request(method, path, json=body) as response:
        found = await response.json()
        assert response.status == 200, found
        return found


class Producer:
    """Pushes numbered lines to one stream, and knows what was acknowledged.

    Attributes:
        sent: numbers of all lines ever sent, in order.
        acknowledged: those of which the server said that it has them.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.sent: list[int] = []
        self.acknowledged: set[int] = set()
        self._numbers = itertools.count()

    async def push(self, http: aiohttp.ClientSession) -> None:
        """Push until the server is gone."""
        while True:
            lines = [next(self._numbers) for _ in range(random.randint(1, 3))]
            self.sent += lines
            body = {"data": [f"{number:06d}" for number in lines]}
            with suppress(*LOST):
                await reply(http, "POST", f"/v1/sessions/{self.session_id}/push", body)
                self.acknowledged.update(lines)
                continue
            return

    async def check(self, http: aiohttp.ClientSession) -> int:
        """Everything acknowledged is there once and in order, and nothing is there that was not sent; the version."""
        found = await reply(http, "GET", f"/v1/sessions/{self.session_id}")
        text = (await reply(http, "GET", f"/v1/sessions/{self.session_id}/state"))["context_text"]
        there = [int(line) for line in text.split() if line.isdigit() and len(line) == 6]
        assert there == sorted(set(there)), "each once, in order"
        assert self.acknowledged <= set(there), "nothing acknowledged is lost"
        assert set(there) <= set(self.sent)
        # What was sent and not acknowledged is there or not; from now on that does not change.
        self.acknowledged = set(there)
        self.sent = there
        version: int = found["data_version"]
        return version


@pytest.mark.timeout(600)
async def test_sigkill_in_a_storm_of_pushes_loses_nothing_twenty_times(tmp_path: Path, record_property: Any) -> None:
    producers = [Producer("") for _ in range(3)]
    versions = [0] * len(producers)
    served: list[float] = []
    resident: list[float] = []
    for number in range(ROUNDS + 1):
        began = time.monotonic()
        async with started(tmp_path, "--context", "200000") as (server, http):
            if not number:
                for producer in producers:
                    body = {"type": "ohlcv", "flash": [{"query": query} for query in QUERIES]}
                    producer.session_id = (await reply(http, "POST", "/v1/sessions/init", body))["session_id"]
            for producer in producers:
                path = f"/v1/sessions/{producer.session_id}"
                listed = (await reply(http, "GET", f"{path}/flash"))["flash_queries"]
                assert [(query["id"], query["query"]) for query in listed] == list(enumerate(QUERIES, 1))
                if number:
                    assert all(query["value"] for query in listed), "answers are served at once"
                    served.append(time.monotonic() - began)
                    after = (await reply(http, "GET", f"{path}/stream/status"))["statistics"]
                    assert after["items_processed"] >= len(producer.acknowledged)
            for index, producer in enumerate(producers):
                async with asyncio.timeout(SECONDS):
                    while True:
                        found = await reply(http, "GET", f"/v1/sessions/{producer.session_id}")
                        if not found["pending"] and found["kv_tokens"] == found["tokens"]:
                            break
                        await asyncio.sleep(0.01)
                version = await producer.check(http)
                assert version >= versions[index], "versions never go down"
                versions[index] = version
            if number:
                resident.append(time.monotonic() - began)
            if number < ROUNDS:
                storm = [asyncio.create_task(producer.push(http)) for producer in producers]
                await asyncio.sleep(random.uniform(0.2, 0.6))
                server.kill()
                await asyncio.gather(*storm)
    lines = sum(len(producer.acknowledged) for producer in producers)
    print(f"\n{ROUNDS} kills, {lines} entries, from the start of the process:")
    for name, figures in (("answers are served", served), ("all streams are resident", resident)):
        print(f"  {name} after {sorted(figures)[len(figures) // 2]:.2f} s (median), {max(figures):.2f} s (longest)")
        record_property(name, max(figures))
