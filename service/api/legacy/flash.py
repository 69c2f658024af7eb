"""Flash Queries in the shapes of the old generation."""

from __future__ import annotations

from aiohttp import web

from service.api.legacy.protocol import ListQuery, StandingQuery, StandingQueryObject
from service.api.legacy.views import standing
from service.api.requests import flash_id
from service.bodies import query_model, read_model, respond
from service.core import CORE
from service.views import View
from streams.session import Session


async def register(request: web.Request, session: Session) -> web.Response:
    """Register a standing question."""
    body = await read_model(request, StandingQuery)
    flash = request.app[CORE].flash
    query = await flash.register(session, body.query, body.max_tokens)
    session.touch()
    found = StandingQueryObject(
        id=query.id,
        query=query.text,
        max_tokens=query.max_tokens,
        n_tokens=len(query.tokens),
        total_flash_queries=len(flash.registry(session)),
    )
    return respond(request, found.model_dump())


async def list_queries(request: web.Request, view: View) -> web.Response:
    """All of them and their answers."""
    query_model(request, ListQuery)
    await view.touch()
    look = await view.look()
    queries = [standing(query, look.answers.get(query.id)) for query in look.queries]
    found = {"flash_queries": queries, "count": len(queries), "current_data_version": look.version}
    return respond(request, found)


async def delete(request: web.Request, session: Session) -> web.Response:
    """Delete one."""
    remaining = await request.app[CORE].flash.remove(session, flash_id(request))
    session.touch()
    return respond(request, {"success": True, "remaining": remaining})
