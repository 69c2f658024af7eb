"""``askahead watch`` itself: hear events, show answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing

import orjson
from rich.console import Console
from rich.live import Live

from service.cli.client import Client, connected
from service.cli.failures import say
from service.cli.showing import change_line
from service.cli.watch.board import Board

_REFRESHES_PER_SECOND = 4


async def run(sessions: Sequence[str], prefix: str | None, url: str, api_key: str | None, *, json: bool) -> None:
    """Watch until all sessions that are named are deleted.

    Raises:
        Failure: the server cannot be reached at first, or refuses.
    """
    board, console = Board(), Console()
    async with connected(url, api_key) as client:
        if json or not console.is_terminal:
            await _print(client, board, sessions, prefix, json=json)
            return
        with Live(
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            get_renderable=lambda: board.screen(time.time()),
        ):

            def lost(why: str) -> None:
                board.remark = f"reconnecting: {why}"

            async with aclosing(client.follow(sessions, prefix, lost)) as events:
                async for event in events:
                    board.heard(event)


async def _print(client: Client, board: Board, sessions: Sequence[str], prefix: str | None, *, json: bool) -> None:
    async with aclosing(client.follow(sessions, prefix, lambda why: say(f"reconnecting: {why}"))) as events:
        async for event in events:
            changed = board.heard(event)
            if event.kind != "flash_ready":
                continue
            if json:
                print(orjson.dumps({**event.data, "changed": changed}).decode(), flush=True)
            elif changed:
                clock = time.strftime("%H:%M:%S", time.localtime(event.data["evaluated_at"]))
                print(f"{event.session_id}  {change_line(event.data, clock)}", flush=True)
