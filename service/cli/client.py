"""The one client of all commands: a running server's public interface and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from service.cli.failures import BadUsage, Failure, Refused, Unreachable

_CONNECT_SECONDS = 10
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=_CONNECT_SECONDS)
# Heartbeats come every 15 s unless the server is told otherwise.
_SILENCE_SECONDS = 60.0
_LINE_BYTES = 1 << 20
_BACKOFF_FIRST, _BACKOFF_MOST = 0.5, 15.0

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event.

    Attributes:
        kind: its name; empty where it has none.
        data: what it carries, decoded.
        position: what a connection that comes back gives to go on after it; empty where it has none.
    """

    kind: str
    data: Any
    position: str

    @property
    def session_id(self) -> str:
        """The session it is about, in a feed of several."""
        found: str = self.data.get("session_id", "")
        return found


class Client:
    """A server. Use :func:`connected`.

    Args:
        http: client whose base is the server.
        url: that base, for messages.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, query: Query = ()
    ) -> dict[str, Any]:
        """A request and its decoded answer.

        Raises:
            Unreachable: there is no answer.
            Refused: the server refuses it.
            Failure: what answers is no Askahead server.
        """
        async with self._request(method, path, body, query, _TIMEOUT) as response:
            found: dict[str, Any] = _decoded(await response.read(), response)
            return found

    async def stream(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Query = (),
        *,
        after: str = "",
        silence: float = _SILENCE_SECONDS,
    ) -> AsyncGenerator[Event, None]:
        """A request whose answer is server-sent events, as they come.

        Args:
            after: position after which to go on.
            silence: seconds without a word after which the connection counts as lost.

        Raises:
            Unreachable: there is no answer, or the connection is lost.
            Refused: the server refuses it.
        """
        headers = {"Last-Event-ID": after} if after else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        async with self._request(method, path, body, query, timeout, headers) as response:
            kind = position = ""
            async for line in response.content:
                name, _, value = line.rstrip(b"\r\n").partition(b": ")
                if name == b"event":
                    kind = value.decode()
                elif name == b"id":
                    position = value.decode()
                elif name == b"data" and value != b"[DONE]":
                    yield Event(kind, orjson.loads(value), position)
                elif not line.strip():
                    kind = position = ""

    async def follow(
        self, sessions: Sequence[str], prefix: str | None, lost: Callable[[str], None]
    ) -> AsyncGenerator[Event, None]:
        """Events of several sessions, whatever happens to the connection, until those that are named are deleted.

        A connection that is lost is made again, after half a second at first and 15 s at most, and resumed.

        Args:
            sessions: their ids.
            prefix: of further sessions, those created later included; None for none.
            lost: called with a clause whenever the connection is lost.

        Raises:
            Unreachable: the first connection fails.
            Refused: the server refuses the request for good.
        """
        query = [("session", session) for session in sessions] + ([] if prefix is None else [("prefix", prefix)])
        left, position, pause, begun = set(sessions), "", _BACKOFF_FIRST, False
        while True:
            why = "the server ended it"
            try:
                async with aclosing(self.stream("GET", "/v1/events", query=query, after=position)) as events:
                    async for event in events:
                        begun, pause = True, _BACKOFF_FIRST
                        position = event.position or position
                        if event.kind == "error":
                            why = f"the server says {event.data['reason']}"
                            break
                        if event.kind == "deleted":
                            left.discard(event.session_id)
                        yield event
                if not left and prefix is None:
                    return
            except Unreachable as error:
                if not begun:
                    raise
                why = error.message
            except Refused as error:
                if not begun or error.status not in PASSING:
                    raise
                why = error.message
            lost(why)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACKOFF_MOST)

    async def ready(self) -> bool:
        """Whether the server can answer questions."""
        try:
            await self.call("GET", "/health")
        except Unreachable:
            return False
        return True

    # Sessions

    async def session(self, session_id: str) -> dict[str, Any]:
        """A session as it is now."""
        return await self.call("GET", session_path(session_id))

    async def create(self, fields: Mapping[str, object]) -> dict[str, Any]:
        """A new session."""
        return await self.call("POST", "/v1/sessions", fields)

    async def delete(self, session_id: str) -> None:
        """Delete a session."""
        await self.call("DELETE", session_path(session_id))

    @asynccontextmanager
    async def own_session(self, fields: Mapping[str, object]) -> AsyncIterator[str]:
        """A session of our own, deleted at the end; its id."""
        created = await self.create(fields)
        try:
            yield created["id"]
        finally:
            # What went wrong before is the better news; an idle session is deleted by the server in time.
            with suppress(Failure):
                await self.delete(created["id"])

    async def push(self, session_id: str, entries: Sequence[object]) -> dict[str, Any]:
        """Push a batch; its acknowledgement."""
        return await self.call("POST", f"{session_path(session_id)}/push", {"data": list(entries)})

    async def queries(self, session_id: str, query: Query = ()) -> dict[str, Any]:
        """The Flash Queries of a session with their answers, as a poll gets them."""
        return await self.call("GET", f"{session_path(session_id)}/flash", query=query)

    async def generate(self, session_id: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """Ask."""
        return await self.call("POST", f"{session_path(session_id)}/generate", fields)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        query: Query,
        timeout: aiohttp.ClientTimeout,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(path, encoded=True).extend_query(list(query))
        try:
            async with self._http.request(
                method, url, json=body, headers=headers, timeout=timeout, read_bufsize=_LINE_BYTES
            ) as response:
                if not response.ok:
                    raise _refusal(await response.read(), response)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            away = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else None
            reason = away or str(error) or "no answer in time"
            raise Unreachable(
                f"cannot talk to {self.url}: {reason}; is `askahead serve` running there?",
                sent=not isinstance(error, aiohttp.ClientConnectorError),
            ) from None


def session_path(session_id: str) -> str:
    """Where a session is."""
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _decoded(body: bytes, response: aiohttp.ClientResponse) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Failure(
            f"{response.url.origin()} is no Askahead server: it answered {response.method} {response.url.path} with "
            f"status {response.status} and no JSON that it would send"
        ) from None


def _refusal(body: bytes, response: aiohttp.ClientResponse) -> Failure:
    what = f"{response.method} {response.url.path}"
    try:
        error = _decoded(body, response)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (Failure, LookupError, TypeError):
        if response.status in PASSING:
            # A proxy's own page.
            return Unreachable(
                f"{response.url.origin()} answered {what} with status {response.status}; try again later", sent=True
            )
        return Failure(
            f"{response.url.origin()} is no Askahead server: it answered {what} with status {response.status}; "
            "check --url"
        )
    wait = response.headers.get("Retry-After", "")
    return Refused(
        f"the server refused {what} ({response.status}): {message}",
        status=response.status,
        code=code,
        retry_after=float(wait) if wait.isdecimal() else None,
    )


@asynccontextmanager
async def connected(url: str, api_key: str | None) -> AsyncIterator[Client]:
    """A client of a running server; it connects with the first request.

    Args:
        url: where it listens.
        api_key: what requests carry, if it asks for one.

    Raises:
        BadUsage: that is no URL of a server, or no key.
    """
    try:
        base = URL(url)
        if base.scheme not in ("http", "https") or not base.host or base.path != "/" or base.query_string:
            raise ValueError
    except ValueError:
        raise BadUsage(f"--url: {url} is not a URL such as http://127.0.0.1:8080") from None
    if api_key and not all("!" <= character <= "~" for character in api_key):
        raise BadUsage("--api-key: must be printable ASCII without spaces, as it travels in a header")
    headers = {"x-api-key": api_key} if api_key else None
    async with aiohttp.ClientSession(
        base, headers=headers, json_serialize=lambda body: orjson.dumps(body).decode()
    ) as http:
        yield Client(http, str(base.origin()))
