"""``askahead calibrate``: how sure a fast answer must be, measured on a recording of one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import LOCAL, ApiKey, Json, Url, given


def calibrate(
    stream: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help='Recorded stream: a JSON string or object per line, one entry each, or {"data": …}.',
            show_default=False,
        ),
    ],
    prompt: Annotated[str, typer.Option(help="The question, asked after every batch.", show_default=False)],
    fast_answer: Annotated[
        list[str], typer.Option(help="A candidate for a fast answer; give it once for each.", show_default=False)
    ],
    url: Url = LOCAL,
    api_key: ApiKey = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Entries per batch, and so per question.")] = 1,
    entry_type: Annotated[
        str | None, typer.Option("--type", help="Type of the entries, where they are objects.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="System prompt that stands before the data.", show_default=False)
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Window of the session in tokens, for long recordings.", show_default=False),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest full answer.")] = 16,
    max_false_accepts: Annotated[
        float,
        typer.Option(help="Share of fast answers that may be wrong, with 95 % confidence; the threshold follows."),
    ] = 0.05,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Report as CSV instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw the curve into this SVG file.", show_default=False)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="SESSION[:FID]",
            help="Store candidates and threshold on a Flash Query of a live session: that one, or the one with the"
            " prompt's text, which is registered if there is none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Replay a recorded stream into a running server, and compare fast answers with full ones by threshold."""
    if not 0 < max_false_accepts < 1:
        raise typer.BadParameter("must be between 0 and 1", param_hint="--max-false-accepts")
    if json and csv:
        raise typer.BadParameter("cannot go with --csv", param_hint="--json")
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.calibrate.replay import Options, Target, run
    from service.cli.failures import finish

    try:
        target = None if store is None else Target.parse(store)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--store") from None
    session = {"type": entry_type, "system": system, "window": window}
    options = Options(
        stream=stream,
        prompt=prompt,
        candidates=fast_answer,
        url=url,
        api_key=api_key,
        session=given(session),
        batch=batch,
        max_tokens=max_tokens,
        most=max_false_accepts,
        form="json" if json else "csv" if csv else "table",
        plot=plot,
        target=target,
    )
    finish(run(options))
