"""Answers on the wire to Redis, and how it keeps them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery import answers, keys
from flashquery.answers import Answer
from tests.flashquery.kit import run

REALS = st.floats(allow_nan=False)
ANSWERS = st.builds(
    Answer,
    value=st.text(),
    version=st.integers(0, 2**63 - 1),
    confidence=REALS,
    evaluated_at=REALS,
    finish_reason=st.sampled_from(["stop", "length"]),
    probabilities=st.none() | st.dictionaries(st.text(), REALS),
    mass=st.none() | REALS,
    changed=st.booleans(),
)

SESSION_KEYS = (keys.answers("s-1"), keys.events("s-1"), keys.history("s-1", 1), keys.queries("s-1"))
ANSWER = Answer("up", 3, 1.5, 1790000000.25)
SCORED = Answer("up", 3, 1.5, 1790000000.25, "stop", {"up": 0.75, "down": 0.25}, 1.0)


@given(ANSWERS)
def test_unpack_is_the_inverse_of_pack(answer: Answer) -> None:
    assert Answer.unpack(answer.pack()) == answer


async def write(redis: Redis, *given: tuple[str, int, Answer]) -> None:
    for session_id, query_id, answer in given:
        await run(redis, answers.save(session_id, query_id, answer))


async def test_answers_that_were_saved_are_found(redis: Redis) -> None:
    await write(redis, ("s", 1, ANSWER), ("s", 2, SCORED), ("t", 1, SCORED))
    assert await answers.read(redis, "s") == {1: ANSWER, 2: SCORED}
    assert await answers.read(redis, "unknown") == {}


async def test_dropping_forgets_one_answer_and_clearing_all_of_a_session(redis: Redis) -> None:
    await write(redis, ("s", 1, ANSWER), ("s", 2, ANSWER), ("s", 3, ANSWER), ("t", 1, ANSWER))
    await run(redis, answers.drop("s", 2))
    assert list(await answers.read(redis, "s")) == [1, 3]
    await run(redis, answers.clear("s"))
    assert await answers.read(redis, "s") == {}
    assert await answers.read(redis, "t") == {1: ANSWER}


async def test_answers_of_a_server_that_was_killed_are_collected_in_the_end(redis: Redis) -> None:
    await write(redis, ("s", 1, ANSWER))
    assert 0 < await redis.ttl(keys.answers("s")) <= keys.ANSWERS_SECONDS


async def test_every_key_of_a_session_is_of_one_slot(redis: Redis) -> None:
    slots = {await redis.cluster("KEYSLOT", key) for key in SESSION_KEYS}
    assert len(slots) == 1


@given(st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True))
def test_the_session_is_found_again_in_its_channel(session_id: str) -> None:
    assert keys.session_of(keys.events(session_id)) == session_id
