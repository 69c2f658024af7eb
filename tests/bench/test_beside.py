"""What goes on beside a measurement ends with it, and does not fail unheard."""

from __future__ import annotations

import asyncio

import pytest

from bench.beside import beside


async def test_it_goes_on_inside_and_is_over_afterwards() -> None:
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async with beside(work(), 0.0):
        before = rounds
        await asyncio.sleep(0.01)
        assert rounds > before
    seen = rounds
    await asyncio.sleep(0.01)
    assert rounds == seen


async def test_its_failure_is_raised_at_the_end() -> None:
    async def work() -> None:
        raise ValueError("broken")

    reached = False

    async def measure() -> None:
        nonlocal reached
        async with beside(work(), 0.0):
            await asyncio.sleep(0.01)
            reached = True

    with pytest.raises(ValueError, match="broken"):
        await measure()
    assert reached
