"""How clients come to miss events, and where one that comes back wants to go on."""

from __future__ import annotations

import logging
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field

from flashquery.cursor import Cursor
from flashquery.events import Ended
from service.bodies import Strict
from service.errors import request_id
from streams.errors import InvalidInput

log = logging.getLogger(__name__)

_LOST: Final[dict[Ended, str]] = {
    "lagging": "its client fell too far behind",
    "resync": "events may have been lost on their way from Redis",
}
_HEADER = "Last-Event-ID"


class StreamQuery(Strict):
    """Query string of an event stream."""

    last_event_id: Annotated[
        str | None,
        Field(
            description="Ours: the `id` of the last event that was received; go on after it. For clients that cannot "
            "set the header `Last-Event-ID`, which says the same and comes first."
        ),
    ] = None


class SocketQuery(Strict):
    """Query string of a websocket."""

    resume: Annotated[
        str | None, Field(description="Ours: the `id` of the last event that was received; go on after it.")
    ] = None


def position(request: web.Request, query: StreamQuery | SocketQuery) -> Cursor | None:
    """The position to resume from, None for a client that is new.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(query, SocketQuery):
        return _parsed("resume", query.resume)
    if given := request.headers.get(_HEADER):
        return _parsed(_HEADER.lower(), given)
    return _parsed("last_event_id", query.last_event_id)


def _parsed(name: str, text: str | None) -> Cursor | None:
    # A client that has received nothing yet may say so with an empty text.
    if not text:
        return None
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}; leave it out to start from a snapshot", param=name) from None


def tell_lost(request: web.Request, reason: Ended) -> bool:
    """Whether a subscription ended so that its client misses events and should come back; then it is logged."""
    if (said := _LOST.get(reason)) is None:
        return False
    log.warning("the events of request %s were ended (%s): %s", request_id(request), reason, said)
    return True
