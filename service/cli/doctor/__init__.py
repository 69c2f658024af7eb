"""``askahead doctor``: whether a server with these settings would run well here, and what to do where not."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.options import Json
from service.settings import Settings


def doctor(
    settings: Settings,
    *,
    url: Annotated[
        str | None,
        typer.Option(envvar="ASKAHEAD_URL", help="Look at the server that runs there as well.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Check what a server with these settings needs, and say what to fix. Exit code 1: it would not run."""
    # Imported here so that other commands' --help need not load the store's client.
    from service.cli.doctor.command import run
    from service.cli.failures import finish

    finish(run(settings, url, json=json))
