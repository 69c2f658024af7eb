"""Server-sent events: answers piece by piece, and the events of sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import orjson
from aiohttp import web

from flashquery.events import Event, SubscriptionEnded
from service.delivery.feed import Feed, delivering
from service.delivery.resume import tell_lost
from service.errors import request_id
from service.keys import SETTINGS
from streams.errors import AskaheadError

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    # Proxies must not collect events before they pass them on.
    "X-Accel-Buffering": "no",
}


DONE = b"data: [DONE]\n\n"
"""Ends streams of unnamed frames."""


def data_frame(payload: object) -> bytes:
    """One unnamed frame."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def event_frame(kind: str, payload: object) -> bytes:
    """One named frame."""
    return b"event: " + kind.encode() + b"\n" + data_frame(payload)


def _frame(event: Event) -> bytes:
    """With the position that a client comes back with."""
    position = f"id: {event.position}\n".encode() if event.position else b""
    return position + event_frame(event.kind, event.data)


class _Answer(web.StreamResponse):
    """Its headers leave with its first frame, in one packet: it is prepared when that is there, and not before."""

    _send_headers_immediately = False


async def write(request: web.Request, response: web.StreamResponse, frames: bytes) -> None:
    """Write to a client that has to read on: nothing may be held for one that does not.

    Raises:
        ConnectionError: it has left, or did not read for as long as a websocket may be silent and is cut off.
    """
    try:
        async with asyncio.timeout(request.app[SETTINGS].ws_read_timeout_seconds):
            await response.write(frames)
    except TimeoutError:
        log.info("request %s was cut off: its client does not read", request_id(request))
        # An orderly end would wait for the client as well.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError("the client does not read") from None


async def stream_answer(
    request: web.Request, frames: AsyncGenerator[bytes, None], failure: Callable[[AskaheadError], bytes]
) -> web.StreamResponse:
    """Send an answer while it is generated.

    Args:
        request: the request.
        frames: the answer. Until the first one is there, a failure is raised, and can be told by its status.
        failure: frames that tell of a failure after that, and end the stream.
    """
    async with aclosing(frames):
        frame = await anext(frames, b"")
        response = _Answer(headers=HEADERS)
        await response.prepare(request)
        try:
            while frame:
                await write(request, response, frame)
                frame = await anext(frames, b"")
        except AskaheadError as error:
            await write(request, response, failure(error))
    return response


async def stream_events(request: web.Request, feed: Feed) -> web.StreamResponse:
    """Send events until the feed ends, the client leaves or falls behind, or the server stops."""
    patience = request.app[SETTINGS].heartbeat_seconds
    with feed:
        await feed.begin()
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            while True:
                event = await feed.next(patience)
                with delivering(event):
                    await write(request, response, b": heartbeat\n\n" if event is None else _frame(event))
        except SubscriptionEnded as ended:
            if tell_lost(request, ended.reason):
                await write(request, response, event_frame("error", {"reason": ended.reason}))
            return response
