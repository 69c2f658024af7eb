"""``askahead sessions``: list, show, create and delete them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import LOCAL, ApiKey, Json, SessionId, Url, given

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

sessions = typer.Typer(help="List, show, create and delete sessions.", no_args_is_help=True)


@sessions.command("list")
def list_sessions(url: Url = LOCAL, api_key: ApiKey = None, json: Json = False) -> None:
    """All sessions, oldest first."""
    from service.cli.failures import finish

    finish(_list(url, api_key, json))


@sessions.command()
def show(session: SessionId, url: Url = LOCAL, api_key: ApiKey = None, json: Json = False) -> None:
    """One session, its statistics and its newest entries."""
    from service.cli.failures import finish

    finish(_show(session, url, api_key, json))


@sessions.command()
def create(
    session: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="Its id. Unset: made by the server.", show_default=False)
    ] = None,
    entry_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="Type of its entries: ohlcv, iot, spatial, event, vitals, or a .json file with name, schema and"
            " template of your own. Unset: raw text.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="System prompt that stands before the data.", show_default=False)
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Keep it within that many tokens.", show_default=False)
    ] = None,
    window_seconds: Annotated[
        float | None, typer.Option(help="Keep what is no older than that.", show_default=False)
    ] = None,
    pre_decode: Annotated[bool, typer.Option("--pre-decode", help="Keep a ready position, for fast answers.")] = False,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            help="Register a Flash Query; once for each. `askahead flash add` has all options.", show_default=False
        ),
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Create a session; prints its id."""
    from service.cli.failures import finish

    fields = {
        "id": session,
        "system": system,
        "window": window,
        "window_seconds": window_seconds,
        "pre_decode": pre_decode or None,
        "flash": [{"query": query} for query in ask] if ask else None,
    }
    finish(_create(given(fields), entry_type, url, api_key, json))


@sessions.command()
def delete(
    session: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Ids of sessions.", show_default=False)],
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Delete sessions, with all that they have read."""
    from service.cli.failures import finish

    finish(_delete(session, url, api_key))


async def _list(url: str, api_key: str | None, json: bool) -> None:
    import time

    from rich.console import Console
    from rich.markup import escape

    from service.cli.client import connected
    from service.cli.showing import print_json, since, table

    async with connected(url, api_key) as client:
        found = await client.call("GET", "/v1/sessions")
    if json:
        print_json(found["data"])
        return
    shown = table(("session", "type", "residency"), ("version", "tokens", "waiting", "turns", "used"))
    for one in found["data"]:
        shown.add_row(
            escape(one["id"]),
            escape(one.get("type") or "text"),
            one["residency"],
            *(str(one[name]) for name in ("data_version", "tokens", "pending", "turns")),
            f"{since(time.time() - one['last_used'])} ago",
        )
    if found["data"]:
        Console().print(shown)
    print(f"{len(found['data'])} of at most {found['max_sessions']} sessions")


async def _show(session_id: str, url: str, api_key: str | None, json: bool) -> None:
    from service.cli.client import connected, session_path
    from service.cli.showing import print_json, printable

    async with connected(url, api_key) as client:
        session = await client.session(session_id)
        stats = await client.call("GET", f"{session_path(session_id)}/stats")
        entries = await client.call("GET", f"{session_path(session_id)}/entries?limit=5")
    if json:
        print_json({"session": session, "stats": stats, "entries": entries["data"]})
        return
    _fields(session)
    print("\nstatistics")
    _fields(stats)
    if entries["data"]:
        print("\nnewest entries")
    for entry in entries["data"]:
        said = entry["entry"]
        text = said if isinstance(said, str) else "  ".join(f"{name} {value}" for name, value in said.items())
        print(f"  {entry['number']:>8}  {printable(text)}")


def _fields(found: Mapping[str, Any]) -> None:
    from service.cli.showing import printable

    width = max(map(len, found))
    for name, value in found.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        print(f"  {name:<{width}}  {printable(shown)}")


async def _create(fields: dict[str, Any], entry_type: str | None, url: str, api_key: str | None, json: bool) -> None:
    from service.cli.client import connected
    from service.cli.forms import json_file
    from service.cli.showing import print_json

    if entry_type is not None:
        own = entry_type.endswith(".json")
        fields["type"] = json_file(Path(entry_type), "--type") if own else entry_type
    async with connected(url, api_key) as client:
        created = await client.create(fields)
    if json:
        print_json(created)
    else:
        print(created["id"])


async def _delete(ids: Sequence[str], url: str, api_key: str | None) -> None:
    from service.cli.client import connected
    from service.cli.failures import say

    async with connected(url, api_key) as client:
        for session_id in ids:
            await client.delete(session_id)
            say(f"deleted session {session_id}")
