"""The official client of the old generation, synchronous: every method of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import figures, old
from tests.servers import Server

layerscale: Any = old.load()

# This client opens its sockets as was right in its day.
pytestmark = pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning")

RANDOM = random.Random(404)
CATEGORIES = ("login", "disk", "disk", "net")


def candle(number: int) -> dict[str, Any]:
    o, c = (round(RANDOM.uniform(150, 200), 2) for _ in range(2))
    return {"o": o, "h": max(o, c) + 0.25, "l": min(o, c) - 0.5, "c": c, "v": RANDOM.randrange(1, 9) * 100.0}


def reading(number: int) -> dict[str, Any]:
    return {"sid": f"temp-{number % 3}", "val": round(RANDOM.uniform(50, 95), 1), "lo": 60.0, "hi": 85.0}


def position(number: int) -> dict[str, Any]:
    place = {axis: round(RANDOM.uniform(-50, 50), 1) for axis in "xyz"}
    return {**place, "spd": round(RANDOM.uniform(0, 30), 1), "hdg": RANDOM.randrange(360) * 1.0}


def occurrence(number: int) -> dict[str, Any]:
    return {"src": f"host{number % 4}", "sev": RANDOM.randrange(1, 7), "cat": RANDOM.choice(CATEGORIES), "cnt": number}


def signs(number: int) -> dict[str, Any]:
    rate, pressure = RANDOM.uniform(50, 120), RANDOM.uniform(100, 140)
    return {
        "hr": round(rate),
        "bp_s": round(pressure),
        "bp_d": round(pressure) - 40,
        "spo2": round(RANDOM.uniform(86, 100), 1),
        "temp": round(RANDOM.uniform(36.2, 38.6), 1),
    }


MAKE = {"ohlcv": candle, "iot": reading, "spatial": position, "event": occurrence, "vitals": signs}
ENTRIES = {kind: [make(number) for number in range(25)] for kind, make in MAKE.items()}
CANDLES = ENTRIES["ohlcv"]
# One second apart, since a client may send times or not.
TIMED = [{**candle, "timestamp": 1_790_000_000 + number, "sym": "ACME"} for number, candle in enumerate(CANDLES)]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "alert",
            "description": "Raises an alert.",
            "parameters": {"type": "object", "properties": {"level": {"enum": ["low", "high"]}}, "required": ["level"]},
        },
    }
]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with layerscale.LayerScale(base_url=server.url, max_retries=0) as client:
        yield client


@pytest.fixture
def session(client: Any) -> Iterator[str]:
    """The id of a fresh session of candles."""
    session_id = client.sessions.create(type="ohlcv").session_id
    yield session_id
    with contextlib.suppress(layerscale.NotFoundError):
        client.sessions.delete(session_id)


def fill(client: Any, session: str, entries: list[dict[str, Any]] = CANDLES) -> Any:
    return client.sessions.push(session, entries, wait=True, wait_timeout=60)


def answered(client: Any, session: str) -> list[Any]:
    """The queries, once every answer is of the present version; heard of by events, not by polling."""
    with client.sessions.events(session) as events:
        for _ in events:
            listed = client.sessions.list_flash(session)
            if all(
                query.has_answer and query.data_version == listed.current_data_version for query in listed.flash_queries
            ):
                return list(listed.flash_queries)
    raise AssertionError("the event stream ended")


def test_health_and_models(client: Any) -> None:
    assert client.health.check() == layerscale.types.HealthResponse(ok=True, status=200)
    listed = client.models.list()
    (model,) = listed.data
    assert (model.object, listed.server.model.id) == ("model", model.id)
    assert (listed.server.licensed, listed.server.accelerators) == (False, [])
    assert 0 < listed.server.scheduler.context <= listed.server.scheduler.prefix_slots * listed.server.scheduler.context
    assert listed.server.version
    assert listed.server.build


def test_sessions_are_created_listed_got_and_deleted(client: Any) -> None:
    made = client.sessions.create(
        type="iot",
        prompt="You watch a boiler.",
        window_size=1024,
        context=256,
        flash=[{"query": "Is it hot?", "max_tokens": 4}, {"query": "Is it cold?"}],
        mark_prefix=True,
    )
    assert (made.type, made.window_size, made.flash_queries) == ("iot", 1024, 2)
    assert made.n_tokens == made.pos_max + 1 > 0
    listed = client.sessions.list()
    assert listed.count == len(listed.sessions)
    assert listed.max_sessions == 256
    (summary,) = (one for one in listed.sessions if one.session_id == made.session_id)
    assert (summary.n_tokens, summary.prefix_end, summary.in_use) == (made.n_tokens, made.n_tokens, False)
    state = client.sessions.get(made.session_id)
    assert (state.type, state.context, state.n_tokens) == ("iot", made.context, made.n_tokens)
    assert (state.pos_min, state.pos_max, state.pos_next) == (0, made.pos_max, made.n_tokens)
    assert (state.data_region.start, state.data_region.end, state.data_region.window_size) == (
        made.n_tokens,
        made.n_tokens,
        1024,
    )
    assert state.cache_usage == made.n_tokens / made.context
    assert "You watch a boiler." in state.context_text
    client.sessions.delete(made.session_id)
    for call in (client.sessions.get, client.sessions.delete, client.sessions.stats, client.sessions.mark_prefix):
        with pytest.raises(layerscale.NotFoundError):
            call(made.session_id)


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_type_is_pushed_read_and_counted(client: Any, kind: str) -> None:
    entries = ENTRIES[kind]
    session = client.sessions.create(type=kind).session_id
    assert client.sessions.stats(session).count == 0
    first = fill(client, session, entries[:10])
    assert (first.pushed, first.dropped, first.total_enqueued, first.total_dropped) == (10, 0, 10, 0)
    second = fill(client, session, entries[10:])
    assert (second.pushed, second.total_enqueued) == (len(entries) - 10, len(entries))
    assert second.queue_capacity > 0

    status = client.sessions.stream_status(session)
    assert (status.type, status.streaming.running, status.streaming.error) == (kind, True, False)
    assert (status.streaming.queue_size, status.streaming.window_size) == (0, 0)
    assert status.statistics.items_processed == status.statistics.total_enqueued == len(entries)
    assert status.statistics.batches_processed == 2
    assert status.statistics.total_process_time_us >= status.statistics.avg_process_time_us > 0
    state = client.sessions.get(session)
    assert state.data_count == status.data.data_count == len(entries)
    assert state.pos_next == status.data.pos_next == state.n_tokens
    assert state.data_region.end - state.data_region.start == status.data.total_data_tokens
    assert state.pending_prefill == 0

    stats = client.sessions.stats(session).model_dump()
    expected = {"type": kind, "count": len(entries), **figures.OF[kind](entries)}
    assert figures.alike(stats, expected), (stats, expected)
    client.sessions.delete(session)


def test_statistics_and_state_are_of_what_is_in_the_window(client: Any) -> None:
    made = client.sessions.create(type="ohlcv", window_size=600)
    for start in range(0, 25, 5):
        fill(client, made.session_id, TIMED[start : start + 5])
    state = client.sessions.get(made.session_id)
    shown = client.sessions.stats(made.session_id).model_dump()
    assert 0 < state.data_count < 25
    expected = {"type": "ohlcv", "count": state.data_count, **figures.ohlcv(TIMED[-state.data_count :])}
    assert figures.alike(shown, expected), (shown, expected)
    client.sessions.delete(made.session_id)


def test_what_is_appended_is_known_to_what_is_asked_next(client: Any, session: str) -> None:
    fill(client, session)
    before = client.sessions.get(session)
    added = client.sessions.append(session, "Trading was halted at noon.")
    after = client.sessions.get(session)
    assert added.total_tokens == added.pos_max + 1 == after.n_tokens == before.n_tokens + added.n_tokens_added
    assert after.context_text.rstrip().endswith("Trading was halted at noon.")
    marked = client.sessions.mark_prefix(session)
    assert marked.prefix_end == after.n_tokens
    assert marked.message
    assert client.sessions.get(session).prefix_end == after.n_tokens


def test_a_question_leaves_nothing_behind(client: Any, session: str) -> None:
    fill(client, session)
    before = client.sessions.get(session)
    answer = client.sessions.query(session, prompt="Which way?", max_tokens=6, clear_after=0)
    again = client.sessions.query(session, prompt="Which way?", max_tokens=6, temperature=0.0, top_p=1.0)
    assert answer.text == again.text, "greedy unless asked for otherwise"
    assert 1 <= answer.n_tokens <= 6
    assert answer.finish_reason in ("stop", "length")
    assert (answer.data_version, answer.flash, answer.tool_calls) == (1, None, None)
    assert answer.total_tokens == answer.pos_max + 1 == before.n_tokens
    assert client.sessions.get(session).n_tokens == before.n_tokens
    chunks = list(client.sessions.query_stream(session, prompt="Which way?", max_tokens=6))
    done = chunks.pop()
    assert done.done is True
    assert done.text == "".join(chunk.token for chunk in chunks) == answer.text
    assert (done.n_tokens, done.finish_reason) == (answer.n_tokens, answer.finish_reason)
    places = [chunk.pos for chunk in chunks]
    assert places == sorted(places)
    assert places[0] >= before.n_tokens
    text = client.sessions.query(session, prompt="Which way?", max_tokens=6, stop=[answer.text[1:3]]).text
    assert text == answer.text[: answer.text.index(answer.text[1:3])]


def test_messages_are_a_durable_turn(client: Any, session: str) -> None:
    fill(client, session)
    said: list[dict[str, Any]] = [{"role": "user", "content": "How is the market?"}]
    first = client.sessions.query(session, messages=said, max_tokens=8)
    held = client.sessions.get(session)
    assert first.total_tokens == held.n_tokens == held.pos_max + 1
    assert first.data_version == 2
    assert first.text in held.context_text
    said += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And now?"}]
    chunks = list(client.sessions.query_stream(session, messages=said, max_tokens=8))
    done = chunks.pop()
    assert done.done is True
    assert done.text == "".join(chunk.token for chunk in chunks)
    after = client.sessions.get(session).context_text
    assert after.index("How is the market?") < after.index(first.text) < after.index("And now?")


def test_tools_may_be_called(client: Any, session: str) -> None:
    answer = client.sessions.query(
        session, messages=[{"role": "user", "content": "Raise a high alert."}], tools=TOOLS, max_tokens=60
    )
    if answer.tool_calls:
        assert answer.finish_reason == "tool_calls"
        (call, *_) = answer.tool_calls
        assert call.function.name == "alert"
        said = [
            {"role": "user", "content": "Raise a high alert."},
            {"role": "assistant", "tool_calls": [call.model_dump() for call in answer.tool_calls]},
            {"role": "tool", "tool_call_id": call.id, "content": "done"},
        ]
    else:
        assert answer.text
        said = [
            {"role": "user", "content": "Raise a high alert."},
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": "Well?"},
        ]
    followed = client.sessions.query(session, messages=said, tools=TOOLS, max_tokens=8)
    assert followed.data_version == 2
    assert followed.total_tokens > answer.total_tokens


def test_flash_queries_are_answered_after_every_batch_and_serve_what_they_are_asked(client: Any, session: str) -> None:
    made = client.sessions.flash(session, "Bullish or bearish?", max_tokens=4)
    assert (made.id, made.query, made.max_tokens, made.total_flash_queries) == (1, "Bullish or bearish?", 4, 1)
    assert made.n_tokens > 0
    (unanswered,) = client.sessions.list_flash(session).flash_queries
    assert (unanswered.has_answer, unanswered.value, unanswered.data_version) == (False, "", 0)
    assert client.sessions.flash(session, "Is volume unusual?").max_tokens == 32
    assert client.sessions.unflash(session, 2).model_dump() == {"success": True, "remaining": 1}
    with pytest.raises(layerscale.NotFoundError):
        client.sessions.unflash(session, 2)
    with pytest.raises(layerscale.ConflictError):
        client.sessions.flash(session, "Bullish or bearish?")
    for version in (1, 2):
        fill(client, session)
        (query,) = answered(client, session)
        assert (query.data_version, query.has_answer) == (version, True)
        assert query.evaluated_at > 0
        hit = client.sessions.query(session, prompt="Bullish or bearish?", max_tokens=4)
        assert (hit.flash, hit.flash_id, hit.text, hit.confidence) == (True, 1, query.value, query.confidence)
        assert (hit.data_version, hit.n_tokens) == (version, 0)
        *tokens, done = client.sessions.query_stream(session, prompt="Bullish or bearish?")
        assert "".join(token.token for token in tokens) == done.text == query.value


def test_a_speculative_answer_is_one_of_a_few_words(client: Any, session: str) -> None:
    fill(client, session)
    fast = client.sessions.query(session, prompt="Up or down?", max_tokens=3, fast_answer=True)
    full = client.sessions.query(session, prompt="Up or down?", max_tokens=3)
    assert full.speculative is None
    if fast.speculative:
        assert fast.logit_gap >= 2.0
        assert fast.n_tokens == 0
    else:
        assert (fast.text, fast.logit_gap) == (full.text, None)


def test_events_begin_with_a_snapshot_and_follow_changes(client: Any, session: str) -> None:
    fill(client, session)
    client.sessions.flash(session, "Up?", max_tokens=2)
    (before,) = answered(client, session)
    with client.sessions.events(session) as events:
        stream = iter(events)
        connected, replayed = next(stream), next(stream)
        assert connected.model_dump() == {"type": "connected", "data_version": 1, "flash_queries": 1}
        assert replayed.model_dump() == {
            "type": "flash_ready",
            **before.model_dump(include={"id", "query", "value", "data_version", "confidence", "evaluated_at"}),
        }
        client.sessions.push(session, CANDLES[:3])
        updated, ready = next(stream), next(stream)
        state = client.sessions.get(session)
        assert updated.model_dump() == {
            "type": "data_updated",
            "data_version": 2,
            "data_count": len(CANDLES) + 3,
            "pos_next": state.n_tokens,
        }
        assert (ready.type, ready.id, ready.data_version) == ("flash_ready", 1, 2)
        client.sessions.delete(session)
        assert list(stream) == [], "deleting the session ends its event streams"


def test_the_socket_pushes_and_receives(client: Any, session: str) -> None:
    client.sessions.flash(session, "Up?", max_tokens=2)
    with client.sessions.stream(session) as socket:
        events = iter(socket)
        connected = next(events)
        assert (connected.type, connected.data.model_dump()) == (
            "connected",
            {"session_id": session, "data_version": 0, "streaming": True, "flash_queries": 1},
        )
        socket.push(CANDLES[:3])
        ack, updated, ready = itertools.islice(events, 3)
        assert (ack.type, ack.data.model_dump()) == ("push_ack", {"pushed": 3, "dropped": 0, "queue_size": 3})
        assert (updated.type, updated.data.data_version, updated.data.data_count) == ("data_updated", 1, 3)
        assert (ready.type, ready.data.id, ready.data.data_version) == ("flash_ready", 1, 1)
        assert ready.data.evaluated_at > 0
        socket.ping()
        assert next(events).type == "pong"
        socket.push([CANDLES[0], {"o": 1.0}])
        error = next(events)
        assert (error.type, error.data.code) == ("error", 400)
        assert "data.1.h" in error.data.message


def test_completions(client: Any) -> None:
    done = client.completions.create(prompt="The market is", max_tokens=5, temperature=0.0, top_p=1.0, stop=["a", "e"])
    (choice,) = done.choices
    assert (done.object, choice.index) == ("text_completion", 0)
    assert choice.finish_reason in ("stop", "length")
    assert 1 <= done.usage.completion_tokens <= 5
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_chat_and_messages_name_the_session_in_the_body(client: Any, session: str) -> None:
    fill(client, session)
    said = [{"role": "user", "content": "How is the market?"}]
    alone = client.chat.create(messages=said, max_tokens=6, temperature=0.0)
    bound = client.chat.create(messages=said, max_tokens=6, temperature=0.0, session_id=session)
    assert bound.usage.prompt_tokens > alone.usage.prompt_tokens
    text = bound.choices[0].message.content
    said += [{"role": "assistant", "content": text}, {"role": "user", "content": "And now?"}]
    chunks = list(client.chat.stream(messages=said, max_tokens=6, temperature=0.0, session_id=session))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    reply = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    said += [{"role": "assistant", "content": reply}, {"role": "user", "content": "Sure?"}]
    message = client.messages.create(messages=said, max_tokens=6, temperature=0.0, session_id=session)
    assert message.stop_reason in ("end_turn", "max_tokens")
    said += [{"role": "assistant", "content": message.content[0].text}, {"role": "user", "content": "Really?"}]
    events = list(client.messages.stream(messages=said, max_tokens=6, session_id=session, system="Be brief."))
    assert events[0].type == "message_start"
    assert events[-1].type == "message_stop"
    assert client.sessions.list_flash(session).current_data_version == 5


def test_refusals_are_the_clients_own_errors(client: Any, session: str) -> None:
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.push(session, [CANDLES[0], {**CANDLES[1], "h": "high"}])
    assert refused.value.param == "data.1.h"
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.create(type="weather")
    assert refused.value.param == "type"
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.create(type="iot", context=2**31)
    assert refused.value.param == "context"
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.create(type="iot", window_size=8)
    assert refused.value.param == "window_size"
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.query(session, prompt="x", messages=[{"role": "user", "content": "y"}])
    assert "either `prompt` or `messages`" in refused.value.message
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.query(session, prompt="word " * 20_000)
    assert (refused.value.code, refused.value.type) == ("context_length_exceeded", "invalid_request_error")
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.chat.create(messages=[{"role": "user", "content": "Hi"}], session_id="nowhere")
    assert refused.value.param == "session_id"
    with pytest.raises(layerscale.NotFoundError):
        client.sessions.events("nowhere")
    with pytest.raises(layerscale.NotFoundError):
        list(client.sessions.query_stream("nowhere", prompt="x"))
    assert json.loads(json.dumps(refused.value.body))["error"]["type"] == "invalid_request_error"
