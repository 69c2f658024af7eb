"""Calibration itself: replay, ask twice, report, store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console

from flashquery.ready import GAP_THRESHOLD
from service.cli.calibrate.curve import Observation
from service.cli.calibrate.plot import draw
from service.cli.calibrate.report import Report
from service.cli.client import Client, connected, session_path
from service.cli.failures import FAILED, Failure, Refused, say
from service.cli.rows import Entry, batches, read

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Target:
    """Where the threshold is stored.

    Attributes:
        session_id: a live session.
        query_id: a Flash Query of it, None for the one of the prompt's text.
    """

    session_id: str
    query_id: int | None

    @classmethod
    def parse(cls, text: str) -> Target:
        """From ``SESSION`` or ``SESSION:FID``. Raises ValueError."""
        session_id, colon, query_id = text.partition(":")
        if not session_id or (colon and not (query_id.isascii() and query_id.isdigit())):
            raise ValueError("must be a session's id, or SESSION:FID with a flash query's number")
        return cls(session_id, int(query_id) if colon else None)


@dataclass(frozen=True, slots=True)
class Options:
    """What to calibrate; see ``askahead calibrate --help``."""

    stream: Path
    prompt: str
    candidates: Sequence[str]
    url: str
    api_key: str | None
    session: Mapping[str, object]
    batch: int
    max_tokens: int
    most: float
    form: str
    plot: Path | None
    target: Target | None


async def run(options: Options) -> int:
    """Replay and report on standard output; progress goes to standard error.

    Returns:
        The exit code: 0, or 1 where nothing could be stored as no threshold is good enough.

    Raises:
        Failure: it cannot go on.
    """
    async with connected(options.url, options.api_key) as client:
        if options.target is not None:
            # Sooner than after an hour of replay.
            await _resolve(client, options.target, options.prompt)
        report = Report.of(options.prompt, options.candidates, options.most, await _replay(client, options))
        _show(report, options)
        if options.target is None:
            return 0
        return await _store(client, options, options.target, report)


async def _replay(client: Client, options: Options) -> list[Observation]:
    observations: list[Observation] = []
    with Console(stderr=True).status("replaying") as status:
        async with client.own_session({**options.session, "pre_decode": True}) as session_id:
            try:
                for batch in batches(_entries(options), options.batch):
                    pushed = await _push(client, session_id, batch)
                    observations.append(await _ask_twice(client, session_id, pushed, options))
                    status.update(f"replaying: {len(observations)} questions asked")
            except Refused as refused:
                if refused.code != "context_length_exceeded" or not observations:
                    raise
                print(f"stopped after {len(observations)} questions: {refused.message}", file=sys.stderr)
    if not observations:
        raise Failure(f"{options.stream} holds no entries")
    return observations


def _entries(options: Options) -> Iterator[Entry]:
    for row in read(options.stream):
        if not isinstance(row.value, str) and "type" not in options.session:
            raise Failure(f"{options.stream} holds objects; say of which type they are with --type")
        yield row.value


async def _push(client: Client, session_id: str, entries: Sequence[Entry]) -> int:
    """Push a batch and wait for the ready position over it; how many entries there are now."""
    ack = await client.push(session_id, entries)
    if ack["dropped"]:
        raise Failure("the server's queue does not hold a batch; use a smaller --batch")
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                state = await client.session(session_id)
                if not state["pending"] and state["ready"]:
                    break
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise Failure(
            f"the session was not ready within {_READY_SECONDS:g} s; models that think before they answer have no "
            "ready position, and nothing to calibrate"
        ) from None
    total: int = ack["total_pushed"]
    return total


async def _ask_twice(client: Client, session_id: str, pushed: int, options: Options) -> Observation:
    question = {"prompt": options.prompt, "after": pushed, "temperature": 0}
    fast = await client.generate(
        session_id, question | {"fast_answer": list(options.candidates), "gap_threshold": 0, "max_tokens": 1}
    )
    full = await client.generate(session_id, question | {"max_tokens": options.max_tokens})
    if not fast.get("speculative"):
        return Observation(None, 0.0, full["text"])
    return Observation(fast["text"], fast["logit_gap"], full["text"])


def _show(report: Report, options: Options) -> None:
    if options.form == "json":
        print(orjson.dumps(report.json(), option=orjson.OPT_INDENT_2).decode())
    elif options.form == "csv":
        print(report.csv(), end="")
    else:
        Console().print(report.table(), highlight=False)
    if options.plot is not None:
        picture = draw(report.points, title=report.prompt, chosen=report.chosen, default=GAP_THRESHOLD)
        try:
            options.plot.write_text(picture, encoding="utf-8")
        except OSError as error:
            raise Failure(f"cannot write {options.plot}: {error.strerror}") from None


async def _resolve(client: Client, target: Target, prompt: str) -> int | None:
    """The query to store on, None where one is to be registered."""
    if target.query_id is None:
        found = (await client.queries(target.session_id))["data"]
        return next((query["id"] for query in found if query["query"] == prompt), None)
    return int((await client.call("GET", f"{session_path(target.session_id)}/flash/{target.query_id}"))["id"])


async def _store(client: Client, options: Options, target: Target, report: Report) -> int:
    if report.chosen is None:
        say(f"nothing was stored. {report.verdict}")
        return FAILED
    fields = {"fast_answer": list(options.candidates), "gap_threshold": report.chosen.threshold}
    query_id = await _resolve(client, target, options.prompt)
    path = f"{session_path(target.session_id)}/flash"
    if query_id is None:
        query_id = (await client.call("POST", path, {"query": options.prompt, **fields}))["id"]
    else:
        await client.call("PATCH", f"{path}/{query_id}", fields)
    print(
        f"stored gap_threshold {report.chosen.threshold:g} on flash query {query_id} of session {target.session_id}",
        file=sys.stderr,
    )
    return 0
