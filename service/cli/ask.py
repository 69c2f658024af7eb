"""``askahead ask``: a question over everything a session has read, answered as it is generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import LOCAL, ApiKey, Json, SessionId, Url, given

if TYPE_CHECKING:
    from collections.abc import Mapping

# As long as a server takes at most by default; it says nothing before.
_FIRST_TOKEN_SECONDS = 600.0


def ask(
    session: SessionId,
    prompt: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer. Unset: until it stops or the context is full.", show_default=False),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Answer when that many entries are read, as a push says.", show_default=False),
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.", show_default="0.6")] = None,
    top_p: Annotated[float | None, typer.Option(help="Share of likelihood to pick from.", show_default="0.9")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.", show_default=False)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End the answer before this text; up to 4.", show_default=False)
    ] = None,
    reasoning_effort: Annotated[
        str | None,
        typer.Option(help="none, minimal or low keep a model that thinks from it; others do not.", show_default=False),
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Ask a session; the answer is printed as it comes. Nothing of it stays in the session."""
    # Imported here so that other commands' --help need not load an HTTP client.
    from service.cli.failures import finish

    fields = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "after": after,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": stop or None,
        "reasoning_effort": reasoning_effort,
    }
    finish(_run(session, given(fields), url, api_key, json))


async def _run(session_id: str, fields: Mapping[str, Any], url: str, api_key: str | None, json: bool) -> None:
    import sys

    from service.cli.client import connected, session_path
    from service.cli.failures import Failure, Refused
    from service.cli.showing import harmless, print_json

    async with connected(url, api_key) as client:
        if json:
            print_json(await client.generate(session_id, fields))
            return
        done: dict[str, Any] = {}
        path = f"{session_path(session_id)}/generate"
        body = {**fields, "stream": True}
        async for event in client.stream("POST", path, body, silence=_FIRST_TOKEN_SECONDS):
            if "error" in event.data:
                print()
                raise Refused(event.data["error"]["message"], status=0, code=event.data["error"]["code"])
            if event.data.get("done"):
                done = event.data
            else:
                text = event.data["text"]
                print(harmless(text) if sys.stdout.isatty() else text, end="", flush=True)
        print()
        if not done:
            raise Failure("the answer broke off: the server ended it; ask again")
        if sys.stderr.isatty():
            print(_footnote(done), file=sys.stderr)


def _footnote(done: Mapping[str, Any]) -> str:
    if done.get("flash"):
        source = f"from flash query {done['flash_id']}"
    elif done.get("speculative"):
        source = f"from the ready position, {done['logit_gap']:.2f} nats ahead"
    else:
        source = f"{done['usage']['completion_tokens']} tokens"
    return f"[version {done['data_version']}, {source}, {done['finish_reason']}]"
