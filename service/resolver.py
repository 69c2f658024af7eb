"""Name resolution for requests that the server makes itself, to hosts that clients choose."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_LOOKUPS_MAX = 32


class Resolver(AbstractResolver):
    """Asks the system, in threads of its own.

    A lookup cannot be interrupted and may take half a minute. In asyncio's own threads a few slow names would hold up
    everything else that needs one, and the end of the process, which does not wait for these.
    """

    def __init__(self) -> None:
        self._lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The host's addresses. Raises OSError."""
        if self._lookups >= _LOOKUPS_MAX:
            raise OSError("too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(addresses: list[Any] | None, error: Exception | None) -> None:
            self._lookups -= 1
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(addresses or [])

        def look_up() -> None:
            addresses, failure = None, None
            try:
                addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            except Exception as error:
                failure = error
            # The loop is closed if the process ends meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, addresses, failure)

        self._lookups += 1
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=0
            )
            for kind, _, protocol, _, address in await found
        ]

    async def close(self) -> None:
        """Nothing to close: what still runs ends by itself."""
