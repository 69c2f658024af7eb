"""Old-style sessions: those that ``/v1/sessions/init`` made. On paths that both generations have, they keep the shapes
of the old one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from service.access.visible import visible
from service.api.conversation import IN_THE_HEADER
from service.api.fields import SESSION_HEADER
from service.api.legacy.views import LABELS, is_legacy
from service.api.requests import bound_session, session_of, view_of
from service.views import View
from streams.errors import InvalidInput, NotFound
from streams.session import Session

"""What such a session is labelled with."""

OLD_SHAPES = "Sessions that `/v1/sessions/init` made take and give the shapes of the old generation (docs/legacy.md)."
"""Belongs into the description of whatever :func:`by_kind` serves."""

_SessionHandler = Callable[[web.Request, Session], Awaitable[web.StreamResponse]]
_ViewHandler = Callable[[web.Request, View], Awaitable[web.StreamResponse]]


def old_session(request: web.Request) -> Session:
    """The old-style session a path names.

    Raises:
        InvalidInput: that is no session id, or the session is of the new style.
        NotFound: there is none.
    """
    session = session_of(request)
    if not is_legacy(session):
        raise InvalidInput(
            f"session_id: '{session.id}' was not created by /v1/sessions/init; use GET /v1/sessions/{session.id} and "
            "what stands beside it in /docs",
            param="session_id",
            code="not_an_old_session",
        )
    return session


def by_kind(new: Handler, old: _SessionHandler) -> Handler:
    """A handler that leaves old-style sessions to ``old`` and all others to ``new``."""

    async def handler(request: web.Request) -> web.StreamResponse:
        session = session_of(request)
        return await (old(request, session) if is_legacy(session) else new(request))

    return handler


def by_kind_anywhere(new: _ViewHandler, old: _ViewHandler) -> Handler:
    """The same for what any server can tell of a session."""

    async def handler(request: web.Request) -> web.StreamResponse:
        view = await view_of(request)
        return await (old if view.labels >= LABELS else new)(request, view)

    return handler


def chat_session(request: web.Request, named: str | None) -> Session | None:
    """The session that a chat request is a turn of.

    Args:
        request: the request; its header may name any session.
        named: the body's ``session_id``, which may name an old-style session.

    Raises:
        InvalidInput: the header is no session id, or ``named`` is no old-style session, or stands beside a header.
        NotFound: there is no session that the header names.
    """
    if named is None:
        return bound_session(request)
    try:
        session = visible(request).get(named)
    except NotFound:
        session = None
    if session is None or not is_legacy(session) or SESSION_HEADER in request.headers:
        raise InvalidInput(f"session_id: {IN_THE_HEADER}", param="session_id")
    return session
