"""Events of old-style sessions: the same feeds, in the shapes of the old generation."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from flashquery.events import Event
from service.api.legacy.views import streaming
from service.api.sessions.protocol import SocketMessage
from service.core import CORE
from service.delivery.feed import Feed, bare
from service.delivery.sse import stream_events
from service.delivery.websocket import serve_socket
from service.views import Own, View


async def events(request: web.Request, view: View) -> web.StreamResponse:
    """Stream what happens to the session."""
    return await stream_events(request, Feed(request.app[CORE], [view.id], shape=_in_stream))


async def socket(request: web.Request, view: View) -> web.StreamResponse:
    """Take pushes, and tell what happens to the session."""

    def shape(event: Event) -> Event | None:
        return _in_socket(view, event)

    feed = Feed(request.app[CORE], [view.id], shape=shape)
    return await serve_socket(request, feed, SocketMessage, lambda _: view.id)


def _in_stream(event: Event) -> Event | None:
    if event.kind == "connected":
        return Event(event.kind, _only(event.data, "data_version", "flash_queries"))
    return _changed(event)


def _in_socket(view: View, event: Event) -> Event | None:
    if event.kind == "connected":
        return Event(event.kind, event.data | {"streaming": not isinstance(view, Own) or streaming(view.session)})
    return _changed(event)


def _changed(event: Event) -> Event | None:
    data = event.data
    match event.kind:
        case "data_updated":
            shown = {"data_version": data["data_version"], "data_count": data["entries"], "pos_next": data["tokens"]}
        case "push_ack":
            shown = {**_only(data, "pushed", "dropped"), "queue_size": data["pending"]}
        case "flash_ready":
            shown = _only(data, "id", "query", "value", "data_version", "confidence", "evaluated_at")
        case _:
            return bare(event)
    return Event(event.kind, shown)


def _only(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: data[name] for name in names}
