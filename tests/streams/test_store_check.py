from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from streams.store import connect
from streams.store_check import warn_of_loss
from tests import valkeys

FULL = ("--maxmemory", "100mb")
LOGGED = ("--appendonly", "yes")


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (LOGGED, []),
        ((*LOGGED, "--maxmemory-policy", "allkeys-lru"), []),
        ((*LOGGED, *FULL, "--maxmemory-policy", "noeviction"), []),
        ((*LOGGED, *FULL, "--maxmemory-policy", "volatile-lru"), ["drops keys when its memory is full"]),
        ((), ["loses everything when it restarts: set appendonly yes"]),
        (("--save", "60 1"), ["loses what came after its last snapshot (save 60 1) when it restarts"]),
        ((*FULL, "--maxmemory-policy", "allkeys-lru"), ["maxmemory-policy allkeys-lru", "loses everything"]),
        # Managed services keep data in ways of their own, and say nothing of them.
        (("--rename-command", "CONFIG", ""), []),
    ],
)
async def test_what_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...], warnings: list[str]
) -> None:
    async with valkeys.valkey(tmp_path, *options) as server, connect(server.url) as client:
        await warn_of_loss(client)
    messages = [record.getMessage() for record in caplog.records if record.name == "streams.store_check"]
    assert len(messages) == len(warnings)
    assert all(warning in message for warning, message in zip(warnings, messages, strict=True))


async def test_a_cluster_can_be_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with valkeys.cluster(tmp_path) as nodes, connect(f"redis+cluster://{nodes[0].node}") as client:
        await warn_of_loss(client)
    assert "loses everything when it restarts" in caplog.text


async def test_the_embedded_one_gives_no_reason(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await warn_of_loss(redis)
    assert not caplog.records


async def test_one_that_is_away_is_no_error_here(caplog: pytest.LogCaptureFixture) -> None:
    async with connect(f"redis://{valkeys.HOST}:1") as client:
        await warn_of_loss(client)
    assert not caplog.records
