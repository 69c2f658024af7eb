"""Work that is not interrupted."""

from __future__ import annotations

import asyncio

import pytest

from streams.waiting import uninterrupted


async def test_it_returns_and_raises_what_the_work_does() -> None:
    async def work(fail: bool) -> int:
        await asyncio.sleep(0)
        if fail:
            raise ValueError("no")
        return 7

    assert await uninterrupted(work(False)) == 7
    with pytest.raises(ValueError, match="no"):
        await uninterrupted(work(True))


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("cancels", [1, 3])
async def test_whoever_cancels_waits_and_the_cancellation_is_never_lost(ticks: int, cancels: int) -> None:
    steps: list[str] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        steps.append("done")

    async def worker() -> None:
        steps.append("began")
        await uninterrupted(work())
        steps.append("went on")
        await asyncio.Event().wait()

    task = asyncio.create_task(worker())
    for _ in range(ticks):
        await asyncio.sleep(0)
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert steps in ([], ["began", "done"], ["began", "done", "went on"])


async def test_work_that_is_cancelled_itself_is_over() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await uninterrupted(work())
