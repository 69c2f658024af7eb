"""Old answers: questions, turns, calls, streams, and answers that are there before they are asked for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from service.api.legacy.generate import FAST_ANSWERS
from tests import apps
from tests.apps import call, core, ok, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import counters
from tests.service.api.legacy.kit import CANDLE, answered, id_of, init, push
from tests.service.api.talking import WEATHER, user, written


async def frames(client: apps.Client, path: str, **body: Any) -> list[Any]:
    """Payloads of a stream; each frame must be exactly `data: `, JSON and a blank line."""
    async with client.post(f"{path}/generate", json={**body, "stream": True}) as response:
        assert response.status == 200, await response.text()
        raw = await response.read()
    assert raw.endswith(b"\n\n")
    return [orjson.loads(frame.removeprefix(b"data: ")) for frame in raw.removesuffix(b"\n\n").split(b"\n\n")]


async def test_a_question(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    await push(client, path)
    size = len(core(client).manager.get(id_of(path)).timeline)
    engine.script.append("steady")
    assert await ok(client, "POST", f"{path}/generate", {"prompt": "Which way?"}) == {
        "text": "steady",
        "n_tokens": len("steady") + 1,
        "finish_reason": "stop",
        "data_version": 1,
        "total_tokens": size,
        "pos_max": size - 1,
    }
    engine.script.append("steady")
    *tokens, done = await frames(client, path, prompt="Which way?", max_tokens=3)
    assert [token["token"] for token in tokens] == ["s", "t", "e"]
    first = tokens[0]["pos"]
    assert [token["pos"] for token in tokens] == [first, first + 1, first + 2]
    assert first > size
    assert done == {"done": True, "text": "ste", "n_tokens": 3, "finish_reason": "length", "data_version": 1}


async def test_questions_are_greedy_unless_they_say_otherwise(client: apps.Client) -> None:
    path = await init(client)
    await push(client, path)

    async def ask(**body: Any) -> str:
        text: str = (await ok(client, "POST", f"{path}/generate", {"prompt": "Why?", "max_tokens": 20, **body}))["text"]
        return text

    assert await ask() == await ask()
    assert len({await ask(temperature=1.5) for _ in range(5)}) > 1


async def test_a_turn_stays(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    await push(client, path)
    engine.script.extend(["Fine.", "Still fine."])
    first = await ok(client, "POST", f"{path}/generate", {"messages": [user("How is it?")]})
    session = core(client).manager.get(id_of(path))
    assert (first["text"], first["data_version"], session.turns) == ("Fine.", 2, 1)
    assert (first["total_tokens"], first["pos_max"]) == (session.tokens, session.tokens - 1)
    said = [user("How is it?"), {"role": "assistant", "content": "Fine."}, user("Now?")]
    *tokens, done = await frames(client, path, messages=said)
    assert "".join(token["token"] for token in tokens) == done["text"] == "Still fine."
    assert (session.turns, session.version) == (2, 3)


async def test_calls_whole_and_in_pieces(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    asking = {"messages": [user("Rain?")], "tools": [WEATHER]}
    engine.script.extend([written("weather", '{"city": "Bonn"}')] * 2)
    whole = await ok(client, "POST", f"{path}/generate", asking)
    (made,) = whole["tool_calls"]
    assert (whole["text"], whole["finish_reason"]) == ("", "tool_calls")
    assert (made["type"], made["function"]) == ("function", {"name": "weather", "arguments": '{"city":"Bonn"}'})
    second = await init(client)
    opening, rest, done = await frames(client, second, **asking)
    assert (opening["token"], opening["tool_call"]) == ('{"name": "weather", "parameters": ', True)
    assert orjson.loads(opening["token"] + rest["token"]) == {"name": "weather", "parameters": {"city": "Bonn"}}
    assert "tool_call" not in rest
    assert done["tool_calls"][0]["function"] == made["function"]
    answered = [user("Rain?"), {"role": "assistant", "tool_calls": whole["tool_calls"]}]
    answered.append({"role": "tool", "tool_call_id": made["id"], "content": "none"})
    engine.script.append("No rain.")
    followed = await ok(client, "POST", f"{path}/generate", {**asking, "messages": answered})
    assert (followed["text"], core(client).manager.get(id_of(path)).turns) == ("No rain.", 2)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "prompt", "prompt: send either `prompt` or `messages`"),
        ({"prompt": None, "stream": True}, "prompt", "either `prompt` or `messages`"),
        ({"prompt": "a", "messages": [user("b")]}, "prompt", "either `prompt` or `messages`"),
        ({"prompt": "a", "tools": [WEATHER]}, "tools", "tools: does not go with `prompt`"),
        ({"messages": [user("b")], "fast_answer": True}, "fast_answer", "fast_answer: does not go with `messages`"),
        ({"messages": []}, "messages", "messages: "),
        ({"messages": [user("b")], "tools": [WEATHER, WEATHER]}, "tools", "tools"),
        ({"prompt": ""}, "prompt", "prompt"),
        ({"prompt": "a", "fast_answer": ["up"]}, "fast_answer", "fast_answer"),
        ({"prompt": "a", "stop": ["1", "2", "3", "4", "5"]}, "stop", "stop"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "max_tokens"),
        ({"prompt": "a", "temperature": 2.1}, "temperature", "temperature"),
        ({"prompt": "a", "gap_threshold": 1}, "gap_threshold", "gap_threshold"),
        ({"prompt": "word " * 1000}, "prompt", "the context is 4096"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    client: apps.Client, body: dict[str, Any], param: str, message: str
) -> None:
    path = await init(client)
    status, reply = await call(client, "POST", f"{path}/generate", body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert message in reply["error"]["message"]


@pytest.mark.parametrize(
    "body", [{"prompt": "a", "tools": [], "clear_after": 3}, {"messages": [user("b")], "tools": [], "clear_after": 3}]
)
async def test_what_says_nothing_is_ignored(client: apps.Client, engine: FastEngine, body: dict[str, Any]) -> None:
    engine.script.append("Fine.")
    assert (await ok(client, "POST", f"{await init(client)}/generate", body))["text"] == "Fine."


async def test_a_flash_querys_answer_is_served(client: apps.Client) -> None:
    path = await init(client, flash=[{"query": "Hot?", "max_tokens": 4}])
    await push(client, path)
    await answered(client, path)
    answer = core(client).flash.registry(core(client).manager.get(id_of(path))).answer(1)
    assert answer is not None
    size = core(client).manager.get(id_of(path)).tokens
    hit = await ok(client, "POST", f"{path}/generate", {"prompt": "Hot?"})
    assert hit == {
        "text": answer.value,
        "n_tokens": 0,
        "finish_reason": answer.finish_reason,
        "flash": True,
        "flash_id": 1,
        "data_version": 1,
        "confidence": answer.confidence,
        "total_tokens": size,
        "pos_max": size - 1,
    }
    token, done = await frames(client, path, prompt="Hot?")
    assert token == {"token": answer.value, "pos": size}
    assert done == {"done": True, **{key: hit[key] for key in hit if key not in ("total_tokens", "pos_max")}}


async def test_a_fast_answer_comes_from_the_ready_position(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client, "ohlcv")
    session, flash = core(client).manager.get(id_of(path)), core(client).flash
    hits = 0
    for number in range(60):
        await push(client, path, {**CANDLE, "v": number})
        await until(lambda: flash.ready(session))
        before = len(engine.calls)
        answer = await ok(client, "POST", f"{path}/generate", {"prompt": "Up?", "max_tokens": 1, "fast_answer": True})
        if answer.get("speculative"):
            hits += 1
            assert len(engine.calls) == before, "no step of the engine"
            assert answer["text"] in FAST_ANSWERS
            assert answer["logit_gap"] >= 2.0
            assert (answer["n_tokens"], answer["data_version"]) == (0, session.version)
            slow = await ok(client, "POST", f"{path}/generate", {"prompt": "Up?", "max_tokens": 1})
            assert "speculative" not in slow
            break
    assert hits == counters(client).session_ready_exits == 1


async def test_a_broken_engine_ends_a_stream_with_the_envelope(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    engine.script.append("a long answer")
    async with client.post(f"{path}/generate", json={"prompt": "Why?", "stream": True}) as response:
        await response.content.readuntil(b"\n\n")
        engine.kill()
        raw = await response.read()
    last = raw.removesuffix(b"\n\n").split(b"\n\n")[-1]
    assert orjson.loads(last.removeprefix(b"data: "))["error"]["type"] == "overloaded_error"
