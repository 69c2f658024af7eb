"""An event stream as it is on the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson

Named = tuple[str, dict[str, Any]]


def parse(frame: bytes) -> Named:
    """A frame must be exactly an `id: ` line, if any, an `event: ` line, a `data: ` line and a blank one."""
    return parse_with_id(frame)[1]


def parse_with_id(frame: bytes) -> tuple[str, Named]:
    """The same with the id, empty if there is none."""
    position = ""
    if frame.startswith(b"id: "):
        first, _, frame = frame.partition(b"\n")
        position = first[4:].decode()
    event, data, *rest = frame.split(b"\n")
    assert rest == [b"", b""]
    assert event.startswith(b"event: ")
    assert data.startswith(b"data: ")
    return position, (event[7:].decode(), orjson.loads(data[6:]))


async def read(response: aiohttp.ClientResponse) -> Named:
    """The next event."""
    async with asyncio.timeout(10):
        return parse(await response.content.readuntil(b"\n\n"))


async def read_with_id(response: aiohttp.ClientResponse) -> tuple[str, Named]:
    """The next event with its id."""
    async with asyncio.timeout(10):
        return parse_with_id(await response.content.readuntil(b"\n\n"))
