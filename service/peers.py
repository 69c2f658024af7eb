"""The other servers on the same Redis: what concerns a session is passed on to the one that owns it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from yarl import URL

from service.api.fields import SESSION_HEADER, SESSION_ID
from service.core import Core
from service.errors import PREPARED, request_id
from service.keys import CLIENT
from streams import tracing
from streams.context import SESSION
from streams.errors import Unavailable
from streams.intake import Item
from streams.leases import Replica

log = logging.getLogger(__name__)


FORWARDED = "x-askahead-forwarded"
"""Header of a request that was passed on: it is not passed on again."""

_CONNECT_SECONDS = 2.0
# The owner bounds how long an answer takes; this is for one that has vanished.
_SILENCE_SECONDS = 600.0
_CHUNK = 1 << 16
_PER_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SECRETS = (hdrs.AUTHORIZATION, "x-api-key")
_ID = re.compile(SESSION_ID)


class Peers:
    """Finds owners and speaks to them. Use as an async context manager: it owns the connections.

    Args:
        core: which sessions are here, and who owns the others.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._me = core.leases.me
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Peers:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def owner(self, session_id: str) -> Replica | None:
        """The other server that owns a session; None if it is this one's, or there is none.

        Raises:
            Unavailable: the session has no owner at this moment.
            RedisError: Redis does not answer.
        """
        if self._core.has(session_id):
            return None
        (owner,) = await self._core.leases.owners([session_id])
        if owner is not None and owner.id != self._me.id:
            return owner
        if self._core.begun and await self._core.leases.exists(session_id):
            raise Unavailable(
                f"session '{session_id}' is about to have another server; try again shortly",
                code="session_moving",
                retry_after=1,
            )
        return None

    async def forward(self, request: web.Request, owner: Replica, body: bytes | None = None) -> web.StreamResponse:
        """Have a request answered by a session's owner.

        Args:
            request: as it came.
            owner: who answers it.
            body: its body, if that was read already.

        Raises:
            Unavailable: the owner does not answer.
        """
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in _PER_CONNECTION
        )
        headers.update(self._marks(request))
        # The body has been unpacked on its way in.
        headers.popall(hdrs.CONTENT_ENCODING, None)
        data: Any = body
        if body is None and request.body_exists:
            data = request.content.iter_chunked(_CHUNK)
        try:
            async with self._http.request(
                request.method, _at(owner, request.raw_path), headers=headers, data=data, allow_redirects=False
            ) as reply:
                return await _relay(request, reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            if PREPARED in request:
                # What was sent cannot be taken back: the client sees a stream that broke off.
                raise ConnectionAbortedError("the session's owner broke off") from error
            raise _silent(owner, error) from error

    async def push(
        self, owner: Replica, session_id: str, items: Sequence[Item], request: web.Request
    ) -> tuple[int, dict[str, Any]]:
        """Push to a session of another server. Returns the status and the body of its answer.

        Args:
            owner: of the session.
            session_id: which.
            items: what is pushed.
            request: the socket's of whoever pushes: its key decides what it may.

        Raises:
            Unavailable: the owner does not answer.
        """
        client = request.headers
        headers = {name: client[name] for name in _SECRETS if name in client} | self._marks(request)
        url = _at(owner, f"/v1/sessions/{session_id}/push")
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                async with self._http.post(url, json={"data": list(items)}, headers=headers) as reply:
                    return reply.status, await reply.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _silent(owner, error) from error

    def _marks(self, request: web.Request) -> dict[str, str]:
        """Headers that say that it is passed on, and which request it was."""
        return {FORWARDED: self._me.id, "x-request-id": request_id(request), **tracing.headers()}


def _at(owner: Replica, path: str) -> URL:
    return URL(f"{owner.url}{path}", encoded=True)


def _silent(owner: Replica, error: BaseException) -> Unavailable:
    log.warning("the server at %s does not answer: %s", owner.url, error or type(error).__name__)
    return Unavailable(
        "the server that has this session does not answer; if it is gone another will have it soon: try again",
        code="owner_unavailable",
        retry_after=2,
    )


async def _relay(request: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = CIMultiDict((name, value) for name, value in reply.headers.items() if name.lower() not in _PER_CONNECTION)
    response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
    if reply.content_length is not None:
        response.content_length = reply.content_length
    await response.prepare(request)
    async for chunk in reply.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


PEERS = web.AppKey("peers", Peers)


def passed_on(handler: Handler, *, path: str, anywhere: bool) -> Handler:
    """A handler that leaves requests to the owner of the session that their path or header names.

    Args:
        handler: serves the operation.
        path: its route.
        anywhere: any server can, unless the request waits for data of its own to be read (``after``).
    """

    in_path = path.startswith("/v1/sessions/{id}")

    async def run(request: web.Request) -> web.StreamResponse:
        session_id = request.match_info["id"] if in_path else request.headers.get(SESSION_HEADER)
        if session_id is None or not _ID.fullmatch(session_id):
            return await handler(request)
        SESSION.set(session_id)
        here = FORWARDED in request.headers or (anywhere and "after" not in request.query)
        if here or not request[CLIENT].sees(session_id):
            return await handler(request)
        owner = await request.app[PEERS].owner(session_id)
        return await (handler(request) if owner is None else request.app[PEERS].forward(request, owner))

    return run
