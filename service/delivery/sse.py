"""Session events as server-sent events."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from flashquery.events import Event, SubscriptionEnded
from service.core import CORE
from service.delivery.feed import Feed
from service.keys import SETTINGS
from streams.session import Session

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    # Proxies must not collect events before they pass them on.
    "X-Accel-Buffering": "no",
}


def data_frame(payload: object) -> bytes:
    """One unnamed frame."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def event_frame(event: Event) -> bytes:
    """One named frame."""
    return b"event: " + event.kind.encode() + b"\n" + data_frame(event.data)


async def write(request: web.Request, response: web.StreamResponse, frames: bytes) -> None:
    """Write to a client that has to read on: nothing may be held for one that does not.

    Raises:
        ConnectionError: it has left, or did not read for as long as a websocket may be silent and is cut off.
    """
    try:
        async with asyncio.timeout(request.app[SETTINGS].ws_read_timeout_seconds):
            await response.write(frames)
    except TimeoutError:
        # An orderly end would wait for the client as well.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError("the client does not read") from None


async def stream_events(request: web.Request, session: Session) -> web.StreamResponse:
    """Send a session's events until it is deleted, the client leaves or falls behind, or the server stops."""
    settings, flash = request.app[SETTINGS], request.app[CORE].flash
    with session.pinned(), flash.hub.subscribe(session.id) as subscription:
        feed = Feed(flash, session, subscription)
        opening = await feed.opening()
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        frame = b"".join(event_frame(event) for event in opening)
        try:
            while True:
                await write(request, response, frame)
                event = await feed.next(settings.heartbeat_seconds)
                frame = b": heartbeat\n\n" if event is None else event_frame(event)
        except SubscriptionEnded:
            return response
