"""A receiver of webhooks: a real server that answers as it is told and keeps what it was sent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from flashquery.notify import key_of


class Receiver:
    """Use :func:`receiving`.

    Attributes:
        url: where it listens.
        sent: headers and body of every request, in order.
        answers: status and headers of the next responses; 204 when they are used up.
        open: while cleared, requests are kept waiting.
        waiting: requests being kept waiting.
    """

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[tuple[CIMultiDict[str], bytes]] = []
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.sent.append((request.headers.copy(), await request.read()))
        status, headers = self.answers.popleft() if self.answers else (204, {})
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        return web.Response(status=status, headers=headers)

    @property
    def data(self) -> list[dict[str, Any]]:
        """The data of every message."""
        return [json.loads(body)["data"] for _, body in self.sent]

    @property
    def values(self) -> list[str]:
        """The answers that it was told."""
        return [data["value"] for data in self.data]


def verified(secret: str, headers: CIMultiDict[str], body: bytes) -> bool:
    """Whether a request is signed with a secret."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    async with TestServer(app, handler_cancellation=True) as server:
        receiver.url = str(server.make_url("/hook"))
        yield receiver
        receiver.open.set()
