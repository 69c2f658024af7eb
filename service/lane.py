"""The lane of polls: those that this server answers from memory pass before anything is routed.

They are most of what a server is asked, and to be routed and handed on takes longer than to answer them. Whatever is
special about a poll, or wrong, takes the usual way.
"""

from __future__ import annotations

import re

from aiohttp import web

from service.api.fields import SESSION_ID
from service.api.legacy.views import is_legacy
from service.auth import holder
from service.core import CORE
from service.cors import add_cors_headers
from service.delivery.polling import poll_at_once
from service.errors import given_request_id, new_request_id
from service.keys import CLIENTS, METRICS, SETTINGS
from streams.errors import AskaheadError

_POLL = re.compile(rf"/v1/sessions/({SESSION_ID.strip('^$')})/flash(?:/([0-9]{{1,9}}))?")
_ALL, _ONE = "/v1/sessions/{id}/flash", "/v1/sessions/{id}/flash/{fid}"


def open_lane(runner: web.AppRunner) -> None:
    """Have polls pass first.

    Args:
        runner: of an application, and set up.

    Raises:
        RuntimeError: it is not set up.
    """
    app, server = runner.app, runner.server
    if server is None:
        raise RuntimeError("the runner has to be set up before its lane is opened")
    usual = server.request_handler
    clients, metrics, origins = app[CLIENTS], app[METRICS], app[SETTINGS].cors_origins

    def answer(request: web.BaseRequest) -> web.Response | None:
        if request.method != "GET" or not (found := _POLL.fullmatch(request.raw_path)):
            return None
        session_id, query_id = found.groups()
        view = app[CORE].own(session_id)
        if view is None or is_legacy(view.session):
            return None
        try:
            client = holder(request, clients)
            if not client.sees(session_id):
                return None
            response = poll_at_once(request, view, int(query_id) if query_id else None)
            client.spend()
        except AskaheadError:
            return None
        metrics.count_one("GET", _ONE if query_id else _ALL, response.status)
        response.headers["x-request-id"] = given_request_id(request) or new_request_id()
        if origins:
            add_cors_headers(request, response, origins)
        return response

    async def pass_by(request: web.BaseRequest) -> web.StreamResponse:
        return answer(request) or await usual(request)

    server.request_handler = pass_by
