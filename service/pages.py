"""Files for browsers: kept in memory, checked by entity tags, and with headers that let nothing in from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

CONTENT_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
"""By the end of a file's name; there are no others."""

UNCHANGED: Final = {304: "It is what `If-None-Match` names."}
"""Belongs among the statuses of whatever serves one."""

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        # Nothing can become markup: whatever tries to is refused by the browser.
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A file as it is sent.

    Attributes:
        body: its bytes, UTF-8.
        content_type: without the character set.
        tag: names this state of it.
    """

    body: bytes
    content_type: str
    tag: str

    @classmethod
    def of(cls, path: Path) -> Page:
        """The file at ``path``. Raises OSError, and KeyError for a name of another ending."""
        body = path.read_bytes()
        return cls(body, CONTENT_TYPES[path.suffix], hashlib.blake2b(body, digest_size=12).hexdigest())

    def answer(self, request: web.Request) -> web.Response:
        """The file, or 304 for who has it."""
        if any(given.value in ("*", self.tag) for given in request.if_none_match or ()):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(body=self.body, content_type=self.content_type, charset="utf-8", headers=_HEADERS)
        response.etag = self.tag
        return response


def pages(folder: Path) -> dict[str, Page]:
    """All files of these types in a folder and below, by their paths in it."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in CONTENT_TYPES)
    return {path.relative_to(folder).as_posix(): Page.of(path) for path in found}
