"""Registering Flash Queries, alone or with a session that was just created for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web

from flashquery.queries import FlashQuery
from service.api.flash.notify import Notify
from service.api.flash.protocol import FlashCreate
from service.core import CORE
from service.keys import SETTINGS
from streams.errors import Conflict, InvalidInput, Unavailable
from streams.session import Session


async def register(request: web.Request, session: Session, body: FlashCreate) -> FlashQuery:
    """The query that a body registers. Raises as :meth:`flashquery.evaluator.FlashQueries.register`."""
    core, webhook = request.app[CORE], None
    if body.notify is not None:
        notify = Notify.of(body.notify)
        webhook = core.webhooks.accept(notify.url, notify.secret)
    return await core.flash.register(
        session, body.query, choices=body.choices, schema=body.schema_, notify=webhook, **body.options
    )


def check_number(request: web.Request, queries: Sequence[object]) -> None:
    """Refuse more queries for a session than it may have. Raises InvalidInput."""
    most = request.app[SETTINGS].max_flash_queries
    if len(queries) > most:
        raise InvalidInput(f"flash: at most {most} queries per session", param="flash")


async def register_all(
    request: web.Request, session: Session, registrations: Iterable[Callable[[], Awaitable[FlashQuery]]]
) -> None:
    """Register the queries that a session is created with; where one is refused there is no session either."""
    try:
        for registration in registrations:
            await registration()
    except (InvalidInput, Conflict, Unavailable):
        await request.app[CORE].manager.delete(session.id)
        raise
