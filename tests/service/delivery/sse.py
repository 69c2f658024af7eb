"""An event stream as it is on the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson

Named = tuple[str, dict[str, Any]]


def parse(frame: bytes) -> Named:
    """A frame must be exactly an `event: ` line, a `data: ` line and a blank one."""
    event, data, *rest = frame.split(b"\n")
    assert rest == [b"", b""]
    assert event.startswith(b"event: ")
    assert data.startswith(b"data: ")
    return event[7:].decode(), orjson.loads(data[6:])


async def read(response: aiohttp.ClientResponse) -> Named:
    """The next event."""
    async with asyncio.timeout(10):
        return parse(await response.content.readuntil(b"\n\n"))
