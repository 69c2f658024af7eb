"""A server with keys for everybody's sessions and for those of two tenants, and every operation as a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from service.access.keyring import digest_of
from service.api.requests import SESSION_HEADER
from service.openapi import Operation
from tests import apps
from tests.service.api.test_hostile_input import VALID

MAIN = {"x-api-key": "main"}
ACME = {"Authorization": "Bearer acme"}
RIVAL = {"x-api-key": "rival"}

_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def entry(key: str, *lines: str) -> str:
    """An entry of the file of keys."""
    return "\n".join(("[[key]]", f'name = "{key}"', f'sha256 = "{digest_of(key).hex()}"', *lines, ""))


@asynccontextmanager
async def serving(redis: Redis, data_dir: Path, *lines: str, **settings: Any) -> AsyncIterator[apps.Client]:
    """A client of an application with the three keys; ``lines`` are added to the entries of the tenants."""
    file = data_dir / "keys.toml"
    file.write_text(entry("acme", 'prefix = "acme-"', *lines) + entry("rival", 'prefix = "rival-"', *lines))
    await redis.flushall()
    async with apps.serving(redis, data_dir, api_key="main", api_keys_file=file, **settings) as client:
        yield client


@dataclass(frozen=True)
class Call:
    """A request that concerns a session."""

    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def calls(operation: Operation, session_id: str) -> list[Call]:
    """Every way in which an operation can be asked about a session; none where sessions do not come into it.

    Raises:
        AssertionError: nothing is known of the operation.
    """
    template = operation.template
    body = VALID[template] if operation.request is not None else None
    upgrade = _UPGRADE if template.endswith("/ws") else {}
    if template.startswith("/v1/sessions/{id}"):
        return [Call(template.replace("{id}", session_id).replace("{fid}", "1"), body, upgrade)]
    match f"{operation.method} {template}":
        case "POST /v1/sessions":
            return [Call(template, {"id": session_id})]
        case "GET /v1/events" | "GET /v1/ws":
            named = f"{template}?session={session_id}"
            return [
                Call(named, None, upgrade),
                Call(f"{named}&prefix=", None, upgrade),
                Call(f"{template}?prefix={session_id}", None, upgrade),
            ]
        case "POST /v1/chat/completions" | "POST /v1/messages":
            return [
                Call(template, body, {SESSION_HEADER: session_id}),
                Call(template, {**body, "session_id": session_id}),
            ]
        case (
            "GET /v1/sessions"
            | "POST /v1/sessions/init"
            | "POST /v1/completions"
            | "POST /v1/messages/count_tokens"
            | "GET /v1/models"
            | "GET /v1/models/{id}"
            | "GET /health"
            | "GET /healthz"
            | "GET /livez"
            | "GET /v1/health"
            | "GET /metrics"
            | "GET /openapi.json"
            | "GET /docs"
            | "GET /docs/docs.css"
            | "GET /docs/docs.js"
            | "GET /dashboard"
            | "GET /dashboard/{file}"
        ):
            return []
    raise AssertionError(f"say here how {operation.method} {template} names sessions, or that it does not")
