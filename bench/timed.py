"""POST, timed where the answer arrives: what a client makes of it afterwards is the client's own affair."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

_SECONDS = 600.0
_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class Arrived:
    """An answer as it came.

    Attributes:
        status: of HTTP.
        pieces: of its body, each with the seconds from the request to its arrival.
        whole: seconds until all of it was there.
    """

    status: int
    pieces: list[tuple[float, bytes]]
    whole: float


class Connection:
    """One to a server, kept alive where the server does.

    Args:
        url: of the server; plain HTTP.
        keep: False where the server ends it after an answer, whatever it says.
    """

    def __init__(self, url: str, *, keep: bool = True) -> None:
        self._host = urlsplit(url).netloc
        self._keep = keep
        self._state = h11.Connection(h11.CLIENT)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> Arrived:
        """Ask, and take down what comes and when.

        Raises:
            RuntimeError: the connection ended before the answer did.
            OSError: there is none, or it broke.
            TimeoutError: that took ten minutes.
        """
        async with asyncio.timeout(_SECONDS):
            reader, writer = await self._connected()
            named = {
                "host": self._host,
                "content-type": "application/json",
                "content-length": str(len(body)),
                **headers,
            }
            request = self._state.send(h11.Request(method="POST", target=path, headers=list(named.items()))) or b""
            data = self._state.send(h11.Data(data=body)) or b""
            self._state.send(h11.EndOfMessage())
            started = time.perf_counter()
            writer.write(request + data)
            try:
                return await self._read(reader, started)
            except h11.RemoteProtocolError as exc:
                raise RuntimeError(f"{self._host}{path}: {exc}") from exc

    async def _read(self, reader: asyncio.StreamReader, started: float) -> Arrived:
        status, pieces = 0, []
        while True:
            arrived = await reader.read(_SIZE)
            passed = time.perf_counter() - started
            self._state.receive_data(arrived)
            while (event := self._state.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    pieces.append((passed, bytes(event.data)))
                elif isinstance(event, h11.EndOfMessage):
                    return Arrived(status, pieces, passed)
                elif isinstance(event, h11.ConnectionClosed):
                    raise h11.RemoteProtocolError("the connection was closed before it was answered")

    async def close(self) -> None:
        """End it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reusable = self._state.our_state is h11.DONE and self._state.their_state is h11.DONE and self._keep
        if self._streams is None or not reusable or self._streams[0].at_eof():
            await self.close()
            host, _, port = self._host.partition(":")
            self._streams = await asyncio.open_connection(host, int(port))
            self._state = h11.Connection(h11.CLIENT)
        else:
            self._state.start_next_cycle()
        return self._streams
