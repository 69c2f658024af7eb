"""The session API: thin handlers over the streams."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import asdict
from functools import partial

from aiohttp import web

from service.access.visible import visible
from service.api.chat.protocol import ChatBody
from service.api.flash.registration import check_number, register, register_all
from service.api.legacy import events as old_events
from service.api.legacy.generate import generate as old_generate
from service.api.legacy.kind import OLD_SHAPES, by_kind, by_kind_anywhere
from service.api.requests import session_of
from service.api.sessions import protocol
from service.api.sessions.described import described
from service.api.sessions.generate import generate
from service.bodies import query_model, read_model, respond
from service.core import CORE
from service.delivery.feed import Feed
from service.delivery.resume import SocketQuery, StreamQuery, position
from service.delivery.sse import stream_events
from service.delivery.websocket import serve_socket
from service.keys import CLIENT, METRICS
from service.openapi import Operation
from service.views import View
from streams.entries import BUILTIN, EntryType, defined
from streams.session import Session
from streams.window import Window


def _respond_session(request: web.Request, session: Session) -> web.Response:
    found = protocol.SessionObject.of(session, request.app[CORE].flash.ready(session))
    return respond(request, found.model_dump(exclude_none=True))


async def create(request: web.Request) -> web.Response:
    body = await read_model(request, protocol.SessionCreate, allow_empty=True)
    check_number(request, body.flash)
    session = await visible(request).create(
        body.id,
        body.system,
        type=await entry_type(body.type),
        window=Window(body.window, body.window_seconds),
        pre_decode=body.pre_decode,
    )
    await register_all(request, session, (partial(register, request, session, query) for query in body.flash))
    return _respond_session(request, session)


async def list_sessions(request: web.Request) -> web.Response:
    core, client = request.app[CORE], request[CLIENT]
    manager, flash = core.manager, core.flash
    shown = [described(session, manager, flash.ready(session)) for session in visible(request).all()]
    shown += [seen for seen in await core.elsewhere() if client.sees(seen["session"]["id"])]
    shown.sort(key=lambda seen: seen["at"])
    old = [seen["old"] for seen in shown if seen["old"] is not None]
    listed = {
        "object": "list",
        "data": [seen["session"] for seen in shown],
        "sessions": old,
        "count": len(old),
        "max_sessions": manager.limits.sessions,
    }
    return respond(request, listed)


async def entry_type(given: protocol.TypeName | protocol.TypeCreate | None) -> EntryType | None:
    """The type that a client names or defines. Raises InvalidInput."""
    if isinstance(given, protocol.TypeCreate):
        # Large schemas take longer to check than the event loop may be held up.
        return await asyncio.to_thread(defined, given.name, given.schema_, given.template)
    return None if given is None else BUILTIN[given]


async def get(request: web.Request) -> web.Response:
    session = session_of(request)
    response = _respond_session(request, session)
    session.touch()
    return response


async def delete(request: web.Request) -> web.Response:
    session = session_of(request)
    await request.app[CORE].manager.delete(session.id)
    return respond(request, protocol.SessionDeleted(id=session.id).model_dump())


async def push(request: web.Request) -> web.Response:
    started = time.monotonic()
    session = session_of(request)
    body = await read_model(request, protocol.PushBody)
    ack = await request.app[CORE].manager.push(session, body.items)
    request.app[METRICS].push_ack.observe(time.monotonic() - started)
    return respond(request, asdict(ack))


async def stats(request: web.Request) -> web.Response:
    session = session_of(request)
    over = query_model(request, protocol.StatsQuery).over
    session.touch()
    kind = "text" if session.type is None else session.type.name
    return respond(request, {"type": kind, **session.statistics(over)})


async def ask(request: web.Request) -> web.StreamResponse:
    return await generate(request, session_of(request))


async def warm(request: web.Request) -> web.Response:
    session = session_of(request)
    body = await read_model(request, ChatBody)
    session.touch()
    manager = request.app[CORE].manager
    warmed = await manager.chat.warm(session, body.conversation(manager.engine.dialect))
    counters = request.app[METRICS].counters
    counters.session_warm_turns += warmed.finish_reason != "covered"
    counters.session_warmed_tokens += warmed.computed_tokens
    reply = protocol.WarmObject(
        id=f"warm_{secrets.token_hex(12)}",
        session_id=session.id,
        finish_reason=warmed.finish_reason,
        prompt_tokens=warmed.prompt_tokens,
        cached_tokens=warmed.cached_tokens,
        prefix_cached_tokens=warmed.prefix_cached_tokens,
        data_version=warmed.version,
    )
    return respond(request, reply.model_dump())


async def events(request: web.Request, view: View) -> web.StreamResponse:
    after = position(request, query_model(request, StreamQuery))
    return await stream_events(request, Feed(request.app[CORE], [view.id], after=after))


async def socket(request: web.Request, view: View) -> web.StreamResponse:
    feed = Feed(request.app[CORE], [view.id], after=position(request, query_model(request, SocketQuery)))
    return await serve_socket(request, feed, protocol.SocketMessage, lambda _: view.id)


_NOT_FOUND = {404: "Unknown session."}
_BUSY = {429: "Too many questions at once.", 503: "The engine or the KV cache is not available."}

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/sessions",
        handler=create,
        tag="Sessions",
        summary="Create a session",
        description="A session is one stream: data is pushed into it, and the model reads it as it arrives.",
        request=protocol.SessionCreate,
        response=protocol.SessionObject,
        statuses={409: "The id exists, or the limit of live sessions is reached."},
    ),
    Operation(
        method="GET",
        path="/v1/sessions",
        handler=list_sessions,
        tag="Sessions",
        summary="List sessions",
        description="Oldest first; of a key with a prefix, those it may know of. Does not restart idle clocks.",
        response=protocol.SessionList,
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}",
        handler=get,
        tag="Sessions",
        summary="Get a session",
        description="Restarts the session's idle clock; `last_used` is the time before this request.",
        response=protocol.SessionObject,
        statuses=_NOT_FOUND,
    ),
    Operation(
        method="DELETE",
        path="/v1/sessions/{id}",
        handler=delete,
        tag="Sessions",
        summary="Delete a session",
        description="Frees its KV cache, ends its event streams and forgets its answers.",
        response=protocol.SessionDeleted,
        statuses={**_NOT_FOUND, 409: "A question is still being answered."},
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{id}/push",
        handler=push,
        tag="Data",
        summary="Push data",
        description="Answered at once; the data is read in the background. Everything queued when the model is free "
        "becomes one batch and one version. When the queue is full the oldest waiting entries are dropped and counted.",
        request=protocol.PushBody,
        response=protocol.PushAckObject,
        statuses={**_NOT_FOUND, 503: "The KV cache is full, or the engine is not available."},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/stats",
        handler=stats,
        tag="Sessions",
        summary="Statistics of the data",
        description="Exact, computed outside of the model over the entries of the present version; the fields "
        "depend on the session's `type`.",
        query=protocol.StatsQuery,
        response=protocol.StatsObject,
        statuses=_NOT_FOUND,
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{id}/generate",
        handler=by_kind(ask, old_generate),
        tag="Questions",
        summary="Ask a question",
        description="Answered over everything read so far; leaves nothing behind in the stream. A prompt that is the "
        "text of a Flash Query with a fresh answer is served from the cache; else, where the session keeps a ready "
        f"position, one of `fast_answer` that it is sure of is served without the model. {OLD_SHAPES}",
        request=protocol.GenerateBody,
        response=protocol.Generation,
        content_types=("text/event-stream",),
        statuses={**_NOT_FOUND, **_BUSY},
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{id}/warm",
        handler=warm,
        tag="Chat",
        summary="Read a conversation ahead",
        description="Takes the chat completions body that the next turn will send, and has it read behind everybody "
        "else's back; answered when that is over. Only `messages`, `tools` and what concerns the template are looked "
        "at. Changes nothing of the session.",
        request=ChatBody,
        response=protocol.WarmObject,
        statuses={
            **_NOT_FOUND,
            409: "The session is in the middle of a turn.",
            503: "The engine or the KV cache is not available.",
        },
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/events",
        handler=by_kind_anywhere(events, old_events.events),
        anywhere=True,
        tag="Events",
        summary="Stream events (SSE)",
        description="`connected`, a `flash_ready` for every cached answer, then `data_updated` and `flash_ready` as "
        "they happen. Ends when the session is deleted, the client falls behind, or the server stops: reconnect with "
        "`Last-Event-ID`. If `connected` then says `resumed`, what came after that event follows, and no replay. "
        f"{OLD_SHAPES}",
        query=StreamQuery,
        content_types=("text/event-stream",),
        statuses=_NOT_FOUND,
        streams=True,
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/ws",
        handler=by_kind_anywhere(socket, old_events.socket),
        anywhere=True,
        tag="Events",
        summary="Session websocket",
        description="Push data and receive the events, as JSON text frames, or msgpack binary frames under the "
        f"`msgpack` subprotocol. `resume` goes on after an event, by its `id`. {OLD_SHAPES}",
        query=SocketQuery,
        statuses={**_NOT_FOUND, 101: "Switching protocols."},
        streams=True,
    ),
)
