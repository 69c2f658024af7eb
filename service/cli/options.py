"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

LOCAL = "http://127.0.0.1:8080"
"""Where a server listens unless it is told otherwise."""

Url = Annotated[str, typer.Option(envvar="ASKAHEAD_URL", help="Where the server listens.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="ASKAHEAD_API_KEY", help="Key that the server asks for, if it does.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session.", show_default=False)]
