"""Two server processes on one Valkey: each answers for all sessions, and one that dies is replaced by the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest
from redis.asyncio import Redis

from flashquery import keys
from streams import keys as stream_keys
from tests.servers import FAST, Server

SECONDS = 30.0
"""Bound of every wait, far above what one takes."""

TAKEOVER = 4.0
QUERIES = ("Rising?", "Falling?")


class Replica:
    """A server process and a client of it."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request that must succeed."""
        status, found = await self.call(method, path, body)
        assert status == 200, found
        return found

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, path, json=body) as response:
            return response.status, await response.json()


@asynccontextmanager
async def replica(redis_url: str, data_dir: Path) -> AsyncIterator[Replica]:
    flags = ("--redis-url", redis_url, "--takeover-seconds", str(TAKEOVER))
    server = Server((*FAST, "--port", "0", "--data-dir", str(data_dir), *flags), {})
    try:
        await asyncio.to_thread(server.wait_ready, SECONDS)
        async with aiohttp.ClientSession(server.url) as http:
            yield Replica(server, http)
    finally:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
async def pair(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """The owner of a session ``s`` with two queries, and another."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(replica(redis_url, tmp_path / "one"))
        other = await stack.enter_async_context(replica(redis_url, tmp_path / "other"))
        await one.ok("POST", "/v1/sessions", {"id": "s", "flash": [{"query": query} for query in QUERIES]})
        yield one, other


async def push(replica: Replica, text: str) -> int:
    """Push through a replica and wait until it is read; the version."""
    ack = await replica.ok("POST", "/v1/sessions/s/push", {"data": text})
    await replica.ok("GET", f"/v1/sessions/s/flash?after={ack['total_pushed']}")
    version: int = (await replica.ok("GET", "/v1/sessions/s"))["data_version"]
    return version


async def test_any_replica_answers_for_all_sessions(pair: tuple[Replica, Replica]) -> None:
    owner, other = pair
    assert await push(other, "price 1") == 1
    answers = await owner.ok("GET", "/v1/sessions/s/flash?wait=10")
    assert await other.ok("GET", "/v1/sessions/s/flash") == answers
    assert await other.ok("GET", "/v1/sessions/s/flash/1") == answers["data"][0]
    assert (await other.ok("GET", "/v1/sessions/s/flash/1/history"))["data"]
    asked = {"prompt": "Now?", "max_tokens": 4, "temperature": 0}
    assert (await other.ok("POST", "/v1/sessions/s/generate", asked))["text"] == (
        await owner.ok("POST", "/v1/sessions/s/generate", asked)
    )["text"]
    async with other.http.post("/v1/sessions/s/push", json={"data": "packed"}, compress="gzip") as response:
        assert (response.status, (await response.json())["total_pushed"]) == (200, 2)
    async with asyncio.timeout(SECONDS):
        while [one["id"] for one in (await other.ok("GET", "/v1/sessions"))["data"]] != ["s"]:
            await asyncio.sleep(0.05)
    status, refused = await other.call("POST", "/v1/sessions", {"id": "s"})
    assert (status, refused["error"]["code"]) == (409, "session_exists")
    registered = await other.ok("POST", "/v1/sessions/s/flash", {"query": "Why?"})
    assert registered["id"] == 3
    assert await other.ok("DELETE", "/v1/sessions/s/flash/3") == {
        "id": 3,
        "object": "flash_query.deleted",
        "deleted": True,
        "remaining": 2,
    }
    status, missing = await other.call("GET", "/v1/sessions/none/flash")
    assert (status, missing["error"]["code"]) == (404, "session_not_found")
    await other.ok("DELETE", "/v1/sessions/s")
    for replica_ in pair:
        status, missing = await replica_.call("GET", "/v1/sessions/s/flash")
        assert (status, missing["error"]["code"]) == (404, "session_not_found")


async def test_a_socket_to_any_replica_pushes_and_hears(pair: tuple[Replica, Replica]) -> None:
    _, other = pair
    async with other.http.ws_connect("/v1/sessions/s/ws") as socket:
        assert (await socket.receive_json(timeout=SECONDS))["type"] == "connected"
        await socket.send_json({"type": "push", "data": "price 1"})
        heard: list[str] = []
        while heard.count("flash_ready") < len(QUERIES):
            heard.append((await socket.receive_json(timeout=SECONDS))["type"])
        assert sorted(heard) == ["data_updated", *["flash_ready"] * len(QUERIES), "push_ack"]
        await socket.send_json({"type": "push", "data": ["x" * 2_000_000]})
        refused = await socket.receive_json(timeout=SECONDS)
        assert (refused["type"], refused["data"]["code"]) == ("error", 400)


async def listen(replica: Replica, after: str, heard: list[tuple[str, str]], connected: asyncio.Event) -> None:
    """Note the id and the kind of each event until the connection ends."""
    headers = {"Last-Event-ID": after} if after else {}
    async with replica.http.get(
        "/v1/sessions/s/events", headers=headers, timeout=aiohttp.ClientTimeout(None)
    ) as stream:
        assert stream.status == 200
        try:
            while True:
                frame = (await stream.content.readuntil(b"\n\n")).decode()
                fields = dict(line.split(": ", 1) for line in frame.strip().splitlines() if not line.startswith(":"))
                if fields.get("event") == "connected":
                    connected.set()
                elif "id" in fields:
                    ms, _, seq = fields["id"].partition(":s.")
                    heard.append((f"{ms}-{seq}", fields["event"]))
        except (aiohttp.ClientError, asyncio.IncompleteReadError):
            return


async def told(redis: Redis) -> list[tuple[str, str]]:
    """Position and kind of all that was ever told to subscribers, oldest first."""
    entries = await redis.xrange(keys.event_log("s"))
    events = [(at.decode(), msgpack.unpackb(fields[b"event"])[0]) for at, fields in entries]
    return [(at, kind) for at, kind in events if kind != "created"]


async def test_a_dead_owner_s_streams_have_another_and_its_listener_misses_nothing(
    pair: tuple[Replica, Replica], redis: Redis
) -> None:
    owner, survivor = pair
    heard: list[tuple[str, str]] = []
    connected = asyncio.Event()
    listening = asyncio.create_task(listen(owner, "", heard, connected))
    await connected.wait()
    versions = [await push(owner, f"price {number}") for number in range(1, 6)]
    stop = asyncio.Event()
    acknowledged: list[str] = []

    async def storm() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            text = f"storm {number:04d}"
            try:
                await owner.ok("POST", "/v1/sessions/s/push", {"data": text})
            except aiohttp.ClientError:
                return
            acknowledged.append(text)

    pushing = asyncio.create_task(storm())
    await asyncio.sleep(0.5)
    killed = time.monotonic()
    owner.server.kill()
    await asyncio.gather(pushing, listening)
    # Cached answers never stop.
    assert all(query["value"] for query in (await survivor.ok("GET", "/v1/sessions/s/flash"))["data"])
    resumed = asyncio.create_task(listen(survivor, heard[-1][0].replace("-", ":s."), heard, connected))
    while True:
        status, found = await survivor.call("GET", "/v1/sessions/s")
        if status == 200:
            break
        assert (status, found["error"]["code"]) in {(503, "owner_unavailable"), (503, "session_moving")}
        await asyncio.sleep(0.02)
    taken = time.monotonic() - killed
    print(f"\nadopted after {taken:.2f} s of {TAKEOVER:g}")
    assert taken < TAKEOVER
    assert found["data_version"] >= versions[-1]
    last = await push(survivor, "after")
    async with asyncio.timeout(SECONDS):
        answers: list[dict[str, Any]] = []
        while not answers or not all(query["fresh"] for query in answers):
            answers = (await survivor.ok("GET", "/v1/sessions/s/flash?wait=10"))["data"]
        while heard[-1] != (await told(redis))[-1]:
            await asyncio.sleep(0.02)
    resumed.cancel()
    await asyncio.gather(resumed, return_exceptions=True)
    assert heard == await told(redis), "each once, in order"
    assert [kind for _, kind in heard].count("data_updated") == last, "every version"
    text = (await survivor.ok("GET", "/v1/sessions/s/stats"))["count"]
    assert text >= len(versions) + len(acknowledged) + 1


async def test_a_server_that_is_stopped_leaves_its_streams_to_others_at_once(
    pair: tuple[Replica, Replica], redis: Redis
) -> None:
    owner, other = pair
    ack = await owner.ok("POST", "/v1/sessions/s/push", {"data": [f"price {number}" for number in range(50)]})
    async with owner.http.ws_connect("/v1/sessions/s/ws") as socket:
        assert (await socket.receive_json(timeout=SECONDS))["type"] == "connected"
        stopping = asyncio.create_task(asyncio.to_thread(owner.server.stop))
        while (message := await socket.receive(timeout=SECONDS)).type is aiohttp.WSMsgType.TEXT:
            continue
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
    assert await stopping == 0
    holder = await redis.get(stream_keys.owner("s"))
    assert holder is None or holder.decode().split(" ")[1] == other.server.url
    async with asyncio.timeout(SECONDS):
        while (await other.call("GET", "/v1/sessions/s"))[0] != 200:
            await asyncio.sleep(0.02)
    found = await other.ok("GET", f"/v1/sessions/s/flash?after={ack['total_pushed']}")
    assert found["data_version"] >= 1
