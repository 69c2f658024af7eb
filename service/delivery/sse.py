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
                # A client that does not read must not keep its subscription for ever.
                async with asyncio.timeout(settings.ws_read_timeout_seconds):
                    await response.write(frame)
                event = await feed.next(settings.heartbeat_seconds)
                frame = b": heartbeat\n\n" if event is None else event_frame(event)
        except (SubscriptionEnded, TimeoutError):
            return response
