"""``askahead watch``: the answers of sessions' Flash Queries as they change."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.options import LOCAL, ApiKey, Url


def watch(
    session: Annotated[
        list[str] | None, typer.Argument(metavar="SESSION...", help="Ids of sessions.", show_default=False)
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="Every session whose id starts so, those created later included; '' for all.", show_default=False
        ),
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Annotated[
        bool, typer.Option("--json", help="Every answer as a line of JSON, those that are the same included.")
    ] = False,
) -> None:
    """Show answers as they change, until Ctrl-C: a live table on a terminal, otherwise a line per change.

    A lost connection is made again, and what happened meanwhile is told.
    """
    if not session and prefix is None:
        raise typer.BadParameter("name a session, or several with --prefix", param_hint="SESSION")
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.failures import finish
    from service.cli.watch.command import run

    finish(run(session or [], prefix, url, api_key, json=json))
