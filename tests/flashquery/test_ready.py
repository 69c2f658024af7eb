"""The ready position: kept for every version of the sessions that ask for one, and what it may answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery.ready import Ready, first_tokens
from streams.engine.base import Priority, Sampling
from tests.engine.fast import FastEngine, FastTokenizer
from tests.engine.fast_tokenizer import THINK
from tests.flashquery.kit import Rig, flashing
from tests.streams.chatting import conversation, say, user
from tests.streams.kit import until

TOKENS = st.integers(0, 5)
CANDIDATES = st.dictionaries(st.text(max_size=3), st.frozensets(TOKENS, max_size=2), max_size=5)


@given(candidates=CANDIDATES, token=TOKENS, gap=st.floats(0, 10), threshold=st.floats(0, 10))
def test_a_candidate_is_picked_if_the_token_is_its_alone_and_the_gap_is_wide(
    candidates: dict[str, frozenset[int]], token: int, gap: float, threshold: float
) -> None:
    picked = Ready(1, token, gap).pick(candidates, threshold)
    beginning = [text for text, firsts in candidates.items() if token in firsts]
    if picked is None:
        assert gap < threshold or len(beginning) != 1
    else:
        assert gap >= threshold
        assert beginning == [picked]


def words(text: str) -> list[int]:
    """Tokens of a vocabulary of words, which knows each with and without a space before it."""
    return [sum(map(ord, word)) for word in text.replace(" ", "| ").split("|") if word]


@pytest.mark.parametrize(("said", "picked"), [("up", "up"), (" up", "up"), ("go", None), (" ", None), ("down", None)])
def test_a_candidate_is_known_with_and_without_a_space_before_it(said: str, picked: str | None) -> None:
    candidates = {text: first_tokens(text, words) for text in ("up", "go up", "go down")}
    assert Ready(1, words(said)[0], 3.0).pick(candidates, 2.0) == picked


def test_a_text_without_tokens_begins_with_none() -> None:
    assert first_tokens("<s>", lambda text: []) == frozenset()


@pytest.fixture
async def rig(redis: Redis) -> AsyncIterator[Rig]:
    async with flashing(redis) as rig:
        yield rig


async def test_it_is_what_the_model_says_next_to_each_version(rig: Rig) -> None:
    session = await rig.manager.create("s", pre_decode=True)
    assert rig.flash.ready(session) is None
    for number in range(4):
        version = await rig.push(session, f"price {number}")
        await until(lambda: rig.flash.ready(session))
        ready = rig.flash.ready(session)
        assert ready is not None
        prompt = (*session.snapshot().tokens, *session.frame.tail)
        pieces = rig.engine.generate(prompt, Sampling(max_tokens=1, top_logprobs=2), Priority.FOREGROUND)
        (piece,) = [piece async for piece in pieces]
        first, second = sorted(piece.logprobs[0].values(), reverse=True)
        assert ready == Ready(version, piece.token_ids[0], first - second)


async def test_it_is_computed_once_per_version_and_beside_the_queries(rig: Rig) -> None:
    session = await rig.manager.create("s", pre_decode=True)
    await rig.flash.register(session, "trend?")
    for version in (1, 2):
        await rig.push(session, "price")
        await until(lambda: len(rig.evaluations) == session.version and rig.flash.ready(session))
        assert len(rig.asked()) == 2 * version
    await rig.flash.register(session, "another?")
    await until(lambda: len(rig.evaluations) == 3)
    assert len(rig.asked()) == 5


async def test_versions_in_between_are_skipped(rig: Rig) -> None:
    session = await rig.manager.create("s", pre_decode=True)
    rig.engine.generate_gate.clear()
    await rig.push(session, "price 1")
    await until(lambda: rig.engine.running)
    for number in range(2, 6):
        await rig.push(session, f"price {number}")
        assert rig.flash.ready(session) is None
    rig.engine.generate_gate.set()
    await until(lambda: rig.flash.ready(session))
    assert len(rig.asked()) == 2


async def test_a_session_that_does_not_ask_for_it_has_none(rig: Rig) -> None:
    session, other = await rig.manager.create("s"), await rig.manager.create("other", pre_decode=True)
    await rig.push(session, "price")
    await rig.push(other, "price")
    await until(lambda: rig.flash.ready(other))
    assert rig.flash.ready(session) is None
    assert len(rig.asked()) == 1


async def test_a_turn_ends_it_until_it_is_computed_again(rig: Rig) -> None:
    session = await rig.manager.create("s", pre_decode=True)
    await rig.push(session, "price")
    await until(lambda: rig.flash.ready(session))
    await say(rig.manager, session, conversation(user("Hello")))
    assert session.version == 2
    await until(lambda: rig.flash.ready(session))
    ready = rig.flash.ready(session)
    assert ready is not None
    assert ready.version == 2


async def test_the_beginning_of_a_thought_is_no_answer(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    render = FastTokenizer.render
    monkeypatch.setattr(
        FastTokenizer,
        "render",
        lambda self, *said, generation=True, **rest: (
            render(self, *said, generation=generation, **rest) + (THINK if generation else "")
        ),
    )
    async with flashing(redis) as rig:
        session = await rig.manager.create("s", pre_decode=True)
        await rig.push(session, "price")
        await until(lambda: len(rig.asked()) == 1 and not rig.engine.running)
        await rig.flash.register(session, "trend?", max_tokens=256)
        await until(lambda: rig.evaluations)
        assert rig.flash.ready(session) is None


async def test_a_session_deleted_meanwhile_leaves_no_task(redis: Redis) -> None:
    engine = FastEngine()
    async with flashing(redis, engine) as rig:
        session = await rig.manager.create("s", pre_decode=True)
        engine.generate_gate.clear()
        await rig.push(session, "price")
        await until(lambda: engine.running)
        await rig.manager.delete("s")
        assert engine.running == 0
        assert rig.flash.ready(session) is None
