"""``askahead bench``: what a running server does under a small load."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.options import LOCAL, ApiKey, Json


def bench(
    url: Annotated[str, typer.Argument(envvar="ASKAHEAD_URL", help="Where the server listens.")] = LOCAL,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long each measurement takes.")] = 5.0,
    connections: Annotated[int, typer.Option(min=1, max=256, help="Polls under way at once.")] = 8,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Measure polls, pushes and questions of a running server, in a session of its own.

    The client is a Python process: on the server's machine it takes cores from it, and polls per second say as much of
    the client as of the server.
    """
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.bench.command import run
    from service.cli.failures import finish

    finish(run(url, api_key, seconds=seconds, connections=connections, json=json))
