"""What goes on while something else is measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], begun: float) -> AsyncIterator[None]:
    """Inside, ``work`` goes on. What it fails with is raised at the end, whenever it failed.

    Args:
        work: cancelled at the end.
        begun: seconds after which it is well under way.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.sleep(begun)
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
