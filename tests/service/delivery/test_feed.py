"""Event streams of several sessions: what is heard of whom, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery.events import Event, SubscriptionEnded
from service.delivery.feed import Feed, labelled
from service.valkey import embedded_valkey
from streams.store import connect
from tests import apps
from tests.apps import answered, call, core, ok, settled, until
from tests.service.delivery.frames import UPGRADE
from tests.service.delivery.messages import receive
from tests.service.delivery.sse import Named, read

PLANT = "/v1/events?prefix=plant-"
BOTH = "/v1/events?session=a&session=b"


@pytest.fixture(autouse=True)
async def _sessions(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await create(client, session_id)


async def create(client: apps.Client, session_id: str, *queries: str) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": session_id, "flash": [{"query": query} for query in queries]})


async def push(client: apps.Client, session_id: str) -> None:
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "x"})
    await settled(client, session_id)


async def delete(client: apps.Client, session_id: str) -> None:
    await ok(client, "DELETE", f"/v1/sessions/{session_id}")


async def several(response: aiohttp.ClientResponse, number: int) -> list[Named]:
    return [await read(response) for _ in range(number)]


def connected(session_id: str, version: int = 0, queries: int = 0) -> Named:
    return "connected", {"session_id": session_id, "data_version": version, "flash_queries": queries}


def updated(client: apps.Client, session_id: str, version: int, entries: int) -> Named:
    tokens = core(client).manager.get(session_id).tokens
    return "data_updated", {
        "session_id": session_id,
        "data_version": version,
        "tokens": tokens,
        "entries": entries,
        "pending": 0,
    }


async def test_two_sessions_over_one_connection(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions/b/flash", {"query": "Hot?"})
    await push(client, "b")
    (query,) = await answered(client, "b")
    replayed = {name: query[name] for name in ("id", "query", "value", "data_version", "confidence", "evaluated_at")}
    async with client.get(BOTH) as response, client.get("/v1/sessions/b/events") as alone:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await several(response, 3) == [
            connected("a"),
            connected("b", 1, 1),
            ("flash_ready", {"session_id": "b", **replayed}),
        ]
        await push(client, "a")
        assert await read(response) == updated(client, "a", 1, 1)
        await push(client, "b")
        await several(alone, 2)
        for _ in range(2):
            (kind, data), (kind_alone, data_alone) = await read(response), await read(alone)
            assert (kind, data) == (kind_alone, {"session_id": "b", **data_alone})


async def test_a_prefix_brings_sessions_created_later(client: apps.Client) -> None:
    await create(client, "plant-1")
    async with client.get(PLANT) as response:
        assert await read(response) == connected("plant-1")
        await create(client, "other")
        await create(client, "plant-2", "Hot?")
        await push(client, "plant-2")
        kind, data = await read(response)
        assert (kind, data["session_id"]) == ("connected", "plant-2")
        while kind != "flash_ready":
            kind, data = await read(response)
            assert data["session_id"] == "plant-2"
        await push(client, "plant-1")
        assert (await read(response))[1]["session_id"] == "plant-1"


async def test_a_prefix_without_sessions_is_served_at_once(client: apps.Client) -> None:
    async with client.get(PLANT) as response:
        assert response.status == 200
        await create(client, "plant-1")
        assert await read(response) == connected("plant-1")


async def test_an_empty_prefix_is_every_session(client: apps.Client) -> None:
    async with client.get("/v1/events?prefix=&session=a&session=a") as response:
        assert await several(response, 2) == [connected("a"), connected("b")]
        await create(client, "c")
        assert await read(response) == connected("c")


async def test_a_prefix_outlives_its_sessions(client: apps.Client) -> None:
    await create(client, "plant-1", "Hot?")
    await push(client, "plant-1")
    await answered(client, "plant-1")
    async with client.get(PLANT) as response:
        await several(response, 2)
        await delete(client, "plant-1")
        assert await read(response) == ("deleted", {"session_id": "plant-1"})
        await create(client, "plant-1")
        assert await read(response) == connected("plant-1"), "another session, with no answer yet"
        await push(client, "plant-1")
        assert (await read(response))[1]["data_version"] == 1


async def test_named_sessions_are_heard_until_the_last_is_deleted(client: apps.Client) -> None:
    async with client.get(BOTH) as response:
        await several(response, 2)
        await delete(client, "a")
        assert await read(response) == ("deleted", {"session_id": "a"})
        await create(client, "a")
        await push(client, "a")
        await push(client, "b")
        assert (await read(response))[1]["session_id"] == "b", "the new one of that name was not meant"
        await delete(client, "b")
        assert await read(response) == ("deleted", {"session_id": "b"})
        assert await response.content.read() == b""
    assert core(client).hub.subscribers == 0


async def test_a_reconnected_client_starts_from_the_replay(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await ok(client, "POST", f"/v1/sessions/{session_id}/flash", {"query": "Hot?"})
    async with client.get(BOTH) as response:
        assert await several(response, 2) == [connected("a", 0, 1), connected("b", 0, 1)]
    for session_id in ("a", "b"):
        await push(client, session_id)
        await answered(client, session_id)
    async with client.get(BOTH) as response:
        events = await several(response, 4)
        assert [(kind, data["session_id"], data["data_version"]) for kind, data in events] == [
            (kind, session_id, 1) for session_id in "ab" for kind in ("connected", "flash_ready")
        ]
        await push(client, "b")
        assert await read(response) == updated(client, "b", 2, 2)


async def test_a_subscriber_that_falls_behind_all_together_is_ended(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, subscriber_backlog=2) as client:
        for session_id in ("a", "b", "c"):
            await create(client, session_id)
        async with client.get("/v1/events?session=a&session=b&session=c") as response:
            await several(response, 3)
            (subscription,) = core(client).hub._named["a"]
            for session_id in ("a", "b", "c"):
                subscription.offer(Event("data_updated", {"data_version": 1}, session_id))
            assert await response.content.read() == b'event: error\ndata: {"reason":"lagging"}\n\n'
        await until(lambda: all(session.idle for session in core(client).manager.sessions()))


async def test_it_ends_when_the_server_stops(redis: Redis, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        await redis.flushall()
        async with apps.serving(redis, tmp_path) as client:
            await create(client, "a")
            prefixed = await session.get(client.make_url("/v1/events?prefix="))
            named = await session.get(client.make_url("/v1/events?session=a"))
            assert await read(prefixed) == await read(named) == connected("a")
        assert await prefixed.content.read() == await named.content.read() == b""


async def test_silence_is_filled_with_heartbeats(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, heartbeat_seconds=0.1) as client, client.get(PLANT) as response:
        for _ in range(2):
            assert await response.content.readuntil(b"\n\n") == b": heartbeat\n\n"


async def test_every_watched_session_is_kept_as_long_as_it_is_watched(client: apps.Client) -> None:
    await create(client, "plant-1")
    sessions = [core(client).manager.get(session_id) for session_id in ("a", "b", "plant-1")]
    async with client.get(f"{BOTH}&prefix=plant-") as response:
        await several(response, 3)
        await create(client, "plant-2")
        await read(response)
        sessions.append(core(client).manager.get("plant-2"))
        assert not any(session.idle for session in sessions)
        for gone in ("a", "plant-1"):
            await delete(client, gone)
            await read(response)
        assert [session.idle for session in sessions] == [True, False, True, False]
    await until(lambda: all(session.idle for session in sessions))


async def test_sessions_of_a_watched_prefix_do_not_expire(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, session_idle_seconds=1) as client:
        for session_id in ("plant-1", "other"):
            await create(client, session_id)
        async with client.get(PLANT) as response:
            await read(response)
            await create(client, "plant-2")
            await read(response)
            for session in core(client).manager.sessions():
                session.last_used = 0.0
            await until(lambda: len(core(client).manager.sessions()) < 3)
            assert {session.id for session in core(client).manager.sessions()} == {"plant-1", "plant-2"}


@pytest.mark.parametrize("path", ["/v1/events?session=a", "/v1/ws?session=a"])
async def test_a_store_that_does_not_answer_is_told_before_the_stream_starts(tmp_path: Path, path: str) -> None:
    async with AsyncExitStack() as valkey:
        url = await valkey.enter_async_context(embedded_valkey(tmp_path))
        async with connect(url) as redis, apps.serving(redis, tmp_path) as client:
            await create(client, "a")
            await valkey.aclose()
            status, reply = await call(client, "GET", path, headers=UPGRADE if "ws" in path else {})
            assert (status, reply["error"]["code"]) == (503, "store_unavailable")
            assert core(client).hub.subscribers == 0


async def test_answers_that_the_snapshot_holds_are_not_told_again(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions/a/flash", {"query": "Hot?"})
    for _ in range(3):
        await push(client, "a")
        await answered(client, "a")
    at = core(client).flash.look(core(client).manager.get("a")).answers[1].evaluated_at
    with Feed(core(client), "a") as feed:
        await feed.begin()
        for version, later in ((1, -2), (2, -1), (3, 0), (3, 1), (4, 2)):
            feed.queue.offer(Event("flash_ready", {"id": 1, "data_version": version, "evaluated_at": at + later}, "a"))
        events = [await feed.next(10) for _ in range(4)]
        assert [event and (event.data["data_version"], event.data.get("evaluated_at")) for event in events] == [
            (3, None),
            (3, int(at)),
            (3, int(at + 1)),
            (4, int(at + 2)),
        ]


async def test_a_changed_query_is_answered_again_to_whoever_had_its_answer(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions/a/flash", {"query": "Hot?"})
    await push(client, "a")
    await answered(client, "a")
    async with (
        client.get("/v1/sessions/a/events") as response,
        client.get("/v1/events?session=a") as labels,
        client.ws_connect("/v1/sessions/a/ws") as socket,
    ):
        for _ in range(2):
            await read(response), await read(labels), await socket.receive_json(timeout=10)
        await ok(client, "PATCH", "/v1/sessions/a/flash/1", {"max_tokens": 7})
        kind, data = await read(response)
        assert (kind, data["id"], data["data_version"]) == ("flash_ready", 1, 1)
        assert isinstance(data["evaluated_at"], int)
        assert await read(labels) == (kind, {"session_id": "a", **data})
        assert await receive(socket) == {"type": kind, "data": data}


async def test_an_acknowledgement_comes_before_a_snapshot_that_may_hold_what_it_caused(client: apps.Client) -> None:
    ack = Event("push_ack", {}, "b")
    with Feed(core(client), "ab") as feed:
        await feed.begin()
        await push(client, "b")
        feed.queue.offer(ack)
        first, second, third = [await feed.next(10) for _ in range(3)]
        assert first is not None
        assert third is not None
        assert (first.kind, first.session_id) == ("connected", "a")
        assert second == ack
        assert (third.session_id, third.data["data_version"]) == ("b", 1)


async def test_a_session_that_is_deleted_before_its_turn_is_only_told_to_be_gone(client: apps.Client) -> None:
    with Feed(core(client), "ab", shape=labelled) as feed:
        await feed.begin()
        await push(client, "b")
        await delete(client, "b")
        await delete(client, "a")
        told = [await feed.next(10) for _ in range(3)]
        assert [(event.kind, event.session_id) for event in told if event] == [
            ("connected", "a"),
            ("deleted", "b"),
            ("deleted", "a"),
        ]
        with pytest.raises(SubscriptionEnded, match="deleted"):
            await feed.next(10)


async def test_versions_that_the_snapshot_has_are_not_told_again(client: apps.Client) -> None:
    with Feed(core(client), "ab", shape=labelled) as feed:
        await feed.begin()
        await push(client, "b")
        await push(client, "b")
        await push(client, "a")
        told = [await feed.next(10) for _ in range(3)]
        await push(client, "b")
        told.append(await feed.next(10))
    assert [(event.kind, event.session_id, event.data["data_version"]) for event in told if event] == [
        ("connected", "a", 0),
        ("connected", "b", 2),
        ("data_updated", "a", 1),
        ("data_updated", "b", 3),
    ]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["create", "push", "push", "delete"]), st.sampled_from(["p1", "p2", "q1"])),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_happens_each_session_is_heard_from_connected_to_deleted(
    client: apps.Client, steps: list[tuple[str, str]]
) -> None:
    live: set[str] = set()
    lives: dict[str, list[int]] = {}
    async with client.get("/v1/events?prefix=p") as response:
        for step, session_id in steps:
            if step == "create" and session_id not in live:
                await create(client, session_id, "Hot?")
                live.add(session_id)
                lives.setdefault(session_id, []).append(0)
            elif step == "push" and session_id in live:
                await push(client, session_id)
                lives[session_id][-1] += 1
            elif step == "delete" and session_id in live:
                await delete(client, session_id)
                live.discard(session_id)
        for session_id in live:
            await delete(client, session_id)
        # Events come in order, so this is the last.
        await create(client, "p-last")
        heard: dict[str, list[Named]] = {}
        while (event := await read(response)) != connected("p-last"):
            heard.setdefault(event[1]["session_id"], []).append(event)
    await delete(client, "p-last")
    # A life may be over before it is heard of.
    assert set(heard) <= {session_id for session_id in lives if session_id.startswith("p")}
    for session_id, events in heard.items():
        assert_in_order(events, max(lives[session_id]))
        assert len([kind for kind, _ in events if kind == "connected"]) <= len(lives[session_id])


def assert_in_order(events: Iterable[Named], newest: int) -> None:
    """One session's events: from ``connected`` to ``deleted``, and never of an older version than before."""
    open_, data_version, answered_version = False, 0, 0
    for kind, data in events:
        # One that is deleted before its turn is only told to be gone.
        assert kind == "deleted" or open_ == (kind != "connected")
        open_ = kind != "deleted"
        if not open_:
            data_version = answered_version = 0
        elif kind == "flash_ready":
            assert answered_version < data["data_version"] <= data_version
            answered_version = data["data_version"]
        else:
            assert kind == "connected" or data_version < data["data_version"]
            assert data["data_version"] <= newest
            data_version = data["data_version"]
    assert not open_


@given(pushes=st.lists(st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.integers(0, 2)), max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_versions_never_go_back_while_a_feed_opens(client: apps.Client, pushes: list[tuple[str, int]]) -> None:
    names = ("p1", "p2", "p3")
    for session_id in names:
        await create(client, session_id, "Hot?")
    heard: dict[str, list[Named]] = {session_id: [] for session_id in names}
    with Feed(core(client), names, shape=labelled) as feed:
        await feed.begin()

        async def hear(most: int) -> None:
            for _ in range(most):
                event = await feed.next(0.01)
                if event is not None:
                    heard[event.session_id].append((event.kind, event.data))

        for session_id, taken in pushes:
            await push(client, session_id)
            await hear(taken)
        while not all(heard.values()):
            await hear(1)
        for session_id in names:
            await delete(client, session_id)
        with pytest.raises(SubscriptionEnded, match="deleted"):
            await hear(1000)
    for session_id, events in heard.items():
        assert_in_order(events, len([pushed for pushed, _ in pushes if pushed == session_id]))
