"""The application on every arrangement of Redis, and through the failures of each."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from flashquery import answers, keys
from flashquery.events import Subscription
from service.keys import REDIS
from tests import apps, valkeys
from tests.apps import call, core, ok, settled
from tests.valkeys import HOST

SESSION = "/v1/sessions/s"


@pytest.fixture(params=["single", "tls", "sentinel", "cluster"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        match request.param:
            case "single":
                yield (await stack.enter_async_context(valkeys.valkey(tmp_path))).url
            case "tls":
                server = await stack.enter_async_context(valkeys.valkey(tmp_path))
                context, trusted = valkeys.certificate(tmp_path)
                relay = await stack.enter_async_context(valkeys.relay(server.port, context))
                yield f"rediss://{HOST}:{relay.port}?ssl_ca_certs={trusted}"
            case "sentinel":
                watcher, _, _ = await stack.enter_async_context(valkeys.replicated(tmp_path))
                yield f"redis+sentinel://{watcher.node}/main"
            case _:
                nodes = await stack.enter_async_context(valkeys.cluster(tmp_path))
                yield f"redis+cluster://{nodes[0].node}"


async def _push(client: apps.Client) -> int:
    """Push to the session; the version with it."""
    await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
    await settled(client, "s")
    return core(client).manager.get("s").version


async def _stored(client: apps.Client, version: int) -> None:
    """Wait until Redis has the answer to a version."""

    async def there() -> bool:
        return {answer.version for answer in (await answers.read(client.app[REDIS], "s")).values()} == {version}

    await valkeys.until(there)


async def _health(client: apps.Client, store: str) -> None:
    """Wait until the store is said to be so."""
    async with asyncio.timeout(valkeys.SECONDS):
        while (await call(client, "GET", "/health"))[1]["store"] != store:
            await asyncio.sleep(0.02)


async def _heard(events: Subscription) -> int:
    """The version of the next answer that is announced."""
    while True:
        event = await events.next(valkeys.SECONDS)
        assert event is not None
        if event.kind == "flash_ready":
            version: int = event.data["data_version"]
            return version


async def _works(client: apps.Client) -> None:
    """An answer comes through, into Redis and to who listens."""
    with core(client).hub.subscribe("s") as events:
        version = await _push(client)
        # After a failover the one before may be announced once more, now that it can be.
        while (heard := await _heard(events)) < version:
            pass
        assert heard == version
    await _stored(client, version)


async def test_answers_and_events_on(url: str, tmp_path: Path) -> None:
    async with apps.serving(None, tmp_path / "data", redis_url=url) as client:
        await _health(client, "ok")
        for session_id in ("r", "s"):
            await ok(client, "POST", "/v1/sessions", {"id": session_id})
            await ok(client, "POST", f"/v1/sessions/{session_id}/flash", {"query": "trend?"})
        await _works(client)
        await _works(client)
        history = await ok(client, "GET", f"{SESSION}/flash/1/history")
        assert [answer["data_version"] for answer in history["data"]] == [1, 2]
        await ok(client, "DELETE", SESSION)
        assert await core(client).journal.flush(valkeys.SECONDS)
        assert await answers.read(client.app[REDIS], "s") == {}


async def _subscribed_again(client: apps.Client, log: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(valkeys.SECONDS):
        while "listening for events again" not in log.text:
            await asyncio.sleep(0.02)


async def test_the_death_of_a_master(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flashquery.events")
    async with valkeys.replicated(tmp_path) as (watcher, master, _):
        url = f"redis+sentinel://{watcher.node}/main"
        async with apps.serving(None, tmp_path / "data", redis_url=url) as client:
            await ok(client, "POST", "/v1/sessions", {"id": "s"})
            await ok(client, "POST", f"{SESSION}/flash", {"query": "trend?"})
            await _works(client)
            await master.kill()
            version = await _push(client)
            await _stored(client, version)
            await _subscribed_again(client, caplog)
            await _works(client)
            await _health(client, "ok")


async def test_the_death_of_a_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The one that events come through."""
    caplog.set_level("INFO", "flashquery.events")
    async with valkeys.cluster(tmp_path, replica_of=0) as nodes:
        assert await nodes[0].call("CLUSTER KEYSLOT", keys.EVENTS_PATTERN) < valkeys.SLOTS // 3
        url = f"redis+cluster://{nodes[1].node}"
        async with apps.serving(None, tmp_path / "data", redis_url=url) as client:
            await ok(client, "POST", "/v1/sessions", {"id": "s"})
            await ok(client, "POST", f"{SESSION}/flash", {"query": "trend?"})
            await _works(client)
            await nodes[0].kill()
            version = await _push(client)
            await _stored(client, version)
            await _subscribed_again(client, caplog)
            await _works(client)
            await _health(client, "ok")


async def test_the_death_of_the_embedded_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flashquery.events")
    async with apps.serving(None, tmp_path) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        await ok(client, "POST", f"{SESSION}/flash", {"query": "trend?"})
        await _works(client)
        assert await client.app[REDIS].set("before", "kept")
        # While its files are away it cannot be started again.
        files, aside = tmp_path / "valkey" / "appendonlydir", tmp_path / "aside"
        files.rename(aside)
        files.touch()
        os.kill(int((tmp_path / "valkey" / "valkey.pid").read_text()), signal.SIGKILL)
        await _health(client, "degraded")
        # What is pushed meanwhile is acknowledged once it can be written.
        pushing = asyncio.create_task(_push(client))
        files.unlink()
        aside.rename(files)
        await _health(client, "ok")
        version = await pushing
        assert await client.app[REDIS].get("before") == b"kept"
        await _stored(client, version)
        await _subscribed_again(client, caplog)
        await _works(client)
