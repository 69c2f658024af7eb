"""Messages of sockets, without the positions that they carry."""

from __future__ import annotations

from typing import Any

import msgpack
from aiohttp import ClientWebSocketResponse


def unplaced(message: dict[str, Any]) -> dict[str, Any]:
    """Without its ``id``."""
    return {name: value for name, value in message.items() if name != "id"}


async def receive(socket: ClientWebSocketResponse) -> dict[str, Any]:
    """The next JSON message."""
    return unplaced(await socket.receive_json(timeout=10))


async def receive_msgpack(socket: ClientWebSocketResponse) -> dict[str, Any]:
    """The next msgpack message."""
    return unplaced(msgpack.unpackb(await socket.receive_bytes(timeout=10)))
