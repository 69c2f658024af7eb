"""What calibration asks of a server: its public interface and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from service.cli.calibrate.recording import CalibrationError, Entry

_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10)
_READY_SECONDS = 120.0
_POLL_SECONDS = 0.02


class ContextFull(CalibrationError):
    """The stream does not fit the model's context any more."""


class Api:
    """A server. Use :func:`connected`.

    Args:
        http: client whose base is the server.
    """

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    @asynccontextmanager
    async def session(self, fields: Mapping[str, object]) -> AsyncIterator[str]:
        """A session of our own, deleted at the end; its id."""
        created = await self._call("POST", "/v1/sessions", {**fields, "pre_decode": True})
        try:
            yield created["id"]
        finally:
            # What went wrong before is the better news; an idle session is deleted by the server in time.
            with suppress(CalibrationError, aiohttp.ClientError, TimeoutError):
                await self._call("DELETE", f"/v1/sessions/{created['id']}")

    async def push(self, session_id: str, entries: Sequence[Entry]) -> int:
        """Push a batch and wait for the ready position over it; how many entries there are now.

        Raises:
            ContextFull: they do not fit.
        """
        ack = await self._call("POST", f"/v1/sessions/{session_id}/push", {"data": list(entries)})
        if ack["dropped"]:
            raise CalibrationError("the server's queue does not hold a batch; use a smaller --batch")
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while True:
                    state = await self._call("GET", f"/v1/sessions/{session_id}")
                    if not state["pending"] and state["ready"]:
                        break
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise CalibrationError(
                f"the session was not ready within {_READY_SECONDS:g} s; models that think before they answer have no "
                "ready position, and nothing to calibrate"
            ) from None
        total: int = ack["total_pushed"]
        return total

    async def generate(self, session_id: str, **fields: object) -> dict[str, Any]:
        """Ask."""
        return await self._call("POST", f"/v1/sessions/{session_id}/generate", {**fields, "temperature": 0})

    async def find(self, session_id: str, prompt: str) -> int | None:
        """The id of the Flash Query of that text, if there is one."""
        found = await self._call("GET", f"/v1/sessions/{session_id}/flash")
        return next((query["id"] for query in found["data"] if query["query"] == prompt), None)

    async def change(self, session_id: str, query_id: int, fields: Mapping[str, object]) -> None:
        """Change a Flash Query."""
        await self._call("PATCH", f"/v1/sessions/{session_id}/flash/{query_id}", fields)

    async def register(self, session_id: str, fields: Mapping[str, object]) -> int:
        """Register a Flash Query; its id."""
        query_id: int = (await self._call("POST", f"/v1/sessions/{session_id}/flash", fields))["id"]
        return query_id

    async def get(self, session_id: str, query_id: int) -> dict[str, Any]:
        """A Flash Query."""
        return await self._call("GET", f"/v1/sessions/{session_id}/flash/{query_id}")

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        async with self._http.request(method, path, json=body) as response:
            try:
                reply: dict[str, Any] = await response.json()
                if response.ok:
                    return reply
                error = reply["error"]
                code, message = error["code"], error["message"]
            except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
                raise CalibrationError(
                    f"{response.url.origin()} is no Askahead server: it answered {method} {path} with "
                    f"status {response.status} and no JSON that it would send"
                ) from None
        kind = ContextFull if code == "context_length_exceeded" else CalibrationError
        raise kind(f"the server refused {method} {path} ({response.status}): {message}")


@asynccontextmanager
async def connected(url: str, api_key: str | None) -> AsyncIterator[Api]:
    """A client of a running server.

    Args:
        url: where it listens.
        api_key: what requests carry, if it asks for one.

    Raises:
        CalibrationError: it cannot be reached, or stops answering.
    """
    headers = {"x-api-key": api_key} if api_key else None
    try:
        client = aiohttp.ClientSession(url, headers=headers, timeout=_TIMEOUT)
    except ValueError:
        raise CalibrationError(f"{url} is not a URL such as http://127.0.0.1:8080") from None
    try:
        async with client as http:
            yield Api(http)
    except (aiohttp.ClientError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        raise CalibrationError(f"cannot talk to {url}: {reason}; is `askahead serve` running there?") from None
