"""The demo itself: replay the data, show the answers, end cleanly."""

from __future__ import annotations

import asyncio
import csv
import importlib.metadata
import itertools
import os
import signal
import threading
import time
import webbrowser
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from service.cli.client import Client, connected, session_path
from service.cli.demo.server import DemoError, Server, running_server
from service.cli.demo.view import Board, Question, screen, try_it
from service.cli.failures import Refused, Unreachable
from service.cli.showing import change_line

# What so small a model can do: it continues a sentence with a number like those it has read. So the choices are whole
# sentences that differ in the number's first digit, and the free answer ends with the number.
QUESTIONS = (
    Question(
        "What is the next temperature?",
        choices=("The next temperature is 60s or below", "The next temperature is 70s or above"),
    ),
    Question(
        "What is the temperature now?",
        choices=("The temperature now is 60s or below", "The temperature now is 70s or above"),
    ),
    Question("What is the highest temperature so far?", max_tokens=11),
)
# July: wide swings, from the fifties before dawn to the seventies in the afternoon, and each day a little warmer.
FIRST_HOUR = "2010/07/12 00:00"
# A day of hours goes in at once, so that the model knows what a day looks like before the first answer.
HISTORY = 24
_FRAMES_PER_SECOND = 5
_READY_SECONDS = 900.0
_DEATH_SECONDS = 3.0


def read_lines() -> list[str]:
    """The data set, a line per hour: a year of Seattle temperatures from :data:`FIRST_HOUR` on.

    Raises:
        DemoError: the data set is not installed.
    """
    # The file is found without importing the package, which would import pandas.
    try:
        files = importlib.metadata.files("vega-datasets") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    path = next((Path(str(file.locate())) for file in files if file.name == "seattle-temps.csv"), None)
    if path is None or not path.is_file():
        raise DemoError("the demo's data set is not installed; run: pip install 'askahead[demo]'")
    with path.open(newline="") as file:
        rows = [(row["date"], float(row["temp"])) for row in csv.DictReader(file)]
    start = next(index for index, (date, _) in enumerate(rows) if date >= FIRST_HOUR)
    return [f"{date} temp {temp:.1f} F" for date, temp in rows[start:] + rows[:start]]


async def replay(
    client: Client,
    board: Board,
    lines: Iterator[str],
    rate: float,
    changed: Callable[[str], None],
    began: Callable[[str], object],
) -> None:
    """Stream lines into a session, and into the next one when the model's context is full, until they end.

    Args:
        client: of the server.
        board: told everything.
        lines: what to push.
        rate: lines per second.
        changed: called with a line of text for every answer that changed.
        began: called with the dashboard's address of the first session, when it is there.

    Raises:
        Refused: the server refuses something.
        Unreachable: the connection is lost.
    """
    newest = deque(itertools.islice(lines, HISTORY), maxlen=HISTORY)
    status = f"streaming {rate:g} hour{'' if rate == 1 else 's'} of Seattle weather a second"
    for number in itertools.count(1):
        session_id = "demo" if number == 1 else f"demo-{number}"
        await client.create({"id": session_id, "flash": [question.body() for question in board.questions]})
        board.begin(session_id, status)
        changed(f"watch it live: {board.page}")
        if number == 1:
            began(board.page)
        watching = asyncio.create_task(_watch(client, board, session_id, changed), name=f"watch-{session_id}")
        feeding = asyncio.create_task(_feed(client, board, session_id, newest, lines, rate), name=f"feed-{session_id}")
        try:
            await asyncio.wait((watching, feeding), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
                raise Unreachable(f"the events of session {session_id} ended", sent=True)
            more = feeding.result()
        finally:
            await _cancel(watching, feeding)
        if not more:
            return
        await client.delete(session_id)
        status = f"the model's context was full after {board.pushed} lines: new session from the newest {HISTORY}"
        changed(status)


async def _watch(client: Client, board: Board, session_id: str, changed: Callable[[str], None]) -> None:
    async for event in client.stream("GET", f"{session_path(session_id)}/events"):
        if event.kind == "data_updated":
            board.updated(event.data)
        elif event.kind == "flash_ready" and board.answered(event.data, time.monotonic()):
            changed(change_line(event.data, time.strftime("%H:%M:%S")))


async def _feed(
    client: Client, board: Board, session_id: str, newest: deque[str], lines: Iterator[str], rate: float
) -> bool:
    """Push the newest lines known, then one after the other. Returns whether there are more than the context took."""
    loop = asyncio.get_running_loop()
    batch, due = list(newest), loop.time()
    while True:
        sent = time.monotonic()
        try:
            ack = await client.push(session_id, batch)
        except Refused as refused:
            if refused.code != "context_length_exceeded":
                raise
            if not board.pushed:
                raise DemoError(f"{refused.message}; the demo needs room for more than {HISTORY} lines") from None
            return True
        board.acknowledged(ack, batch[-1], sent)
        line = next(lines, None)
        if line is None:
            return False
        newest.append(line)
        batch = [line]
        due = max(due + 1 / rate, loop.time())
        await asyncio.sleep(due - loop.time())


# The display


class Display:
    """Where the demo shows itself: a live table on a terminal, else a line of text per change.

    Use as an async context manager: it owns the task that draws.

    Args:
        board: what is shown.
        key: requests need ``ASKAHEAD_API_KEY``.
    """

    def __init__(self, board: Board, *, key: bool) -> None:
        console, spinner = Console(), Spinner("dots")
        self._live = console.is_terminal
        self._drawing: asyncio.Task[None] | None = None
        self._screen = Live(
            console=console,
            auto_refresh=False,
            get_renderable=lambda: screen(board, time.monotonic(), hint=try_it(board, key=key), spinner=spinner),
        )

    async def __aenter__(self) -> Display:
        if self._live:
            self._screen.start()
            self._drawing = asyncio.create_task(self._draw(), name="draw")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._drawing is not None:
            await _cancel(self._drawing)
            self._screen.stop()

    def tell(self, text: str) -> None:
        """Print a line, where there is no live table."""
        if not self._live:
            print(text, flush=True)

    async def _draw(self) -> None:
        while True:
            self._screen.refresh()
            await asyncio.sleep(1 / _FRAMES_PER_SECOND)


async def run(
    command: Sequence[str], *, data_dir: Path | None, rate: float, seconds: float | None, browse: bool = False
) -> None:
    """The whole demo, until SIGINT, SIGTERM or SIGHUP, or until its time is over.

    Args:
        command: what starts a server; flags of ``askahead serve`` are appended.
        data_dir: the server's data directory, its default if None.
        rate: lines per second.
        seconds: of streaming; None is without end.
        browse: open the dashboard in a browser.

    Raises:
        Failure: what went wrong.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, stop.set)
    lines = read_lines()
    async with running_server(command, data_dir) as server:
        await _first(
            asyncio.create_task(_show(server, lines, rate, seconds, browse), name="show"),
            asyncio.create_task(server.died(), name="server"),
            asyncio.create_task(stop.wait(), name="stop"),
        )
        print("stopping the server", flush=True)


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait for one of the tasks and end the others. Raises what the first to end raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(*tasks)
    for task in done:
        task.result()


async def _show(server: Server, lines: Sequence[str], rate: float, seconds: float | None, browse: bool) -> None:
    key = os.environ.get("ASKAHEAD_API_KEY")
    board = Board(server.url, str(server.log_path), QUESTIONS)
    began = _open if browse else lambda _: None
    async with connected(server.url, key) as client, Display(board, key=bool(key)) as display:
        display.tell(f"starting a server at {server.url}; its log: {server.log_path}")
        await _wait_ready(client, server, board, display.tell)
        display.tell(f"ready; try it: {server.url}/docs")
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await replay(client, board, itertools.cycle(lines), rate, display.tell, began)
        except Unreachable as error:
            # Most likely it is going down: what its log says is better news than a broken connection.
            with suppress(TimeoutError):
                async with asyncio.timeout(_DEATH_SECONDS):
                    await server.died()
            raise DemoError(f"{error.message} Its log: {server.log_path}") from error


def _open(page: str) -> None:
    # Some browsers are waited for until they end; the demo must not wait for them.
    threading.Thread(target=webbrowser.open, args=(page,), name="browser", daemon=True).start()


async def _wait_ready(client: Client, server: Server, board: Board, tell: Callable[[str], None]) -> None:
    """Wait for the model to load; tell what the server says meanwhile."""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while not await client.ready():
                last = server.log_lines()[-1:]
                if last and last[0] != board.status:
                    board.status = last[0]
                    tell(last[0])
                await asyncio.sleep(0.25)
    except TimeoutError:
        raise DemoError(f"the server was not ready within {_READY_SECONDS:g} s; its log: {server.log_path}") from None


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
