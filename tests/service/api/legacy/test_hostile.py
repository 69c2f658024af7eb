"""Bad input to old-style sessions on paths that both generations have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.legacy.protocol import GenerateOldBody, StandingQuery
from tests import apps
from tests.service.api.test_hostile_input import OLD, client, names, send, values

__all__ = ["client"]

MODELS = {"generate": GenerateOldBody, "flash": StandingQuery}
VALID: dict[str, dict[str, Any]] = {"generate": {"prompt": "What?", "max_tokens": 2}, "flash": {"query": "Hot?"}}

fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@fuzz
async def test_a_wrong_field_is_named(client: apps.Client, name: str, data: st.DataObject) -> None:
    known = sorted(MODELS[name].model_fields)
    field = data.draw(st.sampled_from(known) | st.text(min_size=1, max_size=20))
    body = json.dumps(VALID[name] | {field: data.draw(values)}).encode()
    status, reply = await send(client, "POST", f"/v1/sessions/{OLD}/{name}", body, "application/json")
    if field not in known:
        assert status == 400
    if status == 400:
        # Fields that do not go together are the body's fault.
        assert names(reply, field), reply
    if status == 200 and name == "flash":
        await apps.ok(client, "DELETE", f"/v1/sessions/{OLD}/flash/{reply['id']}")


@given(message=values)
@fuzz
async def test_any_websocket_message(client: apps.Client, message: Any) -> None:
    async with client.ws_connect(f"/v1/sessions/{OLD}/ws") as socket:
        await socket.send_str(json.dumps(message))
        await socket.send_json({"type": "ping"})
        kinds: list[Any] = []
        while not kinds or kinds[-1] != "pong":
            kinds.append((await socket.receive_json(timeout=10))["type"])
    assert set(kinds) <= {"connected", "error", "pong"}
