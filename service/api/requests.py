"""What handlers of requests for generation share: which session, when to begin, and how to tell of a failure."""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web

from service.access.visible import visible, visible_id
from service.api.fields import SESSION_HEADER, SESSION_ID
from service.api.runs import Run
from service.core import CORE
from service.delivery.sse import DONE, data_frame, event_frame
from service.errors import error_body, request_id
from service.keys import SETTINGS
from service.views import View
from streams.errors import AskaheadError, InvalidInput
from streams.session import Session

_ID = re.compile(SESSION_ID)


def find_session(request: web.Request, session_id: str, param: str) -> Session:
    """The session of that id.

    Args:
        request: the request.
        session_id: as the client gave it.
        param: where the client gave it.

    Raises:
        InvalidInput: that is no session id.
        NotFound: there is no such session, or the client may not know of it.
    """
    _check_id(session_id, param)
    return visible(request).get(session_id)


def _check_id(session_id: str, param: str) -> None:
    if not _ID.fullmatch(session_id):
        raise InvalidInput(f"{param}: must be 1 to 128 of A-Z a-z 0-9 _ -", param=param)


def session_of(request: web.Request) -> Session:
    """The session a path names. Raises as :func:`find_session`."""
    return find_session(request, request.match_info["id"], "session_id")


async def view_of(request: web.Request) -> View:
    """The session a path names, whoever owns it. Raises as :func:`find_session`, and RedisError."""
    session_id = request.match_info["id"]
    _check_id(session_id, "session_id")
    return await request.app[CORE].view(visible_id(request, session_id))


def bound_session(request: web.Request) -> Session | None:
    """The session that a chat request is a turn of, if its header names one. Raises as :func:`find_session`."""
    session_id = request.headers.get(SESSION_HEADER)
    return None if session_id is None else find_session(request, session_id, SESSION_HEADER)


def flash_id(request: web.Request) -> int:
    """The Flash Query a path names.

    Raises:
        InvalidInput: that is no id.
    """
    text = request.match_info["fid"]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidInput("id: a flash query's id is a whole number", param="id")
    return int(text)


async def await_entries(request: web.Request, session: Session | None, after: int | None) -> None:
    """Wait until ``after`` entries are resident: a client that pushed reads its writes.

    Raises:
        InvalidInput: so many were never pushed, or there is no session.
        Unavailable: they were not in time, or never will be.
    """
    if after is None:
        return
    if session is None:
        raise InvalidInput(f"after: needs a session; name it in the header {SESSION_HEADER}", param="after")
    with session.pinned():
        await session.resident(after, request.app[SETTINGS].wait_seconds_max)


def openai_failure(request: web.Request, run: Run, *, end: bytes = DONE) -> Callable[[AskaheadError], bytes]:
    """How a stream of unnamed frames tells of a failure of ``run``; ``end`` follows."""

    def tell(error: AskaheadError) -> bytes:
        run.failed(error)
        return data_frame(error_body(error, request.path, request_id(request))[1]) + end

    return tell


def anthropic_failure(request: web.Request, run: Run) -> Callable[[AskaheadError], bytes]:
    """How a stream of named events tells of a failure of ``run``."""

    def tell(error: AskaheadError) -> bytes:
        run.failed(error)
        return event_frame("error", error_body(error, request.path, request_id(request))[1])

    return tell
