"""The old generation's paths: thin handlers over the same streams and Flash Queries."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from aiohttp import web
from pydantic import BaseModel

from service.access.visible import visible
from service.api.flash.registration import check_number, register_all
from service.api.legacy import protocol, views
from service.api.legacy.completions import complete
from service.api.legacy.kind import old_session
from service.api.legacy.refusals import renaming
from service.api.legacy.views import LABELS
from service.api.sessions.protocol import PushBody
from service.bodies import read_model, respond
from service.core import CORE
from service.keys import METRICS, SETTINGS
from service.openapi import Operation
from streams.engine.base import text_of
from streams.entries import BUILTIN
from streams.errors import InvalidInput, Unavailable
from streams.window import Window


def _answer(request: web.Request, found: BaseModel) -> web.Response:
    return respond(request, found.model_dump(exclude_none=True))


async def health(request: web.Request) -> web.Response:
    """200 when questions can be answered, else 503; nothing else is said."""
    return web.Response(status=200 if request.app[CORE].up else 503, headers={"Cache-Control": "no-store"})


async def init(request: web.Request) -> web.Response:
    body = await read_model(request, protocol.InitBody)
    manager, flash = request.app[CORE].manager, request.app[CORE].flash
    context = manager.engine.facts.context
    if (body.context or 0) > context:
        raise InvalidInput(f"context: this model has {context} tokens; ask for less, or nothing", param="context")
    check_number(request, body.flash)
    with renaming({"system": "prompt", "window": "window_size"}):
        session = await visible(request).create(
            system=body.prompt,
            type=BUILTIN[body.type],
            window=Window(body.window_size),
            pre_decode=body.type == "ohlcv",
            labels=LABELS,
        )
    await register_all(
        request,
        session,
        (partial(flash.register, session, query.query, query.max_tokens) for query in body.flash),
    )
    return _answer(request, views.created(session, manager, len(body.flash)))


async def state(request: web.Request) -> web.Response:
    session = old_session(request)
    manager = request.app[CORE].manager
    found, tokens = views.state(session, manager), tuple(session.timeline.tokens)
    session.touch()
    # A long stream takes a while to put together.
    text = await asyncio.to_thread(text_of, tokens, manager.engine.tokenizer)
    return _answer(request, found.model_copy(update={"context_text": text}))


async def slots(request: web.Request) -> web.Response:
    session = old_session(request)
    session.touch()
    return _answer(request, views.slots(session))


async def append(request: web.Request) -> web.Response:
    session = old_session(request)
    body = await read_model(request, protocol.AppendBody)
    with renaming({"data": "text"}):
        ack = await request.app[CORE].manager.push(session, [body.text])
    # So that what is asked next knows of it. A client that was refused would append it once more.
    with session.pinned(), suppress(Unavailable):
        await session.resident(ack.total_pushed, request.app[SETTINGS].wait_seconds_max)
    total = session.committed
    return _answer(request, protocol.AppendObject(n_tokens_added=ack.tokens, total_tokens=total, pos_max=total - 1))


async def mark_prefix(request: web.Request) -> web.Response:
    session = old_session(request)
    await read_model(request, protocol.MarkPrefixBody, allow_empty=True)
    session.touch()
    with renaming({"window": "window_size", "after": None}):
        end = await request.app[CORE].manager.freeze(session)
    message = f"the first {end} tokens stay whatever leaves the window"
    return _answer(request, protocol.MarkPrefixObject(prefix_end=end, message=message))


async def push(request: web.Request) -> web.Response:
    started = time.monotonic()
    session = old_session(request)
    body = await read_model(request, PushBody)
    manager = request.app[CORE].manager
    ack = await manager.push(session, body.items)
    request.app[METRICS].push_ack.observe(time.monotonic() - started)
    return _answer(request, views.pushed(ack, manager))


async def status(request: web.Request) -> web.Response:
    session = old_session(request)
    session.touch()
    return _answer(request, views.status(session, request.app[CORE].manager))


_OLD = {400: "Not an old-style session, or a field is wrong.", 404: "Unknown session."}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/health",
        handler=health,
        tag="Old generation",
        summary="Is the server ready?",
        statuses={503: "Not ready; no body either"},
        needs_key=False,
    ),
    Operation(
        method="POST",
        path="/v1/sessions/init",
        handler=init,
        tag="Old generation",
        summary="Create an old-style session",
        description="A session with typed entries, for clients of the generation before. On paths that both have it is "
        "spoken of in that generation's shapes.",
        request=protocol.InitBody,
        response=protocol.InitObject,
        statuses={409: "The limit of live sessions is reached."},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/state",
        handler=state,
        tag="Old generation",
        summary="Get an old-style session",
        description="With its whole text. Restarts the session's idle clock.",
        response=protocol.StateObject,
        statuses=_OLD,
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/slots",
        handler=slots,
        tag="Old generation",
        summary="The parts of a stream",
        response=protocol.SlotsObject,
        statuses=_OLD,
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{id}/append",
        handler=append,
        tag="Old generation",
        summary="Append text",
        description="Becomes one line of the stream; answered when the model has read it.",
        request=protocol.AppendBody,
        response=protocol.AppendObject,
        statuses={**_OLD, 503: "The KV cache is full, or the engine is not available."},
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{id}/mark_prefix",
        handler=mark_prefix,
        tag="Old generation",
        summary="Freeze what is there",
        description="No window takes it away from now on.",
        request=protocol.MarkPrefixBody,
        response=protocol.MarkPrefixObject,
        statuses={**_OLD, 409: "There were turns already.", 503: "What was pushed is not read yet."},
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{id}/stream/push",
        handler=push,
        tag="Old generation",
        summary="Push typed entries",
        description="Answered at once; the data is read in the background.",
        request=PushBody,
        response=protocol.StreamPushObject,
        statuses={**_OLD, 503: "The KV cache is full, or the engine is not available."},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/stream/status",
        handler=status,
        tag="Old generation",
        summary="How reading goes",
        response=protocol.StatusObject,
        statuses=_OLD,
    ),
    Operation(
        method="POST",
        path="/v1/completions",
        handler=complete,
        tag="Old generation",
        summary="Complete a prompt",
        request=protocol.CompletionBody,
        response=protocol.CompletionObject,
        statuses={429: "Too many requests at once.", 503: "The engine or the KV cache is not available."},
    ),
)
