"""Polling: entity tags, 304, and long polls that wait for news."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import ETag, web

from flashquery.events import SubscriptionEnded
from service.api.flash.protocol import FlashList, FlashObject, PollQuery
from service.api.requests import await_entries, session_of
from service.bodies import query_model, respond
from service.core import CORE
from service.keys import SETTINGS
from service.views import View
from streams.errors import InvalidInput, Unavailable

State = FlashList | FlashObject


async def poll(request: web.Request, view: View, read: Callable[[], Awaitable[State]]) -> web.Response:
    """Answer with what ``read`` returns, or 304, or wait for it to change.

    Raises:
        InvalidInput: the wait is longer than the server allows.
        NotFound: the session was deleted meanwhile.
    """
    query = query_model(request, PollQuery)
    longest = request.app[SETTINGS].wait_seconds_max
    if query.wait > longest:
        raise InvalidInput(f"wait: must be at most {longest:g} seconds", param="wait")
    await view.touch()
    if query.after is not None:
        await await_entries(request, session_of(request), query.after)
    if not query.wait:
        return _answer(request, await read())
    loop = asyncio.get_running_loop()
    until = loop.time() + query.wait
    with view.pinned(), request.app[CORE].hub.subscribe(view.id) as subscription:
        while True:
            state = await read()
            left = until - loop.time()
            if left <= 0 or _is_news(request, state):
                return _answer(request, state)
            try:
                await subscription.next(left)
            except SubscriptionEnded as ended:
                raise Unavailable(
                    f"the wait was cut short ({ended.reason}); poll again", code="wait_interrupted", retry_after=1
                ) from None


def _is_news(request: web.Request, state: State) -> bool:
    if request.if_none_match is not None:
        return not _matches(request, _tag(state))
    queries = state.data if isinstance(state, FlashList) else [state]
    return all(query.fresh for query in queries)


def _tag(state: State) -> ETag:
    content = orjson.dumps(state.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
    # Weak: the same state may be spelt as JSON or as msgpack.
    return ETag(hashlib.blake2b(content, digest_size=12).hexdigest(), is_weak=True)


def _matches(request: web.Request, tag: ETag) -> bool:
    return any(given.value in ("*", tag.value) for given in request.if_none_match or ())


def _answer(request: web.Request, state: State) -> web.Response:
    tag = _tag(state)
    if _matches(request, tag):
        response = web.Response(status=304)
        response.headers["Vary"] = "Accept"
    else:
        response = respond(request, state.model_dump(exclude_none=True))
    response.etag = tag
    response.headers["Cache-Control"] = "no-cache"
    return response
