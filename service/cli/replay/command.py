"""``askahead replay`` itself: push what is due, hear the answers, record them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from service.cli.client import Client, Event, connected, session_path
from service.cli.failures import Failure, Refused, say
from service.cli.forms import Format
from service.cli.mapping import mapper, pairs
from service.cli.push.command import entry_type
from service.cli.push.pushing import Pusher
from service.cli.replay.pace import Due, at_rate, at_speed, in_steps
from service.cli.replay.table import Table, answer_row, recording
from service.cli.rows import read

# An answer takes seconds at most; where none comes for so long, something is wrong.
_PATIENCE_SECONDS = 300.0
_ATTEMPTS = 8
_AHEAD = 2048
# An answer is told soon after its version.
_VERSIONS_KEPT = 64
_CONDITIONS = ("every", "min_interval", "when")


@dataclass(frozen=True, slots=True)
class Options:
    """What to replay where; see ``askahead replay --help``."""

    file: Path
    session: str
    record: Path | None
    speed: float | None
    rate: float | None
    batch: int
    time: str
    ask: Sequence[str]
    form: Format | None
    entry_type: str | None
    columns: Sequence[str]
    create: bool
    json: bool


class Answers:
    """Hears a session's answers, and writes each as a row.

    Args:
        client: of the server.
        session_id: of the session.
        table: where rows go.

    Attributes:
        rows: how many there are.
    """

    def __init__(self, client: Client, session_id: str, table: Table) -> None:
        self._client = client
        self._id = session_id
        self._table = table
        self._pushed: deque[tuple[int, float | None]] = deque()
        self._time: float | None = None
        self._versions: dict[int, tuple[int, float | None]] = {}
        self._answered: dict[int, int] = {}
        self._values: dict[int, str] = {}
        self._version = self._read = self._since = 0
        self._news = asyncio.Event()
        self.opened = asyncio.Event()
        self.rows = 0

    async def hear(self) -> None:
        """Until the session is deleted. Raises Failure."""
        async with aclosing(self._client.follow([self._id], None, lambda why: say(f"reconnecting: {why}"))) as events:
            async for event in events:
                await self._heard(event)
                self._news.set()
        raise Failure(f"session {self._id} was deleted while data was replayed into it")

    def pushed(self, total: int, time: float | None) -> None:
        """What was acknowledged: entries of the session now, and the data's time of the last of them."""
        self._pushed.append((total, time))

    async def settled(self, total: int, queries: set[int]) -> None:
        """Wait until so many entries are read and these queries have answers over them.

        Raises:
            Failure: nothing is heard any more.
        """
        try:
            while self._read < total or any(self._answered.get(each, 0) < self._version for each in queries):
                self._news.clear()
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._news.wait()
        except TimeoutError:
            raise Failure(
                f"nothing was heard for {_PATIENCE_SECONDS:g} s: see whether the server reads (`askahead sessions show "
                f"{self._id}`) and what its log says"
            ) from None

    async def _heard(self, event: Event) -> None:
        if event.kind == "connected":
            self._since = self._since if self.opened.is_set() else event.data["data_version"]
            await self._look()
            self.opened.set()
        elif event.kind == "data_updated":
            await self._look()
        elif event.kind == "flash_ready":
            self._take(event.data)

    async def _look(self) -> None:
        """Which version there is, and what the model has read by then."""
        found = await self._client.call("GET", f"{session_path(self._id)}/entries?limit=1")
        self._version = found["data_version"]
        self._read = found["data"][-1]["number"] if found["data"] else 0
        while self._pushed and self._pushed[0][0] <= self._read:
            self._time = self._pushed.popleft()[1]
        self._versions[self._version] = (self._read, self._time)
        if len(self._versions) > _VERSIONS_KEPT:
            del self._versions[min(self._versions)]

    def _take(self, answer: dict[str, Any]) -> None:
        query, version = answer["id"], answer["data_version"]
        # What was answered before the replay is not its; after a reconnection answers may be told twice.
        if version <= max(self._since, self._answered.get(query, 0)):
            self._values.setdefault(query, answer["value"])
            return
        entries, time = self._versions.get(version, (None, None))
        changed = self._values.get(query) != answer["value"]
        self._table.write(answer_row(answer, entries=entries, time=time, changed=changed))
        self._answered[query], self._values[query] = version, answer["value"]
        self.rows += 1


async def run(options: Options, url: str, api_key: str | None) -> None:
    """Replay, and say what came of it.

    Raises:
        Failure: it could not go on; what was recorded until then is in the file.
    """
    form = options.form or Format.of(options.file)
    columns = pairs(options.columns)
    async with connected(url, api_key) as client:
        kind = await entry_type(client, options.session, options.entry_type, create=options.create)
        entry = mapper(kind, columns, form)
        for query in options.ask:
            await _register(client, options.session, query)
        listed = (await client.queries(options.session))["data"]
        if not listed:
            raise Failure(
                f"session {options.session} has no Flash Queries and would answer nothing; add some with --ask"
            )
        plain = {query["id"] for query in listed if not any(name in query for name in _CONDITIONS)}
        with recording(options.record) as table, Console(stderr=True).status("replaying") as status:
            answers = Answers(client, options.session, table)
            pusher = Pusher(client, options.session, ahead=_AHEAD, attempts=_ATTEMPTS, told=say)
            hearing = asyncio.create_task(answers.hear(), name="hear")

            async def feed() -> None:
                await answers.opened.wait()
                started = asyncio.get_running_loop().time()
                for due in _due(options, form):
                    if due.at is not None:
                        await asyncio.sleep(started + due.at - asyncio.get_running_loop().time())
                    await pusher.push([entry(row) for row in due.rows])
                    answers.pushed(pusher.known, due.time)
                    if due.at is None:
                        await answers.settled(pusher.known, plain)
                    status.update(f"replaying: {pusher.tally.entries} entries, {answers.rows} answers")
                await answers.settled(pusher.known, plain)

            feeding = asyncio.create_task(feed(), name="feed")
            try:
                done, _ = await asyncio.wait((hearing, feeding), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (hearing, feeding):
                    task.cancel()
                await asyncio.gather(hearing, feeding, return_exceptions=True)
                status.stop()
                _report(options, pusher.tally.entries, answers.rows)


async def _register(client: Client, session_id: str, query: str) -> None:
    try:
        await client.call("POST", f"{session_path(session_id)}/flash", {"query": query})
    except Refused as refused:
        if refused.code != "flash_query_exists":
            raise


def _due(options: Options, form: Format) -> Iterator[Due]:
    column = options.time
    rows = read(options.file, form)
    if options.speed is not None:
        return at_speed(rows, options.speed, column)
    if options.rate is not None:
        return at_rate(rows, options.rate, column)
    return in_steps(rows, options.batch, column)


def _report(options: Options, entries: int, rows: int) -> None:
    where = "" if options.record is None else f"; they are in {options.record}"
    say(f"replayed {entries} entries into {options.session}, {rows} answers{where}")
    if options.json:
        told = {
            "session_id": options.session,
            "pushed": entries,
            "answers": rows,
            "record": options.record and str(options.record),
        }
        print(orjson.dumps(told).decode(), flush=True)
