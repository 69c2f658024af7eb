"""The session socket: pushes in, acknowledgements and events out, as JSON text or msgpack binary frames."""

from __future__ import annotations

import asyncio
import logging
import time

import msgpack
import orjson
from aiohttp import WSMsgType, web

from flashquery.events import Event, Subscription, SubscriptionEnded
from service.api.sessions.protocol import SocketMessage
from service.bodies import parse
from service.core import CORE
from service.cors import origin_allowed
from service.delivery.feed import Feed
from service.errors import Forbidden, error_body
from service.keys import METRICS, SETTINGS
from streams.errors import AskaheadError, InvalidInput
from streams.session import Session

log = logging.getLogger(__name__)

_MSGPACK = "msgpack"
_PING = b"hb"


class Socket:
    """One client.

    The handler reads; a task of its own writes, so that a client that does not read cannot hold up its own pushes.
    Replies and events leave through one queue: an acknowledgement, queued before its data is read by the model, always
    precedes what that data causes.
    """

    def __init__(self, request: web.Request, session: Session, feed: Feed, queue: Subscription) -> None:
        settings = request.app[SETTINGS]
        self._request = request
        self._manager = request.app[CORE].manager
        self._metrics = request.app[METRICS]
        self._session = session
        self._feed = feed
        self._queue = queue
        self._heartbeat = settings.heartbeat_seconds
        self._patience = settings.ws_read_timeout_seconds
        self._ws = web.WebSocketResponse(
            protocols=(_MSGPACK,),
            # The limit is the largest frame that passes; the library refuses frames that reach its own.
            max_msg_size=settings.ws_frame_bytes + 1,
            receive_timeout=self._patience,
            timeout=1.0,
            autoclose=False,
        )

    async def run(self) -> web.WebSocketResponse:
        """Serve the client until it or the session leaves."""
        opening = await self._feed.opening()
        await self._ws.prepare(self._request)
        writer = asyncio.create_task(self._write(opening), name=f"socket-{self._session.id}")
        reader = asyncio.create_task(self._read(), name=f"socket-reader-{self._session.id}")
        try:
            await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, reader):
                task.cancel()
            results = await asyncio.gather(writer, reader, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                    log.error("socket of session %s failed", self._session.id, exc_info=result)
            await self._close()
        return self._ws

    async def _close(self) -> None:
        """An empty close frame, no status; the connection is not reused."""
        transport = self._request.transport
        if transport is not None and not transport.is_closing():
            try:
                async with asyncio.timeout(1.0):
                    await self._ws.send_frame(b"", WSMsgType.CLOSE)
            except (ConnectionError, TimeoutError):
                log.debug("socket of session %s was gone before it was closed", self._session.id)
            transport.close()

    # Out

    async def _write(self, opening: list[Event]) -> None:
        for first in opening:
            await self._send(first)
        ping_at = time.monotonic() + self._heartbeat
        while True:
            try:
                event = await self._feed.next(max(0.0, ping_at - time.monotonic()))
            except SubscriptionEnded:
                return
            if event is not None:
                await self._send(event)
            if time.monotonic() >= ping_at:
                await self._ws.ping(_PING)
                ping_at = time.monotonic() + self._heartbeat

    async def _send(self, event: Event) -> None:
        message = {"type": event.kind, "data": event.data}
        async with asyncio.timeout(self._patience):
            if self._ws.ws_protocol == _MSGPACK:
                await self._ws.send_bytes(msgpack.packb(message))
            else:
                await self._ws.send_str(orjson.dumps(message).decode())

    # In

    async def _read(self) -> None:
        binary = self._ws.ws_protocol == _MSGPACK
        expected = WSMsgType.BINARY if binary else WSMsgType.TEXT
        while True:
            try:
                frame = await self._ws.receive()
            except TimeoutError:
                return
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            try:
                if frame.type is not expected:
                    raise InvalidInput(
                        "this socket speaks msgpack in binary frames"
                        if binary
                        else "this socket speaks JSON in text frames; ask for the msgpack subprotocol to send binary"
                    )
                body = frame.data if binary else frame.data.encode()
                message = parse(body, "application/msgpack" if binary else "application/json", SocketMessage)
                if message.type == "close":
                    return
                await self._answer(message)
            except AskaheadError as error:
                status, _, _ = error_body(error, self._request.path)
                self._queue.offer(Event("error", {"message": error.message, "code": status}))

    async def _answer(self, message: SocketMessage) -> None:
        self._session.touch()
        if message.type == "ping":
            self._queue.offer(Event("pong", {}))
            return
        started = time.monotonic()
        ack = await self._manager.push(self._session, message.texts)
        self._metrics.push_ack.observe(time.monotonic() - started)
        data = {
            "pushed": ack.pushed,
            "dropped": ack.dropped,
            "pending": ack.pending,
            "total_pushed": ack.total_pushed,
            "total_dropped": ack.total_dropped,
            "data_version": ack.data_version,
        }
        self._queue.offer(Event("push_ack", data))


async def serve_socket(request: web.Request, session: Session) -> web.WebSocketResponse:
    """Upgrade and serve; refusals happen before the upgrade, as plain HTTP.

    Raises:
        Forbidden: a browser's page of another origin, which is not allowed.
        InvalidInput: not an upgrade request.
    """
    if not origin_allowed(request, request.app[SETTINGS].cors_origins):
        raise Forbidden(
            "pages of this origin may not open sockets here; allow it with --cors-origins", code="origin_not_allowed"
        )
    if not web.WebSocketResponse().can_prepare(request):
        raise InvalidInput("this path is a websocket; send an upgrade request", param="upgrade")
    flash = request.app[CORE].flash
    with session.pinned(), flash.hub.subscribe(session.id) as subscription:
        return await Socket(request, session, Feed(flash, session, subscription), subscription).run()
