"""``askahead replay``: recorded data through a session, and every answer on the way into a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import LOCAL, ApiKey, EntryType, Form, Json, Map, SessionId, Url


def replay(
    file: Annotated[Path, typer.Argument(help="What to replay.", exists=True, dir_okay=False, show_default=False)],
    session: SessionId,
    record: Annotated[
        Path | None,
        typer.Option(help="Write every answer to this .csv or .parquet file.", dir_okay=False, show_default=False),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="Keep the data's own times, so many times faster; 1 is real time.", show_default=False),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Entries per second instead.", show_default=False)] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Entries per batch, where answers set the pace.")] = 1,
    time: Annotated[
        str, typer.Option(help="Column with the time of an entry: Unix seconds or ISO 8601.")
    ] = "timestamp",
    ask: Annotated[
        list[str] | None,
        typer.Option(help="Register this Flash Query first; once for each.", show_default=False),
    ] = None,
    form: Form = None,
    entry_type: EntryType = None,
    columns: Map = None,
    create: Annotated[bool, typer.Option("--create", help="Create the session if there is none.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Replay recorded data into a session, and record what its Flash Queries answer over each version.

    Without --speed and --rate the next batch follows when all answers over the one before are there, so that none is
    left out; with either, data comes when it is due, and a server that is slower skips versions.
    """
    for flag, value in (("--speed", speed), ("--rate", rate)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise typer.BadParameter("must be more than 0", param_hint=flag)
    if speed is not None and rate is not None:
        raise typer.BadParameter("cannot go with --speed", param_hint="--rate")
    if record is not None and record.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter("must end in .csv or .parquet", param_hint="--record")
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.failures import finish
    from service.cli.replay.command import Options, run

    options = Options(
        file=file,
        session=session,
        record=record,
        speed=speed,
        rate=rate,
        batch=batch,
        time=time,
        ask=ask or [],
        form=form,
        entry_type=entry_type,
        columns=columns or [],
        create=create,
        json=json,
    )
    finish(run(options, url, api_key))
