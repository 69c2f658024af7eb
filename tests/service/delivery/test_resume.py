"""Clients that come back: nothing is missed, nothing told twice, and a gap is said."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery import keys
from tests import apps
from tests.apps import answered, call, core, ok, settled
from tests.service.delivery.frames import UPGRADE
from tests.service.delivery.sse import Named, read, read_with_id

SESSION = "/v1/sessions/s"
EVENTS = f"{SESSION}/events"
ALL = "/v1/events?prefix="


async def create(client: apps.Client, session_id: str, *queries: str) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": session_id, "flash": [{"query": query} for query in queries]})
    # A position is of before what is written later, also of before that.
    await arrived(client)
    await asyncio.sleep(0.002)


async def push(client: apps.Client, session_id: str = "s") -> None:
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "x"})
    await settled(client, session_id)
    await arrived(client)


async def delete(client: apps.Client, session_id: str) -> None:
    await ok(client, "DELETE", f"/v1/sessions/{session_id}")
    await arrived(client)


async def arrived(client: apps.Client) -> None:
    assert await core(client).journal.flush(10)


def told(event: Named) -> tuple[Any, ...]:
    """Kind, session and version."""
    kind, data = event
    return kind, data.get("session_id"), data.get("data_version")


class Listener:
    """A client of one event stream that reconnects with what it was last given.

    Attributes:
        position: that.
    """

    def __init__(self, client: apps.Client, path: str) -> None:
        self._client = client
        self._path = path
        self.position = ""

    async def hear(self, number: int) -> list[Named]:
        """Connect, hear so many events, and leave."""
        headers = {"Last-Event-ID": self.position} if self.position else {}
        async with self._client.get(self._path, headers=headers) as response:
            assert response.status == 200, await response.text()
            events = []
            for _ in range(number):
                position, event = await read_with_id(response)
                self.position = position or self.position
                events.append(event)
            return events


def connected(session_id: str, version: int, queries: int, *, resumed: bool) -> Named:
    data = {"session_id": session_id, "data_version": version, "flash_queries": queries, "resumed": resumed}
    return "connected", data


# One session


async def test_a_client_that_comes_back_hears_what_it_missed_and_goes_on(client: apps.Client) -> None:
    await create(client, "s", "Hot?")
    listener = Listener(client, EVENTS)
    assert [kind for kind, _ in await listener.hear(1)] == ["connected"]
    for _ in range(2):
        await push(client)
        await answered(client, "s")
    await arrived(client)
    assert await listener.hear(1) == [connected("s", 2, 1, resumed=True)]
    for version in (1, 2):
        events = await listener.hear(3)
        assert events[0] == connected("s", 2, 1, resumed=True)
        assert [told(event) for event in events[1:]] == [
            ("data_updated", None, version),
            ("flash_ready", None, version),
        ]
        assert "changed" in events[2][1], "what is replayed is what was said"
        assert isinstance(events[2][1]["evaluated_at"], int)
    headers = {"Last-Event-ID": listener.position}
    async with client.get(EVENTS, headers=headers) as response:
        assert await read(response) == connected("s", 2, 1, resumed=True)
        await push(client)
        assert [told(await read(response))[::2] for _ in range(2)] == [("data_updated", 3), ("flash_ready", 3)]


async def test_after_a_replay_of_answers_a_client_goes_on_from_there(client: apps.Client) -> None:
    await create(client, "s", "Hot?", "Cold?")
    await push(client)
    await answered(client, "s")
    await arrived(client)
    await asyncio.sleep(0.005)
    listener = Listener(client, EVENTS)
    assert [told(event)[::2] for event in await listener.hear(2)] == [("connected", 1), ("flash_ready", 1)]
    assert listener.position == "", "who has not heard all answers starts again"
    await listener.hear(3)
    await push(client)
    assert [told(event)[::2] for event in await listener.hear(2)] == [("connected", 2), ("data_updated", 2)]


async def test_the_position_may_be_in_the_query_string_and_the_header_comes_first(client: apps.Client) -> None:
    await create(client, "s")
    listener = Listener(client, EVENTS)
    await listener.hear(1)
    first = listener.position
    await push(client)
    await listener.hear(2)
    async with client.get(f"{EVENTS}?last_event_id={first}") as response:
        assert [told(await read(response))[0] for _ in range(2)] == ["connected", "data_updated"]
    async with client.get(f"{EVENTS}?last_event_id={first}", headers={"Last-Event-ID": listener.position}) as response:
        await read(response)
        await push(client)
        assert told(await read(response))[::2] == ("data_updated", 2)
    async with client.get(f"{EVENTS}?last_event_id=") as response:
        assert "resumed" not in (await read(response))[1], "nothing was received yet"


async def test_a_position_out_of_retention_starts_from_a_snapshot_and_says_so(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, events_kept=1) as client:
        await create(client, "s", "Hot?")
        listener = Listener(client, EVENTS)
        await listener.hear(1)
        for _ in range(60):
            await push(client)
        await answered(client, "s")
        await arrived(client)
        await asyncio.sleep(0.005)
        events = await listener.hear(2)
        assert events[0] == connected("s", 60, 1, resumed=False)
        assert told(events[1])[::2] == ("flash_ready", 60)
        assert await listener.hear(1) == [connected("s", 60, 1, resumed=True)], "from here on it can be"


@pytest.mark.parametrize("text", ["1", "1790000000000:s.0", "9007199254740000", "9007199254740000:s.4"])
async def test_a_position_of_an_unknown_past_starts_from_a_snapshot(client: apps.Client, text: str) -> None:
    await create(client, "s")
    await push(client)
    await redis_of(client).xtrim(keys.event_log("s"), maxlen=1, approximate=False)
    async with client.get(EVENTS, headers={"Last-Event-ID": text}) as response:
        assert await read(response) == connected("s", 1, 0, resumed=False)
        await push(client)
        assert told(await read(response))[::2] == ("data_updated", 2)


def redis_of(client: apps.Client) -> Redis:
    return core(client).events._redis


@pytest.mark.parametrize("text", ["0", "soon", "1-0", "1:s", "1:s.x", "1:s.0,s.1", "%00", "1" * 17, "-1"])
async def test_nonsense_is_refused_by_name(client: apps.Client, text: str) -> None:
    await create(client, "s")
    for path, param in (
        (f"{EVENTS}?last_event_id={text}", "last_event_id"),
        (f"{ALL}&last_event_id={text}", "last_event_id"),
        (f"{SESSION}/ws?resume={text}", "resume"),
        (f"/v1/ws?resume={text}", "resume"),
    ):
        status, reply = await call(client, "GET", path, headers=UPGRADE if "ws" in path else {})
        assert (status, reply["error"]["param"]) == (400, param)
    if text.isprintable() and "%" not in text:
        status, reply = await call(client, "GET", EVENTS, headers={"Last-Event-ID": text})
        assert (status, reply["error"]["param"]) == (400, "last-event-id")


async def test_a_session_that_was_deleted_meanwhile_is_404_and_its_successor_another(client: apps.Client) -> None:
    await create(client, "s")
    listener = Listener(client, EVENTS)
    await listener.hear(1)
    await push(client)
    await listener.hear(2)
    await delete(client, "s")
    status, reply = await call(client, "GET", EVENTS, headers={"Last-Event-ID": listener.position})
    assert (status, reply["error"]["code"]) == (404, "session_not_found")
    await create(client, "s")
    await push(client)
    assert [told(event) for event in await listener.hear(2)] == [("connected", "s", 0), ("data_updated", None, 1)]


async def test_answers_are_told_once_whatever_is_said_live(client: apps.Client) -> None:
    await create(client, "s", "Hot?")
    listener = Listener(client, EVENTS)
    await listener.hear(1)
    heard: list[tuple[Any, ...]] = []
    for version in range(1, 8):
        await push(client)
        if version % 3 == 0:
            await answered(client, "s")
            await arrived(client)
            heard += [told(event)[::2] for event in (await listener.hear(1 + version % 2))[1:]]
    await answered(client, "s")
    await arrived(client)
    async with client.get(EVENTS, headers={"Last-Event-ID": listener.position}) as response:
        await read(response)
        await ok(client, "PATCH", f"{SESSION}/flash/1", {"max_tokens": 7})
        await answered(client, "s")
        await push(client)
        while not heard or heard[-1] != ("flash_ready", 8):
            heard.append(told(await read(response))[::2])
    updates = [version for kind, version in heard if kind == "data_updated"]
    assert updates == list(range(1, 9))
    answers = [version for kind, version in heard if kind == "flash_ready"]
    assert answers == sorted(answers)
    assert answers.count(7) == 2, "changed, it was asked again"


# Websockets


@pytest.mark.parametrize("path", [f"{SESSION}/ws", "/v1/ws?session=s"])
async def test_a_socket_resumes(client: apps.Client, path: str) -> None:
    await create(client, "s")
    async with client.ws_connect(path) as socket:
        position = (await socket.receive_json(timeout=10))["id"]
        await socket.send_json({"type": "ping"})
        assert "id" not in await socket.receive_json(timeout=10), "a reply is no event"
    await push(client)
    await push(client)
    for version in (1, 2):
        async with client.ws_connect(f"{path}{'&' if '?' in path else '?'}resume={position}") as socket:
            first, second = [await socket.receive_json(timeout=10) for _ in range(2)]
            assert (first["type"], first["data"]["resumed"]) == ("connected", True)
            assert (second["type"], second["data"]["data_version"]) == ("data_updated", version)
            position = second["id"]


# Several sessions


async def test_what_was_missed_of_several_sessions_comes_in_order(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await create(client, session_id)
    listener = Listener(client, "/v1/events?session=a&session=b")
    await listener.hear(2)
    for session_id in ("a", "b", "b", "a"):
        await push(client, session_id)
    events = await listener.hear(4)
    assert events[:2] == [connected("a", 2, 0, resumed=True), connected("b", 2, 0, resumed=True)]
    assert [told(event) for event in events[2:]] == [("data_updated", "a", 1), ("data_updated", "b", 1)]
    events = await listener.hear(4)
    assert [told(event) for event in events[2:]] == [("data_updated", "b", 2), ("data_updated", "a", 2)]


async def test_sessions_that_came_and_went_meanwhile_are_told(client: apps.Client) -> None:
    for session_id in ("p-stays", "p-goes", "p-again"):
        await create(client, session_id)
    listener = Listener(client, "/v1/events?prefix=p-")
    await listener.hear(3)
    await create(client, "other")
    await create(client, "p-new", "Hot?")
    await push(client, "p-new")
    await answered(client, "p-new")
    for session_id in ("p-goes", "p-again", "other"):
        await delete(client, session_id)
    await create(client, "p-again")
    await arrived(client)
    await asyncio.sleep(0.005)
    events = await listener.hear(7)
    assert events[0] == connected("p-stays", 0, 0, resumed=True)
    assert [told(event) for event in events[1:]] == [
        ("connected", "p-new", 0),
        ("data_updated", "p-new", 1),
        ("flash_ready", "p-new", 1),
        ("deleted", "p-goes", None),
        ("deleted", "p-again", None),
        ("connected", "p-again", 0),
    ]
    assert all("resumed" not in data for _, data in events[1:])
    await push(client, "p-stays")
    events = await listener.hear(4)
    assert {told(event) for event in events} == {
        ("connected", "p-stays", 1),
        ("connected", "p-new", 1),
        ("connected", "p-again", 0),
        ("data_updated", "p-stays", 1),
    }


async def test_who_leaves_as_soon_as_a_new_session_is_told_hears_the_rest_of_it_once(client: apps.Client) -> None:
    await create(client, "p-stays")
    listener = Listener(client, "/v1/events?prefix=p-")
    await listener.hear(1)
    await create(client, "p-new", "Hot?")
    for _ in range(2):
        await push(client, "p-new")
        await answered(client, "p-new")
    await arrived(client)
    assert told((await listener.hear(2))[1]) == ("connected", "p-new", 0)
    for event in (("data_updated", 1), ("flash_ready", 1), ("data_updated", 2), ("flash_ready", 2)):
        *known, new = await listener.hear(3)
        assert [told(one) for one in known] == [("connected", "p-stays", 0), ("connected", "p-new", 2)]
        assert told(new) == (event[0], "p-new", event[1])


async def test_named_sessions_that_are_gone_are_told_to_be_if_that_is_known(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await create(client, session_id)
    listener = Listener(client, "/v1/events?session=a&session=b")
    await listener.hear(2)
    start = listener.position
    await delete(client, "a")
    assert [told(event) for event in await listener.hear(2)] == [("connected", "b", 0), ("deleted", "a", None)]
    path = "/v1/events?session=a&session=b"
    status, reply = await call(client, "GET", path, headers={"Last-Event-ID": listener.position})
    assert (status, reply["error"]["code"]) == (404, "session_not_found"), "it knows"
    await delete(client, "b")
    async with client.get(path, headers={"Last-Event-ID": start}) as response:
        assert [await read(response) for _ in range(2)] == [
            ("deleted", {"session_id": "a"}),
            ("deleted", {"session_id": "b"}),
        ]
        assert await response.content.read() == b"", "nothing more can come"
    await redis_of(client).delete(keys.event_log("a"))
    assert (await call(client, "GET", path, headers={"Last-Event-ID": start}))[0] == 404
    assert core(client).hub.subscribers == 0


async def test_a_prefix_of_which_deletions_are_not_known_starts_from_snapshots(client: apps.Client) -> None:
    await create(client, "p-1")
    await push(client, "p-1")
    hour = 1000 * keys.DELETED_SECONDS
    long_ago = await core(client).events.now() - hour - 60_000
    async with client.get("/v1/events?prefix=p-", headers={"Last-Event-ID": str(long_ago)}) as response:
        assert await read(response) == connected("p-1", 1, 0, resumed=False)


async def test_only_the_sessions_with_a_gap_start_from_a_snapshot(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await create(client, session_id)
    listener = Listener(client, "/v1/events?session=a&session=b")
    await listener.hear(2)
    for session_id in ("a", "b"):
        await push(client, session_id)
    await redis_of(client).xtrim(keys.event_log("a"), maxlen=0, approximate=False)
    assert sorted(map(told, await listener.hear(3))) == [
        ("connected", "a", 1),
        ("connected", "b", 1),
        ("data_updated", "b", 1),
    ]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["create", "push", "push", "push", "delete", "reconnect", "reconnect"]),
            st.sampled_from(["p1", "p2"]),
            st.integers(0, 3),
        ),
        max_size=15,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_often_a_client_comes_back_it_hears_every_version_once(
    client: apps.Client, steps: list[tuple[str, str, int]]
) -> None:
    live: dict[str, int] = {}
    # A life is named by when it began, among all.
    heard: list[Named] = []
    listener = Reconnecting(client, "/v1/events?prefix=p", heard)
    await create(client, "p-first")
    async with aclosing(listener):
        await listener.hear_until("p-first")
        pushed: dict[str, list[int]] = {"p1": [0], "p2": [0]}
        for step, session_id, most in steps:
            if step == "create" and session_id not in live:
                await create(client, session_id)
                live[session_id] = 0
                pushed[session_id].append(0)
            elif step == "push" and session_id in live:
                await push(client, session_id)
                pushed[session_id][-1] += 1
            elif step == "delete" and session_id in live:
                await delete(client, session_id)
                del live[session_id]
            elif step == "reconnect":
                await listener.hear(most)
                await listener.aclose()
        for session_id in live:
            await delete(client, session_id)
        await create(client, "p-last")
        await listener.hear_until("p-last")
    for session_id in ("p-first", "p-last"):
        await delete(client, session_id)
    for session_id in ("p1", "p2"):
        events = [event for event in heard if event[1]["session_id"] == session_id]
        version = -1
        lives = 0
        for kind, data in events:
            if kind == "deleted":
                version = -1
            elif kind == "connected" and "resumed" not in data:
                assert version == -1
                version, lives = data["data_version"], lives + 1
            elif kind == "connected":
                assert data["resumed"] is True
            else:
                assert data["data_version"] == version + 1, "none is missed, none is told twice"
                version = data["data_version"]
        assert version == -1, "its end was told"
        assert lives <= len(pushed[session_id]) - 1


class Reconnecting:
    """A client that connects when it wants to hear, and resumes."""

    def __init__(self, client: apps.Client, path: str, heard: list[Named]) -> None:
        self._client = client
        self._path = path
        self._heard = heard
        self._position = ""
        self._response: aiohttp.ClientResponse | None = None

    async def hear(self, most: int) -> None:
        """As many events as there are within a moment, up to ``most``."""
        for _ in range(most):
            try:
                async with asyncio.timeout(0.02):
                    await self._next()
            except TimeoutError:
                return

    async def hear_until(self, session_id: str) -> None:
        """All up to a session's first event."""
        while not self._heard or self._heard[-1][1]["session_id"] != session_id:
            await self._next()

    async def _next(self) -> None:
        if self._response is None:
            headers = {"Last-Event-ID": self._position} if self._position else {}
            self._response = await self._client.get(self._path, headers=headers)
        position, event = await read_with_id(self._response)
        self._position = position or self._position
        self._heard.append(event)

    async def aclose(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None
