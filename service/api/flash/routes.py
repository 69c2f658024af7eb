"""Flash Queries over HTTP: thin handlers."""

from __future__ import annotations

from aiohttp import web

from service.api.flash import protocol
from service.api.flash.notify import NotifyObject
from service.api.flash.registration import register
from service.api.legacy import flash as old
from service.api.legacy.kind import OLD_SHAPES, by_kind, by_kind_anywhere
from service.api.requests import flash_id, session_of, view_of
from service.bodies import query_model, read_model, respond
from service.core import CORE
from service.delivery.polling import poll
from service.openapi import Operation
from service.views import View


async def create(request: web.Request) -> web.Response:
    session = session_of(request)
    body = await read_model(request, protocol.FlashCreate)
    query = await register(request, session, body)
    session.touch()
    found = protocol.FlashObject.of(query, None, session.version)
    found.warning = request.app[CORE].flash.warning
    found.notify = NotifyObject.registered(query, body.notify)
    return respond(request, found.model_dump(exclude_none=True))


async def list_queries(request: web.Request, view: View) -> web.Response:
    return await poll(request, view)


async def get(request: web.Request) -> web.Response:
    return await poll(request, await view_of(request), flash_id(request))


async def history(request: web.Request) -> web.Response:
    view, query_id = await view_of(request), flash_id(request)
    query = query_model(request, protocol.HistoryQuery)
    (await view.look()).query(query_id)
    await view.touch()
    answers, more = await request.app[CORE].history.read(view.id, query_id, query.since, query.limit)
    found = protocol.FlashHistory(data=list(map(protocol.PastAnswer.of, answers)), has_more=more)
    return respond(request, found.model_dump(exclude_none=True))


async def change(request: web.Request) -> web.Response:
    session = session_of(request)
    flash, query_id = request.app[CORE].flash, flash_id(request)
    body = await read_model(request, protocol.FlashUpdate)
    before = flash.registry(session).get(query_id)
    answer = flash.registry(session).answer(query_id)
    query = await flash.change(session, query_id, **body.options)
    session.touch()
    kept = answer if query.asked == before.asked else None
    return respond(request, protocol.FlashObject.of(query, kept, session.version).model_dump(exclude_none=True))


async def delete(request: web.Request) -> web.Response:
    session = session_of(request)
    query_id = flash_id(request)
    remaining = await request.app[CORE].flash.remove(session, query_id)
    session.touch()
    return respond(request, protocol.FlashDeleted(id=query_id, remaining=remaining).model_dump())


_NOT_FOUND = {404: "Unknown session."}

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/sessions/{id}/flash",
        handler=by_kind(create, old.register),
        tag="Flash Queries",
        summary="Register a Flash Query",
        description="A standing question, answered again after every batch, or as `every`, `min_interval` and `when` "
        f"say. {OLD_SHAPES}",
        request=protocol.FlashCreate,
        response=protocol.FlashObject,
        statuses={**_NOT_FOUND, 409: "The same query is registered, or the limit is reached."},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/flash",
        handler=by_kind_anywhere(list_queries, old.list_queries),
        anywhere=True,
        tag="Flash Queries",
        summary="List Flash Queries and their answers",
        description=f"Has an `ETag`; `If-None-Match` gets 304 while nothing changed. {OLD_SHAPES} They have neither "
        "`ETag` nor parameters.",
        query=protocol.PollQuery,
        response=protocol.FlashList,
        statuses={304: "Nothing changed.", **_NOT_FOUND},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/flash/{fid}",
        handler=get,
        anywhere=True,
        tag="Flash Queries",
        summary="Get one Flash Query and its answer",
        description="Ours. As the list, for one query.",
        query=protocol.PollQuery,
        response=protocol.FlashObject,
        statuses={304: "Nothing changed.", 404: "Unknown session or query."},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{id}/flash/{fid}/history",
        handler=history,
        anywhere=True,
        tag="Flash Queries",
        summary="Past answers of a Flash Query",
        description="Ours. Oldest first; go on with the last `data_version` as `since`.",
        query=protocol.HistoryQuery,
        response=protocol.FlashHistory,
        statuses={404: "Unknown session or query."},
    ),
    Operation(
        method="PATCH",
        path="/v1/sessions/{id}/flash/{fid}",
        handler=change,
        tag="Flash Queries",
        summary="Change a Flash Query",
        description="Ours. Changes the fields that are given; null takes an option away. The question itself, "
        "`choices`, `schema` and `notify` stay: delete the query and register another. A change of `max_tokens` or "
        "`with_stats` forgets the answer.",
        request=protocol.FlashUpdate,
        response=protocol.FlashObject,
        statuses={404: "Unknown session or query."},
    ),
    Operation(
        method="DELETE",
        path="/v1/sessions/{id}/flash/{fid}",
        handler=by_kind(delete, old.delete),
        tag="Flash Queries",
        summary="Delete a Flash Query",
        description=OLD_SHAPES,
        response=protocol.FlashDeleted,
        statuses={404: "Unknown session or query."},
    ),
)
