"""Who owns a session, and what whoever asks is told when Redis says nothing or something strange."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams import keys
from streams.errors import Conflict, Unavailable
from streams.journal import UNSURE
from streams.leases import Leases, Replica
from tests.losing import Losing
from tests.streams.kit import SECONDS

ME = Replica("me", "http://127.0.0.1:1")
OTHER = Replica("other", "http://127.0.0.1:2")
META = {"options": b"some"}


async def test_what_a_server_makes_at_this_moment_it_takes_over_only_after_a_restart(redis: Redis) -> None:
    made = Leases(redis, ME, SECONDS)
    fence = await made.create("s", META)
    assert await made.claim("s") == ME
    assert await Leases(redis, OTHER, SECONDS).claim("s") == ME
    restarted = Leases(redis, ME, SECONDS)
    assert await restarted.claim("s") == fence + 1
    assert await restarted.claim("s") == ME


async def test_a_creation_that_had_no_reply_may_have_been_done_and_says_so(losing: Losing) -> None:
    leases = Leases(losing, ME, SECONDS)
    losing.lost["EVAL"] = 1
    with pytest.raises(Unavailable) as unsure:
        await leases.create("s", META)
    assert unsure.value.code == UNSURE
    assert await leases.exists("s")
    assert await leases.all() == {"s"}
    with pytest.raises(Conflict):
        await leases.create("s", META)


async def test_a_creation_that_did_not_begin_is_not_done_and_says_so(losing: Losing) -> None:
    leases = Leases(losing, ME, SECONDS)
    losing.refused = {"SADD"}
    with pytest.raises(Unavailable) as sure:
        await leases.create("s", META)
    assert sure.value.code == "store_unavailable"
    assert not await leases.exists("s")
    losing.refused.clear()
    assert await leases.create("s", META)


async def test_a_creation_that_the_client_sends_twice_is_done_once(losing: Losing) -> None:
    leases = Leases(losing, ME, SECONDS)
    losing.resent["EVAL"] = 1
    fence = await leases.create("s", META)
    assert not losing.resent["EVAL"]
    assert await losing.hget(keys.guard("s"), "fence") == b"%d" % fence
    assert await leases.renew({"s": fence}, {"s": META}) == {"s": 0.0}


async def test_an_error_says_nothing_of_who_owns_what(redis: Redis) -> None:
    leases = Leases(redis, ME, SECONDS)
    fences = {session_id: await leases.create(session_id, META) for session_id in "st"}
    await redis.delete(keys.meta("s"))
    await redis.set(keys.meta("s"), "not ours")
    with pytest.raises(RedisError):
        await leases.renew(fences, dict.fromkeys(fences, META))
