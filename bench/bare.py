"""``python -m bench.bare PORT``: aiohttp and nothing else; GET answers what was last POSTed, with its headers."""

from __future__ import annotations

import sys

from aiohttp import web


class _Echo:
    def __init__(self) -> None:
        self._body = b"{}"
        self._headers: dict[str, str] = {}

    async def tell(self, request: web.Request) -> web.Response:
        """Take what GET is to answer: the body, and headers from the query string."""
        self._body = await request.read()
        self._headers = dict(request.query)
        return web.Response()

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(body=self._body, headers=self._headers)


def main() -> None:
    echo = _Echo()
    app = web.Application()
    app.add_routes([web.get("/", echo.answer), web.post("/", echo.tell)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
