"""The ready position on the real engine: an answer from it costs the engine nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from streams.engine.vllm import VllmEngine
from tests import apps
from tests.apps import core, ok, settled, until
from tests.engine.counting import CountingEngine

LINES = ["09:00 o=10 h=12 l=9 c=11", "09:01 o=11 h=15 l=11 c=14", "09:02 o=14 h=16 l=13 c=16"]


@pytest.mark.timeout(600)
async def test_fast_answers_take_no_step(redis: Redis, tmp_path: Path, vllm_engine: VllmEngine) -> None:
    engine = CountingEngine(vllm_engine)
    await redis.flushall()
    async with apps.serving(redis, tmp_path, cast("Any", engine)) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s", "pre_decode": True})
        for number, line in enumerate(LINES, 1):
            await ok(client, "POST", "/v1/sessions/s/push", {"data": line})
            await settled(client, "s")
            await until(lambda: core(client).flash.ready(core(client).manager.get("s")), 60)
            state = await ok(client, "GET", "/v1/sessions/s")
            assert state["data_version"] == number
            likely = vllm_engine.tokenizer.token_bytes(state["ready_token"]).decode().strip()
            before = engine.requests, (await ok(client, "GET", "/health"))["steps"]
            asked = {"prompt": "Up or down?", "fast_answer": [likely, "§ never"], "gap_threshold": 0}
            for _ in range(20):
                answer = await ok(client, "POST", "/v1/sessions/s/generate", asked)
                assert (answer["text"], answer["speculative"], answer["data_version"]) == (likely, True, number)
                assert answer["logit_gap"] == state["ready_gap"]
                assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}
            assert (engine.requests, (await ok(client, "GET", "/health"))["steps"]) == before
        too_sure = {**asked, "gap_threshold": state["ready_gap"] + 1, "max_tokens": 1, "temperature": 0}
        assert "speculative" not in await ok(client, "POST", "/v1/sessions/s/generate", too_sure)
        assert engine.requests == before[0] + 1
        health = await ok(client, "GET", "/health")
        assert health["session_ready_exits"] == 60
