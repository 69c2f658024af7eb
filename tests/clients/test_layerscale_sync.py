"""The official client, synchronous."""

from __future__ import annotations

import itertools

import layerscale
import pytest
from layerscale import LayerScale

from tests.servers import Server

LINES = [f"12:{minute:02} boiler {70 + minute % 9}.5 C" for minute in range(40)]


def fill(client: LayerScale, session: str, lines: list[str] = LINES) -> None:
    client.sessions.push(session, lines, wait=True, wait_timeout=60)


def answered(client: LayerScale, session: str) -> list[layerscale.types.sessions.FlashQuery]:
    """The queries, once every answer is fresh; heard of by events, not by polling."""
    with client.sessions.events(session) as events:
        for _ in events:
            queries = client.sessions.list_flash(session).data
            if all(query.fresh for query in queries):
                return queries
    raise AssertionError("the event stream ended")


def test_health_and_models_have_every_field_the_client_knows(client: LayerScale) -> None:
    health = client.health.check()
    assert health.ok
    assert health.body is not None
    assert health.body.status == "ok"
    for name, value in health.body.model_dump().items():
        assert value is not None, name
    models = client.models.list()
    (model,) = models.data
    assert (models.has_more, models.first_id, models.last_id) == (False, model.id, model.id)
    assert model.max_input_tokens == model.max_tokens == model.max_model_len - 1
    assert client.models.retrieve(model.id.upper()) == model
    with pytest.raises(layerscale.NotFoundError):
        client.models.retrieve("no/such-model")


def test_metrics_are_prometheus_text(client: LayerScale) -> None:
    text = client.metrics.get()
    assert "askahead_sessions " in text
    assert "askahead_push_ack_seconds_bucket" in text


def test_sessions_are_created_listed_got_and_deleted(client: LayerScale) -> None:
    before = {session.id for session in client.sessions.list().data}
    made = client.sessions.create(id="reactor-1", pre_decode=False)
    assert (made.id, made.tokens, made.data_version, made.pending, made.busy) == ("reactor-1", 0, 0, 0, False)
    automatic = client.sessions.create()
    assert automatic.id.startswith("sess_")
    assert {session.id for session in client.sessions.list().data} - before == {"reactor-1", automatic.id}
    with pytest.raises(layerscale.ConflictError):
        client.sessions.create(id="reactor-1")
    for session_id in ("reactor-1", automatic.id):
        assert client.sessions.delete(session_id).deleted
        with pytest.raises(layerscale.NotFoundError):
            client.sessions.get(session_id)
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.create(id="no spaces")
    assert "id" in str(refused.value)


def test_a_push_is_acknowledged_with_exact_counters_and_becomes_resident(client: LayerScale, session: str) -> None:
    ack = client.sessions.push(session, LINES, wait=True, wait_timeout=60)
    assert (ack.pushed, ack.dropped, ack.total_pushed, ack.total_dropped, ack.data_version) == (len(LINES), 0, 40, 0, 0)
    assert ack.pending == len(LINES)
    assert ack.pending_bytes == sum(map(len, LINES))
    state = client.sessions.get(session)
    assert state.data_version == 1
    assert state.pending == 0
    assert state.kv_tokens == state.data_end == state.tokens > 0
    second = client.sessions.push(session, "one line", wait=True, wait_timeout=60)
    assert (second.total_pushed, second.data_version) == (41, 1)
    assert client.sessions.get(session).data_version == 2


def test_a_question_is_answered_over_the_resident_stream(client: LayerScale, session: str) -> None:
    fill(client, session)
    client.sessions.generate(session, prompt="Name a unit.", max_tokens=1)
    answer = client.sessions.generate(session, prompt="What is the last reading?", max_tokens=8, temperature=0)
    assert answer.session_id == session
    assert answer.data_version == 1
    assert answer.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 1 <= usage.completion_tokens <= 8
    assert usage.prompt_tokens_details is not None
    state = client.sessions.get(session)
    # All full blocks of the stream, and of nothing else, come from the cache.
    assert state.tokens - 64 < usage.prompt_tokens_details.cached_tokens <= state.tokens
    assert (answer.flash, answer.flash_id, answer.confidence) == (None, None, None)
    assert state.data_version == 1, "a question leaves nothing behind"


def test_a_streamed_answer_equals_the_whole_one(client: LayerScale, session: str) -> None:
    fill(client, session)
    whole = client.sessions.generate(session, prompt="Describe the readings.", max_tokens=12, temperature=0)
    chunks = list(
        client.sessions.generate_stream(session, prompt="Describe the readings.", max_tokens=12, temperature=0)
    )
    done = chunks.pop()
    assert done.done is True
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert done.finish_reason == whole.finish_reason
    assert done.usage.completion_tokens == whole.usage.completion_tokens


def test_sampling_parameters_are_honoured(client: LayerScale, session: str) -> None:
    fill(client, session)
    ask = {"prompt": "Tell a story about the boiler.", "max_tokens": 12, "temperature": 1.0, "top_p": 1.0}
    first, again, other = (client.sessions.generate(session, **ask, seed=seed).text for seed in (7, 7, 8))
    assert first == again
    assert first != other
    full = client.sessions.generate(session, prompt="Count.", max_tokens=24, temperature=0, ignore_eos=True)
    assert (full.usage.completion_tokens, full.finish_reason) == (24, "length")
    middle = full.text[len(full.text) // 2 :][:3]
    stopped = client.sessions.generate(
        session, prompt="Count.", max_tokens=24, temperature=0, ignore_eos=True, stop=[middle]
    )
    assert stopped.finish_reason == "stop"
    assert stopped.text == full.text[: full.text.index(middle)]


def test_flash_queries_live_and_are_answered_after_every_batch(client: LayerScale, session: str) -> None:
    query = client.sessions.flash(session, "What was the last reading?", max_tokens=4)
    assert (query.id, query.fresh, query.value, query.max_tokens) == (1, False, None, 4)
    assert query.tokens > 0
    clamped = client.sessions.flash(session, "Is it hot?", max_tokens=100_000)
    assert clamped.max_tokens == 256
    with pytest.raises(layerscale.ConflictError):
        client.sessions.flash(session, "Is it hot?")
    assert client.sessions.unflash(session, clamped.id).remaining == 1
    with pytest.raises(layerscale.NotFoundError):
        client.sessions.unflash(session, clamped.id)
    for version in (1, 2):
        fill(client, session, LINES[:5])
        (answer,) = answered(client, session)
        assert answer.data_version == version
        assert answer.value is not None
        assert answer.confidence is not None
        assert answer.confidence >= 0
        assert answer.evaluated_at is not None


def test_a_flash_answer_is_what_generate_gives_and_serves_it(client: LayerScale, session: str) -> None:
    questions = ["What was the last reading?", "Is the boiler hot?", "Name the unit."]
    # The same data in a session without queries: there the question is computed, here it is served.
    twin = client.sessions.create().id
    for question in questions:
        client.sessions.flash(session, question, max_tokens=12)
    for lines in (LINES, LINES[:7]):
        for target in (session, twin):
            fill(client, target, lines)
        for query in answered(client, session):
            computed = client.sessions.generate(twin, prompt=query.query, max_tokens=12, temperature=0)
            assert computed.flash is None
            assert query.value == computed.text
            hit = client.sessions.generate(session, prompt=query.query, max_tokens=12, temperature=0)
            assert (hit.flash, hit.flash_id, hit.text, hit.confidence) == (
                True,
                query.id,
                query.value,
                query.confidence,
            )
            assert hit.data_version == query.data_version
            assert (hit.usage.prompt_tokens, hit.usage.completion_tokens, hit.usage.total_tokens) == (0, 0, None)
            *text, done = client.sessions.generate_stream(session, prompt=query.query)
            assert "".join(chunk.text for chunk in text) == query.value
            assert done.flash is True
    client.sessions.delete(twin)


def test_at_most_twenty_flash_queries(client: LayerScale, session: str) -> None:
    for number in range(20):
        client.sessions.flash(session, f"Question {number}?", max_tokens=1)
    with pytest.raises(layerscale.ConflictError):
        client.sessions.flash(session, "One too many?")
    assert len(client.sessions.list_flash(session).data) == 20


def test_events_begin_with_a_snapshot_and_follow_changes(client: LayerScale, session: str) -> None:
    fill(client, session)
    client.sessions.flash(session, "Is it hot?", max_tokens=2)
    (before,) = answered(client, session)
    with client.sessions.events(session) as events:
        stream = iter(events)
        connected = next(stream)
        assert (connected.type, connected.session_id) == ("connected", session)
        assert (connected.data_version, connected.flash_queries) == (1, 1)
        replayed = next(stream)
        assert (replayed.type, replayed.id, replayed.value, replayed.confidence) == (
            "flash_ready",
            1,
            before.value,
            before.confidence,
        )
        client.sessions.push(session, "12:59 boiler 99.9 C")
        updated = next(stream)
        assert (updated.type, updated.data_version, updated.pending) == ("data_updated", 2, 0)
        assert updated.tokens == client.sessions.get(session).tokens
        ready = next(stream)
        assert (ready.type, ready.id, ready.data_version) == ("flash_ready", 1, 2)
        client.sessions.delete(session)
        assert list(stream) == [], "deleting the session ends its event streams"


def test_the_socket_pushes_and_receives(client: LayerScale, session: str) -> None:
    client.sessions.flash(session, "Is it hot?", max_tokens=2)
    with client.sessions.ws(session) as socket:
        events = iter(socket)
        connected = next(events)
        assert (connected.type, connected.data.session_id, connected.data.flash_queries) == ("connected", session, 1)
        socket.push(LINES[:3])
        ack, updated, ready = itertools.islice(events, 3)
        assert (ack.type, ack.data.pushed, ack.data.pending, ack.data.total_pushed) == ("push_ack", 3, 3, 3)
        assert (updated.type, updated.data.data_version) == ("data_updated", 1)
        assert (ready.type, ready.data.id, ready.data.data_version) == ("flash_ready", 1, 1)
        socket.ping()
        assert next(events).type == "pong"
        socket._conn.send("{nonsense")
        error = next(events)
        assert (error.type, error.data.code) == ("error", 400)
        socket.push("still open")
        assert next(events).type == "push_ack"
    with client.sessions.ws(session) as socket:
        connected, replayed = itertools.islice(socket, 2)
        assert (connected.type, replayed.type, replayed.data.id) == ("connected", "flash_ready", 1)


def test_deleting_the_session_closes_its_sockets(client: LayerScale, session: str) -> None:
    with client.sessions.ws(session) as socket:
        events = iter(socket)
        assert next(events).type == "connected"
        client.sessions.delete(session)
        assert list(events) == []


def test_refusals_are_the_clients_own_errors(client: LayerScale, session: str, server: Server) -> None:
    with pytest.raises(layerscale.NotFoundError):
        client.sessions.push("nowhere", "x")
    with pytest.raises(layerscale.NotFoundError), client.sessions.ws("nowhere"):
        pass
    with pytest.raises(layerscale.NotFoundError):
        client.sessions.events("nowhere")
    with pytest.raises(layerscale.BadRequestError), client.sessions.ws("not!an!id"):
        pass
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.generate(session, prompt="")
    assert "prompt" in refused.value.message
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.generate(session, prompt="x", fast_answer=[""])
    assert "fast_answer" in refused.value.message
    with pytest.raises(layerscale.BadRequestError) as refused:
        client.sessions.generate(session, prompt="word " * 20_000)
    assert refused.value.body["error"]["code"] == "context_length_exceeded"
    assert refused.value.type == "invalid_request_error"
