"""The connection to Redis over real servers: one, sentinels, a cluster; through failovers and TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from streams.store import connect, execute, in_time, listening
from tests import valkeys
from tests.valkeys import HOST

KINDS = ("single", "sentinel", "cluster")
SCRIPT = "redis.call('PUBLISH', KEYS[2], ARGV[1]) return redis.call('XADD', KEYS[1], '*', 'a', ARGV[1])"


@pytest_asyncio.fixture(scope="module", params=KINDS)
async def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    directory = tmp_path_factory.mktemp("redis")
    match request.param:
        case "single":
            async with valkeys.valkey(directory) as server:
                yield server.url
        case "sentinel":
            async with valkeys.replicated(directory) as (watcher, _, _):
                # The first does not answer.
                yield f"redis+sentinel://{HOST}:1,{watcher.node}/main"
        case _:
            async with valkeys.cluster(directory) as nodes:
                yield f"redis+cluster://{HOST}:1,{nodes[1].node}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[Redis]:
    async with connect(url) as client:
        await client.flushall()
        yield client


async def _sent(client: Redis, *commands: tuple[str | int | bytes, ...]) -> list[Any]:
    """The results of commands in one pipeline."""
    async with in_time(), client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return await execute(pipe)


async def _written(client: Redis, key: str, value: str) -> None:
    """Write until it is taken."""
    async with asyncio.timeout(valkeys.SECONDS):
        while True:
            with contextlib.suppress(RedisError, OSError):
                await _sent(client, ("SET", key, value))
                return
            await asyncio.sleep(0.05)


async def test_every_command_that_is_used(client: Redis) -> None:
    async with in_time():
        assert await client.ping()
        await client.sadd("set", "a", "b")
        assert await client.smembers("set") == {b"a", b"b"}
        assert await client.set("key", b"\xff", px=60_000)
        assert await client.get("key") == b"\xff"
        await client.zadd("sorted", {"a": 1, "b": 2})
        assert await client.zrangebyscore("sorted", "(1", "+inf", start=0, num=5) == [b"b"]
        await client.hset("hash", "field", "value")
        assert await client.hgetall("hash") == {b"field": b"value"}
        name = await client.xadd("stream", {"a": b"b"})
        assert await client.xrange("stream", "-", "+") == [(name, {b"a": b"b"})]
        assert {key async for key in client.scan_iter("s*")} == {b"set", b"sorted", b"stream"}


async def test_a_pipeline_spans_the_slots(client: Redis) -> None:
    sessions = range(20)
    async with in_time(), client.pipeline(transaction=False) as pipe:
        for number in sessions:
            pipe.hset(f"{{{number}}}:hash", "field", str(number))
            pipe.delete(f"{{{number}}}:nothing")
        results = await execute(pipe)
    assert results == [1, 0] * len(sessions)
    assert [await client.hget(f"{{{number}}}:hash", "field") for number in sessions] == [
        str(number).encode() for number in sessions
    ]


async def test_scripts_run_where_their_keys_are(client: Redis) -> None:
    sessions = range(20)
    sha = "0" * 40
    async with in_time(), client.pipeline(transaction=False) as pipe:
        for number in sessions:
            keys = (f"{{{number}}}:stream", f"{{{number}}}:events")
            pipe.execute_command("EVALSHA", sha, 2, *keys, "unknown")
            pipe.eval(SCRIPT, 2, *keys, "known")
        results = await execute(pipe)
    assert all(isinstance(result, NoScriptError) for result in results[::2])
    for number in sessions:
        assert [fields for _, fields in await client.xrange(f"{{{number}}}:stream")] == [{b"a": b"known"}]


async def test_what_is_refused_does_not_stop_the_rest(client: Redis) -> None:
    results = await _sent(client, ("SET", "{a}text", "x"), ("HGET", "{a}text", "field"), ("SET", "{a}more", "y"))
    assert isinstance(results.pop(1), ResponseError)
    assert results == [True, True]


async def test_every_listener_hears_everything(url: str, client: Redis) -> None:
    names = {f"events:{{{number}}}".encode() for number in range(20)}
    async with connect(url) as other, listening(client, "events:{*}") as one, listening(other, "events:{*}") as two:
        await _sent(client, *(("PUBLISH", name, b"\xff") for name in names))
        for listener in (one, two):
            heard = set()
            async with asyncio.timeout(valkeys.SECONDS):
                while heard != names:
                    message = await listener.get_message(timeout=1)
                    if message is not None and message["type"] == "pmessage":
                        assert message["data"] == b"\xff"
                        heard.add(message["channel"])


@pytest.mark.parametrize(
    "nowhere", [f"redis://{HOST}:1", f"redis+sentinel://{HOST}:1/main", f"redis+cluster://{HOST}:1"], ids=KINDS
)
async def test_what_is_not_there_is_away(nowhere: str) -> None:
    async with connect(nowhere) as client:
        with pytest.raises(RedisError):
            async with in_time():
                await client.get("key")
        with pytest.raises(RedisError):
            await _sent(client, ("GET", "key"))
        with pytest.raises(RedisError):
            async with listening(client, "*"):
                pass


async def test_writes_go_on_at_the_new_master(tmp_path: Path) -> None:
    async with valkeys.replicated(tmp_path) as (watcher, master, replica):
        async with connect(f"redis+sentinel://{watcher.node}/main") as client:
            await client.set("before", "1")
            await client.wait(1, 5000)
            await master.kill()
            await _written(client, "after", "2")
            assert [await client.get("before"), await client.get("after")] == [b"1", b"2"]
        assert await replica.call("GET", "after") == "2"
        assert (await replica.call("ROLE"))[0] == "master"


async def test_a_cluster_goes_on_without_a_master(tmp_path: Path) -> None:
    async with valkeys.cluster(tmp_path, replica_of=0) as nodes:
        # Slot 0 is the first's.
        key = "{06S}key"
        assert await nodes[0].call("CLUSTER KEYSLOT", key) == 0
        async with connect(f"redis+cluster://{nodes[1].node}") as client:
            await client.set(key, "1")
            await nodes[0].kill()
            await _written(client, key, "2")
            assert await client.get(key) == b"2"
            async with listening(client, "{06S}*") as listener:
                await client.publish("{06S}events", "x")
                async with asyncio.timeout(valkeys.SECONDS):
                    while (await listener.get_message(timeout=1) or {}).get("type") != "pmessage":
                        continue


async def test_part_of_a_cluster_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    async with valkeys.cluster(tmp_path) as nodes, connect(f"redis+cluster://{nodes[0].node}") as client:
        await client.ping()
        await nodes[2].kill()
        for _ in range(2):
            with pytest.raises(RedisError):
                await _sent(client, *(("SET", number, "x") for number in range(50)))


async def test_an_address_may_lead_to_another_master(tmp_path: Path) -> None:
    """As those of managed services do after a failover, while connections to the old one stay."""
    async with (
        valkeys.valkey(tmp_path / "old") as old,
        valkeys.valkey(tmp_path / "new") as new,
        valkeys.relay(old.port) as relay,
        connect(f"redis://{HOST}:{relay.port}") as client,
    ):
        await client.set("key", "1")
        relay.target = new.port
        await old.call("REPLICAOF", HOST, new.port)
        with pytest.raises(RedisConnectionError, match="read only"):
            await _sent(client, ("SET", "key", "2"))
        await _written(client, "key", "3")
        assert await new.call("GET", "key") == "3"


async def test_a_full_memory_is_no_refusal(tmp_path: Path) -> None:
    async with (
        valkeys.valkey(tmp_path, "--maxmemory", 1, "--maxmemory-policy", "noeviction") as server,
        connect(server.url) as client,
    ):
        with pytest.raises(RedisConnectionError, match="maxmemory"):
            await _sent(client, ("SET", "key", "x"))
        with pytest.raises(RedisConnectionError, match="maxmemory"):
            async with in_time():
                await client.set("key", "x")


async def test_tls(tmp_path: Path) -> None:
    """The server of the tests has none of its own."""
    context, trusted = valkeys.certificate(tmp_path)
    async with valkeys.valkey(tmp_path / "server") as server, valkeys.relay(server.port, context) as relay:
        address = f"rediss://{HOST}:{relay.port}"
        async with connect(f"{address}?ssl_ca_certs={trusted}") as client:
            await client.set("key", "value")
        assert await server.call("GET", "key") == "value"
        async with connect(address) as client:
            with pytest.raises(RedisConnectionError, match="certificate"):
                await client.get("key")


async def test_tls_to_sentinels_and_to_the_master(tmp_path: Path) -> None:
    context, trusted = valkeys.certificate(tmp_path)
    async with (
        valkeys.valkey(tmp_path / "server") as server,
        # As the master itself has no TLS, all there is to see is that it is spoken to in it.
        valkeys.relay(server.port) as master,
        valkeys.watching(tmp_path, master.port) as watcher,
        valkeys.relay(watcher.port, context) as secured,
        connect(f"rediss+sentinel://{HOST}:{secured.port}/main?ssl_ca_certs={trusted}") as client,
    ):
        with pytest.raises(RedisError):
            async with in_time():
                await client.get("key")
        assert b"\x16\x03\x01" in master.first
