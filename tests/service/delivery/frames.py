"""A websocket client that shows every frame as it is on the wire."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests import apps

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
"""Headers of a handshake."""


class Raw:
    """The client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.socket = writer.get_extra_info("socket")

    async def send(self, *frames: tuple[int, bytes], fin: bool = True) -> None:
        """Send frames in one piece."""
        self._writer.write(b"".join(header(opcode, len(payload), fin) + payload for opcode, payload in frames))
        await self._writer.drain()

    async def send_header(self, opcode: int, length: int) -> None:
        """Begin a frame."""
        self._writer.write(header(opcode, length))
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes] | None:
        """Opcode and payload of the next frame; None at the end of the connection."""
        async with asyncio.timeout(10):
            try:
                first, second = await self._reader.readexactly(2)
                assert first & 0xF0 == 0x80, "the server does not split frames, nor use reserved bits"
                assert not second & 0x80, "a server does not mask"
                length = second
                if length == 126:
                    (length,) = struct.unpack("!H", await self._reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
                return first & 0x0F, await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return None

    async def rest(self) -> list[tuple[int, bytes]]:
        """All further frames; a close frame is answered."""
        frames = []
        while (frame := await self.receive()) is not None:
            frames.append(frame)
            if frame[0] == CLOSE:
                await self.send((CLOSE, b""))
        return frames


def header(opcode: int, length: int, fin: bool = True) -> bytes:
    """The start of a client's frame; its mask is zeros, which leave the payload as it is."""
    first = opcode | (0x80 if fin else 0)
    if length < 126:
        size = struct.pack("!BB", first, 0x80 | length)
    elif length < 2**16:
        size = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        size = struct.pack("!BBQ", first, 0x80 | 127, length)
    return size + bytes(4)


@asynccontextmanager
async def raw(client: apps.Client, path: str) -> AsyncIterator[Raw]:
    """A client whose handshake has succeeded."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        yield Raw(reader, writer)
    finally:
        writer.close()
