"""``askahead flash``: the standing questions of a session, their answers and what they were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import LOCAL, ApiKey, Json, SessionId, Url, given

if TYPE_CHECKING:
    pass

flash = typer.Typer(help="Standing questions: list, add, remove, and what they answered.", no_args_is_help=True)

QueryId = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the Flash Query.", show_default=False)]


@flash.command("list")
def list_queries(
    session: SessionId,
    wait: Annotated[
        float | None,
        typer.Option(min=0, max=600, help="Seconds to wait for fresh answers, at most.", show_default=False),
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """A session's Flash Queries and their answers."""
    from service.cli.failures import finish

    finish(_list(session, wait, url, api_key, json))


@flash.command()
def add(
    session: SessionId,
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    choice: Annotated[
        list[str] | None, typer.Option(help="An answer that it may give; once for each.", show_default=False)
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File with the JSON schema that answers obey.", show_default=False),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, max=256, help="Longest answer.", show_default="32")] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Evaluate when that many versions have come.", show_default=False)
    ] = None,
    min_interval: Annotated[
        float | None, typer.Option(help="Seconds between evaluations, at least.", show_default=False)
    ] = None,
    when: Annotated[
        str | None,
        typer.Option(help="Evaluate where this holds of the statistics: 'count >= 10'.", show_default=False),
    ] = None,
    with_stats: Annotated[
        str | None,
        typer.Option(help="Put statistics before the question: of the window, or the stream.", show_default=False),
    ] = None,
    notify: Annotated[
        str | None, typer.Option(help="URL that is told when the answer changes.", show_default=False)
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Register a Flash Query; prints its number, and the secret of a webhook."""
    from service.cli.failures import finish

    fields = {
        "query": query,
        "choices": choice or None,
        "max_tokens": max_tokens,
        "every": every,
        "min_interval": min_interval,
        "when": when,
        "with_stats": with_stats,
        "notify": notify,
    }
    finish(_add(session, given(fields), schema, url, api_key, json))


@flash.command()
def remove(session: SessionId, query_id: QueryId, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Remove a Flash Query, with its answers."""
    from service.cli.failures import finish

    finish(_remove(session, query_id, url, api_key))


@flash.command()
def history(
    session: SessionId,
    query_id: QueryId,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most answers.")] = 100,
    since: Annotated[
        int | None, typer.Option(min=0, help="Only answers over later versions.", show_default=False)
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """What a Flash Query has answered, oldest first."""
    from service.cli.failures import finish

    finish(_history(session, query_id, limit, since, url, api_key, json))


async def _list(session_id: str, wait: float | None, url: str, api_key: str | None, json: bool) -> None:
    import time

    from rich.console import Console
    from rich.markup import escape

    from service.cli.client import connected
    from service.cli.showing import Shown, answer_cell, freshness, print_json, printable, since, table

    async with connected(url, api_key) as client:
        found = await client.queries(session_id, [] if wait is None else [("wait", f"{wait:g}")])
    if json:
        print_json(found)
        return
    shown = table(("id  question", "answer"), ("confidence", "version", "age", "fresh"))
    for query in found["data"]:
        question = f"{query['id']:>2}  {escape(printable(query['query']))}"
        if query.get("value") is None:
            shown.add_row(question, "…", "", "", "", freshness(False))
            continue
        answer = Shown.of(query, 0)
        age = since(time.time() - query["evaluated_at"])
        shown.add_row(
            question,
            answer_cell(answer),
            f"{answer.confidence:.2f}",
            str(answer.version),
            age,
            freshness(query["fresh"]),
        )
    if found["data"]:
        Console().print(shown)
    print(f"{len(found['data'])} Flash Queries over version {found['data_version']}")


async def _add(
    session_id: str, fields: dict[str, Any], schema: Path | None, url: str, api_key: str | None, json: bool
) -> None:
    from service.cli.client import connected, session_path
    from service.cli.failures import say
    from service.cli.forms import json_file
    from service.cli.showing import print_json

    if schema is not None:
        fields["schema"] = json_file(schema, "--schema")
    async with connected(url, api_key) as client:
        made = await client.call("POST", f"{session_path(session_id)}/flash", fields)
    if json:
        print_json(made)
        return
    print(made["id"])
    if secret := (made.get("notify") or {}).get("secret"):
        print(f"secret of the webhook, which is not shown again: {secret}")
    if "warning" in made:
        say(made["warning"])


async def _remove(session_id: str, query_id: int, url: str, api_key: str | None) -> None:
    from service.cli.client import connected, session_path
    from service.cli.failures import say

    async with connected(url, api_key) as client:
        gone = await client.call("DELETE", f"{session_path(session_id)}/flash/{query_id}")
    say(f"removed flash query {query_id} of {session_id}; {gone['remaining']} left")


async def _history(
    session_id: str, query_id: int, limit: int, since: int | None, url: str, api_key: str | None, json: bool
) -> None:
    from rich.console import Console
    from rich.markup import escape

    from service.cli.client import connected, session_path
    from service.cli.failures import say
    from service.cli.showing import clock, print_json, printable, table

    query = [("limit", str(limit))] + ([] if since is None else [("since", str(since))])
    async with connected(url, api_key) as client:
        found = await client.call("GET", f"{session_path(session_id)}/flash/{query_id}/history", query=query)
    if json:
        print_json(found)
        return
    shown = table(("evaluated", "answer"), ("version", "confidence", "changed"))
    for answer in found["data"]:
        shown.add_row(
            clock(answer["evaluated_at"]),
            escape(printable(answer["value"])),
            str(answer["data_version"]),
            f"{answer['confidence']:.2f}",
            "yes" if answer["changed"] else "",
        )
    Console().print(shown)
    if found["has_more"]:
        say(f"there are later ones: --since {found['data'][-1]['data_version']}")
