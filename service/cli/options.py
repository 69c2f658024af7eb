"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.cli.forms import Format

LOCAL = "http://127.0.0.1:8080"
"""Where a server listens unless it is told otherwise."""


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's options that were given: the others are None, and left to whoever is asked."""
    return {name: value for name, value in options.items() if value is not None}


Url = Annotated[str, typer.Option(envvar="ASKAHEAD_URL", help="Where the server listens.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="ASKAHEAD_API_KEY", help="Key that the server asks for, if it does.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session.", show_default=False)]
Form = Annotated[
    Format | None,
    typer.Option("--format", help="How the data is written. Unset: told from the file's suffix.", show_default=False),
]
EntryType = Annotated[
    str | None,
    typer.Option(
        "--type",
        help="Type of the entries: ohlcv, iot, spatial, event or vitals. Unset: the session's own.",
        show_default=False,
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="Which column of the data is this field of the type, where they are called otherwise; once for each.",
        show_default=False,
    ),
]
