"""Polling: entity tags, 304, and long polls that wait for news."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import msgpack
import orjson
from aiohttp import web

from flashquery.events import SubscriptionEnded
from flashquery.queries import Look
from service.api.flash.protocol import FlashList, FlashObject, PollQuery
from service.api.requests import await_entries, session_of
from service.bodies import MSGPACK, query_model, wants_msgpack
from service.core import CORE
from service.keys import SETTINGS
from service.views import Own, View
from streams.errors import InvalidInput, Unavailable

_MSGPACK = {"Content-Type": MSGPACK}
_JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class _State:
    """What a poll tells, encoded.

    Attributes:
        fresh: every answer is of the present version.
        json: as JSON.
        tag: names this state, however it is spelt.
    """

    fresh: bool
    json: bytes
    tag: str
    _packed: bytes | None = None

    @classmethod
    def of(cls, look: Look, query_id: int | None) -> _State:
        """How a session looks, or one query of it; encoded once for all who look. Raises NotFound."""
        state: _State | None = look.shown.get(query_id)
        if state is None:
            state = look.shown[query_id] = cls._encoded(look, query_id)
        return state

    @classmethod
    def _encoded(cls, look: Look, query_id: int | None) -> _State:
        if query_id is None:
            listed = FlashList.of(look)
            return cls._spelt(listed, all(query.fresh for query in listed.data))
        found = FlashObject.of(look.query(query_id), look.answers.get(query_id), look.version)
        return cls._spelt(found, found.fresh)

    @classmethod
    def _spelt(cls, found: FlashList | FlashObject, fresh: bool) -> _State:
        json = orjson.dumps(found.model_dump(exclude_none=True))
        # Weak: the same state may be spelt as JSON or as msgpack.
        return cls(fresh, json, f'W/"{hashlib.blake2b(json, digest_size=12).hexdigest()}"')

    @property
    def packed(self) -> bytes:
        """The same as msgpack."""
        if self._packed is None:
            self._packed = msgpack.packb(orjson.loads(self.json))
        return self._packed


def poll_at_once(request: web.BaseRequest, view: Own, query_id: int | None = None) -> web.Response:
    """The answer to a poll without parameters, from this server's memory.

    Raises:
        NotFound: there is no such query.
    """
    view.session.touch()
    return _answer(request, _State.of(view.present(), query_id))


async def poll(request: web.Request, view: View, query_id: int | None = None) -> web.Response:
    """Answer with the state of a session's queries, or of one of them, or 304, or wait for it to change.

    Raises:
        InvalidInput: the wait is longer than the server allows.
        NotFound: there is no such query, or the session was deleted meanwhile.
    """
    query = query_model(request, PollQuery)
    longest = request.app[SETTINGS].wait_seconds_max
    if query.wait > longest:
        raise InvalidInput(f"wait: must be at most {longest:g} seconds", param="wait")
    await view.touch()
    if query.after is not None:
        await await_entries(request, session_of(request), query.after)
    if not query.wait:
        return _answer(request, _State.of(await view.look(), query_id))
    loop = asyncio.get_running_loop()
    until = loop.time() + query.wait
    with view.pinned(), request.app[CORE].hub.subscribe(view.id) as subscription:
        while True:
            state = _State.of(await view.look(), query_id)
            left = until - loop.time()
            if left <= 0 or _is_news(request, state):
                return _answer(request, state)
            try:
                await subscription.next(left)
            except SubscriptionEnded as ended:
                raise Unavailable(
                    f"the wait was cut short ({ended.reason}); poll again", code="wait_interrupted", retry_after=1
                ) from None


def _is_news(request: web.BaseRequest, state: _State) -> bool:
    return state.fresh if request.if_none_match is None else not _matches(request, state)


def _matches(request: web.BaseRequest, state: _State) -> bool:
    known = request.if_none_match
    return known is not None and any(given.value == "*" or f'W/"{given.value}"' == state.tag for given in known)


def _answer(request: web.BaseRequest, state: _State) -> web.Response:
    headers = {"ETag": state.tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    if _matches(request, state):
        return web.Response(status=304, headers=headers)
    if wants_msgpack(request):
        return web.Response(body=state.packed, headers=headers | _MSGPACK)
    return web.Response(body=state.json, headers=headers | _JSON)
