"""Waiting for what must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` to its end, and only then be cancelled. For work that has a bound of its own."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            # It may have been done in the same moment: that makes no difference to whoever cancels.
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        raise cancelled
    return task.result()
