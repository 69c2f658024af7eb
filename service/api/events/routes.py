"""One connection for the events of many sessions, and for pushes to them."""

from __future__ import annotations

from aiohttp import web

from service.access.visible import visible_id, visible_prefix
from service.api.events.protocol import AddressedMessage, FeedQuery, FeedSocketQuery
from service.bodies import query_model
from service.core import CORE
from service.delivery.feed import Feed, labelled
from service.delivery.resume import position
from service.delivery.sse import stream_events
from service.delivery.websocket import serve_socket
from service.keys import SETTINGS
from service.openapi import Operation
from streams.errors import InvalidInput


def _feed(request: web.Request, query: FeedQuery | FeedSocketQuery) -> Feed:
    """The feed that a query string asks for.

    Raises:
        InvalidInput: it names more sessions than there can be, or resumes from what is no position.
        NotFound: one of them does not exist.
        Forbidden: the client may know of no session whose id starts so.
    """
    most = request.app[SETTINGS].max_sessions
    if len(query.session) > most:
        raise InvalidInput(f"session: at most {most} can be named; give their `prefix`", param="session")
    named = [visible_id(request, session_id) for session_id in query.session]
    prefix = visible_prefix(request, query.prefix)
    return Feed(request.app[CORE], named, prefix, labelled, position(request, query))


async def events(request: web.Request) -> web.StreamResponse:
    query = query_model(request, FeedQuery)
    if not query.session and query.prefix is None:
        raise InvalidInput(
            "session: name at least one, or give a `prefix`, which may be empty for every session", param="session"
        )
    return await stream_events(request, _feed(request, query))


async def socket(request: web.Request) -> web.StreamResponse:
    feed = _feed(request, query_model(request, FeedSocketQuery))
    return await serve_socket(request, feed, AddressedMessage, lambda message: message.session_id)


_UNKNOWN = {404: "A session that was named does not exist."}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        handler=events,
        tag="Events",
        summary="Stream events of several sessions (SSE)",
        description="Ours. As the stream of one session, for all that are named or whose ids start with a prefix: "
        "`connected` and a `flash_ready` for every cached answer of each, then what happens to them, and `deleted` "
        "when one is gone. Every event carries its `session_id`. Without a prefix it ends with the last session; it "
        "also ends when the client falls behind or the server stops: reconnect with `Last-Event-ID`, and each session "
        "that is `resumed` goes on after that event, while others start from the replay.",
        query=FeedQuery,
        content_types=("text/event-stream",),
        statuses=_UNKNOWN,
        streams=True,
    ),
    Operation(
        method="GET",
        path="/v1/ws",
        handler=socket,
        tag="Events",
        summary="Websocket for several sessions",
        description="Ours. Receive what `/v1/events` streams, and push to any session: "
        '`{"type": "push", "session_id": "…", "data": …}`. Without sessions or a prefix it only pushes. JSON text '
        "frames, or msgpack binary frames under the `msgpack` subprotocol. `resume` goes on after an event, by its "
        "`id`.",
        query=FeedSocketQuery,
        statuses={**_UNKNOWN, 101: "Switching protocols."},
        streams=True,
    ),
)
