"""``askahead push``: data from a file or a pipe into a session."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import LOCAL, ApiKey, EntryType, Form, Json, Map, SessionId, Url


def push(
    session: SessionId,
    file: Annotated[
        Path | None,
        typer.Argument(help="What to push; standard input if it is - or left out.", show_default=False),
    ] = None,
    form: Form = None,
    entry_type: EntryType = None,
    columns: Map = None,
    create: Annotated[bool, typer.Option("--create", help="Create the session if there is none.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(help="Entries per second, at most. Unset: as fast as the server reads.", show_default=False),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=4096, help="Most entries per request; with --rate a tenth of a second's at most.")
    ] = 256,
    ahead: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most entries that may wait to be read by the model; the server drops the oldest beyond its"
            " --queue-entries (4096).",
        ),
    ] = 2048,
    skip: Annotated[
        int, typer.Option(min=0, help="Entries to pass over first: those that an earlier run says it pushed.")
    ] = 0,
    attempts: Annotated[
        int, typer.Option(min=1, max=100, help="Times in a row that a batch is tried while the server is away.")
    ] = 8,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Push lines, CSV or JSON lines into a session. What was acknowledged is reported, on failure too."""
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise typer.BadParameter("must be more than 0 entries per second", param_hint="--rate")
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.failures import finish
    from service.cli.push.command import Options, run

    options = Options(
        session=session,
        file=None if file is None or str(file) == "-" else file,
        form=form,
        entry_type=entry_type,
        columns=columns or [],
        create=create,
        rate=rate,
        batch=batch if rate is None else max(1, min(batch, round(rate / 10))),
        ahead=ahead,
        skip=skip,
        attempts=attempts,
        json=json,
    )
    finish(run(options, url, api_key))
