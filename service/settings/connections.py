"""Settings of requests, sockets and event streams."""

from __future__ import annotations

from pydantic import BaseModel

from service.settings.fields import MIB, panel

_connections = panel("Connections")


class ConnectionSettings(BaseModel):
    """Bounds of what a client may send, hold and wait for."""

    max_body_bytes: int = _connections(
        16 * MIB, "Largest request body, in bytes; larger ones get 413.", ge=1024, le=1024 * MIB
    )
    max_bodies_bytes: int = _connections(
        256 * MIB,
        "Most bytes of request bodies held at once over all connections; beyond it requests get 503.",
        ge=1024,
        le=65_536 * MIB,
    )
    request_timeout_seconds: float = _connections(
        30.0,
        "Time, in seconds, in which a request's body must arrive, else 408; slow senders cannot hold memory.",
        ge=0.1,
        le=3600,
    )
    answer_timeout_seconds: float = _connections(
        600.0,
        "Time, in seconds, in which an answer must begin, beside the waits that the request asks for (`wait`, `after`);"
        " else 503, so that nothing hangs for ever.",
        ge=0.1,
        le=86_400,
    )
    rate_limit: float | None = _connections(
        None,
        "Requests per second that one client may send on average, messages on websockets included; more get 429. A"
        " client is a key, whose own rate in the file of keys goes first, or an address where no key is needed. Unset:"
        " no limit.",
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
    )
    rate_burst: int | None = _connections(
        None,
        "Requests that a client may send at once after a pause. Unset: those of one second.",
        ge=1,
        le=1_000_000,
    )
    max_requests: int = _connections(
        1024,
        "Most requests being served at once, without those that only wait for events; more get 503.",
        ge=1,
        le=1_000_000,
    )
    max_requests_per_client: int = _connections(
        256,
        "The same per client; more get 429, so that one client cannot take every place.",
        ge=1,
        le=1_000_000,
    )
    max_subscriptions: int = _connections(
        4096,
        "Most event streams, websockets and long polls open at once; more get 503. Each may keep a backlog waiting.",
        ge=1,
        le=1_000_000,
    )
    max_subscriptions_per_client: int = _connections(1024, "The same per client; more get 429.", ge=1, le=1_000_000)
    ws_frame_bytes: int = _connections(
        16 * MIB, "Largest websocket message from a client, in bytes.", ge=1024, le=1024 * MIB
    )
    ws_read_timeout_seconds: float = _connections(
        30.0,
        "A websocket that is silent for this long, in seconds, pongs included, is closed; two heartbeats.",
        ge=0.1,
        le=3600,
    )
    heartbeat_seconds: float = _connections(
        15.0,
        "Silence, in seconds, after which websockets and event streams get a heartbeat; proxies often cut at 30 s.",
        ge=0.1,
        le=3600,
    )
    subscriber_backlog: int = _connections(
        1024,
        "Most events waiting for one slow subscriber; beyond it the connection is closed with the reason.",
        ge=1,
        le=1_000_000,
    )
    events_kept: int = _connections(
        1000,
        "Events kept per session, so that a client that reconnects is told what it missed: minutes of a busy stream. A"
        " client that missed more starts from a snapshot.",
        ge=1,
        le=100_000,
    )
