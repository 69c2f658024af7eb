"""``askahead demo``: a server, a real data set streamed into it, and answers as they change."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    rate: Annotated[float, typer.Option(min=0.1, max=50, help="Lines of data per second.")] = 1.0,
    seconds: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="DEMO_SECONDS",
            help="Seconds of streaming, loading not counted. Unset: until Ctrl-C.",
            show_default=False,
        ),
    ] = None,
    browse: Annotated[bool, typer.Option("--open", help="Open the dashboard in a browser.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="The server's data directory. Unset: its default.", show_default=False)
    ] = None,
) -> None:
    """Start a server, stream a year of Seattle weather into it, and watch three questions being answered."""
    if not math.isfinite(rate):
        raise typer.BadParameter("must be a number of lines per second", param_hint="--rate")
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.demo.player import run
    from service.cli.failures import finish

    command = (sys.executable, "-c", "from service.cli.main import app; app()", "serve")
    finish(run(command, data_dir=data_dir, rate=rate, seconds=seconds, browse=browse))
