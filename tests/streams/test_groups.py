"""Streams of models whose layers keep different things: no more are held than the KV cache has blocks for.

The engine of these tests fails where a real one would block everything.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.fast import FastEngine
from tests.streams.kit import SECONDS, at_rest, managing, settled, until

LINES = [f"reading {number:03d}" for number in range(20)]


async def resident(engine: FastEngine, streams: int) -> int:
    """How many streams are held at the end, of so many that were all read."""
    async with asyncio.timeout(SECONDS), managing(engine) as manager:
        sessions = [await manager.create(f"s{number}") for number in range(streams)]
        for session in sessions:
            await manager.push(session, LINES)
            await settled(session)
            await until(lambda: at_rest(manager))
            held = sum(manager.budget.ranks[0].share(len(hold.content)) for hold in engine.holds)
            assert held == manager.budget.granted <= manager.budget.limit
        assert [session.failure for session in sessions] == [None] * streams
        return len(engine.holds)


async def test_groups_of_layers_take_blocks_each() -> None:
    """Two groups see the end of a stream and one all of it: a short stream takes three times its blocks."""
    pool = {"context": 512, "block_size": 16, "kv_capacity": 160 * 16}
    one = await resident(FastEngine(**pool), 12)
    grouped = await resident(FastEngine(**pool, bounds=(8, 8, None)), 12)
    assert 0 < grouped < one


async def test_a_state_takes_the_same_whatever_the_stream_has() -> None:
    # Thirty blocks hold ten states, one of which a question may need.
    assert await resident(FastEngine(context=4096, kv_capacity=30 * 16, bounds=(), states=3), 12) == 9


@pytest.mark.parametrize("windows", [1, 4])
async def test_a_stream_may_be_longer_than_the_cache_where_windows_bound_it(windows: int) -> None:
    engine = FastEngine(context=4096, kv_capacity=(2 * windows * 8 + 1) * 16, bounds=(8,) * windows)
    async with asyncio.timeout(SECONDS), managing(engine) as manager:
        session = await manager.create("s")
        for _ in range(8):
            await manager.push(session, LINES)
            await settled(session)
        assert session.tokens > engine.facts.kv_capacity
        assert session.residency == "resident"
