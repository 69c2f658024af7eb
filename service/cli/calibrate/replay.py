"""Calibration itself: replay, ask twice, report, store."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console

from flashquery.ready import GAP_THRESHOLD
from service.cli.calibrate.client import Api, ContextFull, connected
from service.cli.calibrate.curve import Observation
from service.cli.calibrate.plot import draw
from service.cli.calibrate.recording import CalibrationError, Entry, batches, read
from service.cli.calibrate.report import Report


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
        The exit code: 0, or 1 after saying what went wrong, or where nothing could be stored as no threshold is good
        enough.
    """
    try:
        async with connected(options.url, options.api_key) as api:
            if options.target is not None:
                # Sooner than after an hour of replay.
                await _resolve(api, options.target, options.prompt)
            report = Report.of(options.prompt, options.candidates, options.most, await _replay(api, options))
            _show(report, options)
            if options.target is None:
                return 0
            return await _store(api, options, options.target, report)
    except CalibrationError as error:
        print(f"askahead calibrate: {error.message}", file=sys.stderr)
        return 1


async def _replay(api: Api, options: Options) -> list[Observation]:
    observations: list[Observation] = []
    with Console(stderr=True).status("replaying") as status:
        async with api.session(options.session) as session_id:
            try:
                for batch in batches(_checked(read(options.stream), options), options.batch):
                    observations.append(await _ask_twice(api, session_id, await api.push(session_id, batch), options))
                    status.update(f"replaying: {len(observations)} questions asked")
            except ContextFull as full:
                if not observations:
                    raise
                print(f"stopped after {len(observations)} questions: {full.message}", file=sys.stderr)
    if not observations:
        raise CalibrationError(f"{options.stream} holds no entries")
    return observations


def _checked(entries: Iterator[Entry], options: Options) -> Iterator[Entry]:
    for entry in entries:
        if not isinstance(entry, str) and "type" not in options.session:
            raise CalibrationError(f"{options.stream} holds objects; say of which type they are with --type")
        yield entry


async def _ask_twice(api: Api, session_id: str, pushed: int, options: Options) -> Observation:
    fast = await api.generate(
        session_id,
        prompt=options.prompt,
        after=pushed,
        fast_answer=list(options.candidates),
        gap_threshold=0,
        max_tokens=1,
    )
    full = await api.generate(session_id, prompt=options.prompt, after=pushed, max_tokens=options.max_tokens)
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
            raise CalibrationError(f"cannot write {options.plot}: {error.strerror}") from None


async def _resolve(api: Api, target: Target, prompt: str) -> int | None:
    """The query to store on, None where one is to be registered."""
    if target.query_id is None:
        return await api.find(target.session_id, prompt)
    return int((await api.get(target.session_id, target.query_id))["id"])


async def _store(api: Api, options: Options, target: Target, report: Report) -> int:
    if report.chosen is None:
        print(f"askahead calibrate: nothing was stored. {report.verdict}", file=sys.stderr)
        return 1
    fields = {"fast_answer": list(options.candidates), "gap_threshold": report.chosen.threshold}
    query_id = await _resolve(api, target, options.prompt)
    if query_id is None:
        query_id = await api.register(target.session_id, {"query": options.prompt, **fields})
    else:
        await api.change(target.session_id, query_id, fields)
    print(
        f"stored gap_threshold {report.chosen.threshold:g} on flash query {query_id} of session {target.session_id}",
        file=sys.stderr,
    )
    return 0
