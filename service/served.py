"""What is told of a request that was served: a line of the log, and a span."""

from __future__ import annotations

import logging
import time

from aiohttp import web

from service.errors import request_id
from service.keys import CLIENT
from service.metrics import route_of
from streams import tracing
from streams.context import REQUEST

log = logging.getLogger("service.access")


class Served:
    """A request that is being served, as a context manager: what is logged inside is about it, and so is its span.

    Args:
        request: the request, routed.

    Attributes:
        status: that it is answered with; 499, if its client leaves before that is known.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._started = time.monotonic()
        self._span = _span(request) if tracing.on() else tracing.OFF
        self._active = self._span.active()
        self.status = 499

    def __enter__(self) -> Served:
        # Every request has a task of its own, so this need not be taken back.
        REQUEST.set(request_id(self._request))
        self._active.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        status = self.status
        if self._span is not tracing.OFF:
            self._span.set({"http.response.status_code": status})
            self._span.end(str(status) if status >= 500 else None)
        # What the server has failed at is worth a line where not every request is. What asks without a key, and has no
        # client, is how it is: that it is not ready is an answer, to somebody who asks again at once.
        level = logging.INFO if status >= 500 and CLIENT in self._request else logging.DEBUG
        if log.isEnabledFor(level):
            self._log(level)
        self._active.__exit__(None, None, None)

    def _log(self, level: int) -> None:
        request, status = self._request, self.status
        method, route = route_of(request)
        seconds = time.monotonic() - self._started
        client = request[CLIENT].name if CLIENT in request else request.remote or ""
        told = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6), "client": client}
        log.log(level, "%s %s: %d to %s after %.4f s", method, route, status, client, seconds, extra=told)


def _span(request: web.Request) -> tracing.Span:
    method, route = route_of(request)
    attributes = {
        "http.request.method": method if method != "other" else "_OTHER",
        "http.route": route,
        "url.scheme": request.scheme,
        "url.path": request.path,
        "client.address": request.remote or "",
        "askahead.request.id": request_id(request),
    }
    return tracing.start(f"{method} {route}", attributes, parent=request.headers.get("traceparent", ""), kind="server")
