"""Subscribers that never read, of a real server process: dropped with a reason, and they hold no memory."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from redis.asyncio import Redis

from flashquery.eventlog import EventLog
from flashquery.events import Event
from streams.journal import Command
from tests.apps import until
from tests.flashquery.kit import run
from tests.servers import FAST, serving
from tests.service.delivery.frames import UPGRADE

EVENTS = 200_000
AT_ONCE = 5_000
MIB = 2**20
PATHS = ("/v1/sessions/s/events", "/v1/sessions/s/ws", "/v1/events?prefix=")
DROPPED = re.compile(r"request (req_\w+) (?:were ended \(lagging\)|was cut off: its client does not read)")


def subscribe(url: str, path: str) -> socket.socket:
    """A client that has been answered, and reads nothing from then on."""
    address = urlsplit(url)
    assert address.hostname is not None
    deaf = socket.create_connection((address.hostname, address.port or 80), timeout=10)
    headers = {"Host": "x", **(UPGRADE if path.endswith("/ws") else {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    deaf.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    assert re.match(rb"HTTP/1.1 (200|101) ", deaf.recv(64))
    return deaf


async def publish(redis: Redis, log: EventLog, number: int) -> None:
    """Publish events, and wait until every listener has taken them."""
    commands: list[Command] = []
    for version in range(1, number + 1):
        data = {"data_version": version, "tokens": version * 10, "entries": version, "pending": 0, "x": "x" * 100}
        commands += log.publish("s", Event("data_updated", data))
    await run(redis, commands)
    async with asyncio.timeout(60):
        while any(int(client["omem"]) for client in await redis.client_list(_type="pubsub")):
            await asyncio.sleep(0.01)


# The listener takes several thousand events a second, on a machine of its own.
@pytest.mark.timeout(600)
async def test_subscribers_that_never_read_are_dropped_and_hold_no_memory(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    flags = ("--redis-url", redis_url, "--ws-read-timeout-seconds", "5")
    with serving(FAST, tmp_path, *flags) as server:
        process = psutil.Process(server.process.pid)
        httpx.post(f"{server.url}/v1/sessions", json={"id": "s"}).raise_for_status()
        log = EventLog(redis, 1000)
        await publish(redis, log, AT_ONCE)
        deaf = [subscribe(server.url, path) for path in PATHS]
        before = most = process.memory_info().rss
        for _ in range(EVENTS // AT_ONCE):
            await publish(redis, log, AT_ONCE)
            most = max(most, process.memory_info().rss)
        await until(lambda: len({found[1] for line in server.lines if (found := DROPPED.search(line))}) == len(PATHS))
        for one in deaf:
            one.close()
        assert (most - before) / MIB < 100
        httpx.delete(f"{server.url}/v1/sessions/s").raise_for_status()
