"""Sockets: pushes in, acknowledgements and events out, as JSON text or msgpack binary frames."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Generic, TypeVar

import msgpack
import orjson
from aiohttp import WSMsgType, web
from redis.exceptions import RedisError

from flashquery.events import Event, SubscriptionEnded
from service.access.visible import visible, visible_id
from service.api.sessions.protocol import SocketMessage
from service.bodies import parse
from service.cors import origin_allowed
from service.delivery.feed import Feed, delivering
from service.delivery.resume import tell_lost
from service.errors import Forbidden, error_body, request_id
from service.keys import CLIENT, METRICS, SETTINGS
from service.peers import PEERS
from streams import tracing
from streams.context import SESSION
from streams.errors import AskaheadError, InvalidInput
from streams.intake import Item
from streams.pushing import Push

log = logging.getLogger(__name__)

_MSGPACK = "msgpack"
_PING = b"hb"
_ACKNOWLEDGED = ("pushed", "dropped", "pending", "total_pushed", "total_dropped", "data_version")
_MESSAGES = (WSMsgType.TEXT, WSMsgType.BINARY)
# What a client that misses events is closed with: try again later.
_GOING_AWAY = 1001
_TRY_AGAIN = 1013
# How long a client has to answer a close frame.
_CLOSE_SECONDS = 1.0
# Messages of one client whose replies may be outstanding: what comes is taken apart while what came is written.
_AHEAD = 16
# The feed's end, the client's, a client that does not read, and a store that does not answer.
_ENDINGS = (SubscriptionEnded, ConnectionError, TimeoutError, RedisError)

M = TypeVar("M", bound=SocketMessage)

_Reply = Event | Callable[[], Awaitable[Event]]


class Socket(Generic[M]):
    """One client.

    One task reads, one waits for what is read to be written to the log, and one sends, so that a client that does not
    read cannot hold up its own pushes. Replies come in the order of the messages. Replies and events leave through one
    queue: an acknowledgement, queued before its data is read by the model, always precedes what that data causes.

    Args:
        request: asks for the upgrade.
        feed: what the client hears, open.
        model: what it says.
        target: id of the session that a message is about, empty where it is about none.
    """

    def __init__(self, request: web.Request, feed: Feed, model: type[M], target: Callable[[M], str]) -> None:
        settings = request.app[SETTINGS]
        self._request = request
        self._client = request[CLIENT]
        self._metrics = request.app[METRICS]
        self._feed = feed
        self._model = model
        self._target = target
        self._heartbeat = settings.heartbeat_seconds
        self._patience = settings.ws_read_timeout_seconds
        self._replies: asyncio.Queue[_Reply] = asyncio.Queue(_AHEAD)
        self._pushed_to = ""
        self._ws = web.WebSocketResponse(
            protocols=(_MSGPACK,),
            # The limit is the largest frame that passes; the library refuses frames that reach its own.
            max_msg_size=settings.ws_frame_bytes + 1,
            receive_timeout=self._patience,
            timeout=_CLOSE_SECONDS,
            autoclose=False,
        )

    async def run(self) -> web.WebSocketResponse:
        """Serve the client until it leaves or the feed ends."""
        await self._feed.begin()
        await self._ws.prepare(self._request)
        writer = asyncio.create_task(self._write(), name="socket-writer")
        reader = asyncio.create_task(self._read(writer), name="socket-reader")
        replier = asyncio.create_task(self._reply(), name="socket-replier")
        tasks = (writer, reader, replier)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            closing = b""
            for result in results:
                if isinstance(result, SubscriptionEnded) and tell_lost(self._request, result.reason):
                    closing = _TRY_AGAIN.to_bytes(2, "big") + result.reason.encode()
                elif isinstance(result, SubscriptionEnded) and result.reason == "shutdown":
                    closing = _GOING_AWAY.to_bytes(2, "big") + b"the server stops"
                elif isinstance(result, TimeoutError):
                    log.info("request %s was cut off: its client does not read or is silent", request_id(self._request))
                elif isinstance(result, Exception) and not isinstance(result, _ENDINGS):
                    log.error("the socket of %s failed", request_id(self._request), exc_info=result)
            await self._close(closing)
        return self._ws

    async def _close(self, closing: bytes) -> None:
        """Exchange close frames; the connection is not reused.

        Args:
            closing: status and reason. There are none, as official clients expect, but where a client misses events
                or the server stops.
        """
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._ws.send_frame(closing, WSMsgType.CLOSE)
                # Closed while data of the client's is on its way, the connection would be reset, and the frame lost.
                while (await self._ws.receive()).type in _MESSAGES:
                    continue
        except (ConnectionError, TimeoutError):
            transport.abort()
        else:
            transport.close()

    # Out

    async def _write(self) -> None:
        """Send what comes, and heartbeats; ends by one of ``_ENDINGS``."""
        ping_at = time.monotonic() + self._heartbeat
        while True:
            event = await self._feed.next(max(0.0, ping_at - time.monotonic()))
            if event is not None:
                await self._send(event)
            if time.monotonic() >= ping_at:
                async with asyncio.timeout(self._patience):
                    await self._ws.ping(_PING)
                ping_at = time.monotonic() + self._heartbeat

    async def _send(self, event: Event) -> None:
        message: dict[str, object] = {"type": event.kind, "data": event.data}
        if event.position:
            message["id"] = event.position
        with delivering(event):
            async with asyncio.timeout(self._patience):
                if self._ws.ws_protocol == _MSGPACK:
                    await self._ws.send_bytes(msgpack.packb(message))
                else:
                    await self._ws.send_str(orjson.dumps(message).decode())

    # In

    async def _read(self, writer: asyncio.Task[None]) -> None:
        binary = self._ws.ws_protocol == _MSGPACK
        expected = WSMsgType.BINARY if binary else WSMsgType.TEXT
        while True:
            frame = await self._ws.receive()
            if frame.type not in _MESSAGES:
                return
            reply: _Reply = Event("pong", {})
            session_id = ""
            try:
                self._client.spend()
                if frame.type is not expected:
                    raise InvalidInput(
                        "this socket speaks msgpack in binary frames"
                        if binary
                        else "this socket speaks JSON in text frames; ask for the msgpack subprotocol to send binary"
                    )
                body = frame.data if binary else frame.data.encode()
                message = parse(body, "application/msgpack" if binary else "application/json", self._model)
                session_id = self._target(message)
                if message.type == "close":
                    # What is queued is still sent.
                    await self._replies.join()
                    self._feed.queue.end("closed")
                    await asyncio.wait((writer,), timeout=self._patience)
                    return
                if message.type == "push":
                    reply = await self._push(session_id, message.items)
            except AskaheadError as error:
                reply = self._refused(session_id, error)
            await self._replies.put(reply)
            # Neither of the two waits while frames and room are there, and others want their turn.
            await asyncio.sleep(0)

    async def _reply(self) -> None:
        while True:
            reply = await self._replies.get()
            self._feed.queue.offer(reply if isinstance(reply, Event) else await reply())
            self._replies.task_done()

    async def _push(self, session_id: str, items: Sequence[Item]) -> _Reply:
        """Hand in what is pushed, to the session's owner. Raises as :meth:`streams.manager.Manager.hand_in`."""
        if session_id != self._pushed_to:
            # This one may be written earlier: what it causes must not be told before it is acknowledged.
            await self._replies.join()
            self._pushed_to = session_id
        started = time.monotonic()
        request = self._request
        owner = await request.app[PEERS].owner(visible_id(request, session_id))
        SESSION.set(session_id)
        # A trace of its own: the connection's would never end.
        attributes: tracing.Attributes = {"gen_ai.conversation.id": session_id, "askahead.entries": len(items)}
        span = tracing.start("push", attributes, links=[tracing.current()], kind="server")
        if owner is None:
            try:
                with span.active():
                    sessions = visible(request)
                    push = await sessions.manager.hand_in(sessions.get(session_id), items)
            except BaseException as error:
                span.end(error)
                raise
            return partial(self._acknowledged, session_id, push, started, span)
        with span:
            status, answer = await request.app[PEERS].push(owner, session_id, items, request)
        if status != HTTPStatus.OK:
            return Event("error", {"message": answer["error"]["message"], "code": status}, session_id)
        return self._ack(session_id, answer.__getitem__, started)

    async def _acknowledged(self, session_id: str, push: Push, started: float, span: tracing.Span) -> Event:
        try:
            with span:
                ack = await push.acknowledged()
        except AskaheadError as error:
            return self._refused(session_id, error)
        return self._ack(session_id, partial(getattr, ack), started)

    def _ack(self, session_id: str, figure: Callable[[str], object], started: float) -> Event:
        # It leaves first.
        asyncio.get_running_loop().call_later(0, self._metrics.push_ack.observe, time.monotonic() - started)
        return Event("push_ack", {name: figure(name) for name in _ACKNOWLEDGED}, session_id)

    def _refused(self, session_id: str, error: AskaheadError) -> Event:
        status, _, _ = error_body(error, self._request.path, request_id(self._request))
        return Event("error", {"message": error.message, "code": status}, session_id)


async def serve_socket(
    request: web.Request, feed: Feed, model: type[M], target: Callable[[M], str]
) -> web.WebSocketResponse:
    """Upgrade and serve; refusals happen before the upgrade, as plain HTTP. Arguments as :class:`Socket`.

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
    with feed:
        return await Socket(request, feed, model, target).run()
