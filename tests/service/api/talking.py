"""What tests of the chat surfaces share."""

from __future__ import annotations

from typing import Any

import orjson

from tests import apps
from tests.service.api.asking import frames

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
HEADER = "x-layerscale-session-id"
IN_SESSION = {HEADER: "s"}

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Looks it up.", "parameters": SCHEMA}}
CLOCK = {"function": {"name": "clock"}}
WEATHER_TOOL = {"name": "weather", "description": "Looks it up.", "input_schema": SCHEMA}
CLOCK_TOOL = {"name": "clock"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def written(name: str, arguments: str) -> str:
    """A call as the fast engine's model writes it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def asking(text: str = "Hello?", **body: Any) -> dict[str, Any]:
    """A body for either surface."""
    return {"messages": [user(text)], "temperature": 0, **body}


async def complete(client: apps.Client, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return await apps.ok(client, "POST", CHAT, asking(**body), headers=headers)


async def message(client: apps.Client, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return await apps.ok(client, "POST", MESSAGES, asking(**{"max_tokens": 1000, **body}), headers=headers)


async def chunks(client: apps.Client, headers: dict[str, str] | None = None, **body: Any) -> list[Any]:
    async with client.post(CHAT, json=asking(stream=True, **body), headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return frames(await response.read())


async def events(client: apps.Client, headers: dict[str, str] | None = None, **body: Any) -> list[Any]:
    sent = asking(**{"max_tokens": 1000, "stream": True, **body})
    async with client.post(MESSAGES, json=sent, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return parsed_events(await response.read())


def parsed_events(raw: bytes) -> list[Any]:
    """Payloads of a stream of named events; each must be exactly an event line, a data line and a blank one."""
    payloads = []
    assert raw.endswith(b"\n\n")
    for frame in raw.removesuffix(b"\n\n").split(b"\n\n"):
        event, data = frame.split(b"\n")
        payload = orjson.loads(data.removeprefix(b"data: "))
        assert event == b"event: " + payload["type"].encode()
        payloads.append(payload)
    return payloads
