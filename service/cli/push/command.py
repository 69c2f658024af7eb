"""``askahead push`` itself: read, push, report."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.cli.client import Client, connected
from service.cli.failures import FAILED, Failure, Refused, say
from service.cli.forms import Format
from service.cli.mapping import mapper, pairs
from service.cli.push.pushing import Pusher, Tally
from service.cli.push.reading import Reader
from service.cli.rows import Row, lines_of, rows

_NO_SESSION = "session_not_found"


@dataclass(frozen=True, slots=True)
class Options:
    """What to push where; see ``askahead push --help``. ``file`` is None for standard input."""

    session: str
    file: Path | None
    form: Format | None
    entry_type: str | None
    columns: Sequence[str]
    create: bool
    rate: float | None
    batch: int
    ahead: int
    skip: int
    attempts: int
    json: bool


async def run(options: Options, url: str, api_key: str | None) -> int:
    """Push everything, and say what was acknowledged, however it ends.

    Returns:
        The exit code: 0, or 1 where the server had no room for some of it.

    Raises:
        Failure: it could not go on.
    """
    form = options.form or (Format.LINES if options.file is None else Format.of(options.file))
    columns = pairs(options.columns)
    with ExitStack() as stack:
        file, size = _opened(options.file, stack)
        name = str(options.file or "standard input")
        async with connected(url, api_key) as client:
            entry = mapper(
                await entry_type(client, options.session, options.entry_type, create=options.create), columns, form
            )
            progress = stack.enter_context(_progress())
            bar = progress.add_task("", total=size, entries=0)
            told = partial(_tell, progress.console)
            pusher = Pusher(client, options.session, ahead=options.ahead, attempts=options.attempts, told=told)
            reader = Reader(_skipped(rows(lines_of(file, name), form, name), options.skip), options.batch)
            complete = False
            try:
                due = asyncio.get_running_loop().time()
                while batch := await reader.batch():
                    await pusher.push([entry(row) for row in batch])
                    progress.update(bar, advance=sum(row.size for row in batch), entries=pusher.tally.entries)
                    if options.rate is not None:
                        due = max(due + len(batch) / options.rate, asyncio.get_running_loop().time())
                        await asyncio.sleep(due - asyncio.get_running_loop().time())
                complete = True
            finally:
                reader.close()
                progress.stop()
                _report(options, pusher.tally, complete)
    return FAILED if pusher.tally.dropped else 0


def _opened(path: Path | None, stack: ExitStack) -> tuple[BinaryIO, int | None]:
    """A file and its size in bytes, None where that is not known."""
    if path is None:
        # Not the interpreter's own object: its lock may be held by a thread that waits for input in the end.
        return stack.enter_context(open(sys.stdin.fileno(), "rb", closefd=False)), None
    try:
        file = stack.enter_context(path.open("rb"))
        return file, path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from None


async def entry_type(client: Client, session_id: str, wanted: str | None, *, create: bool) -> str | None:
    """The type of a session's entries, None for raw text.

    Args:
        client: of the server.
        session_id: of the session.
        wanted: the type that the data has; None for whatever the session has.
        create: make the session if there is none.

    Raises:
        Failure: the session is of another type.
        Refused: there is no such session.
    """
    try:
        session = await client.session(session_id)
    except Refused as refused:
        if refused.code != _NO_SESSION:
            raise
        if not create:
            raise Failure(f"there is no session {session_id}; --create makes it") from None
        fields = {"id": session_id} if wanted is None else {"id": session_id, "type": wanted}
        session = await client.create(fields)
    found: str | None = session.get("type")
    if wanted is not None and found != wanted:
        raise Failure(
            f"--type: the session's entries are {'raw text' if found is None else f'of type {found}'}, not {wanted}; "
            "leave the type out, or push to another session"
        )
    return found


def _skipped(found: Iterator[Row], count: int) -> Iterator[Row]:
    for index, row in enumerate(found):
        if index >= count:
            yield row


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("pushed {task.fields[entries]} entries"),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _tell(console: Console, sentence: str) -> None:
    """Above the bar, where there is one."""
    console.print(f"askahead: {sentence}", markup=False, highlight=False, soft_wrap=True)


def _report(options: Options, tally: Tally, complete: bool) -> None:
    pushed = options.skip + tally.entries
    if options.json:
        told: dict[str, Any] = {
            "session_id": options.session,
            "complete": complete,
            "pushed": tally.entries,
            "tokens": tally.tokens,
            "batches": tally.batches,
            "dropped": tally.dropped,
            "total_pushed": tally.total,
            "skip": pushed,
        }
        print(orjson.dumps(told).decode(), flush=True)
    total = "" if tally.total is None else f"; ask with --after {tally.total} to have them read first"
    say(
        f"pushed {tally.entries} entries ({tally.tokens} tokens) in {tally.batches} batches into {options.session}"
        + (total if complete else f"; --skip {pushed} goes on after them" if pushed else "")
    )
    if tally.dropped:
        say(f"the server dropped {tally.dropped} entries that waited: use a smaller --ahead than its --queue-entries")
