"""The dashboard: one page and its files. They say nothing of anybody; what the page shows it asks for with a key."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from service.openapi import Operation
from service.pages import CONTENT_TYPES, UNCHANGED, pages

# Read once: no request gets anywhere near the file system.
_FILES = pages(Path(__file__).parent / "static")


async def page(request: web.Request) -> web.Response:
    """The page."""
    return _FILES["index.html"].answer(request)


async def file(request: web.Request) -> web.Response:
    """One of its files."""
    found = _FILES.get(request.match_info["file"])
    if found is None:
        raise web.HTTPNotFound
    return found.answer(request)


OPERATIONS = (
    Operation(
        method="GET",
        path="/dashboard",
        handler=page,
        tag="System",
        summary="The dashboard",
        description="Ours. A page for people; it asks for a key where one is needed.",
        content_types=(CONTENT_TYPES[".html"],),
        statuses=UNCHANGED,
        needs_key=False,
    ),
    Operation(
        method="GET",
        path="/dashboard/{file:.+}",
        handler=file,
        tag="System",
        summary="The dashboard's files",
        content_types=tuple(CONTENT_TYPES.values()),
        statuses={**UNCHANGED, 404: "There is no such file."},
        needs_key=False,
    ),
)
